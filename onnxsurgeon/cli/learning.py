"""Commands on a model and a data set: train, evaluate, evolve."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxsurgeon.choices import OUTPUT, RUN, TRAINING
from onnxsurgeon.cli.help import CONTEXT, Command, Group
from onnxsurgeon.cli.interrupt import PATIENCE, SOON, Interrupts, interruptible
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
    TrackOption,
    TrainOnlyOption,
    taken,
    with_fields,
    with_help_all,
    with_renamed,
    with_settings_file,
    with_trust,
)
from onnxsurgeon.cli.streams import OutputError
from onnxsurgeon.errors import OnnxSurgeonError, SettingsError
from onnxsurgeon.surgeon.own_settings import OWN_SETTINGS
from onnxsurgeon.surgeon.renamed import RENAMED, renewed
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.training.settings import TrainingSettings

MISSED = 3  # exit code: there is a result, but not as it was asked for


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
    app.command(
        cls=Command,
        context_settings=CONTEXT,
        epilog="Examples: onnxsurgeon evolve m.onnx --data digits; onnxsurgeon evolve --resume RUN\n\n"
        "Exit codes: 0 well; 2 something given cannot be used; 3 the result misses what was asked for; 130 Ctrl-C; "
        "143 SIGTERM. Of [a|b], the first is the default, where none is named.",
    )(evolve)


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

    reading, how = taken(ReadingOptions, settings), taken(TrainingSettings, settings)
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
        console.print_json({"epochs": epochs, "training_loss": trained.mean_loss, "test": asdict(test)})
        return
    console.rounding_note(trained.rounding)
    console.out.print(
        f"test {test.metric} {test.accuracy:.4f}, loss {test.loss:.4f}; written to {out}", markup=False, soft_wrap=True
    )


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
    from onnxsurgeon.data.prepare import prepare
    from onnxsurgeon.data.teacher import TeacherModel
    from onnxsurgeon.data.told import data_notes
    from onnxsurgeon.training.teaching import imitating

    reading = taken(ReadingOptions, settings)
    options = reading.inputs
    network, dataset, chosen = _prepare(model, data, reading, engine, device)
    splits = {"test": lambda: dataset.test, "train": lambda: dataset.train, "validation": lambda: dataset.hold_out()[1]}
    if split not in splits:
        raise SettingsError(f"split: '{split}' is unknown: expected one of {', '.join(splits)}", "unknown-choice")
    if teacher is None:
        examples = prepare(network, dataset, splits[split](), options)
        told = data_notes(network, dataset, options)
    else:
        examples = imitating(network, dataset, splits[split](), options, teacher=TeacherModel.read(teacher))
        told = ()
    metrics = chosen.evaluate(network, examples)
    record = {**asdict(metrics), "parameters": network.parameter_count}
    if as_json:
        console.print_json(record)
    else:
        console.table(tuple(record), [[_cell(value) for value in record.values()]])
    console.remarks(told, as_json=as_json)


def _cell(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}"


@with_help_all
@with_settings_file
@with_trust
@with_fields(ReadingOptions)
def evolve(
    model: Annotated[Path | None, typer.Argument(help="An ONNX model.", metavar="MODEL")] = None,
    data: DataOption = "",
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Continue this run.", metavar="RUN", rich_help_panel=RUN)
    ] = None,
    from_checkpoint: Annotated[
        int | None,
        typer.Option(
            "--from-checkpoint",
            min=0,
            help="With --resume: go on from the checkpoint in this line of journal.jsonl; 0: begin anew.",
            metavar="LINE",
            rich_help_panel=Group(RUN, is_expert=True),
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Copy best.onnx here.", metavar="FILE", rich_help_panel=OUTPUT)
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            "--run-dir",
            help="Folder to make; by default runs/MODEL-DATA-N.",
            metavar="PATH",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            "--workers",
            help="Side by side, one a core; or dask://HOST:PORT.",
            metavar="N",
            rich_help_panel=RUN,
        ),
    ] = None,
    freeze: FreezeOption = None,
    train_only: TrainOnlyOption = None,
    teacher: TeacherOption = None,
    engine: EngineOption = "auto",
    device: DeviceOption = "cpu",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; write nothing.", rich_help_panel=RUN)
    ] = False,
    track: TrackOption = None,
    force: ForceOption = False,
    log_file: Annotated[
        Path | None,
        typer.Option(
            "--log-file",
            help="Append every event to this file.",
            metavar="FILE",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print the result's path and errors only.", rich_help_panel=OUTPUT),
    ] = False,
    as_json: JsonOption = False,
    **settings: Any,
) -> None:
    """Train and operate in turn: find a better topology for a model on a data set."""
    from onnxsurgeon.cli import console, live
    from onnxsurgeon.cli.log_file import logged_to
    from onnxsurgeon.surgeon import run as runs
    from onnxsurgeon.surgeon.clock import Clock
    from onnxsurgeon.surgeon.progress import TrainingProgress

    progress = TrainingProgress()
    watcher = live.watcher(progress, silent=as_json or quiet)
    # Until there is a run directory nothing is lost.
    interrupts = Interrupts(
        lambda: f"interrupted; {watcher.onward}", watcher.stopping, lambda: PATIENCE if watcher.run else SOON
    )
    if dry_run:
        held = {"freeze": freeze or (), "train_only": train_only or ()}
        _rehearse(model, data, settings, held, teacher, engine, device, workers, as_json=as_json, resume=resume)
        return
    common: dict[str, Any] = {
        "workers": workers,
        "out": out,
        "overwrite": force,
        "callbacks": watcher,
        "track": tuple(track or ()),
        "progress": None if quiet else console.DownloadBar,
        "training_progress": progress,
        "clock": Clock.of_process(),
    }
    reading = taken(ReadingOptions, settings)
    given = _given(settings, is_quiet=quiet)
    try:
        with logged_to(log_file), interrupts, watcher:
            if resume is not None:
                epochs = given.pop("epochs", None)
                if any((model, data, given, teacher, freeze, train_only, reading != ReadingOptions())):
                    raise SettingsError(
                        "--resume takes model, data and settings from the run: give none of them", "not-with-resume"
                    )
                watcher.run = str(resume) if resume.is_dir() else ""
                evolved = runs.resume(resume, from_checkpoint=from_checkpoint, epochs=epochs, **common)
            elif from_checkpoint is not None:
                raise SettingsError("from-checkpoint: is for a run that goes on: give --resume RUN", "incomplete")
            elif model is None or not data:
                raise SettingsError("evolve needs a MODEL and --data, or --resume RUN", "incomplete")
            else:
                evolved = runs.evolve(
                    model,
                    data,
                    settings=SurgeonSettings.from_preset(**given),
                    options=reading.inputs,
                    freeze=freeze or (),
                    train_only=train_only or (),
                    teacher=teacher,
                    engine=engine,
                    device=device,
                    run_dir=run_dir,
                    data_dir=reading.data_dir,
                    **reading.rows,
                    **common,
                )
            page = _write_report(evolved.run)
    except OutputError as error:
        raise OutputError(f"{error}; {watcher.onward}", error.kind) from error
    except KeyboardInterrupt:
        console.fail(f"interrupted; {watcher.onward}")
        if interrupts.is_disturbed:
            sys.stdout.flush()
            os._exit(interrupts.exit_code)
        sys.exit(interrupts.exit_code)
    if as_json:
        console.print_json(evolved.record())
    elif quiet:
        console.out.print(str(out or evolved.run / "best.onnx"), markup=False, soft_wrap=True)
    else:
        console.result(evolved, out, page)
    if evolved.shortfall:
        console.fail(f"{evolved.shortfall}: the result comes nearest")
        sys.exit(MISSED)


def _given(settings: dict[str, Any], *, is_quiet: bool = False) -> dict[str, Any]:
    """Those that were given, by the names that they have now; of other names it is said."""
    from onnxsurgeon.cli import console

    given, remarks = renewed({name: value for name, value in settings.items() if value is not None})
    if not is_quiet:
        console.remarks(remarks, as_json=True)
    return given


@interruptible
def _rehearse(
    model: Path | None,
    data: str,
    settings: dict[str, Any],
    held: dict[str, Any],
    teacher: Path | None,
    engine: str,
    device: str,
    workers: str | None,
    *,
    as_json: bool,
    resume: Path | None,
) -> None:
    """Say what ``evolve`` would do."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.cli.plan import plan
    from onnxsurgeon.surgeon.dry_run import dry_run

    if resume is not None:
        raise SettingsError(
            "dry-run: is for a run that begins: give MODEL and --data, and not --resume", "not-with-resume"
        )
    if model is None or not data:
        raise SettingsError("evolve needs a MODEL and --data, or --resume RUN", "incomplete")
    reading = taken(ReadingOptions, settings)
    given = _given(settings)
    found = dry_run(
        model,
        data,
        settings=SurgeonSettings.from_preset(**given),
        options=reading.inputs,
        teacher=teacher,
        engine=engine,
        device=device,
        workers=workers,
        data_dir=reading.data_dir,
        progress=console.DownloadBar,
        **held,
        **reading.rows,
    )
    if as_json:
        console.print_json(found.record())
    else:
        plan(found)


_EVOLVE = inspect.signature(evolve)


def renew() -> None:
    """Make the options of ``evolve`` anew, where a search was registered: it has settings of its own."""
    evolve.__signature__ = _EVOLVE  # type: ignore[attr-defined]
    evolve.__annotations__ = {name: each.annotation for name, each in _EVOLVE.parameters.items()}
    kinds = [kind for kind in OWN_SETTINGS.values() if not issubclass(SurgeonSettings, kind)]
    with_renamed(SurgeonSettings, RENAMED)(with_fields(SurgeonSettings, *kinds)(evolve))


renew()


def _write_report(run: Path) -> Path | None:
    """The page about a finished run; where it cannot be written, that is said, and the run's result stands."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.report import write_report

    try:
        return write_report(run)
    except OnnxSurgeonError as error:
        console.fail(f"no report was written: {error}", error.code)
        return None


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
    """Network, data set and engine; what cannot be written later is told now.

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
