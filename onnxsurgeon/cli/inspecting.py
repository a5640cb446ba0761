"""The command inspect: what is in a model, and what could be done to it."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxsurgeon.choices import BY_GRADIENTS, DATA, RUN
from onnxsurgeon.cli.field_options import one_of, pop_fields, with_fields
from onnxsurgeon.cli.help import CONTEXT, Command
from onnxsurgeon.cli.interrupt import interruptible
from onnxsurgeon.cli.options import (
    JsonOption,
    ModelArgument,
    ReadingOptions,
    data_names,
    with_trust,
)
from onnxsurgeon.surgeon.settings import SurgeonSettings, preset_names

if TYPE_CHECKING:
    from pathlib import Path

    from onnxsurgeon.calibration.moments import Moments
    from onnxsurgeon.graph.network import Network
    from onnxsurgeon.recommend import BlockReport, Candidate, PruningReport
    from onnxsurgeon.surgeon.start import Start


def register(app: typer.Typer) -> None:
    """Add this command to ``app``."""
    app.command(
        cls=Command,
        context_settings=CONTEXT,
        epilog="Examples: onnxsurgeon inspect model.onnx; onnxsurgeon inspect model.onnx --data rows.npz",
    )(inspect)


@interruptible
@with_trust
@with_fields(ReadingOptions)
def inspect(
    model: ModelArgument,
    preset: Annotated[
        str, typer.Option(rich_help_panel=RUN, **one_of("--preset", "Whose thresholds count.", preset_names()))
    ] = "default",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="DATA",
            autocompletion=data_names,
            rich_help_panel=DATA,
            help="Show what prune would lose on this data set, as for evaluate, by 4,096 training rows, and recommend "
            "it instead of narrow.",
        ),
    ] = "",
    prove: Annotated[
        bool,
        typer.Option(
            "--prove",
            help="Show that units belong together: change their places in all that knows of them, and run the model.",
        ),
    ] = False,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Show layers, shapes, parameters, singular values, and what would be recommended and why."""
    from onnxsurgeon.graph.importing import without_collecting

    atexit.register(gc.freeze)  # nor is the end of the process the time to search it
    with without_collecting():  # nearly all that is made is still alive at the end
        _inspect(model, preset, data, pop_fields(ReadingOptions, settings), prove=prove, as_json=as_json)


def _inspect(model: Path, preset: str, data: str, reading: ReadingOptions, *, prove: bool, as_json: bool) -> None:
    from onnxsurgeon.cli import console
    from onnxsurgeon.cli.inspection import show_inspection
    from onnxsurgeon.graph.memory import peak_memory
    from onnxsurgeon.graph.reader import load
    from onnxsurgeon.recommend import inspect_blocks, inspect_layers, inspect_pruning, propose, ranked
    from onnxsurgeon.surgery import Narrow
    from onnxsurgeon.surgery.proof import prove_group

    chosen = SurgeonSettings.from_preset(preset)
    thresholds = chosen.thresholds
    network = load(model)
    reports = inspect_layers(network, thresholds)
    # Without gradients, units are split.
    mode = "split" if chosen.widen == BY_GRADIENTS else chosen.widen
    candidates = ranked(propose(network, thresholds, mode=mode))
    moments, start = _by_rows(network, data, reading, chosen, as_json=as_json) if data else (None, None)
    pruning = None if moments is None else inspect_pruning(network, moments)
    blocks = inspect_blocks(network, moments)
    if pruning is not None:  # which judges better than singular values do
        candidates = [candidate for candidate in candidates if candidate.operation != Narrow.operation]
    if start is not None and start.is_trained:  # growth is for those that are still to learn
        candidates.sort(key=lambda candidate: candidate.parameters > network.parameter_count)
    proofs = [prove_group(network, i) for i in range(1, network.group_count + 1)] if prove else []
    if not as_json:
        show_inspection(network, reports, candidates, thresholds, pruning, proofs, blocks, start)
        return
    layers: list[dict[str, Any]] = [
        {
            "layer": report.layer,
            "inputs": report.inputs,
            "units": report.units,
            "activation": str(report.activation or "linear"),
            "parameters": report.parameters,
            "removable": report.removable,
            "singular_values": report.singular_values.tolist(),
        }
        for report in reports
    ]
    record: dict[str, Any] = {
        "topology": network.topology,
        "parameters": network.parameter_count,
        "multiplications": network.multiplications,
        "memory": peak_memory(network),
        "opset": network.frame.opset,
        "layers": _layers(network),
        "hidden_layers": layers,
        "shared_widths": [_shared(network, i) for i in range(network.hidden_count + 1, network.group_count + 1)],
        "blocks": [each.record() for each in blocks],
        "candidates": [_record(candidate) for candidate in candidates],
    }
    if pruning is not None:
        for layer, found in zip([*layers, *record["shared_widths"]], pruning, strict=True):
            layer["pruning_errors"] = None if found.errors is None else found.errors.tolist()
        if start is not None:
            record["start"] = asdict(start)
        record["by_data"] = [_record(found) for found in _by_data(pruning, blocks)]
    if prove:
        record["proofs"] = [proof._asdict() for proof in proofs]
    console.print_json(record)


def _shared(network: Network, i: int) -> dict[str, Any]:
    """A width that several layers share."""
    group = network.group(i)
    return {
        "layer": i,
        "units": group.units,
        "written_by": network.nodes_of(group.writers),
        "read_by": network.nodes_of(group.readers),
        "followers": [each.tensor for each in group.followers],
        "normalised_by": group.normalised,
    }


def _layers(network: Network) -> list[dict[str, Any]]:
    """Every layer, also those that are no hidden layers; a layer with another's weights says whose they are."""
    return [
        {
            "node": layer.names.node,
            "kind": "dense" if layer.geometry is None else "convolution",
            "channels": layer.channels,
            "units": layer.units,
            "parameters": network.own_count(layer),
            "multiplications": count,
            **({} if layer.geometry is None else asdict(layer.geometry)),
            **({} if first is None else {"weights_of": first.names.node}),
        }
        for number, segment in enumerate(network.segments)
        for layer, first, count in zip(segment.layers, network.same_as(number), segment.multiplications(), strict=True)
    ]


def _by_rows(
    network: Network, data: str, reading: ReadingOptions, settings: SurgeonSettings, *, as_json: bool
) -> tuple[Moments, Start | None]:
    """Moments of the rows that ``operate`` would go by; with labels, also whether the network is trained."""
    from onnxsurgeon.calibration.calibrate import calibrate
    from onnxsurgeon.cli import console
    from onnxsurgeon.data.told import data_notes
    from onnxsurgeon.operating.perform import draw_sample
    from onnxsurgeon.surgeon.misread import reading_note
    from onnxsurgeon.surgeon.start import start_of
    from onnxsurgeon.training.choose import make_engine

    dataset = reading.load(data, network)
    sample = draw_sample(network, dataset, reading.inputs)
    told, start = list(data_notes(network, dataset, reading.inputs)), None
    if dataset.is_labelled:
        engine = make_engine("loop")
        start = start_of(network, settings, engine, sample.calibration, sample.held_out)
        told += reading_note(network, engine, dataset, reading.inputs)
    console.remarks(told, as_json=as_json)
    return calibrate(network, sample.calibration), start


def _by_data(pruning: Sequence[PruningReport], blocks: Sequence[BlockReport]) -> list[Candidate]:
    found = [*(each.candidate for each in pruning), *(each.candidate for each in blocks)]
    return [candidate for candidate in found if candidate is not None]


def _record(candidate: Candidate) -> dict[str, Any]:
    return {
        "surgery": str(candidate),
        "score": candidate.score,
        "parameters": candidate.parameters,
        "reason": candidate.reason,
    }
