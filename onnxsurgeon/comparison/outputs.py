"""The outputs of two models on the same rows: how far they are apart, and how often they predict the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnxsurgeon.data.agreement import as_table
from onnxsurgeon.data.inputs import with_rows
from onnxsurgeon.errors import EngineError, ModelError
from onnxsurgeon.graph.equivalence import random_inputs
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.parts import LARGEST_FILE
from onnxsurgeon.graph.sizes import largest_tensor
from onnxsurgeon.graph.writer import to_model, to_parts
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import Evaluator, evaluator, first_line

ROWS, AT_ONCE = 256, 64

Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class OutputDifference:
    """The difference of one output of two models on the same rows.

    Attributes:
        name: name of the output in the first model.
        rows: number of rows that were compared.
        maximum: max |Δ|; None for labels and other values that are no floats.
        mean: mean |Δ|, likewise.
        scale: the largest magnitude in the first model's output, likewise.
        agreement: share of rows whose largest value is in the same place; for labels, share of equal values; None for
            an output of one float a row.
    """

    name: str
    rows: int
    maximum: float | None
    mean: float | None
    scale: float | None
    agreement: float | None

    @property
    def relative_maximum(self) -> float | None:
        """max |Δ| as a fraction of the scale."""
        return _relative(self.maximum, self.scale)

    @property
    def relative_mean(self) -> float | None:
        """mean |Δ| as a fraction of the scale."""
        return _relative(self.mean, self.scale)


@dataclass(frozen=True)
class OutputComparison:
    """The outputs that could be compared, and one sentence for everything that could not."""

    outputs: tuple[OutputDifference, ...] = ()
    notes: tuple[str, ...] = ()


def _relative(value: float | None, scale: float | None) -> float | None:
    return value if value is None or not scale else value / scale


def compare_on_random_inputs(first: Network, second: Network) -> OutputComparison:
    """The outputs on about ``ROWS`` random rows, uniform in [0, 1), seeded."""
    try:
        a, b = in_memory(first), in_memory(second)
        different = _different_inputs(a, b)
        if different:
            return OutputComparison(notes=(f"outputs not compared on random inputs: {different}",))
        one_by_one = first.frame.takes_one_row and second.frame.takes_one_row
        return compare(a, b, _random_feeds(a, b, first.name, one_by_one=one_by_one))
    except (EngineError, ModelError) as error:
        return OutputComparison(notes=(f"outputs not compared on random inputs: {first_line(error)}",))


def in_memory(network: Network) -> onnx.ModelProto:
    """The complete model, if it is small enough to be copied into a session.

    Raises:
        ModelError: it is not.
    """
    parts = to_parts(network)
    if parts.skeleton.ByteSize() + sum(array.nbytes for array in parts.arrays.values()) > LARGEST_FILE // 2:
        raise ModelError(f"'{network.name}' is larger than 1 GB, too large to be run as a whole", "beyond-one-file")
    return to_model(network)


def compare(first: onnx.ModelProto, second: onnx.ModelProto, feeds: Iterable[tuple[Feeds, Feeds]]) -> OutputComparison:
    """The outputs of two models on pairs of feeds, each pair for the same rows.

    Raises:
        EngineError: a model cannot be run.
    """
    pairs, notes = _paired(first, second)
    if not pairs:
        return OutputComparison(notes=tuple(notes))
    run: list[Evaluator] = []
    tallies = [_Tally(a) for a, _ in pairs]
    for for_first, for_second in feeds:
        try:
            # A session computes what is constant when it is made; the feeds have been found to be small enough by now.
            run = run or [evaluator(first), evaluator(second)]
            left = run[0]([a for a, _ in pairs], for_first)
            right = run[1]([b for _, b in pairs], for_second)
        except Exception as error:  # ONNX Runtime's exceptions share no narrower base
            raise EngineError(f"a model cannot be run on these rows: {first_line(error)}", "runtime-failed") from error
        for tally, x, y in zip(tallies, left, right, strict=True):
            tally.add(as_table(x), as_table(y))
    for tally in tallies:
        if tally.reason:
            notes.append(f"output '{tally.name}' not compared: {tally.reason}")
    return OutputComparison(tuple(tally.result() for tally in tallies if not tally.reason), tuple(notes))


class _Tally:
    """Adds up one output's differences, part by part."""

    def __init__(self, name: str) -> None:
        self.name, self.reason = name, ""
        self.rows = self.values = self.compared = self.same = 0
        self.maximum = self.total = self.scale = 0.0
        self.floats = True

    def add(self, x: Array | None, y: Array | None) -> None:
        """Add the outputs of the two models for some rows."""
        if x is None or y is None or x.shape != y.shape:
            shapes = [None if values is None else values.shape[1:] for values in (x, y)]
            self.reason = "it is no table" if None in shapes else f"a row has shape {shapes[0]} and {shapes[1]}"
            return
        self.rows += len(x)
        self.floats = self.floats and x.dtype.kind == y.dtype.kind == "f"
        if not self.floats:
            self.compared, self.same = self.compared + x.size, self.same + int(np.count_nonzero(x == y))
            return
        a, b = x.astype(np.float64), y.astype(np.float64)
        with np.errstate(invalid="ignore"):
            apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
        apart = np.nan_to_num(apart, nan=np.inf, posinf=np.inf)
        self.maximum, self.total = max(self.maximum, float(apart.max(initial=0.0))), self.total + float(apart.sum())
        self.scale = max(self.scale, float(np.abs(a[np.isfinite(a)]).max(initial=0.0)))
        self.values += x.size
        if x.shape[1] > 1:
            self.compared, self.same = self.compared + len(x), self.same + int((a.argmax(1) == b.argmax(1)).sum())

    def result(self) -> OutputDifference:
        """The difference over all rows."""
        agreement = self.same / self.compared if self.compared else None
        if not self.floats or not self.values:
            return OutputDifference(self.name, self.rows, None, None, None, agreement)
        return OutputDifference(self.name, self.rows, self.maximum, self.total / self.values, self.scale, agreement)


def _paired(first: onnx.ModelProto, second: onnx.ModelProto) -> tuple[list[tuple[str, str]], list[str]]:
    """Outputs that correspond, by name, or all in order where no name is shared; and the outputs that are left over."""
    a, b = (list(dict.fromkeys(value.name for value in model.graph.output)) for model in (first, second))
    if not set(a) & set(b) and len(a) == len(b):
        return list(zip(a, b, strict=True)), []
    notes = [f"output '{name}' not compared: only the first model has it" for name in a if name not in b]
    notes += [f"output '{name}' not compared: only the second model has it" for name in b if name not in a]
    return [(name, name) for name in a if name in b], notes


def _different_inputs(first: onnx.ModelProto, second: onnx.ModelProto) -> str:
    """Why the two cannot take the same inputs; "" where they can, in order and whatever their names."""
    a, b = free_inputs(first), free_inputs(second)
    same = len(a) == len(b) and all(_alike(x, y) for x, y in zip(a, b, strict=True))
    return "" if same else f"the models take different inputs, {_spelled(a)} and {_spelled(b)}"


def free_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that have no value of their own."""
    fixed = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in fixed]


def _alike(x: onnx.ValueInfoProto, y: onnx.ValueInfoProto) -> bool:
    a, b = x.type.tensor_type, y.type.tensor_type
    sizes = [[dim.dim_value for dim in kind.shape.dim] for kind in (a, b)]
    fits = all(m == n or 0 in (m, n) for m, n in zip(*sizes, strict=False))
    return a.elem_type == b.elem_type and len(sizes[0]) == len(sizes[1]) and fits


def _spelled(values: list[onnx.ValueInfoProto]) -> str:
    def one(value: onnx.ValueInfoProto) -> str:
        kind = value.type.tensor_type
        sizes = ", ".join(str(dim.dim_value or dim.dim_param or "?") for dim in kind.shape.dim)
        return f"{onnx.TensorProto.DataType.Name(kind.elem_type).lower()} ({sizes})"

    return " and ".join(one(value) for value in values) or "none"


def _random_feeds(
    first: onnx.ModelProto, second: onnx.ModelProto, name: str, *, one_by_one: bool = False
) -> Iterator[tuple[Feeds, Feeds]]:
    """Yield the same random rows for both; a model of a fixed batch is run several times.

    With ``one_by_one`` the models have no batch axis, and the rows have one axis more than their inputs.
    """
    names = [value.name for value in free_inputs(second)]
    # Where only the second fixes a size, the rows must be of that size.
    fixed = any(dim.dim_value for value in free_inputs(second) for dim in value.type.tensor_type.shape.dim[:1])
    source = second if fixed else first
    if one_by_one:
        source = onnx.ModelProto(graph=onnx.GraphProto(input=[with_rows(value) for value in free_inputs(source)]))
    rows, at_once, seed = 0, AT_ONCE, 0
    while seed < ROWS:
        values = list(random_inputs(source, rows=at_once, seed=seed).values())
        one, other = (dict(zip(n, values, strict=True)) for n in ([v.name for v in free_inputs(first)], names))
        if seed == 0:
            try:
                for model, feeds in ((first, one), (second, other)):
                    shapes = {key: array.shape[int(one_by_one) :] for key, array in feeds.items()}
                    largest_tensor(model, shapes, name=f"'{name}'")
            except ModelError:
                if at_once == 1:
                    raise
                at_once //= 2
                continue
        yield one, other
        seed += 1
        rows += len(values[0]) if values and values[0].ndim else 1
        if rows >= ROWS:
            return


def fixed_batch(model: onnx.ModelProto) -> int:
    """The number of rows that a model takes at once; 0 where it takes any."""
    sizes: list[Any] = [value.type.tensor_type.shape.dim[:1] for value in free_inputs(model)]
    return max((int(dims[0].dim_value) for dims in sizes if dims), default=0)
