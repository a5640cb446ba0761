"""Notes on weights that a file holds in another form than they are worked on and written in.

Integers, smaller floats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxsurgeon.graph.canonical.names import label
from onnxsurgeon.graph.canonical.quantized import DEQUANTIZE
from onnxsurgeon.graph.notes import listed
from onnxsurgeon.graph.segments import Structure
from onnxsurgeon.linear_algebra import Array

_FLOATS: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
}


def held_otherwise(
    structure: Structure, removed: Sequence[onnx.NodeProto], model: onnx.ModelProto, arrays: Mapping[str, Array]
) -> Iterator[str]:
    """Say which layers' weights are made of integers, or of other floats, and will be written as floats of one type.

    Args:
        structure: the layers.
        removed: the nodes that are taken out of the file with them.
        model: the file's model.
        arrays: its bulky tensors, by name.
    """
    makers = {name: node for node in removed for name in node.output}
    held = {tensor.name: (math.prod(tensor.dims), tensor.data_type) for tensor in model.graph.initializer}
    held |= {name: (v.size, helper.np_dtype_to_tensor_dtype(v.dtype)) for name, v in arrays.items()}
    found: dict[tuple[str, str], list[str]] = {}
    for links in (*structure.segments, *structure.readers.values()):
        for link in links:
            weight = link.dense.inputs[1]
            given, written = _form(weight.name, makers, held), str(np.asarray(weight.values).dtype)
            if given not in ("", written):
                found.setdefault((given, written), []).append(label(link.dense))
    for (given, written), names in found.items():
        layers = listed(list(dict.fromkeys(names)))
        yield f"the weights of {layers} are held as {given}: they are worked on and written as {written}"


def _form(weight: str, makers: Mapping[str, onnx.NodeProto], held: Mapping[str, tuple[int, int]]) -> str:
    """The type of a weight in the file, or of the largest tensor from which nodes make it.

    "" where that is not known.
    """
    todo, seen, largest = [weight], {weight}, (0, int(TensorProto.UNDEFINED))
    while todo:
        name = todo.pop()
        node = makers.get(name)
        if node is None:
            largest = max(largest, held.get(name, largest))
            continue
        if node.op_type == DEQUANTIZE:
            return "integers"
        values = [entry.t for entry in node.attribute if entry.HasField("t")]
        largest = max([largest, *((math.prod(tensor.dims), tensor.data_type) for tensor in values)])
        todo += [given for given in node.input if given and given not in seen]
        seen.update(node.input)
    return _FLOATS.get(largest[1], "integers") if largest[0] else ""
