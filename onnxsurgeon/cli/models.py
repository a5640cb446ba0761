"""Commands that make a model, or look at one: new, head, inspect."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxsurgeon.choices import BY_GRADIENTS, DATA, RUN
from onnxsurgeon.cli.field_options import one_of, pop_fields, with_fields
from onnxsurgeon.cli.help import CONTEXT, Command
from onnxsurgeon.cli.interrupt import interruptible
from onnxsurgeon.cli.new import new
from onnxsurgeon.cli.options import (
    ForceOption,
    JsonOption,
    ModelArgument,
    OutOption,
    ReadingOptions,
    SeedOption,
    data_names,
    units,
    with_settings_file,
    with_trust,
)
from onnxsurgeon.surgeon.settings import SurgeonSettings, preset_names

if TYPE_CHECKING:
    from onnxsurgeon.graph.network import Network
    from onnxsurgeon.recommend import Candidate, PruningReport


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command(
        cls=Command,
        context_settings=CONTEXT,
        epilog="Examples: onnxsurgeon new 784-300-100-10 -o start.onnx --input-shape 28x28x1; "
        "onnxsurgeon new 28x28x1-c16-p-c32-p-10 -o cnn.onnx; "
        "onnxsurgeon new --data flats.csv --target rent -o start.onnx",
    )(new)
    app.command(
        cls=Command,
        context_settings=CONTEXT,
        epilog="Examples: onnxsurgeon head backbone.onnx --classes cat,dog -o start.onnx; "
        "onnxsurgeon head classifier.onnx --classes 5 --hidden 0 -o start.onnx",
    )(head)
    app.command(
        cls=Command,
        context_settings=CONTEXT,
        epilog="Examples: onnxsurgeon inspect model.onnx; onnxsurgeon inspect model.onnx --data rows.npz",
    )(inspect)


@interruptible
@with_settings_file
@with_trust
def head(
    backbone: Annotated[Path, typer.Argument(help="A trained model.", metavar="BACKBONE")],
    classes: Annotated[
        str, typer.Option("--classes", help="How many classes, or their names: cat,dog.", metavar="N|NAMES")
    ],
    out: OutOption,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            help="The tensor that the head reads, or the node that writes it; by default what the old head's last "
            "layer reads, or the model's output.",
            metavar="TENSOR",
        ),
    ] = None,
    hidden: Annotated[
        str, typer.Option(help="Units of its hidden layer, or of several: 256-64; 0: none.", metavar="UNITS")
    ] = "128",
    pool: Annotated[
        str,
        typer.Option(help="How several positions become one vector: mean, first (token) or flatten; auto: mean."),
    ] = "auto",
    softmax: Annotated[bool, typer.Option(help="Put a Softmax after the logits.")] = True,
    freeze: Annotated[
        bool, typer.Option(help="Mark what is before the head as frozen: evolve and train leave it as it is.")
    ] = True,
    seed: SeedOption = 0,
    force: ForceOption = False,
) -> None:
    """Put a new head on a backbone, or in the place of an old head: for other classes than it was trained for."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.graph.attach import attach_head, read_classes
    from onnxsurgeon.graph.files import require_writable
    from onnxsurgeon.graph.writer import save

    require_writable(out, overwrite=force)
    made = attach_head(
        backbone,
        read_classes(classes),
        at=at,
        hidden=() if hidden == "0" else units(hidden, "hidden"),
        pool=pool,
        softmax=softmax,
        freeze=freeze,
        seed=seed,
    )
    told = save(made.network, out, overwrite=force)
    console.remarks((*made.notes, *told))
    console.out.print(f"{out}: {console.network_summary(made.network)}", markup=False, soft_wrap=True)


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
    from onnxsurgeon.cli import console
    from onnxsurgeon.cli.inspection import show_inspection
    from onnxsurgeon.graph.memory import peak_memory
    from onnxsurgeon.graph.reader import load
    from onnxsurgeon.recommend import inspect_layers, propose, ranked
    from onnxsurgeon.surgery import Narrow
    from onnxsurgeon.surgery.proof import prove_group

    reading = pop_fields(ReadingOptions, settings)
    chosen = SurgeonSettings.from_preset(preset)
    thresholds = chosen.thresholds
    network = load(model)
    reports = inspect_layers(network, thresholds)
    # Without gradients, units are split.
    mode = "split" if chosen.widen == BY_GRADIENTS else chosen.widen
    candidates = ranked(propose(network, thresholds, mode=mode))
    pruning = _pruning(network, data, reading, as_json=as_json) if data else None
    if pruning is not None:  # which judges better than singular values do
        candidates = [candidate for candidate in candidates if candidate.operation != Narrow.operation]
    proofs = [prove_group(network, i) for i in range(1, network.group_count + 1)] if prove else []
    if not as_json:
        show_inspection(network, reports, candidates, thresholds, pruning, proofs)
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
        "candidates": [_record(candidate) for candidate in candidates],
    }
    if pruning is not None:
        for layer, found in zip([*layers, *record["shared_widths"]], pruning, strict=True):
            layer["pruning_errors"] = None if found.errors is None else found.errors.tolist()
        record["by_data"] = [_record(found.candidate) for found in pruning if found.candidate is not None]
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
    """Every layer, those that are no hidden layers too; one whose weights are another's says whose."""
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


def _pruning(network: Network, data: str, reading: ReadingOptions, *, as_json: bool) -> list[PruningReport]:
    """What ``prune`` would lose, by the rows that ``operate`` would go by."""
    from onnxsurgeon.calibration.calibrate import calibrate
    from onnxsurgeon.cli import console
    from onnxsurgeon.data.told import data_notes
    from onnxsurgeon.operating.perform import draw_sample
    from onnxsurgeon.recommend import inspect_pruning

    dataset = reading.load(data, network)
    examples = draw_sample(network, dataset, reading.inputs).calibration
    console.remarks(data_notes(network, dataset, reading.inputs), as_json=as_json)
    return inspect_pruning(network, calibrate(network, examples))


def _record(candidate: Candidate) -> dict[str, Any]:
    return {
        "surgery": str(candidate),
        "score": candidate.score,
        "parameters": candidate.parameters,
        "reason": candidate.reason,
    }
