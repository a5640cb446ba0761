"""A data set's rows as a model's inputs: the column or array of each input, and whether its values fit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnxsurgeon.data.arranging import Sizes, arranged_as, row_shape, scaled
from onnxsurgeon.data.dataset import Dataset, Split, chunks
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.data.sheet import matrix
from onnxsurgeon.errors import DataError, ModelError
from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import numpy_type
from onnxsurgeon.suggestions import did_you_mean

# Larger values could not be squared in float64, as statistics do.
LARGEST = 1e150
LOOKED_AT = 2**20  # bytes of rows at a time, of which a few copies are made


def model_inputs(network: Network, dataset: Dataset, split: Split, options: InputOptions) -> dict[str, Rows]:
    """Every input of the model by name, (rows, …), of the input's type; see ``fitted_inputs``.

    Raises:
        DataError: the rows do not fit; names the input, what it takes and what was found.
        ModelError: an input is no tensor.
    """
    if not dataset.is_labelled:
        _require_no_other(network, dataset, split)
    return fitted_inputs(network.name, declared_inputs(network), dataset, split, options)


def fitted_inputs(
    model: str, declared: Sequence[onnx.ValueInfoProto], dataset: Dataset, split: Split, options: InputOptions
) -> dict[str, Rows]:
    """The ``declared`` inputs of a model of that name, (rows, …), each of its type; nothing is copied without need.

    A model with one input takes the rows as they are, or all columns of a table; one with several takes each from the
    column of its name.

    Raises:
        DataError: the rows do not fit; names the input, what it takes and what was found.
        ModelError: an input is no tensor.
    """
    for value in declared:
        if not value.type.HasField("tensor_type"):
            raise ModelError(f"'{model}': its input '{value.name}' is no tensor", "open-shape")
    _require_batch(model, dataset.name, declared)
    if len(declared) == 1 and split.table is not None and declared[0].name not in split.names:
        whole, names = split.table
        _require_width(model, dataset.name, declared[0], names, is_labelled=dataset.is_labelled)
        return {declared[0].name: _fitted(model, dataset, declared[0], whole, options)}
    rows = split.stored
    if isinstance(rows, Rows):
        if len(declared) != 1:
            raise DataError(_several(model, dataset.name, declared), "names-of-inputs")
        return {declared[0].name: _fitted(model, dataset, declared[0], rows, options)}
    if len(declared) == 1 and declared[0].name not in rows:
        table, names = matrix({name: column.source for name, column in rows.items()}, dataset.categories)
        _require_width(model, dataset.name, declared[0], names, is_labelled=dataset.is_labelled)
        return {declared[0].name: _fitted(model, dataset, declared[0], Rows.of(table), options)}
    missing = [value.name for value in declared if value.name not in rows]
    if missing:
        raise DataError(
            f"{dataset.name}: the input '{missing[0]}' of '{model}' has no column of that name; found {_quoted(rows)}"
            f"{did_you_mean(missing[0], rows)}",
            "names-of-inputs",
        )
    return {value.name: _named(model, dataset, value, rows[value.name], options) for value in declared}


def _require_batch(model: str, dataset: str, declared: Sequence[onnx.ValueInfoProto]) -> None:
    """Raise DataError where an input has no axis for the rows of a batch, so that each row would need its own value."""
    free = next((value.name for value in declared if _sizes(value)[:1] == (None,)), "")
    for value in declared:
        shape = _sizes(value)
        if not shape or (free and shape[0] not in (None, 1)):
            spelled = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
            beside = f" beside '{free}', which has one" if free else ""
            raise DataError(
                f"{dataset}: the input '{value.name}' of '{model}' has shape {spelled}, without an axis for the rows "
                f"of a batch{beside}; make it a constant of the model, or export it with such an axis",
                "open-shape",
            )


def require_shapes(network: Network, dataset: str, inputs: Array | dict[str, Array]) -> None:
    """Raise DataError where rows of such shapes fit no input of ``network``; the rows' values are not looked at.

    Inputs without a batch axis, texts, and columns that are to become a matrix are not checked here.
    """
    declared = [value for value in declared_inputs(network) if value.type.HasField("tensor_type")]
    if isinstance(inputs, dict):
        pairs = [(value, inputs[value.name]) for value in declared if value.name in inputs]
    elif len(declared) == 1:
        pairs = [(declared[0], inputs)]
    else:
        raise DataError(_several(network.name, dataset, declared), "names-of-inputs")
    for value, array in pairs:
        shape = _sizes(value)
        if len(shape) > 1 and array.dtype.kind in "fiub":
            columns = array[:, None] if array.ndim == 1 and len(shape) == 2 else array
            arranged_as(Rows.of(columns), shape, network.name, dataset, "hwc")


def _several(model: str, dataset: str, declared: Sequence[onnx.ValueInfoProto]) -> str:
    if not declared:
        return f"{dataset}: no input of '{model}' reaches what is trained of it: rows would change nothing"
    return (
        f"{dataset}: '{model}' has {len(declared)} inputs, {_quoted(v.name for v in declared)}: "
        "expected columns or arrays of these names"
    )


def _quoted(names: object) -> str:
    listed = [f"'{name}'" for name in names]  # type: ignore[attr-defined]
    return ", ".join(listed[:12]) + (", …" if len(listed) > 12 else "")


def declared_inputs(network: Network) -> list[onnx.ValueInfoProto]:
    """The inputs on which the trunk's features depend, without those that have a value of their own."""
    frame = network.frame
    constants = {tensor.name for tensor in frame.model.graph.initializer} | frame.arrays.keys()
    read = {name for node in frame.prefix_nodes for name in inputs_of(node)} | frame.trunk.features.keys()
    declared = [v for v in frame.model.graph.input if v.name not in constants and v.name in read]
    return [with_rows(value) for value in declared] if frame.takes_one_row else declared


def with_rows(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """Declare the input of a model without a batch axis with one."""
    lifted = onnx.ValueInfoProto()
    lifted.CopyFrom(value)
    dims = lifted.type.tensor_type.shape.dim
    del dims[:]
    dims.add(dim_param="rows")
    dims.extend(value.type.tensor_type.shape.dim)
    return lifted


def _require_no_other(network: Network, dataset: Dataset, split: Split) -> None:
    """Raise DataError where rows without labels have a column that is no input of the model.

    That column may hold the labels. For a table whose columns together are a model's only input, the number of columns
    is compared.
    """
    inputs = [value.name for value in network.frame.model.graph.input]
    known = set(inputs)
    if known.isdisjoint(split.names):
        return
    other = [name for name in split.names if name not in known]
    if other:
        raise DataError(
            f"{dataset.name}: '{other[0]}' is no input of '{network.name}', which takes {_quoted(inputs)}; if it is "
            "the labels, name it with --target in a table, or call it y in an .npz",
            "names-of-inputs",
        )


def _sizes(value: onnx.ValueInfoProto) -> Sizes:
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim)


def takes_whole(network: Network, names: Collection[str]) -> bool:
    """Whether ``network`` takes all columns of a table together, as one matrix, and none of them by its name."""
    declared = declared_inputs(network)
    return len(declared) == 1 and declared[0].name not in names and declared[0].type.HasField("tensor_type")


def require_columns(
    network: Network, dataset: str, names: list[str], *, is_labelled: bool, is_least: bool = False
) -> None:
    """Raise DataError where a network that takes a table whole takes another number of columns.

    Args:
        network: it takes the table whole; see ``takes_whole``.
        dataset: its name.
        names: names of the columns.
        is_labelled: whether the caller has said which of the file's columns are labels.
        is_least: whether there may be more columns, one for each text.
    """
    (value,) = declared_inputs(network)
    _require_width(network.name, dataset, value, names, is_labelled=is_labelled, is_least=is_least)


def _require_width(
    model: str,
    dataset: str,
    value: onnx.ValueInfoProto,
    names: list[str],
    *,
    is_labelled: bool,
    is_least: bool = False,
) -> None:
    shape = _sizes(value)
    if len(shape) == 2 and shape[1] is not None and (len(names) > shape[1] if is_least else len(names) != shape[1]):
        raise DataError(
            f"{dataset}: expected {shape[1]} columns for the input '{value.name}' of '{model}', found "
            f"{len(names)}: {_quoted(names)}{'' if is_labelled else '; --target says which are labels'}",
            "columns-for-input",
        )


def _named(model: str, dataset: Dataset, value: onnx.ValueInfoProto, column: Rows, options: InputOptions) -> Rows:
    """Read one input from the column of its name."""
    kind = value.type.tensor_type.elem_type
    if (column.dtype.kind in "UO") != (kind == onnx.TensorProto.STRING):
        takes, found = ("texts", "numbers") if kind == onnx.TensorProto.STRING else ("numbers", "texts")
        raise DataError(
            f"{dataset.name}: column '{value.name}' holds {found}; the input of '{model}' takes {takes}",
            "value-too-large",
        )
    rows = column.reshaped(1) if len(column.shape) == 1 and len(_sizes(value)) == 2 else column
    if kind == onnx.TensorProto.STRING:
        return replace(rows, dtype=np.dtype(object))
    return _fitted(model, dataset, value, rows, options)


def _fitted(model: str, dataset: Dataset, value: onnx.ValueInfoProto, rows: Rows, options: InputOptions) -> Rows:
    """Rows as the input ``value`` wants them: axes in order, scaled, of its type."""
    shape = _sizes(value)
    arranged = arranged_as(rows, shape, model, dataset.name, options.layout)
    dtype = numpy_type(value.type.tensor_type.elem_type)
    if dtype.kind in "iu":
        if rows.dtype.kind == "f":
            _require_whole(model, dataset, value, rows)
    else:
        arranged = scaled(arranged, rows, dataset, options)
    found = replace(arranged, dtype=dtype)
    if dtype.kind == "f":
        _require_representable(model, dataset, value, found)
    return found.reshaped(*row_shape(arranged.shape, shape))


def _require_representable(model: str, dataset: Dataset, value: onnx.ValueInfoProto, rows: Rows) -> None:
    """Raise DataError where a value, as the model takes it, is too large for the input's type or to be squared."""
    most, kind = min(float(np.finfo(rows.dtype).max), LARGEST), rows.source.dtype
    if kind.kind == "b" or (kind.kind in "iu" and _reach(rows, max(-np.iinfo(kind).min, np.iinfo(kind).max)) <= most):
        return
    if kind.kind == "f" and not rows.is_scaled and float(np.finfo(kind).max) <= most:
        return
    for start, stop in chunks(rows.source, len(rows), LOOKED_AT):
        with np.errstate(over="ignore", invalid="ignore"):
            wrong = ~(np.abs(rows.take(slice(start, stop))) <= most)
        if wrong.any():
            row, *place = (int(i) for i in np.argwhere(wrong)[0])
            row = start + row if rows.numbers is None else int(rows.numbers[start + row])
            column = place[0] if len(place) == 1 else tuple(place)
            raise DataError(
                f"{dataset.name}: {rows.source[(row, *place)]:g} in row {row}, column {column} is too large for the "
                f"input '{value.name}' of '{model}', which takes {rows.dtype}"
                + (", after --scale, --mean and --std" if rows.is_scaled else ""),
                "value-too-large",
            )


def _reach(rows: Rows, most: int) -> float:
    """The largest size of a value of size ``most`` after scale and offset."""
    return float(most) * float(np.abs(rows.scale).max()) + float(np.abs(rows.offset).max())


def _require_whole(model: str, dataset: Dataset, value: onnx.ValueInfoProto, rows: Rows) -> None:
    for start, stop in chunks(rows.source, len(rows)):
        values = rows.take(slice(start, stop))
        broken = values != np.floor(values)
        if broken.any():
            first = tuple(np.argwhere(broken)[0])
            raise DataError(
                f"{dataset.name}: {values[first]:g} in row {start + first[0]} for the input '{value.name}' of "
                f"'{model}', which takes integers",
                "value-too-large",
            )
