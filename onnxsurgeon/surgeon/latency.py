"""The time that ONNX Runtime takes for one row, on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from onnxsurgeon.errors import EngineError, OnnxSurgeonError
from onnxsurgeon.graph.equivalence import random_inputs
from onnxsurgeon.graph.external import size_on_disk
from onnxsurgeon.graph.reader import load
from onnxsurgeon.graph.sizes import largest_tensor
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import first_line, session

WARM, RUNS, BLOCKS = 20, 50, 5
FEWEST = 5  # with fewer runs in a block, a median tells nothing
LARGEST = 100_000_000  # bytes of models that are read in much less than a second
SECONDS = 0.5  # the most time for measuring a model beside another, if FEWEST runs a block take less


def latency_of(path: Path) -> float:
    """Time in ms that the model at ``path`` takes for one row of random values, on one thread.

    It is the least of ``BLOCKS`` medians, each of ``RUNS`` runs, since other work of the machine only makes it longer.

    Raises:
        EngineError: ONNX Runtime cannot run the model.
        ModelError: it cannot be read.
    """
    return _in_turns([_stopwatch(path)], RUNS)[0]


def latencies_of(paths: Sequence[Path], seconds: float = 1.0) -> list[float | None]:
    """The same for several models, whose blocks take turns; None for all where it would take longer than ``seconds``.

    All are None too where one of them cannot be run, since callers of this want no error.
    """
    nothing: list[float | None] = [None] * len(paths)
    try:
        if sum(size_on_disk(path) for path in paths) > LARGEST:
            return nothing
        watches = [_stopwatch(path) for path in paths]
        for watch in watches:
            watch()
        once = sum(watch() for watch in watches)
        runs = min(RUNS, int(seconds / (once * (BLOCKS + 1))))
        return list(_in_turns(watches, runs)) if runs >= FEWEST else nothing
    except OnnxSurgeonError:
        return nothing


class Yardstick:
    """Measures models beside one that stays: what slows the machine down slows both down, and cancels in their ratio.

    Single measurements of one model differ by a half where others use the machine; these differ by hundredths.

    Args:
        path: path of the model that stays.

    Raises:
        EngineError: ONNX Runtime cannot run the model.
        ModelError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._watch = _stopwatch(path)
        self._least = math.inf  # ms: of all blocks of the model that stays

    def latency_of(self, path: Path) -> float:
        """Time in ms that the model at ``path`` takes for one row of random values, on one thread.

        It is the median of ``BLOCKS`` ratios of medians, times the least median of the model that stays.

        Raises:
            EngineError: ONNX Runtime cannot run the model.
            ModelError: it cannot be read.
        """
        watches = [self._watch, _stopwatch(path)]
        for watch in watches:
            watch()
        once = sum(watch() for watch in watches)
        runs = max(FEWEST, min(RUNS, int(SECONDS / (once * (BLOCKS + 1)))))
        blocks = _blocks(watches, runs)
        self._least = min(self._least, *(1e3 * mine for mine, _ in blocks))
        return self._least * median(other / mine for mine, other in blocks)


def _stopwatch(path: Path) -> Callable[[], float]:
    """A function that runs the model at ``path`` on a row, and returns the seconds."""
    model = to_model(load(path))
    feeds = random_inputs(model, rows=1)
    largest_tensor(model, {name: values.shape for name, values in feeds.items()}, name=str(path))
    made = session(model)

    def once() -> float:
        start = time.perf_counter()
        try:
            made.run(None, feeds)
        except Exception as error:  # ONNX Runtime's exceptions share no narrower base
            raise EngineError(
                f"{path}: ONNX Runtime cannot run the model: {first_line(error)}", "runtime-failed"
            ) from error
        return time.perf_counter() - start

    return once


def _in_turns(watches: Sequence[Callable[[], float]], runs: int) -> list[float]:
    """For each watch the least of its medians, in ms."""
    return [1e3 * min(medians) for medians in zip(*_blocks(watches, runs), strict=True)]


def _blocks(watches: Sequence[Callable[[], float]], runs: int) -> list[list[float]]:
    """For each of ``BLOCKS`` turns the medians of all watches, in seconds."""
    for watch in watches:
        for _ in range(min(WARM, runs)):
            watch()
    return [[median(watch() for _ in range(runs)) for watch in watches] for _ in range(BLOCKS)]
