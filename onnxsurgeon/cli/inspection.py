"""What ``inspect`` shows of a network: layers, shared widths, singular values, and what is recommended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxsurgeon.cli.console import escape, network_summary, out, relative_error, table
from onnxsurgeon.cli.spectra import spectra

if TYPE_CHECKING:
    from onnxsurgeon.graph.activation import Activation
    from onnxsurgeon.graph.network import Network
    from onnxsurgeon.recommend import BlockReport, Candidate, LayerReport, PruningReport, Thresholds
    from onnxsurgeon.surgeon.start import Start
    from onnxsurgeon.surgery.proof import GroupProof

LONGEST_PREFIX = 16
MOST_ROWS = 300  # of recommendations, and of pictures of layers: thousands take longer to lay out than all else
SHARES = (0.75, 0.5, 0.25)  # of a layer's units left
WITHOUT_DATA = (
    "by the weights' singular values alone, for a network that is still to learn; for a trained network, prune by data "
    "is the better judge, and inspect --data shows what it would lose; evolve --data makes it smaller"
)
TRAINED = (
    "the network counts as trained: {reason}. evolve --data DATA makes it smaller (--shrink 2: half its parameters; "
    "--lose 0.5%: as far as that loses no more)"
)
UNTRAINED = "the network counts as untrained: {reason}. evolve --data DATA trains it, and finds it a topology"


def show_inspection(
    network: Network,
    reports: Sequence[LayerReport],
    candidates: Sequence[Candidate],
    thresholds: Thresholds,
    pruning: Sequence[PruningReport] | None = None,
    proofs: Sequence[GroupProof] = (),
    blocks: Sequence[BlockReport] = (),
    start: Start | None = None,
) -> None:
    """What ``inspect`` shows of a network.

    With ``pruning`` it is also what the data say; with ``proofs``, that groups are right; ``start`` is whether the
    network is trained, where that is known, and then ``candidates`` that make it larger come last.
    """
    from onnxsurgeon.graph.memory import liveness
    from onnxsurgeon.graph.untouched import untouched_note

    frame = network.frame
    kinds = ", ".join(dict.fromkeys(str(segment.file_dtype) for segment in network.segments))
    out.print(f"[bold]{escape(network.name)}[/]: {network_summary(network)}, {kinds}, opset {frame.opset}")
    out.print(
        f"prefix: {escape(_prefix([node.op_type for node in frame.prefix_nodes]))}; "
        f"suffix: {escape(', '.join(frame.suffix)) or 'none'}"
    )
    found = liveness(network)
    if found is not None and found.peak:
        out.print(f"memory: at most {found.peak:,} bytes of tensors at once for a row, at {escape(found.at)}")
    for note in (*frame.notes, *untouched_note(network)):
        out.print(f"[dim]note: {escape(note)}[/]")
    out.print()
    _layers(network, reports)
    if network.group_count > network.hidden_count:
        _shared_widths(network)
    if blocks:
        _blocks(blocks)
    if proofs:
        _proofs(network, proofs)
    if reports:
        spectra(out, reports[:MOST_ROWS], thresholds)
        if len(reports) > MOST_ROWS:
            out.print(f"[dim]… and those of {len(reports) - MOST_ROWS:,} more layers: --json has all[/]")
    if pruning:
        _pruning(pruning)
    is_trained = start is not None and start.is_trained
    if start is not None:
        out.print(f"[dim]{escape((TRAINED if is_trained else UNTRAINED).format(reason=start.reason))}[/]")
    by = "" if pruning is None else " by the weights' singular values"
    order = "those that make it larger last" if is_trained else "best first"
    out.print(f"\n[bold]Recommended[/]{by}, {order}:")
    if pruning is None and reports:
        out.print(f"[dim]{WITHOUT_DATA}[/]")
    proposals = [(str(c), f"{c.score:.3f}", f"{c.parameters:,}", c.reason) for c in candidates[:MOST_ROWS]]
    table(("surgery", "score", "parameters", "reason"), proposals, right=("score", "parameters"))
    if len(candidates) > MOST_ROWS:
        out.print(f"[dim]… and {len(candidates) - MOST_ROWS:,} more: --json shows all[/]")


def _shared_widths(network: Network) -> None:
    """Which layers write and read each width that several layers share, and what else has a value for each unit."""
    out.print("\n[bold]Widths that several layers share[/]: units come and go in all of them at once")
    rows = []
    for i in range(network.hidden_count + 1, network.group_count + 1):
        group = network.group(i)
        besides = [each.tensor for each in group.followers]
        besides += [network.segments[number].layers[0].names.node for number, _ in group.each]
        rows.append(
            (
                str(i),
                str(group.units),
                network.nodes_of(group.writers),
                network.nodes_of(group.readers),
                besides + [f"{group.normalised} (normalises)"] * bool(group.normalised),
            )
        )
    table(("layer", "units", "written by", "read by", "besides"), rows, fold=("written by", "read by", "besides"))


def _blocks(reports: Sequence[BlockReport]) -> None:
    """Residual blocks: what their branches hold, and what would be lost with each."""
    out.print("\n[bold]Residual blocks[/]: remove_block takes a branch out")
    has_errors = any(report.error is not None for report in reports)
    rows: list[list[str | list[str]]] = []
    for report in reports[:MOST_ROWS]:
        lost = [relative_error(report.error)] if has_errors else []
        rows.append(
            [str(report.block), report.node, list(report.layers), f"{report.parameters:,}", *lost, report.reason]
        )
    named = ("block", "sum", "branch", "params", *(["lost"] if has_errors else []), "note")
    table(named, rows, right=("params", "lost"), fold=("sum", "branch", "note"))
    if len(reports) > MOST_ROWS:
        out.print(f"[dim]… and {len(reports) - MOST_ROWS:,} more: --json shows all[/]")


def _proofs(network: Network, proofs: Sequence[GroupProof]) -> None:
    """How far the outputs move when units change places: in all that knows of them, and in the first layer alone."""
    out.print("\n[bold]Units permuted[/]: how far the outputs move, of their scale")
    rows = []
    for i, proof in enumerate(proofs, start=1):
        rows.append((str(i), str(network.group(i).ports), f"{proof.together:.1e}", f"{proof.alone:.1e}"))
    table(("layer", "ports", "everywhere at once", "in the first layer alone"), rows, right=("ports",))


def _layers(network: Network, reports: Sequence[LayerReport]) -> None:
    """All layers; where convolutions are among them, with what each lies like in space and what it costs."""
    several, in_space = len(network.segments) > 1, any(segment.is_convolution for segment in network.segments)
    rows: list[list[str | list[str]]] = []
    remaining, behind = iter(reports), _activations_behind(network)
    for number, segment in enumerate(network.segments, start=1):
        own = zip(segment.layers, network.same_as(number - 1), segment.multiplications(), strict=True)
        for position, (layer, first, count) in enumerate(own):
            is_own = number - 1 not in network.tied
            report = next(remaining) if is_own and position < segment.hidden_count else None
            what = "output" if report is None else str(report.layer)
            kind = "dense" if layer.geometry is None else str(layer.geometry)
            cells: list[str | list[str]] = [
                *([str(number)] if several else []),
                what if is_own else "",
                layer.names.node if first is None else [layer.names.node, f"weights of {first.names.node}"],
                f"{layer.channels} × {layer.units}",
                *([kind] if in_space else []),
                _activation(layer.activation if report is not None else behind.get(segment.output_name), report),
                f"{network.own_count(layer):,}",
                *(["?" if count is None else f"{count:,}"] if in_space else []),
                "" if report is None else f"{report.removable} of {report.units}",
            ]
            rows.append(cells)
    named = ["layer", "node", "shape", "activation", "params", "removable"]
    if in_space:
        named[3:3], named[-1:-1] = ["kernel"], ["MACs"]
    columns = ["part", *named] if several else named
    table(columns, rows, right=("params", "MACs", "removable"), fold=("node", "kernel", "activation"))


def _activation(found: Activation | None, report: LayerReport | None) -> str:
    """An activation's cell; a dash for an output that none follows."""
    if found is not None:
        return found.told
    return "–" if report is None else "linear"


def _activations_behind(network: Network) -> dict[str, Activation]:
    """The activations that are trained through, by the tensor that each reads; of several that read one, none."""
    found: dict[str, list[Activation]] = {}
    for step in network.frame.trunk.steps:
        if not isinstance(step, int) and step.op == "Activation":
            found.setdefault(step.inputs[0], []).append(step.attributes["activation"])
    return {tensor: each[0] for tensor, each in found.items() if len(each) == 1}


def _pruning(reports: Sequence[PruningReport]) -> None:
    """What ``prune`` would lose, and as much of it as is recommended."""
    from onnxsurgeon.recommend.pruning import MOST_LOST

    out.print("\n[bold]Recommended by the data[/], for a trained network:")
    rows = []
    for report in reports:
        errors = (relative_error(report.error_at(share)) for share in SHARES)
        found = report.candidate
        surgery, count = ("–", "") if found is None else (str(found), f"{found.parameters:,}")
        rows.append((str(report.layer), *errors, surgery, count, report.reason))
    shares = tuple(f"{share:.0%}" for share in SHARES)
    table(("layer", *shares, "surgery", "parameters", "reason"), rows, right=(*shares, "parameters"))
    out.print(
        f"[dim]predicted errors with {', '.join(shares)} of the units left, of the next layer's standard deviation; "
        f"recommended are the fewest units with at most {MOST_LOST:g}[/]"
    )


def _prefix(ops: Sequence[str]) -> str:
    """The prefix's operators in order; of many, the first and the last."""
    kept = [op for op in ops if op != "Constant"]
    if len(kept) > LONGEST_PREFIX:
        half = LONGEST_PREFIX // 2
        kept = [*kept[:half], f"… ({len(kept) - 2 * half} more)", *kept[-half:]]
    return " → ".join(kept) or "none"
