"""The output of ``diff``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxsurgeon.cli.console import escape, out, table

if TYPE_CHECKING:
    from onnxsurgeon.comparison.diff import Diff, ModelSummary
    from onnxsurgeon.comparison.layers import LayerChange, LayerSummary
    from onnxsurgeon.comparison.on_data import DataComparison
    from onnxsurgeon.comparison.outputs import OutputComparison

_COLUMNS = ("layer", "change", "before", "after", "parameters", "moved")


def differences(diff: Diff) -> None:
    """Print a comparison: the two models, layer by layer, and their outputs."""
    _model("before", diff.before)
    _model("after", diff.after, diff.before)
    out.print(f"\n[dim]{escape(_alignment(diff))}[/]")
    segments = {layer.segment for change in diff.layers for layer in (*change.before, *change.after)}
    lines = [_line(change, several=len(segments) > 1) for change in diff.layers]
    table(_COLUMNS if len(segments) < 2 else ("part", *_COLUMNS), lines, right=("parameters", "moved"))
    _outputs(diff.random, "random inputs")
    if diff.data is not None:
        _data(diff.data)
    if diff.random.outputs or (diff.data is not None and diff.data.outputs.outputs):
        out.print("[dim]|Δ| as a fraction of the largest output before; agreement: same largest value[/]")


def _model(word: str, model: ModelSummary, before: ModelSummary | None = None) -> None:
    """Print a model's name, topology and sizes; for the second one with their growth."""
    growth = "" if before is None else _growth(before.parameters, model.parameters)
    sizes = [f"{model.parameters:,} parameters{growth}"]
    if model.bytes is not None:
        growth = "" if before is None else _growth(before.bytes, model.bytes)
        sizes.append(f"{model.bytes:,} bytes{growth}")
    out.print(f"{word + ':':<7} [bold]{escape(model.name)}[/]", soft_wrap=True)
    out.print(f"        {model.topology}", soft_wrap=True)
    out.print(f"        {', '.join(sizes)}", soft_wrap=True)


def _alignment(diff: Diff) -> str:
    if diff.alignment == "similarity":
        return "layers matched by names, shapes and weights; moved: ‖Δθ‖ / ‖θ‖"
    steps = [f"undo {surgery}" for surgery in reversed(diff.undone)] + list(diff.done)
    return f"layers matched by lineage ({', '.join(steps) or 'no surgery'}); moved: ‖Δθ‖ / ‖θ‖"


def _line(change: LayerChange, *, several: bool) -> tuple[str | list[str], ...]:
    label = _arrow(_label(change.before), _label(change.after))
    cells = (
        label,
        change.kind,
        _shapes(change.before),
        _shapes(change.after),
        _arrow(f"{change.parameters_before:,}", f"{change.parameters_after:,}"),
        "" if change.change is None else "0" if change.change == 0 else f"{change.change:.2g}",
    )
    parts = [str(layers[0].segment) if layers else "–" for layers in (change.before, change.after)]
    return (_arrow(*parts), *cells) if several else cells


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _label(layers: Sequence[LayerSummary]) -> str:
    return ", ".join("output" if layer.hidden is None else str(layer.hidden) for layer in layers) or "–"


def _shapes(layers: Sequence[LayerSummary]) -> list[str]:
    """A line for each layer: its shape and its activation."""
    return [f"{layer.inputs} × {layer.units} {layer.activation}" for layer in layers] or ["–"]


def _growth(before: int | None, after: int) -> str:
    return "" if not before or before == after else f" ({100 * (after - before) / before:+.1f} %)"


def _outputs(compared: OutputComparison, where: str) -> None:
    """Print how far each output moved, and which could not be compared."""
    out.print()
    if compared.outputs:
        rows = [
            (
                output.name,
                f"{output.rows:,}",
                _share(output.relative_maximum),
                _share(output.relative_mean),
                "–" if output.agreement is None else f"{100 * output.agreement:.2f} %",
            )
            for output in compared.outputs
        ]
        columns = (f"on {where}", "rows", "max |Δ|", "mean |Δ|", "agreement")
        table(columns, rows, right=columns[1:], fold=columns[:1])
    for note in compared.notes:
        out.print(f"[yellow]{escape(note)}[/]", soft_wrap=True)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2e}"


def _data(data: DataComparison) -> None:
    out.print()
    before, after = data.before, data.after
    rows = [
        (before.metric, f"{before.accuracy:.4f}", f"{after.accuracy:.4f}", f"{after.accuracy - before.accuracy:+.4f}"),
        ("loss", f"{before.loss:.4f}", f"{after.loss:.4f}", f"{after.loss - before.loss:+.4f}"),
    ]
    columns = (f"{data.data}, {data.split} rows", "before", "after", "change")
    table(columns, rows, right=columns[1:])
    _outputs(data.outputs, f"{data.data}, {data.split} rows")
