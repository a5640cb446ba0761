"""The command line: parse, call, print; no logic.

Commands import what they need when they run: ``onnxsurgeon --help`` must not wait for onnx and ONNX Runtime.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxsurgeon import __version__, console
from onnxsurgeon.cli_options import (
    DataDirOption,
    DataOption,
    DeviceOption,
    EngineOption,
    ForceOption,
    JsonOption,
    LayoutOption,
    MeanOption,
    ModelArgument,
    OutOption,
    ScaleOption,
    SeedOption,
    StdOption,
    numbers,
    shape,
    with_fields,
)
from onnxsurgeon.errors import OnnxSurgeonError, SettingsError
from onnxsurgeon.surgeon.settings import SurgeonSettings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
data_app = typer.Typer(no_args_is_help=True, help="List, describe and download the named data sets.")
app.add_typer(data_app, name="data")


def main() -> None:
    """Entry point: every error a user can cause is one line and exit code 2."""
    try:
        app()
    except OnnxSurgeonError as error:
        console.fail(str(error))
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Evolve a trained multilayer perceptron inside its ONNX file: smaller, faster or more accurate."""
    if version:
        console.out.print(f"onnxsurgeon {__version__}")
        raise typer.Exit


@app.command(epilog="Example: onnxsurgeon new 784-300-100-10 -o start.onnx --input-shape 28x28x1")
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
    from onnxsurgeon.graph.create import create, parse_sizes
    from onnxsurgeon.graph.reader import save

    rows = shape(input_shape) if input_shape else None
    network = create(
        parse_sizes(sizes), seed=seed, activation=activation, softmax=softmax, input_shape=rows, name=out.stem
    )
    save(network, out, overwrite=force)
    console.out.print(f"{out}: {console.network_summary(network)}", soft_wrap=True)


@app.command(epilog="Example: onnxsurgeon inspect model.onnx")
def inspect(model: ModelArgument, preset: str = "default", as_json: JsonOption = False) -> None:
    """Show layers, shapes, parameters, singular values, and what would be recommended and why."""
    from onnxsurgeon.graph.reader import load
    from onnxsurgeon.recommend import inspect_layers, propose, ranked

    settings = SurgeonSettings.from_preset(preset)
    network = load(model)
    reports = inspect_layers(network, settings.thresholds)
    candidates = ranked(propose(network, settings.thresholds, mode=settings.widen))
    if not as_json:
        console.inspection(network, reports, candidates)
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


@app.command(epilog="Example: onnxsurgeon operate model.onnx widen:1:8 merge:2 -o wider.onnx")
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
    from onnxsurgeon.graph.reader import load, save
    from onnxsurgeon.surgeon.schedule import generator
    from onnxsurgeon.surgery import operate as perform
    from onnxsurgeon.surgery import parse

    network, records = load(model), []
    for number, surgery in enumerate([parse(text, mode=widen) for text in surgeries]):
        network, record = perform(network, surgery, generator(seed, "operate", number), require_exact=exact)
        records.append(record)
    save(network, out, overwrite=force)
    if as_json:
        console.print_json({"topology": network.topology, "surgeries": [asdict(record) for record in records]})
        return
    console.operations(records)
    console.out.print(f"{out}: {console.network_summary(network)}", soft_wrap=True)


@app.command(epilog="Example: onnxsurgeon train model.onnx --data fashion-mnist --epochs 5 -o trained.onnx")
def train(
    model: ModelArgument,
    data: DataOption,
    out: OutOption,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training split.")] = 10,
    learning_rate: Annotated[float, typer.Option(help="Step size of the optimizer.")] = 0.005,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in a batch.")] = 16,
    engine: EngineOption = "auto",
    device: DeviceOption = "cpu",
    layout: LayoutOption = "hwc",
    scale: ScaleOption = None,
    mean: MeanOption = "",
    std: StdOption = "",
    data_dir: DataDirOption = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model's dense layers on the whole training split; nothing is operated on."""
    from onnxsurgeon.graph.reader import save
    from onnxsurgeon.training.fit import fit

    options = _input_options(layout, scale, mean, std)
    network, dataset, chosen = _prepare(model, data, data_dir, engine, device, out, force=force)

    def report(epoch: int, loss: float) -> None:
        if not as_json:
            console.out.print(f"epoch {epoch:>3}  training loss {loss:.4f}")

    trained, test = fit(
        network,
        dataset,
        chosen,
        options,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed,
        report=report,
    )
    save(trained.network, out, overwrite=force)
    if as_json:
        console.print_json({"epochs": epochs, "training_loss": trained.mean_loss, "test": asdict(test)})
        return
    console.out.print(f"test accuracy {test.accuracy:.4f}, loss {test.loss:.4f}; written to {out}", soft_wrap=True)


@app.command(epilog="Example: onnxsurgeon evaluate best.onnx --data fashion-mnist --json")
def evaluate(
    model: ModelArgument,
    data: DataOption,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    engine: EngineOption = "auto",
    device: DeviceOption = "cpu",
    layout: LayoutOption = "hwc",
    scale: ScaleOption = None,
    mean: MeanOption = "",
    std: StdOption = "",
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model's accuracy and loss on a split of a data set."""
    from onnxsurgeon.data.prepare import prepare

    options = _input_options(layout, scale, mean, std)
    network, dataset, chosen = _prepare(model, data, data_dir, engine, device)
    splits = {"test": lambda: dataset.test, "train": lambda: dataset.train, "validation": lambda: dataset.hold_out()[1]}
    if split not in splits:
        raise SettingsError(f"split: '{split}' is unknown: expected one of {', '.join(splits)}")
    metrics = chosen.evaluate(network, prepare(network, dataset, splits[split](), options))
    record = {**asdict(metrics), "parameters": network.parameter_count}
    if as_json:
        console.print_json(record)
        return
    console.table(tuple(record), [[f"{v:.4f}" if isinstance(v, float) else f"{v:,}" for v in record.values()]])


@app.command(
    epilog="Examples: onnxsurgeon evolve model.onnx --data cifar10 · onnxsurgeon evolve --resume runs/model-cifar10-1"
)
@with_fields(SurgeonSettings)
def evolve(
    model: Annotated[Path | None, typer.Argument(help="An ONNX model.", metavar="[MODEL]")] = None,
    data: Annotated[str, typer.Option("--data", help="A data set's name (see 'data list') or an .npz file.")] = "",
    resume: Annotated[Path | None, typer.Option("--resume", help="Continue this run.", metavar="RUN")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Copy best.onnx here.", metavar="FILE")] = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Folder to make; by default runs/MODEL-DATA-N, next free N.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Branches trained side by side; by default one a core.")
    ] = None,
    engine: EngineOption = "auto",
    device: DeviceOption = "cpu",
    layout: LayoutOption = "hwc",
    scale: ScaleOption = None,
    mean: MeanOption = "",
    std: StdOption = "",
    data_dir: DataDirOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Train and operate in turn: find a better topology for a model on a data set."""
    from onnxsurgeon.surgeon import run as runs

    printer = console.EventPrinter()
    common: dict[str, Any] = {
        "workers": workers,
        "out": out,
        "overwrite": force,
        "listener": printer.remember if as_json else printer,
        "progress": console.DownloadBar,
    }
    given = {name: value for name, value in settings.items() if value is not None}
    try:
        if resume is not None:
            if model is not None or data or given:
                raise SettingsError("--resume takes model, data and settings from the run: give none of them")
            evolved = runs.resume(resume, **common)
        else:
            if model is None or not data:
                raise SettingsError("evolve needs a MODEL and --data, or --resume RUN")
            evolved = runs.evolve(
                model,
                data,
                settings=SurgeonSettings.from_preset(**given),
                options=_input_options(layout, scale, mean, std),
                engine=engine,
                device=device,
                run_dir=run_dir,
                data_dir=data_dir,
                **common,
            )
    except KeyboardInterrupt:
        console.fail(f"interrupted; continue with: onnxsurgeon evolve --resume {printer.run}")
        sys.exit(130)
    if as_json:
        console.print_json(evolved.record())
    else:
        console.result(evolved, out)


@app.command(epilog="Example: onnxsurgeon view best.onnx")
def view(
    model: ModelArgument,
    port: Annotated[int | None, typer.Option(help="Port on this machine.")] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser window.")] = True,
) -> None:
    """Open a model in Netron, served on this machine only."""
    from onnxsurgeon.graph.files import read_model

    read_model(model)
    try:
        import netron
    except ImportError as error:
        raise SettingsError("view needs Netron: pip install 'onnxsurgeon[view]'") from error
    netron.start(str(model), address=("localhost", port) if port else None, browse=browser)
    netron.wait()


@data_app.command("list", epilog="Example: onnxsurgeon data list")
def data_list(as_json: JsonOption = False) -> None:
    """List the named data sets and whether their files are here."""
    from onnxsurgeon.data.catalogue import CATALOGUE
    from onnxsurgeon.data.load import describe, locate

    if as_json:
        console.print_json([describe(name) for name in CATALOGUE])
        return
    rows = []
    for name, source in CATALOGUE.items():
        place = "in the package" if not source.files else str(locate(name) or "not here")
        rows.append((name, f"{source.rows[0]:,} + {source.rows[1]:,}", "×".join(map(str, source.shape)), place))
    console.table(("name", "rows", "shape", "files"), rows, right=("rows",))


@data_app.command("info", epilog="Example: onnxsurgeon data info emnist")
def data_info(name: str, as_json: JsonOption = False) -> None:
    """Describe a data set: source, files, splits, where its files are looked for."""
    from onnxsurgeon.data.load import describe

    record = describe(name)
    if as_json:
        console.print_json(record)
        return
    console.table(
        ("", ""), [(key, ", ".join(map(str, v)) if isinstance(v, list) else str(v)) for key, v in record.items()]
    )


@data_app.command("fetch", epilog="Example: onnxsurgeon data fetch cifar10")
def data_fetch(name: str) -> None:
    """Download a data set from its official source into the cache, checksums verified."""
    from onnxsurgeon.data.load import fetch, locate, lookup

    key, source, _ = lookup(name)
    place = locate(key) or fetch(key, progress=console.DownloadBar)
    console.out.print(f"{key}: {place if source.files else 'in the package'}", soft_wrap=True)


def _input_options(layout: str, scale: float | None, mean: str, std: str) -> Any:
    from onnxsurgeon.data.prepare import InputOptions

    return InputOptions(layout, scale, numbers(mean, "mean"), numbers(std, "std"))


def _prepare(
    model: Path,
    data: str,
    data_dir: Path | None,
    engine: str,
    device: str,
    out: Path | None = None,
    *,
    force: bool = False,
) -> tuple[Any, Any, Any]:
    """Network, data set and engine; what cannot be written later is told now."""
    from onnxsurgeon.data.load import load_dataset
    from onnxsurgeon.graph.files import require_writable
    from onnxsurgeon.graph.reader import load
    from onnxsurgeon.training.engine import make_engine

    if out is not None:
        require_writable(out, overwrite=force)
    network = load(model)
    chosen = make_engine(engine, device, network)
    return network, load_dataset(data, folder=data_dir, progress=console.DownloadBar), chosen
