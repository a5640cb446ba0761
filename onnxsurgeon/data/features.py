"""The outputs of a network's prefix for every row of a data set, computed once, however long the training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx

from onnxsurgeon.data.rows import Rows
from onnxsurgeon.errors import DataError, ModelError
from onnxsurgeon.graph.bodies import branching
from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.files import Parts, join
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.sizes import largest_tensor
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import are_rows, evaluator, first_line, ranks_of

CHUNK = 1024
TRIED = 4  # batches, or rows of another size, that are tried at once for a model with a fixed batch
SAME = 1e-3  # two results of a row are the same if they differ by at most this share of its largest value


def compute_features(network: Network, inputs: Mapping[str, Rows | Array], rows: int) -> dict[str, Rows]:
    """Compute the trunk's features (rows, …) from model inputs (rows, …), in the order of ``trunk.features``.

    An input that enters the trunk as it is, or flattened, stays as it is stored.

    Raises:
        DataError: the prefix fails on these rows, or mixes them.
        ModelError: the prefix computes a tensor that is too large, or of a size that cannot be told.
    """
    features: dict[str, Rows] = {}
    stored = {name: Rows.of(values) for name, values in inputs.items()}
    rest = []
    for name in network.frame.trunk.features:
        source = name if name in stored else _flattened(network, name, stored)
        if source is None:
            rest.append(name)
        else:
            values = stored[source]
            features[name] = values if source == name else values.reshaped(math.prod(values.shape[1:]))
            features[name] = _without_one(features[name], network.frame.trunk.features[name])
    if rest:
        made = _run(network, rest, stored, rows)
        wanted = network.frame.trunk.features
        features |= {name: _without_one(Rows.of(values), wanted[name]) for name, values in made.items()}
    return {name: features[name] for name in network.frame.trunk.features}


def _without_one(rows: Rows, wanted: Sequence[int | None]) -> Rows:
    """Rows (rows, 1, …) of a model that puts a 1 in front of each row, without the 1 if the trunk has none."""
    return rows.reshaped(*rows.shape[2:]) if len(rows.shape) == len(wanted) + 2 and rows.shape[1] == 1 else rows


def _flattened(network: Network, name: str, inputs: Mapping[str, Rows]) -> str | None:
    """The input whose flattened form the feature ``name`` is, so that no session is needed; None for others."""
    for node in network.frame.prefix_nodes:
        if name in node.output and node.op_type == "Flatten" and node.input[0] in inputs:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            return node.input[0] if axis == 1 else None
    return None


def _run(network: Network, names: list[str], inputs: Mapping[str, Rows], rows: int) -> dict[str, Array]:
    parts: dict[str, list[Array]] = {name: [] for name in names}
    model = prefix_model(network, names)
    pieces = run_in_chunks(model, names, inputs, rows, name=network.name, what="its prefix")
    for piece in pieces:
        read = {value.name for value in model.graph.input}
        if not piece.start and not branching(network.frame.prefix_nodes, read):  # a note tells of branching
            _require_by_row(model, names, {key: inputs[key] for key in read & inputs.keys()}, piece, network.name)
        for name, values in zip(names, piece.outputs, strict=True):
            if not piece.has_rows(values):
                raise DataError(
                    f"'{network.name}': its tensor '{name}', which the dense layers read, has no row for each row",
                    "rows-depend",
                )
            parts[name].append(piece.cut(np.asarray(values)))
    return {name: np.concatenate(found) for name, found in parts.items()}


class Piece(NamedTuple):
    """Outputs of a model for some rows.

    Attributes:
        start: the first row.
        rows: number of rows.
        ran: number of rows that were run, which is larger where a fixed batch was filled up.
        outputs: as the model returned them.
    """

    start: int
    rows: int
    ran: int
    outputs: list[Any]

    def has_rows(self, values: Any) -> bool:
        """Whether an output has one row for each row."""
        return np.ndim(values) > 0 and len(values) == self.ran

    def cut(self, values: Array) -> Array:
        """An output without the rows that filled up the batch."""
        return values if self.ran == self.rows else values[: self.rows]


def run_in_chunks(
    model: onnx.ModelProto, names: Sequence[str], inputs: Mapping[str, Rows], rows: int, *, name: str, what: str
) -> Iterator[Piece]:
    """Run ``model`` on all rows of its ``inputs``, some at a time: as many as memory allows or as the model demands.

    Args:
        model: with the graph outputs ``names``.
        names: names of the wanted outputs.
        inputs: by name, (rows, …); inputs that the model does not take are ignored.
        rows: number of rows.
        name: the model's name in errors.
        what: what runs there, for errors.

    Raises:
        DataError: the model fails on these rows.
        ModelError: it computes a tensor that is too large, or of a size that cannot be told.
    """
    read = {value.name for value in model.graph.input}
    fixed = 0 if _are_rows(model, inputs) else _fixed_batch(model)
    if fixed and rows > fixed:
        model, fixed = _unfixed(model, names, {name: inputs[name] for name in read & inputs.keys()}, fixed, rows)
    step = fixed or _chunk(model, {key: inputs[key] for key in read & inputs.keys()}, rows, name)
    if fixed:
        _require_bounded(model, inputs, fixed, name)
    run = evaluator(model)
    for start in range(0, rows, step):
        feeds = {key: values.take(slice(start, start + step)) for key, values in inputs.items() if key in read}
        count = min(step, rows - start)
        if fixed and count < fixed:  # a fixed batch size is filled up with copies of the last row
            feeds = {n: np.concatenate([v, np.repeat(v[-1:], fixed - count, axis=0)]) for n, v in feeds.items()}
        try:
            outputs = run(names, feeds)
        except Exception as error:  # ONNX Runtime's exceptions share no narrower base
            raise DataError(f"'{name}': {what} fails on these rows: {first_line(error)}", "runtime-failed") from error
        yield Piece(start, count, fixed or count, outputs)


def _require_by_row(
    model: onnx.ModelProto, names: Sequence[str], inputs: Mapping[str, Rows], first: Piece, name: str
) -> None:
    """Raise DataError where the prefix's outputs for a row depend on other rows of the batch, or on chance.

    Examples are means over a batch, or a Softmax along it. The features of a row are computed once, so they would be
    those that it has among the rows that were run with it. The check runs a few rows together, and each of them among
    copies of itself.
    """
    count = _fixed_batch(model) or min(first.rows, TRIED)
    if _are_rows(model, inputs) or count < 2 or first.rows < 2:
        return
    picked = np.linspace(0, first.rows - 1, count).astype(np.int64)
    run = evaluator(model)

    def outputs(numbers: Array) -> list[Array]:
        return [np.asarray(values) for values in run(names, {key: rows.take(numbers) for key, rows in inputs.items()})]

    try:
        together = outputs(picked)
        alone_at = {place: outputs(np.repeat(picked[place], count)) for place in (0, count - 1)}
    except Exception:  # ONNX Runtime's errors share no narrower base; rows that fail are reported where they are used
        return
    for place, alone in alone_at.items():
        for tensor, among, copies in zip(names, together, alone, strict=True):
            if among.shape != copies.shape or among.shape[:1] != (count,):
                continue  # that it has no row for each row is reported elsewhere
            if not all(_are_close(row, among[place]) for row in copies):
                raise DataError(
                    f"'{name}': its tensor '{tensor}', which the dense layers read, changes for a row with the other "
                    "rows of the batch, or by chance, and cannot be computed once for each row; take what does that "
                    "out of the model",
                    "rows-depend",
                )


def _are_close(one: Array, other: Array) -> bool:
    """Whether two rows' values are the same except for rounding, which depends on the place in a batch."""
    if one.dtype.kind not in "fV":
        return bool(np.array_equal(one, other))
    a, b = one.astype(np.float64), other.astype(np.float64)
    finite = np.abs(b[np.isfinite(b)])
    return bool(np.allclose(a, b, rtol=SAME, atol=SAME * float(finite.max(initial=0)), equal_nan=True))


def _unfixed(
    model: onnx.ModelProto, names: Sequence[str], inputs: Mapping[str, Rows], fixed: int, rows: int
) -> tuple[onnx.ModelProto, int]:
    """Return the model for any number of rows at once and 0, if it gives the same for some rows.

    Otherwise return the model and ``fixed``. Robots' models are exported for one row, and calling ONNX Runtime for each
    row takes longer than all else.
    """
    free = onnx.ModelProto()
    free.CopyFrom(model)
    for value in free.graph.input:
        if value.type.tensor_type.shape.dim:
            value.type.tensor_type.shape.dim[0].dim_param = "rows"
    del free.graph.value_info[:]
    count = min(rows // fixed, TRIED) * fixed
    feeds = {name: values.take(slice(0, count)) for name, values in inputs.items()}
    try:
        _require_bounded(free, inputs, count, "prefix")
        together, one = evaluator(free)(names, feeds), evaluator(model)
        for start in range(0, count, fixed):
            part = slice(start, start + fixed)
            for all_rows, own in zip(
                together, one(names, {name: values[part] for name, values in feeds.items()}), strict=True
            ):
                if len(all_rows) != count or not np.array_equal(np.asarray(all_rows)[part], own):
                    return model, fixed
    except Exception:  # ONNX Runtime's errors share no narrower base; a model may only work with its own batch
        return model, fixed
    return free, 0


def _chunk(model: onnx.ModelProto, inputs: Mapping[str, Rows], rows: int, name: str) -> int:
    """Number of rows to run at a time: ``CHUNK``, or fewer where a tensor would become too large."""
    rows = max(1, min(CHUNK, rows))
    while rows > 1:
        try:
            _require_bounded(model, inputs, rows, name)
        except ModelError:
            rows //= 2
        else:
            return rows
    _require_bounded(model, inputs, 1, name)
    return rows


def _require_bounded(model: onnx.ModelProto, inputs: Mapping[str, Rows], rows: int, name: str) -> None:
    """Raise ModelError where running the model on ``rows`` rows would take too much memory, or an unknown amount."""
    one_by_one = _are_rows(model, inputs)
    shapes = {key: values.shape[1:] if one_by_one else (rows, *values.shape[1:]) for key, values in inputs.items()}
    largest_tensor(model, shapes, name=f"'{name}'")


def _are_rows(model: onnx.ModelProto, inputs: Mapping[str, Rows]) -> bool:
    """Whether the model has no batch axis, so that it is run on one row after the other."""
    return are_rows(ranks_of(model), {name: len(values.shape) for name, values in inputs.items()})


def _fixed_batch(model: onnx.ModelProto) -> int:
    """The batch size that the inputs demand; 0 for any."""
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_value > 0:
            return int(dims[0].dim_value)
    return 0


def prefix_model(network: Network, names: list[str]) -> onnx.ModelProto:
    """The nodes before the trunk as a model whose outputs are the features ``names``.

    Where the sizes of a layer's output shape one of them, as for an attention's mask, the model also has that layer and
    the nodes before it.
    """
    frame = network.frame
    layers = {name for segment in network.segments for name in segment.ends}
    if any(name in layers for node in frame.prefix_nodes for name in inputs_of(node)):
        return _ending_in(to_model(network), names)
    model = onnx.ModelProto()
    model.CopyFrom(frame.model)
    del model.graph.node[:], model.graph.output[:], model.graph.value_info[:]
    model.graph.node.extend(frame.prefix_nodes)
    read = {name for node in frame.prefix_nodes for name in inputs_of(node)}
    kept = [value for value in model.graph.input if value.name in read]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    for name in names:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    arrays = {name: values for name, values in frame.arrays.items() if name in read}
    return join(Parts(model, arrays, external=False))


def _ending_in(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """The part of a model on which these tensors depend."""
    read, kept = set(names), []
    for node in reversed(model.graph.node):
        if not read.isdisjoint(node.output):
            kept.append(node)
            read.update(inputs_of(node))
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.node[:], part.graph.output[:], part.graph.value_info[:]
    part.graph.node.extend(reversed(kept))
    for entries in (part.graph.initializer, part.graph.input):
        stay = [entry for entry in entries if entry.name in read]
        del entries[:]
        entries.extend(stay)
    part.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return part
