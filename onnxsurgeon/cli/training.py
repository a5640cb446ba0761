"""Commands that train or measure one model as it is: train, evaluate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxsurgeon.choices import RUN, TRAINING
from onnxsurgeon.cli.field_options import pop_fields, with_fields
from onnxsurgeon.cli.help import CONTEXT, Command
from onnxsurgeon.cli.interrupt import interruptible
from onnxsurgeon.cli.options import (
    DataOption,
    DeviceOption,
    EngineOption,
    ForceOption,
    FreezeOption,
    JsonOption,
    ModelArgument,
    OutOption,
    ReadingOptions,
    SeedOption,
    SplitOption,
    TeacherOption,
    TrainOnlyOption,
    with_help_all,
    with_settings_file,
    with_trust,
)
from onnxsurgeon.training.settings import TrainingSettings


def register(app: typer.Typer) -> None:
    """Add these commands to ``app``."""
    app.command(
        cls=Command,
        context_settings=CONTEXT,
        epilog="Example: onnxsurgeon train model.onnx --data fashion-mnist --epochs 5 -o trained.onnx",
    )(train)
    app.command(
        cls=Command,
        context_settings=CONTEXT,
        epilog="Example: onnxsurgeon evaluate best.onnx --data fashion-mnist --json",
    )(evaluate)


@interruptible
@with_help_all
@with_settings_file
@with_trust
@with_fields(TrainingSettings)
@with_fields(ReadingOptions)
def train(
    model: ModelArgument,
    data: DataOption,
    out: OutOption,
    epochs: Annotated[
        int, typer.Option(min=1, help="Passes over the training split.", metavar="N", rich_help_panel=RUN)
    ] = 10,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Rows in a batch.", metavar="N", rich_help_panel=TRAINING)
    ] = 16,
    freeze: FreezeOption = None,
    train_only: TrainOnlyOption = None,
    engine: EngineOption = "auto",
    device: DeviceOption = "cpu",
    seed: SeedOption = 0,
    force: ForceOption = False,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Train a model's dense layers on the whole training split; nothing is operated on."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.data.told import data_notes
    from onnxsurgeon.graph.writer import save
    from onnxsurgeon.training.fit import fit

    reading, how = pop_fields(ReadingOptions, settings), pop_fields(TrainingSettings, settings)
    options = reading.inputs
    how.check(epochs)
    network, dataset, chosen = _prepare(
        model, data, reading, engine, device, out, force=force, optimizer=how, layers=(freeze or (), train_only or ())
    )
    console.remarks(data_notes(network, dataset, options), as_json=as_json)

    def report(epoch: int, loss: float) -> None:
        if not as_json:
            console.out.print(f"epoch {epoch:>3}  training loss {loss:.4f}")

    trained, test = fit(
        network,
        dataset,
        chosen,
        options,
        epochs=epochs,
        settings=how,
        batch_size=batch_size,
        seed=seed,
        report=report,
    )
    console.remarks(save(trained.network, out, overwrite=force), as_json=as_json)
    if as_json:
        console.print_json({"epochs": epochs, "training_loss": trained.mean_loss, "test": test.record()})
        return
    console.rounding_note(trained.rounding)
    console.out.print(
        f"test {test.metric} {test.accuracy:.4f}, loss {test.loss:.4f}; written to {out}", markup=False, soft_wrap=True
    )
    console.heads(test.heads)


@interruptible
@with_settings_file
@with_trust
@with_fields(ReadingOptions)
def evaluate(
    model: ModelArgument,
    data: DataOption,
    split: SplitOption = "test",
    teacher: TeacherOption = None,
    engine: EngineOption = "auto",
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Measure a model's accuracy and loss on a split of a data set; against a teacher, its agreement or fidelity."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.data.told import data_notes
    from onnxsurgeon.operating.evaluate import measured, require_split
    from onnxsurgeon.surgeon.misread import reading_note

    require_split(split)
    reading = pop_fields(ReadingOptions, settings)
    options = reading.inputs
    network, dataset, chosen = _prepare(model, data, reading, engine, device)
    metrics, told = measured(network, dataset, split, options, chosen, teacher), list[str]()
    if teacher is None:
        told += data_notes(network, dataset, options)
        told += reading_note(network, chosen, dataset, options)
    else:
        told += dataset.remarks
    record = {**metrics.record(), "parameters": network.parameter_count}
    if as_json:
        console.print_json(record)
    else:
        shown = {name: _cell(value) for name, value in record.items() if name != "heads"}
        console.table(tuple(shown), [list(shown.values())])
        console.heads(metrics.heads)
    console.remarks(told, as_json=as_json)


def _cell(value: object) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"


def _prepare(
    model: Path,
    data: str,
    reading: ReadingOptions,
    engine: str,
    device: str,
    out: Path | None = None,
    *,
    force: bool = False,
    optimizer: TrainingSettings | None = None,
    layers: tuple[Sequence[str], Sequence[str]] = ((), ()),
) -> tuple[Any, Any, Any]:
    """Network, data set and engine; a result that could not be written is refused now.

    ``layers`` are those that are frozen, and those that alone are trained.
    """
    from onnxsurgeon.graph.files import require_writable
    from onnxsurgeon.graph.opening import open_model
    from onnxsurgeon.training.choose import make_engine

    if out is not None:
        require_writable(out, overwrite=force)
    freeze, train_only = layers
    network = open_model(model, freeze=freeze, train_only=train_only).network
    chosen = make_engine(engine, device, network, optimizer)
    return network, reading.load(data, network), chosen
