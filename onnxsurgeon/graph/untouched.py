"""The values of a file that are no parameters of what is worked on: embeddings, recurrent layers, large constants."""

from __future__ import annotations

import math
from collections import Counter

import onnx
from onnx import helper

from onnxsurgeon.graph.network import Network

SHARE = 0.2  # of all of a file's values, from which on it is worth a sentence
LEAST = 256  # elements of a tensor that counts: a normalisation's gains and a Reshape's shapes do not
NAMED = 3  # tensors that are named


def untouched(network: Network) -> dict[str, int]:
    """How many elements each tensor of floats has that is neither trained nor operated on, the largest first."""
    frame = network.frame
    found = {name: int(values.size) for name, values in frame.arrays.items() if values.dtype.kind == "f"}
    for tensor in frame.model.graph.initializer:
        if helper.tensor_dtype_to_np_dtype(tensor.data_type).kind == "f" and tensor.name not in found:
            found[tensor.name] = math.prod(tensor.dims)
    for node in frame.model.graph.node:
        if node.op_type == "Constant":
            values = next((each.t for each in node.attribute if each.name == "value"), onnx.TensorProto())
            if values.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16):
                found.setdefault(node.output[0], math.prod(values.dims))
    return dict(Counter(found).most_common())


def untouched_note(network: Network) -> tuple[str, ...]:
    """A sentence on these where they are a good part of the file, since wishes count parameters alone; else ()."""
    every = untouched(network)
    found = {name: size for name, size in every.items() if size >= LEAST}
    rest = sum(every.values())
    whole = rest + network.parameter_count
    if sum(found.values()) < SHARE * whole:
        return ()
    named = ", ".join(f"'{name}' ({_readers(network, name)})" for name in list(found)[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return (
        f"{rest:,} of the file's {whole:,} values stay as they are, and are not counted as parameters: {named}{more}",
    )


def _readers(network: Network, name: str) -> str:
    """The operators that read the tensor, each once."""
    nodes = network.frame.model.graph.node
    return ", ".join(dict.fromkeys(node.op_type for node in nodes if name in node.input)) or "read by nothing"
