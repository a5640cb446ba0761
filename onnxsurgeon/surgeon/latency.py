"""How long ONNX Runtime takes for one row, on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from onnxsurgeon.graph.equivalence import random_inputs
from onnxsurgeon.graph.reader import load
from onnxsurgeon.runtime import session

WARM, RUNS = 20, 200


def latency_of(path: Path) -> float:
    """Median time in ms that the model at ``path`` takes for one row of random values, on one thread.

    Raises:
        EngineError: ONNX Runtime cannot run the model.
        ModelError: it cannot be read.
    """
    model = load(path).to_model()
    made, feeds = session(model), random_inputs(model, rows=1)
    times = []
    for _ in range(WARM + RUNS):
        start = time.perf_counter()
        made.run(None, feeds)
        times.append(time.perf_counter() - start)
    return 1e3 * median(times[WARM:])
