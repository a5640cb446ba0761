"""The command that searches, and resumes a search: evolve."""

from __future__ import annotations

import gc
import inspect
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from onnxsurgeon.choices import OUTPUT, RUN
from onnxsurgeon.cli.field_options import pop_fields, with_fields, with_renamed
from onnxsurgeon.cli.help import CONTEXT, Command, Group
from onnxsurgeon.cli.interrupt import PATIENCE, SOON, Interrupts, interruptible
from onnxsurgeon.cli.options import (
    DataOption,
    DeviceOption,
    EngineOption,
    ForceOption,
    FreezeOption,
    JsonOption,
    ReadingOptions,
    TeacherOption,
    TrackOption,
    TrainOnlyOption,
    with_help_all,
    with_settings_file,
    with_trust,
)
from onnxsurgeon.cli.streams import OutputError
from onnxsurgeon.errors import OnnxSurgeonError, SettingsError
from onnxsurgeon.surgeon.own_settings import OWN_SETTINGS
from onnxsurgeon.surgeon.renamed import RENAMED, renewed
from onnxsurgeon.surgeon.settings import SurgeonSettings

MISSED = 3  # exit code: there is a result, but not all that was asked for


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command(
        cls=Command,
        context_settings=CONTEXT,
        epilog="Examples: onnxsurgeon evolve m.onnx --data digits; onnxsurgeon evolve --resume RUN\n\n"
        "Exit codes: 0 well; 2 something given cannot be used; 3 the result misses what was asked for; 130 Ctrl-C; "
        "143 SIGTERM. Of [a|b], the first is the default, where none is named.",
    )(evolve)


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
    from onnxsurgeon.cli.outcome import show_outcome
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
    reading = pop_fields(ReadingOptions, settings)
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
            gc.collect()  # rows that cyclic references hold, before what draws is imported
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
        show_outcome(evolved, out, page)
    if evolved.shortfall:
        console.fail(f"{evolved.shortfall}: the result comes nearest")
        sys.exit(MISSED)


def _given(settings: dict[str, Any], *, is_quiet: bool = False) -> dict[str, Any]:
    """The settings that were given, by their present names; a remark is printed for former names."""
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
    reading = pop_fields(ReadingOptions, settings)
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
    """Make the options of ``evolve`` anew after a search was registered, since it has settings of its own."""
    evolve.__signature__ = _EVOLVE  # type: ignore[attr-defined]
    evolve.__annotations__ = {name: each.annotation for name, each in _EVOLVE.parameters.items()}
    kinds = [kind for kind in OWN_SETTINGS.values() if not issubclass(SurgeonSettings, kind)]
    with_renamed(SurgeonSettings, RENAMED)(with_fields(SurgeonSettings, *kinds)(evolve))


renew()


def _write_report(run: Path) -> Path | None:
    """Write the page about a finished run; where that fails, a remark says so, and the run's result stands."""
    from onnxsurgeon.cli import console
    from onnxsurgeon.report import write_report

    try:
        return write_report(run)
    except OnnxSurgeonError as error:
        console.fail(f"no report was written: {error}", error.code)
        return None
