"""What is measured of a model's file, by ONNX Runtime: its outputs, its size, its latency."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxsurgeon import load
from onnxsurgeon.runtime import session
from onnxsurgeon.surgeon.latency import latency_of

Array = npt.NDArray[Any]


def facts(path: Path) -> dict[str, Any]:
    """Topology, parameters, bytes of the file, and latency in ms of one row on one thread."""
    network = load(path)
    return {
        "topology": network.topology,
        "parameters": network.parameter_count,
        "bytes": path.stat().st_size,
        "latency": latency_of(path),
    }


def outputs(path: Path, inputs: Mapping[str, Array]) -> list[Array]:
    """All outputs for rows by the inputs' names, whatever number of rows the file declares."""
    model = onnx.load(path)
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    made: list[Array] = session(model).run(None, dict(inputs))
    return made


def input_name(path: Path) -> str:
    """The name of the first input."""
    return str(onnx.load(path, load_external_data=False).graph.input[0].name)


def r_squared(truth: Array, predicted: Array) -> float:
    """Mean over the columns of 1 − Σ (t − p)² / Σ (t − mean t)², in float64."""
    truth, predicted = truth.astype(np.float64), predicted.astype(np.float64)
    error, total = ((truth - predicted) ** 2).sum(axis=0), ((truth - truth.mean(axis=0)) ** 2).sum(axis=0)
    return float(np.mean(1 - error / total))
