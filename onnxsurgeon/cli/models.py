"""Commands on a model alone: new, inspect, operate."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from onnxsurgeon.cli.options import ForceOption, JsonOption, ModelArgument, OutOption, SeedOption, shape
from onnxsurgeon.surgeon.settings import SurgeonSettings


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command(epilog="Example: onnxsurgeon new 784-300-100-10 -o start.onnx --input-shape 28x28x1")(new)
    app.command(epilog="Example: onnxsurgeon inspect model.onnx")(inspect)
    app.command(epilog="Example: onnxsurgeon operate model.onnx widen:1:8 merge:2 -o wider.onnx")(operate)


def new(
    sizes: Annotated[str, typer.Argument(help="Widths from input to output, such as 784-10-10.", metavar="SIZES")],
    out: OutOption,
    input_shape: Annotated[str, typer.Option(help="Shape of one input row, such as 28x28x1.")] = "",
    activation: Annotated[str, typer.Option(help="ONNX op of the hidden layers' activation.")] = "Relu",
    softmax: Annotated[bool, typer.Option(help="Put a Softmax after the logits.")] = True,
    seed: SeedOption = 0,
    force: ForceOption = False,
) -> None:
    """Write an untrained perceptron: Glorot uniform weights, zero biases."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.graph.create import create, parse_sizes
    from onnxsurgeon.graph.reader import save

    rows = shape(input_shape) if input_shape else None
    network = create(
        parse_sizes(sizes), seed=seed, activation=activation, softmax=softmax, input_shape=rows, name=out.stem
    )
    save(network, out, overwrite=force)
    console.out.print(f"{out}: {console.network_summary(network)}", markup=False, soft_wrap=True)


def inspect(model: ModelArgument, preset: str = "default", as_json: JsonOption = False) -> None:
    """Show layers, shapes, parameters, singular values, and what would be recommended and why."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.graph.reader import load
    from onnxsurgeon.recommend import inspect_layers, propose, ranked

    settings = SurgeonSettings.from_preset(preset)
    network = load(model)
    reports = inspect_layers(network, settings.thresholds)
    candidates = ranked(propose(network, settings.thresholds, mode=settings.widen))
    if not as_json:
        console.inspection(network, reports, candidates, settings.thresholds)
        return
    layers = [
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
    proposals = [
        {"surgery": str(c), "score": c.score, "parameters": c.parameters, "reason": c.reason} for c in candidates
    ]
    console.print_json(
        {
            "topology": network.topology,
            "parameters": network.parameter_count,
            "opset": network.frame.opset,
            "hidden_layers": layers,
            "candidates": proposals,
        }
    )


def operate(
    model: ModelArgument,
    surgeries: Annotated[
        list[str],
        typer.Argument(
            help="In order: widen:LAYER:UNITS (more), insert_identity:LAYER, narrow:LAYER:UNITS (left), "
            "factorize:LAYER:RANK, merge:LAYER; hidden layers are counted from 1.",
            metavar="SURGERY...",
        ),
    ],
    out: OutOption,
    widen: Annotated[str, typer.Option(help="How units are added: split, equal or fresh.")] = "split",
    exact: Annotated[bool, typer.Option("--exact", help="Refuse a surgery that would change the function.")] = False,
    seed: SeedOption = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Perform surgeries on a model, in order, and report how far its outputs moved."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.graph.reader import load, save
    from onnxsurgeon.surgery import operate as perform
    from onnxsurgeon.surgery import parse
    from onnxsurgeon.training.schedule import generator

    network, records = load(model), []
    for number, surgery in enumerate([parse(text, mode=widen) for text in surgeries]):
        network, record = perform(network, surgery, generator(seed, "operate", number), require_exact=exact)
        records.append(record)
    save(network, out, overwrite=force)
    if as_json:
        console.print_json({"topology": network.topology, "surgeries": [asdict(record) for record in records]})
        return
    console.operations(records)
    console.out.print(f"{out}: {console.network_summary(network)}", markup=False, soft_wrap=True)
