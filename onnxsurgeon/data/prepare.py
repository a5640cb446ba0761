"""What a network's dense chain sees of a data set: rows fitted to the input, scaled, the prefix applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.tables import matrix
from onnxsurgeon.errors import DataError, ModelError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line, numpy_type, session

LAYOUTS = ("hwc", "chw")
_CHUNK = 4096


@dataclass(frozen=True)
class InputOptions:
    """How rows become a model's input.

    Attributes:
        layout: order in which images are laid out in a flat input: "hwc", as in the paper, or "chw".
        scale: factor for the values; None: 1/255 (1/16 for digits) for integer pixels, 1 for other values.
        mean: subtracted after scaling, one value or one for each channel.
        std: divides after that, one value or one for each channel.
    """

    layout: str = "hwc"
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise DataError(f"unknown layout '{self.layout}': expected hwc or chw")
        if 0 in self.std:
            raise DataError("a standard deviation of 0 cannot divide")


def prepare(network: Network, dataset: Dataset, split: Split, options: InputOptions | None = None) -> Examples:
    """The rows of ``split`` as the dense chain's inputs, and their labels.

    Raises:
        DataError: the rows do not fit the model's input, or a label is not among its outputs; names the row.
        ModelError: the model has no single tensor input, or its prefix does not lead to the chain.
    """
    require_classes(network, dataset, split)
    classes = network.widths[-1]
    value = _single_input(network)
    kind = value.type.tensor_type
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
    # Columns of a table become one matrix here.
    rows = matrix(split.inputs, dataset.categories)[0] if isinstance(split.inputs, dict) else split.inputs
    arranged = _arrange(rows, shape, network, dataset, options or InputOptions())
    dtype = numpy_type(kind.elem_type)
    inputs = arranged if dtype.kind in "iu" else _scale(arranged, rows, dataset, options or InputOptions())
    inputs = inputs.reshape(len(inputs), *_wanted(inputs.shape, shape)).astype(dtype, copy=False)
    features = _prefix(network, value.name, inputs, shape[0])
    if features.shape != (split.rows, network.widths[0]):
        raise DataError(
            f"{dataset.name}: its rows of shape {rows.shape[1:]} reach the dense layers of '{network.name}' as "
            f"{features.shape[1:]}, which takes {network.widths[0]} values"
        )
    return Examples(np.ascontiguousarray(features, network.chain.dtype), split.labels, classes)


def require_classes(network: Network, dataset: Dataset, split: Split) -> None:
    """Raise DataError, naming the row, where a label of ``split`` is not among the network's outputs."""
    classes = network.widths[-1]
    if split.labels.max() >= classes:
        row = int(np.argmax(split.labels >= classes))
        raise DataError(
            f"{dataset.name}: label {split.labels[row]} in row {row} is outside the {classes} classes of "
            f"'{network.name}' (0 to {classes - 1})"
        )


def _single_input(network: Network) -> onnx.ValueInfoProto:
    graph = network.frame.model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or not inputs[0].type.HasField("tensor_type"):
        names = ", ".join(f"'{value.name}'" for value in inputs) or "none"
        raise ModelError(f"'{network.name}': expected one tensor input, found {names}")
    return inputs[0]


def _arrange(
    rows: Array, shape: Sequence[int | None], network: Network, dataset: Dataset, options: InputOptions
) -> Array:
    """Rows (rows, h, w[, c]) or (rows, n) with their axes in the order that the input of ``shape`` wants."""
    images = rows[..., None] if rows.ndim == 3 else rows
    wanted = tuple(shape[1:])
    candidates = [images]
    if images.ndim == 4:
        first = images.transpose(0, 3, 1, 2)
        # A 4-D input tells by its channel axis; of a flat one, nothing but the layout does.
        as_they_are_first = len(wanted) == 3 or options.layout == "hwc"
        candidates = [images, first] if as_they_are_first else [first, images]
    for candidate in candidates:
        if _fits(candidate.shape[1:], wanted):
            return candidate
    raise DataError(
        f"{dataset.name}: rows of shape {rows.shape[1:]} do not fit the input of '{network.name}', which takes "
        f"({', '.join('?' if size is None else str(size) for size in wanted)})"
    )


def _fits(have: Sequence[int], wanted: Sequence[int | None]) -> bool:
    if len(wanted) == 3 and len(have) == 3:
        return all(size is None or size == own for size, own in zip(wanted, have, strict=True))
    known = [size for size in wanted if size is not None]
    product, total = int(np.prod(known)), int(np.prod(have))
    return product == total if len(known) == len(wanted) else product > 0 and total % product == 0


def _wanted(have: Sequence[int], shape: Sequence[int | None]) -> tuple[int, ...]:
    """The input's row shape, its one unknown size left to numpy."""
    wanted = tuple(shape[1:])
    if len(wanted) == len(have) - 1:
        return tuple(have[1:])
    if sum(size is None for size in wanted) > 1:
        raise DataError("the model's input has more than one unknown size beside the batch")
    return tuple(-1 if size is None else size for size in wanted)


def _scale(arranged: Array, rows: Array, dataset: Dataset, options: InputOptions) -> Array:
    """Floats: values × scale, minus mean, over std; the latter two along the channel axis."""
    scale = options.scale
    if scale is None:
        scale = 1.0 / dataset.maximum if rows.dtype == np.uint8 else 1.0
    scaled: Array = arranged.astype(np.float32)
    if scale != 1.0:
        scaled *= np.float32(scale)
    channels_last = arranged.shape[-1] == (rows.shape[-1] if rows.ndim == 4 else 1)
    for values, apply in ((options.mean, np.subtract), (options.std, np.divide)):
        if values:
            scaled = apply(scaled, _along_channels(values, arranged, channels_last=channels_last))
    return scaled


def _along_channels(values: tuple[float, ...], arranged: Array, *, channels_last: bool) -> Array:
    array = np.array(values, np.float32)
    if len(values) == 1:
        return array
    last, first = arranged.ndim - 1, 1
    for axis in (last, first) if channels_last or arranged.ndim != 4 else (first, last):
        if arranged.shape[axis] == len(values):
            break
    else:
        raise DataError(f"{len(values)} values of mean or std fit no channel axis of rows {arranged.shape[1:]}")
    return array.reshape([-1 if position == axis else 1 for position in range(arranged.ndim)])


def _prefix(network: Network, name: str, inputs: Array, batch: int | None) -> Array:
    """The prefix's output for all rows, in chunks; where it only flattens, no session is made."""
    if network.chain.input_name == name:
        return inputs
    nodes = network.frame.prefix_nodes
    if len(nodes) == 1 and nodes[0].op_type == "Flatten":
        axis = next((attribute.i for attribute in nodes[0].attribute if attribute.name == "axis"), 1)
        if axis == 1:
            return inputs.reshape(len(inputs), -1)
    run = session(_prefix_model(network))
    step = batch or _CHUNK
    outputs = []
    for start in range(0, len(inputs), step):
        chunk = inputs[start : start + step]
        rows = len(chunk)
        if batch is not None and rows < batch:  # a fixed batch size is filled up with copies of the last row
            chunk = np.concatenate([chunk, np.repeat(chunk[-1:], batch - rows, axis=0)])
        try:
            outputs.append(run.run(None, {name: chunk})[0][:rows])
        except Exception as error:  # ONNX Runtime's exceptions share no narrower base
            raise DataError(f"'{network.name}': its prefix fails on these rows: {first_line(error)}") from error
    return np.concatenate(outputs)


def _prefix_model(network: Network) -> onnx.ModelProto:
    """The nodes before the chain as a model whose output is the chain's input."""
    model = onnx.ModelProto()
    model.CopyFrom(network.frame.model)
    del model.graph.node[:], model.graph.output[:], model.graph.value_info[:]
    model.graph.node.extend(network.frame.prefix_nodes)
    kind = onnx.helper.np_dtype_to_tensor_dtype(network.chain.dtype)
    model.graph.output.append(onnx.helper.make_tensor_value_info(network.chain.input_name, kind, None))
    return model
