"""How long ONNX Runtime takes for one row, on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from onnxsurgeon.graph.equivalence import random_inputs
from onnxsurgeon.graph.reader import load
from onnxsurgeon.runtime import session

WARM, RUNS, BLOCKS = 20, 50, 5


def latency_of(path: Path) -> float:
    """Time in ms that the model at ``path`` takes for one row of random values, on one thread.

    The least of ``BLOCKS`` medians, each of ``RUNS``: what else the machine does can only make it longer.

    Raises:
        EngineError: ONNX Runtime cannot run the model.
        ModelError: it cannot be read.
    """
    model = load(path).to_model()
    made, feeds = session(model), random_inputs(model, rows=1)

    def once() -> float:
        start = time.perf_counter()
        made.run(None, feeds)
        return time.perf_counter() - start

    for _ in range(WARM):
        once()
    return 1e3 * min(median(once() for _ in range(RUNS)) for _ in range(BLOCKS))
