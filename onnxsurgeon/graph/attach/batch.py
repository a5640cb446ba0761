"""The type, shape and batch axis of a backbone's tensor, and whether the backbone takes any number of rows at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon.bounds import MAX_TENSOR_ELEMENTS, bound
from onnxsurgeon.errors import ModelError, OnnxSurgeonError
from onnxsurgeon.graph.files import Parts, join
from onnxsurgeon.graph.frozen import nodes_before
from onnxsurgeon.graph.inference import inferred
from onnxsurgeon.graph.sizes import largest_tensor
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import evaluator, first_line, numpy_type

ROWS = 3
TRIED_SIZES = (8, 64, 224)  # tried for sizes that the file leaves open: tokens, then pixels
TOLERANCE = 1e-3  # of the largest value, between rows run one by one and together: only mixed-up rows differ by more
BATCH = "batch"

Shape = tuple[int | str | None, ...]


def backbone(parts: Parts, tensor: str) -> Parts:
    """Return the part of a model that computes ``tensor``, with it as the only output.

    The output has no type where none is known.
    """
    graph = parts.skeleton.graph
    kept = nodes_before(graph, [tensor])
    model = onnx.ModelProto()
    model.CopyFrom(parts.skeleton)
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend(node for number, node in enumerate(graph.node) if number in kept)
    told = next((v for v in (*graph.value_info, *graph.output, *graph.input) if v.name == tensor), None)
    model.graph.output.append(told or onnx.ValueInfoProto(name=tensor))
    read = {name for node in model.graph.node for name in _reads(node)} | {tensor}
    tensors = [each for each in model.graph.initializer if each.name in read]
    inputs = [each for each in model.graph.input if each.name in read]
    del model.graph.initializer[:], model.graph.input[:]
    model.graph.initializer.extend(tensors)
    model.graph.input.extend(inputs)
    return Parts(model, {name: v for name, v in parts.arrays.items() if name in read}, False, parts.headers)


def _reads(node: onnx.NodeProto) -> list[str]:
    found = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else list(attribute.graphs):
            found += [name for inner in graph.node for name in _reads(inner)]
            found += [value.name for value in graph.output]
    return found


def inputs_of_model(parts: Parts) -> list[onnx.ValueInfoProto]:
    """The inputs that have to be given, without those that are initializers too."""
    constants = {tensor.name for tensor in parts.skeleton.graph.initializer} | parts.arrays.keys()
    return [value for value in parts.skeleton.graph.input if value.name not in constants]


def told_shape(part: Parts, tensor: str) -> tuple[int, Shape | None]:
    """Element type (0 where it is not known) and shape of a tensor, as far as they can be inferred."""
    model = onnx.ModelProto()
    model.CopyFrom(part.skeleton)
    listed = {value.name for value in model.graph.input}
    for name, values in part.arrays.items():
        if name not in listed:
            kind = helper.np_dtype_to_tensor_dtype(values.dtype)
            model.graph.input.append(helper.make_tensor_value_info(name, kind, values.shape))
    with suppress(Exception):  # onnx promises no type of error; what is not inferred is measured
        model = inferred(model)
    graph = model.graph
    for value in (*graph.output, *graph.value_info, *graph.input):
        if value.name == tensor and value.type.HasField("tensor_type"):
            kind = value.type.tensor_type
            shape = tuple(map(_size, kind.shape.dim)) if kind.HasField("shape") else None
            return kind.elem_type, shape
    return 0, None


def _size(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value") and dim.dim_value > 0:
        return int(dim.dim_value)
    return dim.dim_param or None


def measured(part: Parts, tensor: str, rows: int, size: int) -> Array:
    """Compute the tensor for some random rows, with ``size`` for every size that is left open.

    Raises:
        OnnxSurgeonError: the model cannot be run on them.
    """
    return _values(join(part), tensor, _feeds(part, rows, size))


def _values(model: onnx.ModelProto, tensor: str, feeds: Mapping[str, Array]) -> Array:
    """Compute the tensor, if no tensor on the way is larger than a stranger's file may ask for.

    Raises:
        OnnxSurgeonError: the model cannot be run, or a tensor would be too large.
    """
    largest_tensor(model, {name: values.shape for name, values in feeds.items()}, name="it")
    try:
        return np.asarray(evaluator(model)([tensor], feeds)[0])
    except OnnxSurgeonError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no narrower base
        raise ModelError(f"cannot be run: {first_line(error)}", "runtime-failed") from error


def _feeds(part: Parts, rows: int, size: int, seed: int = 0) -> dict[str, Array]:
    """Draw random rows: standard normal floats, and ones and zeros for integers, which may be tokens and masks."""
    generator = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for value in inputs_of_model(part):
        kind = value.type.tensor_type
        dims = [_size(dim) for dim in kind.shape.dim]
        shape = [
            rows if at == 0 and not isinstance(d, int) else d if isinstance(d, int) else size
            for at, d in enumerate(dims)
        ]
        if math.prod(shape) > bound(MAX_TENSOR_ELEMENTS):
            raise ModelError(f"input '{value.name}' of {len(shape)} axes of {size} is too large", "too-large")
        if kind.elem_type == TensorProto.STRING:
            feeds[value.name] = np.full(shape, "a", object)
            continue
        dtype = numpy_type(kind.elem_type)
        if dtype.kind in "iub":
            # An attention mask that is all zeros divides by zero.
            drawn = np.ones(shape) if "mask" in value.name.lower() else generator.integers(0, 2, shape)
            feeds[value.name] = drawn.astype(dtype)
        else:
            feeds[value.name] = generator.standard_normal(shape).astype(dtype)
    return feeds


def runs_at(part: Parts, tensor: str, rows: int) -> tuple[Array | None, int, str]:
    """The tensor's values for ``rows`` rows, the size of open axes then, and the reason if the model does not run."""
    why = ""
    for size in TRIED_SIZES:
        try:
            return measured(part, tensor, rows, size), size, ""
        except OnnxSurgeonError as error:
            why = why or str(error)
    return None, TRIED_SIZES[0], why


def has_open_batch(value: onnx.ValueInfoProto) -> bool:
    """Whether an input's first axis is left open."""
    dims = value.type.tensor_type.shape.dim
    return len(dims) > 0 and not isinstance(_size(dims[0]), int)


def fixed_batch(parts: Parts) -> int:
    """The number of rows that all inputs are declared to have; 0 where it is left open or they differ."""
    sizes = {
        _size(value.type.tensor_type.shape.dim[0])
        for value in inputs_of_model(parts)
        if value.type.tensor_type.shape.dim
    }
    (only,) = sizes if len(sizes) == 1 else (None,)
    return only if isinstance(only, int) else 0


def with_open_batch(parts: Parts, tensor: str) -> tuple[Parts | None, str]:
    """Return the model for any number of rows, or None and the reason.

    This is possible for a model that is declared for a fixed number of rows and works for others. The first axis of the
    inputs is left open, and a Reshape to that number of rows becomes one to as many rows as there are. To see whether
    each row still gets its own values, some rows are run together and one by one.
    """
    rows = fixed_batch(parts)
    opened = _opened(parts, rows)
    before = backbone(parts, tensor)
    after = backbone(opened, tensor)
    try:
        together, size, _ = runs_at(after, tensor, ROWS * rows)
        if together is None:
            return None, f"it does not run on {ROWS * rows} rows"
        if len(together) != ROWS * rows:
            return None, "its number of rows does not follow the input's"
        feeds = _feeds(after, ROWS * rows, size)
        alone = join(before)
        for number in range(ROWS):
            piece = slice(number * rows, (number + 1) * rows)
            expected = _values(alone, tensor, {name: values[piece] for name, values in feeds.items()})
            found = together[piece]
            if found.shape != expected.shape or not _is_close(found, expected):
                return None, "rows of one batch change one another"
    except OnnxSurgeonError as error:
        return None, str(error)
    return opened, ""


def _is_close(found: Array, expected: Array) -> bool:
    a, b = found.astype(np.float64), expected.astype(np.float64)
    scale = float(np.abs(b[np.isfinite(b)]).max(initial=0.0)) or 1.0
    return bool(np.allclose(a, b, rtol=0, atol=TOLERANCE * scale, equal_nan=True))


def _opened(parts: Parts, rows: int) -> Parts:
    model = onnx.ModelProto()
    model.CopyFrom(parts.skeleton)
    graph = model.graph
    named = {value.name for value in inputs_of_model(parts)}
    for value in graph.input:
        if value.name in named and value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = BATCH
    for value in graph.output:
        for dim in value.type.tensor_type.shape.dim[:1]:
            if dim.HasField("dim_value") and dim.dim_value == rows:
                dim.dim_param = BATCH
    del graph.value_info[:]
    _open_reshapes(graph, rows)
    return Parts(model, parts.arrays, parts.external, parts.headers)


def _open_reshapes(graph: onnx.GraphProto, rows: int) -> None:
    """Let each Reshape to a constant shape of ``rows`` rows make as many as there are.

    Other readers keep their shape.
    """
    known = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    known[node.output[0]] = attribute.t
    taken = {*known, *(name for node in graph.node for name in (*node.input, *node.output))}
    for node in graph.node:
        if node.op_type != "Reshape" or len(node.input) < 2 or node.input[1] not in known:
            continue
        shape = numpy_helper.to_array(known[node.input[1]]).reshape(-1)
        if len(shape) < 2 or shape[0] != rows:
            continue
        name = f"{node.input[1]}/any_rows"
        while name in taken:
            name += "_"
        taken.add(name)
        opened: Sequence[int] = [-1 if (shape[1:] > 0).all() else 0, *shape[1:].tolist()]
        graph.initializer.append(numpy_helper.from_array(np.array(opened, np.int64), name))
        node.input[1] = name
