"""Every bound on what a stranger's file or data may make this program do, and the way to lift them all.

A model file of five kilobytes can ask for any amount of memory and time, and so can a small image or table. The program
works out what is asked for before it does it, and refuses with one line what is beyond these numbers. ``--trust`` on
the command line, or ``with lifted():`` in Python, lifts them all. What formats and libraries cannot hold at all, such
as protobuf's 2 GB, is no bound of this kind and stays where it is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

NO_BOUND = 2**62
ADVICE = "--trust lifts this bound"

# --- The structure of a model ---------------------------------------------------------------------------------

MAX_SUBGRAPH_DEPTH = 16  # bodies of If, Loop and Scan inside one another
MAX_CALL_DEPTH = 16  # local functions that call one another
MAX_INLINED_NODES = 200_000  # nodes, with all local functions written out
MAX_DECLARED_ELEMENTS = 2**31  # of any tensor that a file declares or that shape inference finds

# --- Reading it ------------------------------------------------------------------------------------------------

# All bytes that constant folding may make; and how many times the size of the file's own constants it may make.
MAX_FOLDED_BYTES = 2**28
MAX_FOLDED_SHARE = 16
MAX_FOLDED_ELEMENTS = 2**20  # of one folded constant, or as many as it is made from
MAX_FOLLOWED_SIZES = 2**18  # numbers in vectors, in all, whose values shape inference may follow

# --- Running its own nodes ---------------------------------------------------------------------------------------

MAX_TENSOR_ELEMENTS = 2**27  # of one tensor that is computed: 512 MB in float32
MAX_LIVE_BYTES = 2**31  # of all tensors that are computed for the rows of one run
MAX_BODY_RUNS = 2**20  # nodes run inside the bodies of Loop and Scan, for the rows of one run
# Plain operations, each about a nanosecond, that all nodes take for the rows of one run (graph/work.py); and how many
# more for each byte of the file's constants and of these rows.
MAX_WORK = 2**34
MAX_WORK_SHARE = 2**12

# --- Data: decoded images, tables, arrays -------------------------------------------------------------------------

# The bytes that data may take once they are decoded; or this many times their size on the disk, where that is more.
MAX_DATA_BYTES = 2**29
MAX_DATA_EXPANSION = 64

# --- Runs ---------------------------------------------------------------------------------------------------------

MAX_JOURNAL_BYTES = 2**28  # of a run's journal, which has some kilobytes for an epoch

_lifted: ContextVar[bool] = ContextVar("onnxsurgeon.bounds.lifted", default=False)


@contextmanager
def lifted(wanted: bool = True) -> Iterator[None]:
    """Trust files and data for the duration of the block: no bound of this module holds in it if ``wanted`` is true."""
    token = _lifted.set(wanted or _lifted.get())
    try:
        yield
    finally:
        _lifted.reset(token)


def are_lifted() -> bool:
    """Whether files and data are trusted here."""
    return _lifted.get()


def bound(value: int) -> int:
    """The given number of this module, or a number that nothing reaches where bounds are lifted."""
    return NO_BOUND if _lifted.get() else value
