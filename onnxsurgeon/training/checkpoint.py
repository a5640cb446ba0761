"""AdamW's state inside a checkpoint of ONNX Runtime's training API, which itself only saves and loads the whole.

The file is a flatbuffer; ONNX Runtime ships the readers of its schema. Arrays and step count are changed in place.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from onnxsurgeon.errors import EngineError
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.state import OptimizerState

# ONNX Runtime's names of the first and the second moment of a parameter.
_MOMENTS = (b"momentum0", b"momentum1")
_STEP = 6  # place of OptimizerGroup.step in its table, as in the generated reader


def read_state(path: Path, names: list[str], shapes: list[tuple[int, ...]]) -> OptimizerState:
    """Read step count and moments (m, v) of the parameters ``names`` from the checkpoint at ``path``."""
    group = _group(bytearray(path.read_bytes()))
    arrays = _arrays(group)
    moments = tuple(
        tuple(arrays[name.encode(), kind].reshape(shape).copy() for name, shape in zip(names, shapes, strict=True))
        for kind in _MOMENTS
    )
    return OptimizerState(int(group.Step()), moments)


def write_state(path: Path, names: list[str], state: OptimizerState) -> None:
    """Replace step count and moments in the checkpoint at ``path``, which must have been saved after a step."""
    content = bytearray(path.read_bytes())
    group = _group(content)
    arrays = _arrays(group)
    for kind, moment in zip(_MOMENTS, state.moments, strict=True):
        for name, values in zip(names, moment, strict=True):
            arrays[name.encode(), kind][:] = values.reshape(-1)
    place = group._tab.Offset(_STEP)
    if not place:  # a step of 0 is not written
        raise EngineError(f"{path}: ONNX Runtime's checkpoint has no step count", "runtime-failed")
    at = group._tab.Pos + place
    content[at : at + 8] = int(state.steps).to_bytes(8, "little")
    path.write_bytes(content)


def _group(content: bytearray) -> Any:
    importlib.import_module("onnxruntime.tools.ort_format_model")  # makes the readers importable
    reader = importlib.import_module("ort_flatbuffers_py.fbs.Checkpoint")
    return reader.Checkpoint.GetRootAs(content, 0).OptimizerGroups(0)


def _arrays(group: Any) -> dict[tuple[bytes, bytes], Array]:
    """Views of all moments, flat, by (parameter, kind)."""
    found = {}
    for i in range(group.OptimizerStatesLength()):
        of = group.OptimizerStates(i)
        for j in range(of.MomentumsLength()):
            tensor = of.Momentums(j)
            found[of.ParamName(), tensor.Name()] = tensor.RawDataAsNumpy().view(np.float32)
    return found
