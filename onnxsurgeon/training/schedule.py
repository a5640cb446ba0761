"""The order in which rows are trained on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from onnxsurgeon.data.rows import number_type
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.randomness import generator

# Every branch is trained on the same batches: the orders used last are kept, in at most this many bytes.
KEPT_BYTES = 2**24
# Rows whose numbers are handed out together: in 64 bits, those of a whole large set would take as much as its labels.
PIECE = 2**16


class BatchSchedule:
    """The order of the batches: a permutation of the rows that depends only on (seed, epoch) and the member.

    Positions count batches from the start of the run. A last, shorter batch is trained too. Branches that are to differ
    are members of an ensemble; all others are member 0.
    """

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, min(batch_size, rows), seed
        self._order = lru_cache(max(2, KEPT_BYTES // (8 * rows)))(self._make_order)
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="onnxsurgeon-batches")

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in an epoch; the last batch may be shorter."""
        return -(-self.rows // self.batch_size)

    def window(self, start: int, stop: int, member: int = 0) -> Iterator[Array]:
        """Row numbers of the batches at positions ``start`` to ``stop`` − 1, as arrays (steps, batch)."""
        size, per_epoch = self.batch_size, self.batches_per_epoch
        full = self.rows // size
        while start < stop:
            epoch, first = divmod(start, per_epoch)
            last = min(per_epoch, first + stop - start)
            order = self._order(epoch, member)
            if stop > start + last - first:  # the next one is drawn while this one is trained on
                self._ahead.submit(self._order, epoch + 1, member)
            end, piece = min(last, full) * size, max(1, PIECE // size) * size
            for begin in range(first * size, end, piece):
                yield order[begin : min(begin + piece, end)].reshape(-1, size).astype(np.int64)
            if last > full:
                yield order[full * size :].reshape(1, -1).astype(np.int64)
            start += last - first

    def forget(self) -> None:
        """Free the orders that are kept; they are drawn anew when they are needed."""
        self._order.cache_clear()

    def _make_order(self, epoch: int, member: int) -> Array:
        order = np.arange(self.rows, dtype=number_type(self.rows))
        generator(self.seed, "batches", epoch, *([member] if member else [])).shuffle(order)  # as ``permutation`` draws
        order.flags.writeable = False
        return order
