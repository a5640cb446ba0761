"""A Scan over tiles of rows, as in ``training.evaluation``, which carries sums or returns each tile's results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line, session
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.evaluation import ROWS
from onnxsurgeon.training.forward import feeds_of, make_model, parameter_names
from onnxsurgeon.training.resident import arrays, declarations, index_feeds, index_names


@dataclass(frozen=True)
class Sum:
    """A sum over rows.

    Attributes:
        name: name of the graph's output.
        shape: shape of the sum.
        tensors: one tensor, or two whose product is summed.
        is_count: whether the rows of the tensor are counted, not its values summed.
    """

    name: str
    shape: tuple[int, ...]
    tensors: tuple[str, ...]
    is_count: bool = False


def append_sums(build: GraphBuilder, sums: Sequence[Sum]) -> None:
    """Append the nodes that add a tile's part to each sum: products are taken and summed in float64."""
    wide: dict[str, str] = {}
    for each in sums:
        for tensor in each.tensors:
            if tensor not in wide:
                wide[tensor] = build.add("Cast", tensor, to=onnx.TensorProto.DOUBLE)
        before, after = f"{each.name}/before", f"{each.name}/after"
        if len(each.tensors) == 2:
            a, b = (wide[tensor] for tensor in each.tensors)
            build.gemm(a, b, before, transA=True, output=after)
        elif each.is_count:
            count = build.add("Cast", build.add("Shape", each.tensors[0], end=1), to=onnx.TensorProto.DOUBLE)
            build.add("Add", before, count, output=after)
        else:
            total = build.add("ReduceSum", wide[each.tensors[0]], build.axes(0), keepdims=0)
            build.add("Add", before, total, output=after)


def scan_model(
    name: str,
    build: GraphBuilder,
    network: Network,
    examples: Examples,
    *,
    sums: Sequence[tuple[str, tuple[int, ...]]] = (),
    scanned: Sequence[onnx.ValueInfoProto] = (),
    targets: bool = False,
) -> onnx.ModelProto:
    """Make a model that runs ``build``'s nodes for every tile.

    Inputs: "indices" (tiles, tile), row numbers, and "stored_indices" where the rows are a selection; the rows as they
    are stored; the parameters. Outputs: the ``sums``, then the ``scanned`` tensors, one tile behind the other.

    Args:
        name: name of the graph.
        build: the nodes for one tile, with its row numbers in "batch" and "stored_batch".
        network: its parameters are inputs.
        examples: the rows.
        sums: names and shapes of float64 tensors that start as zeros; the nodes write NAME/after from NAME/before.
        scanned: tensors that the nodes write.
        targets: whether the nodes read the examples' targets.
    """
    double, integer = onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64
    before, after = (
        [helper.make_tensor_value_info(f"{total}/{when}", double, shape) for total, shape in sums]
        for when in ("before", "after")
    )
    batches = [helper.make_tensor_value_info(each, integer, ["tile"]) for each in index_names(examples)]
    body = helper.make_graph(build.nodes, "tile", [*before, *batches], [*after, *scanned])
    outer = GraphBuilder(network.dtype)
    outer.constants = build.constants
    zero = helper.make_tensor("zero", double, [1], [0.0])
    starts = [outer.add("ConstantOfShape", outer.integers(*shape), value=zero) for _, shape in sums]
    names = index_names(examples, "indices")
    results = [total for total, _ in sums] + [f"all_{value.name}" for value in scanned]
    outer.append(helper.make_node("Scan", [*starts, *names], results, num_scan_inputs=len(names), body=body))
    kind = helper.np_dtype_to_tensor_dtype(network.dtype)
    inputs = [
        *declarations(examples, targets=targets),
        *(helper.make_tensor_value_info(each, integer, ["tiles", "tile"]) for each in names),
        *(
            helper.make_tensor_value_info(each, kind, values.shape)
            for each, (_, values) in zip(parameter_names(network), network.parameters(), strict=True)
        ),
    ]
    outputs = [helper.make_tensor_value_info(total, double, shape) for total, shape in sums]
    outputs += [
        helper.make_tensor_value_info(
            f"all_{value.name}", value.type.tensor_type.elem_type, [None] * (1 + len(value.type.tensor_type.shape.dim))
        )
        for value in scanned
    ]
    return make_model(name, outer, inputs, outputs)


def tiles(rows: Array) -> Iterator[Array]:
    """Yield the row numbers as (tiles, tile): all full tiles, then the rest."""
    full = len(rows) // ROWS * ROWS
    if full:
        yield rows[:full].reshape(-1, ROWS)
    if full < len(rows):
        yield rows[None, full:]


def totals_of(
    model: onnx.ModelProto,
    sums: Sequence[Sum],
    network: Network,
    examples: Examples,
    rows: Array,
    *,
    targets: bool = False,
) -> dict[str, Array]:
    """The sums over ``rows`` of the examples, by name.

    Raises:
        EngineError: ONNX Runtime is missing or fails.
    """
    made = session(model)
    totals = [np.zeros(each.shape) for each in sums]
    for part in tiles(rows):
        for total, found in zip(totals, run_tiles(made, network, examples, part, targets=targets), strict=True):
            total += found
    return {each.name: total for each, total in zip(sums, totals, strict=True)}


def run_tiles(made: Any, network: Network, examples: Examples, part: Array, *, targets: bool = False) -> list[Array]:
    """Run a session made from such a model for row numbers (tiles, tile), and return all outputs.

    Raises:
        EngineError: ONNX Runtime fails.
    """
    feeds = {**feeds_of(network), **arrays(examples, targets=targets), **index_feeds(examples, part, "indices")}
    try:
        return list(made.run(None, feeds))
    except Exception as error:  # ONNX Runtime's exceptions share no narrower base
        raise EngineError(f"calibration failed inside ONNX Runtime: {first_line(error)}", "runtime-failed") from error
