"""The costs of a model for whoever deploys it, and how the result's compare with the given model's."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsurgeon.quantities import spell_count, spell_latency, spell_size
from onnxsurgeon.runs.events import Costs

SAME_LATENCY = 1.1  # latencies are measured, so they are about the same if they differ by less than this factor


@dataclass(frozen=True)
class Footprint:
    """The costs of a model.

    Attributes:
        parameters: number of its trainable values.
        size: bytes of its file, external data included.
        latency: milliseconds that ONNX Runtime takes for a row, on one thread of this machine; None where that was not
            measured, since it would have taken longer than a second.
        multiplications: with weights, for a row (MACs); None where nothing asks for it.
        memory: bytes of the tensors that are in memory at once for a row; None where nothing asks for it.
    """

    parameters: int
    size: int
    latency: float | None = None
    multiplications: int | None = None
    memory: int | None = None

    def record(self) -> Costs:
        """The same as plain values, for the journal."""
        return Costs(
            parameters=self.parameters,
            size=self.size,
            latency=self.latency,
            multiplications=self.multiplications,
            memory=self.memory,
        )


@dataclass(frozen=True)
class Figure:
    """One of the figures that sum up a result, in words.

    Attributes:
        name: its name.
        before: the value for the given model.
        after: the value for the result.
        change: the comparison of the two, such as "10× fewer".
    """

    name: str
    before: str
    after: str
    change: str


def figures(before: Footprint, after: Footprint, *, is_given: bool = False) -> list[Figure]:
    """The parameters, the file's size and, where they are known, MACs, memory and latency of a row, before and after.

    Where the result is the given network (``is_given``), its file has more bytes only because it tells its origin.
    """
    size = "the same network" if is_given else _change(before.size, after.size, "smaller", "larger")
    found = [
        Figure(
            "parameters",
            spell_count(before.parameters),
            spell_count(after.parameters),
            _change(before.parameters, after.parameters, "fewer", "more"),
        ),
        Figure(
            "file",
            spell_size(before.size),
            spell_size(after.size),
            size,
        ),
    ]
    if before.multiplications is not None and after.multiplications is not None:
        change = _change(before.multiplications, after.multiplications, "fewer", "more")
        pair = spell_count(before.multiplications), spell_count(after.multiplications)
        found.append(Figure("MACs a row", *pair, change))
    if before.memory is not None and after.memory is not None:
        change = _change(before.memory, after.memory, "less", "more")
        found.append(Figure("memory", spell_size(before.memory), spell_size(after.memory), change))
    if before.latency and after.latency:
        change = _change(before.latency, after.latency, "faster", "slower", SAME_LATENCY)
        found.append(Figure("one row takes", spell_latency(before.latency), spell_latency(after.latency), change))
    return found


def measured_figure(metric: str, before: float, after: float) -> Figure:
    """The figure of the metric on the test rows."""
    return Figure(f"test {metric}", spell_metric(before), spell_metric(after), f"{after - before:+.4f}")


def spell_metric(value: float) -> str:
    """An accuracy or R² to four places; fewer for an R² far below 0."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.3g}"


def _change(before: float, after: float, less: str, more: str, same: float = 1.0) -> str:
    """By which factor ``after`` is less or more than ``before``; within the factor ``same`` they are about the same."""
    if before == after:
        return "the same"
    factor, word = (before / after, less) if before > after else (after / before, more)
    text = f"{factor:.3g}" if factor < 100 else f"{factor:,.0f}"
    return "about the same" if factor < same or text == "1" else f"{text}× {word}"
