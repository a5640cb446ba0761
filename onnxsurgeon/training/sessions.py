"""Sessions that are kept, since making one takes as long as some hundred training steps of a small network."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import onnx

from onnxsurgeon.runtime import session

COUNT = 32
BYTES = 2**28


class Sessions:
    """The sessions used last, by the keys of their graphs. Several threads may use them at once."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._kept: OrderedDict[tuple[Hashable, int], tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self, key: Hashable, make: Callable[[], onnx.ModelProto], size: int, threads: int = 1, *, shares: bool = False
    ) -> Any:
        """The session of that key; where there is none, it is made from the model that ``make`` returns.

        ``size`` is that of the weights in bytes. A session keeps the memory that its largest run has taken, so at most
        ``BYTES`` are kept besides the session asked for. With ``shares``, it has that memory in common with all others
        that share; see ``runtime.session``.

        Raises:
            EngineError: ONNX Runtime refuses the model.
        """
        with self._lock:
            found, _ = self._kept.pop((key, threads), (None, 0))
            if found is None:
                found = session(make(), device=self._device, threads=threads, trains=True, shares=shares)
            self._kept[key, threads] = found, size
            while len(self._kept) > COUNT or (len(self._kept) > 1 and sum(s for _, s in self._kept.values()) > BYTES):
                self._kept.popitem(last=False)
            return found
