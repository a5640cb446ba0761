"""The change of each layer, once it is known which layers belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxsurgeon.comparison.groups import Group
from onnxsurgeon.graph.layers import DenseLayer
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array, in_float64

KEPT, TRAINED, REACTIVATED = "kept", "trained", "reactivated"
WIDENED, NARROWED, REFITTED = "widened", "narrowed", "refitted"
INSERTED, REMOVED, MERGED, FACTORIZED, REWRITTEN = "inserted", "removed", "merged", "factorized", "rewritten"


@dataclass(frozen=True)
class LayerSummary:
    """A layer of one of the two models.

    Attributes:
        segment: the segment's number, counted from 1.
        hidden: i, counted from 1 through all segments; None for a segment's output layer.
        node: its name in the file.
        inputs: n_in.
        units: n_out.
        activation: such as "Relu"; "linear" for none.
        parameters: weights, biases and slopes.
    """

    segment: int
    hidden: int | None
    node: str
    inputs: int
    units: int
    activation: str
    parameters: int


@dataclass(frozen=True)
class LayerChange:
    """The change of a layer, or of several that belong together.

    Attributes:
        kind: "kept" (every value the same), "trained" (same shape, other values), "reactivated" (same shape, another
            activation), "widened" or "narrowed" (more or fewer units), "refitted" (same units, another number of
            inputs), "inserted", "removed", "merged" (several became one), "factorized" (one became several), or
            "rewritten" (several became several).
        before: layers of the first model; () for an inserted one.
        after: layers of the second; () for a removed one.
        change: ‖θ' − θ‖ / ‖θ‖ over the parameters of a layer of unchanged shape; else None.
    """

    kind: str
    before: tuple[LayerSummary, ...]
    after: tuple[LayerSummary, ...]
    change: float | None = None

    @property
    def parameters_before(self) -> int:
        """Parameters of these layers in the first model."""
        return sum(layer.parameters for layer in self.before)

    @property
    def parameters_after(self) -> int:
        """Parameters of these layers in the second model."""
        return sum(layer.parameters for layer in self.after)


def layer_changes(first: Network, second: Network, groups: Sequence[Group]) -> tuple[LayerChange, ...]:
    """The changes of the layers in each group."""
    before, after = _summaries(first), _summaries(second)
    changes = []
    for group in groups:
        kind, change = _judge([first.layers[i] for i in group.before], [second.layers[j] for j in group.after])
        changes.append(
            LayerChange(kind, tuple(before[i] for i in group.before), tuple(after[j] for j in group.after), change)
        )
    return tuple(changes)


def _summaries(network: Network) -> list[LayerSummary]:
    summaries: list[LayerSummary] = []
    count, before = 0, list[int]()
    for segment, chain in enumerate(network.segments):
        first = network.tied.get(segment, segment)  # layers that share their weights have one number
        before.append(count)
        count += chain.hidden_count if first == segment else 0
        for position, layer in enumerate(chain.layers):
            hidden = position < chain.hidden_count
            summaries.append(
                LayerSummary(
                    segment + 1,
                    before[first] + position + 1 if hidden else None,
                    layer.names.node,
                    layer.inputs,
                    layer.units,
                    str(layer.activation or "linear"),
                    sum(values.size for _, values in layer.parameters()),
                )
            )
    return summaries


def _judge(before: Sequence[DenseLayer], after: Sequence[DenseLayer]) -> tuple[str, float | None]:
    if not before or not after:
        return (INSERTED if after else REMOVED), None
    if len(before) > 1 or len(after) > 1:
        return (MERGED if len(after) == 1 else FACTORIZED if len(before) == 1 else REWRITTEN), None
    (a,), (b,) = before, after
    if a.units != b.units:
        return (WIDENED if b.units > a.units else NARROWED), None
    if a.inputs != b.inputs:
        return REFITTED, None
    change = _relative_change(a, b)
    if str(a.activation or "") != str(b.activation or ""):
        return REACTIVATED, change
    return (KEPT if change == 0 else TRAINED), change


def _relative_change(a: DenseLayer, b: DenseLayer) -> float:
    """‖θ' − θ‖ / ‖θ‖; a bias or slopes that only one of the two has count as 0 in the other."""
    moved = norm = 0.0
    for old, new in zip(_parameters(a), _parameters(b), strict=True):
        x = np.zeros(1) if old is None else in_float64(old)
        y = np.zeros(1) if new is None else in_float64(new)
        moved, norm = moved + float(((y - x) ** 2).sum()), norm + float((x**2).sum())
    return float(np.sqrt(moved / norm)) if norm else float(np.sqrt(moved))


def _parameters(layer: DenseLayer) -> tuple[Array | None, ...]:
    return layer.weight, layer.bias, None if layer.activation is None else layer.activation.slope
