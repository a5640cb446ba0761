"""Commands that export a network to train it elsewhere, and import the result: export-trainer, import-state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onnxsurgeon.cli.field_options import pop_fields, with_fields
from onnxsurgeon.cli.interrupt import interruptible
from onnxsurgeon.cli.options import (
    ForceOption,
    JsonOption,
    ModelArgument,
    OutOption,
    ReadingOptions,
    TeacherOption,
    with_trust,
)
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.quantities import whole
from onnxsurgeon.training.settings import TrainingSettings

if TYPE_CHECKING:
    from onnxsurgeon.deploy.export import Exported


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command(
        name="export-trainer",
        epilog="Example: onnxsurgeon export-trainer model.onnx -o trainer --optimizer adamw --learning-rate 0.001",
    )(export_trainer)
    app.command(
        name="import-state", epilog="Example: onnxsurgeon import-state model.onnx state.safetensors -o trained.onnx"
    )(import_state)


@interruptible
@with_trust
@with_fields(TrainingSettings)
@with_fields(ReadingOptions, skip=("metric",))
def export_trainer(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to make.", metavar="FOLDER")],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            help="A data set whose labels tell the loss, a regression's units, and how rows are stored; nothing is "
            "trained on it.",
        ),
    ] = "",
    batch: Annotated[
        str, typer.Option("--batch", help="Rows in a batch: dynamic for any number, or a number for that one alone.")
    ] = "dynamic",
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in a batch that runners take by themselves.")] = 16,
    labels: Annotated[
        int | None,
        typer.Option("--labels", min=1, help="How many labels a row has, where the model's sizes do not tell."),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(
            "--freeze",
            help="A hidden layer's number, a node or a parameter that is not trained; can be given several times.",
            metavar="LAYER",
        ),
    ] = None,
    rows: Annotated[
        str, typer.Option("--rows", help="Type of the rows as they are given: uint8 for pixels, times --scale, 1/255.")
    ] = "",
    report_loss: Annotated[
        bool, typer.Option("--report-loss/--no-report-loss", help="Put out each step's mean loss.")
    ] = True,
    teacher: TeacherOption = None,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Softens the classes that a teacher tells; 1: as they are.")
    ] = 1.0,
    step: Annotated[bool, typer.Option("--step", help="Write step.onnx too: one step without a loop.")] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Write a model's training loop as files that any ONNX Runtime runs: in browsers, on phones, in apps."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.data.teacher import TeacherModel
    from onnxsurgeon.deploy.export import export_trainer as export
    from onnxsurgeon.graph.reader import load

    reading, how = pop_fields(ReadingOptions, settings), pop_fields(TrainingSettings, settings)
    size = _batch(batch)
    network = load(model)
    dataset = reading.load(data, network) if data else None
    found = export(
        network,
        out,
        dataset=dataset,
        options=reading.inputs,
        settings=how,
        batch_size=size or batch_size,
        fixed_batch=size is not None,
        labels=labels,
        freeze=tuple(freeze or ()),
        rows=rows,
        report_loss=report_loss,
        step=step,
        teacher=None if teacher is None else TeacherModel.read(teacher),
        temperature=temperature,
        file=model,
        overwrite=force,
    )
    if dataset is not None:
        console.remarks(dataset.remarks, as_json=as_json)
    if as_json:
        operators = {name: each._asdict() for name, each in found.operators.items()}
        console.print_json({**found.description, "asks": operators, "remarks": list(found.remarks)})
        return
    _show(found)


@interruptible
@with_trust
def import_state(
    model: ModelArgument,
    state: Annotated[Path, typer.Argument(help="Weights trained elsewhere.", metavar="STATE.safetensors")],
    out: OutOption,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put weights that were trained elsewhere into a model; its inputs and outputs stay."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.deploy import state_file
    from onnxsurgeon.deploy.importing import import_state as imported_from
    from onnxsurgeon.graph.files import require_writable
    from onnxsurgeon.graph.reader import load
    from onnxsurgeon.graph.writer import save

    require_writable(out, overwrite=force)
    imported = imported_from(load(model), state_file.read(state), source=str(state))
    console.remarks(save(imported.network, out, overwrite=force), as_json=as_json)
    if as_json:
        changed, kept = list(imported.changed), list(imported.kept)
        console.print_json({"changed": changed, "kept": kept, "rounding": imported.rounding})
        return
    console.rounding_note(imported.rounding)
    rest = f"; {len(imported.kept)} stay as they are" if imported.kept else ""
    told = f"{out}: {len(imported.changed)} parameters taken from {state}{rest}"
    console.out.print(told, markup=False, soft_wrap=True)


def _show(found: Exported) -> None:
    """Show the files and their sizes, the operators, and which builds of ONNX Runtime lack some of them."""
    from onnxsurgeon.cli import console

    files = found.description["files"]
    rows: list[list[str | list[str]]] = []
    for each in files.values():
        asked = found.operators.get(each["path"])
        opset, ir = ("", "") if asked is None else (str(asked.opset), str(asked.ir))
        rows.append([each["path"], f"{each['bytes']:,}", opset, ir])
    console.table(("file", "bytes", "opset", "IR"), rows, right=("bytes", "opset", "IR"))
    operators = sorted({name for each in found.operators.values() for name in each.names})
    sentences = [f"operators: {', '.join(operators)}"]
    for path, found_there in found.operators.items():
        for build, missing in found_there.lacking.items():
            if missing:
                sentences.append(f"{path}: {build} lacks {', '.join(missing)}")
    for sentence in (*sentences, *found.remarks):
        console.out.print(sentence, markup=False, soft_wrap=True)
    console.out.print(str(found.folder), markup=False, soft_wrap=True)


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    rows = whole(text)
    if rows:
        return rows
    raise SettingsError(f"batch: '{text}' is neither dynamic nor a number of rows", "senseless-value")
