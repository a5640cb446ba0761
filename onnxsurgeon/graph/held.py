"""Notes on weights that a file holds in another form than they are worked on and written in.

Integers, smaller floats.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxsurgeon.graph.canonical.names import label
from onnxsurgeon.graph.canonical.quantized import DEQUANTIZE
from onnxsurgeon.graph.canonical.queries import BFLOAT16
from onnxsurgeon.graph.layers import DenseChain
from onnxsurgeon.graph.notes import listed
from onnxsurgeon.graph.segments import Structure
from onnxsurgeon.linear_algebra import Array

_KINDS = {"float16": np.dtype(np.float16), "bfloat16": BFLOAT16, "float32": np.dtype(np.float32)}
_FLOATS: dict[int, str] = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
}


def held_as(
    structure: Structure,
    segments: Sequence[DenseChain],
    removed: Sequence[onnx.NodeProto],
    model: onnx.ModelProto,
    arrays: Mapping[str, Array],
) -> tuple[list[DenseChain], list[str]]:
    """The segments with the smaller types in which the file holds their weights; and notes on what it holds otherwise.

    A weight is held in a smaller type again where that loses nothing of what was read: a scale that was folded into it
    is not representable there. Layers that surgeries add are held as their segment's others are. Weights that are made
    of integers are written in the type in which they are worked on.

    Args:
        structure: the layers.
        segments: these as they were read.
        removed: the nodes that are taken out of the file with them.
        model: the file's model.
        arrays: its bulky tensors, by name.
    """
    makers = {name: node for node in removed for name in node.output}
    held = {tensor.name: (math.prod(tensor.dims), tensor.data_type) for tensor in model.graph.initializer}
    held |= {name: (v.size, helper.np_dtype_to_tensor_dtype(v.dtype)) for name, v in arrays.items()}
    found: dict[tuple[str, str, bool], list[str]] = {}
    made = []
    for number, (links, segment) in enumerate(zip(structure.segments, segments, strict=True)):
        written = str(np.asarray(links[0].dense.inputs[1].values).dtype)
        layers = [[link] for link in links]
        if number in structure.readers:
            layers.append(structure.readers[number])
        forms = [[_form(link.dense.inputs[1].name, makers, held) for link in alike] for alike in layers]
        kept = _held(segment, [each[0] if len(set(each)) == 1 else "" for each in forms], written)
        made.append(kept)
        for layer, alike, each in zip(kept.layers, layers, forms, strict=True):
            is_again = kept.held is not None and layer.names.weight not in kept.wide
            for link, given in zip(alike, each, strict=True):
                if given not in ("", written):
                    found.setdefault((given, written, is_again), []).append(label(link.dense))
    notes = []
    for (given, written, is_again), names in found.items():
        told = listed(list(dict.fromkeys(names)))
        how = f"in {written}, and written as {given} again" if is_again else f"and written as {written}"
        notes.append(f"the weights of {told} are held as {given}: they are worked on {how}")
    return made, notes


def _held(segment: DenseChain, forms: Sequence[str], written: str) -> DenseChain:
    """The segment with the type in which most of its weights are held, and the names of those that are not."""
    usual = Counter(form for form in forms if form in _KINDS and _KINDS[form].itemsize < np.dtype(written).itemsize)
    if not usual or segment.stored is not None:
        return segment
    ((given, _),) = usual.most_common(1)
    kind, wide, is_any = _KINDS[given], set[str](), False
    for layer, form in zip(segment.layers, forms, strict=True):
        with np.errstate(over="ignore"):
            is_held = form == given and np.array_equal(
                layer.weight.astype(kind).astype(layer.weight.dtype), layer.weight
            )
        is_any |= is_held
        if not is_held:
            wide.add(layer.names.weight)
            wide.update(reader.names.weight for reader in segment.readers if layer is segment.layers[-1])
    return replace(segment, held=kind, wide=frozenset(wide)) if is_any else segment


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
