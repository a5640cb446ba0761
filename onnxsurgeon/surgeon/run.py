"""Starts and resumes runs: from a model, a data set and settings to a result."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_type_hints

from onnxsurgeon.data.given import DataSource, as_dataset
from onnxsurgeon.data.options import InputOptions, input_options
from onnxsurgeon.errors import RunError, SettingsError
from onnxsurgeon.graph.files import copy_model, require_writable
from onnxsurgeon.graph.opening import ModelSource, open_model
from onnxsurgeon.graph.reader import load
from onnxsurgeon.runs.branch import START, Branch, given_file, write_branch
from onnxsurgeon.runs.checkpoint import require_given, restored
from onnxsurgeon.runs.events import Finished
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.runs.resumption import find_checkpoint
from onnxsurgeon.runs.versions import differences, versions
from onnxsurgeon.surgeon.beginning import Splits, begin, make_surgeon, opening, search_for, split_rows
from onnxsurgeon.surgeon.callbacks import Callback, Callbacks
from onnxsurgeon.surgeon.clock import Clock
from onnxsurgeon.surgeon.ending import ended
from onnxsurgeon.surgeon.fields import require_choice
from onnxsurgeon.surgeon.own_settings import AUTO
from onnxsurgeon.surgeon.progress import TrainingProgress
from onnxsurgeon.surgeon.registry import SEARCHES
from onnxsurgeon.surgeon.result import Evolved
from onnxsurgeon.surgeon.search import Surgeon
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.surgeon.start import Start
from onnxsurgeon.surgeon.teaching import RecordedTeacher, Teaching
from onnxsurgeon.surgeon.workers import make_workers
from onnxsurgeon.tracking import make_tracking
from onnxsurgeon.training.choose import make_engine
from onnxsurgeon.typed import kind_of


def evolve(
    model: ModelSource,
    data: DataSource,
    *,
    settings: SurgeonSettings | Mapping[str, Any] | None = None,
    options: InputOptions | None = None,
    freeze: Sequence[str] = (),
    train_only: Sequence[str] = (),
    engine: str = "auto",
    device: str = "cpu",
    target: str | Sequence[str] = (),
    impute: str | None = None,
    validation_fraction: float | None = None,
    teacher: str | os.PathLike[str] | None = None,
    workers: int | str | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    callbacks: Callback | Iterable[Callback] = (),
    track: str | Sequence[str] = (),
    progress: Any = None,
    training_progress: TrainingProgress | None = None,
    clock: Clock | None = None,
) -> Evolved:
    """Evolve ``model`` on the data set ``data``.

    Args:
        model: an ONNX model: a path, bytes, an ``onnx.ModelProto`` or a ``Network``.
        data: name of a data set or path of the user's own, as for ``load_dataset``; or a ``Dataset``; a pair (X, y) of
            arrays; arrays by name, as in an .npz file; a pandas DataFrame, with ``target``. A run on rows in memory is
            resumed with the same rows, given again.
        settings: hyperparameters, or some of them by name; by default those of preset "default".
        options: how rows become the model's input.
        freeze: layers that are neither trained nor operated on, as ``inspect`` lists them: nodes' names, patterns such
            as "encoder.*", or numbers of hidden layers.
        train_only: the only layers that are trained; "*" for all, also those that the file marks as frozen.
        engine: "auto", "loop" or "artifacts".
        device: "cpu" or "cuda".
        target: columns of a table to predict, or the .npy file of labels; see ``load_dataset``.
        impute: what fills a table's missing values.
        validation_fraction: share of the training rows to choose by.
        teacher: path of an ONNX model whose outputs are imitated: alone where the rows have no labels, else beside
            these; see ``SurgeonSettings.teacher_weight``. Without labels and a teacher, the model's own outputs are.
        workers: branches trained side by side, a number, or a Dask cluster, "dask://HOST:PORT"; None: one for each
            processor. The result does not depend on it.
        run_dir: a folder to make; by default runs/MODEL-DATA-N with the next free N.
        data_dir: where the data set's files lie.
        out: where best.onnx is copied to.
        overwrite: whether ``out`` may exist.
        callbacks: a function, or several, called with every event; see ``onnxsurgeon.runs.events``. An error of one
            ends the run, which can be resumed; ``StopRun`` lets it finish at the next decision point.
        track: "tensorboard", "mlflow" or both: other tools to log to; see ``onnxsurgeon.tracking``.
        progress: see ``load_dataset``.
        training_progress: counts the steps while they are trained; to be read from another thread.
        clock: the clock of a time limit; by default it begins now, and no report follows.

    Raises:
        OnnxSurgeonError: an argument cannot be used; says why, before anything is written.
    """
    clock = clock or Clock(time.perf_counter())
    settings = _settings(settings)
    options = input_options(options)
    if out is not None:
        require_writable(Path(out), overwrite=overwrite)
    tracking = make_tracking(track, Path("runs") if run_dir is None else Path(run_dir).parent)
    told = Callbacks(callbacks, tracking)
    targets = (target,) if isinstance(target, str) else tuple(target)
    rows: dict[str, Any] = {"target": targets, "impute": impute, "validation_fraction": validation_fraction}
    layers = {"freeze": _texts(freeze, "freeze"), "train_only": _texts(train_only, "train_only")}
    opened = open_model(model, freeze=layers["freeze"], train_only=layers["train_only"])
    with make_workers(workers, training_progress) as pool, tracking:
        found = begin(opened.network, data, settings, options, engine, device, rows, teacher, data_dir, progress)
        network, chosen, splits, start = found.network, found.engine, found.splits, found.start
        taught_by, teaching = found.taught_by, found.teaching
        stem = f"{Path(opened.source).stem}-{Path(teaching.dataset.name).stem.replace(':', '-')}"

        def fill(run: RunDirectory) -> None:
            write_branch(Branch(0, None, START, network), run.branches)
            teaching.write(run.path)
            run.write_settings(
                {
                    "settings": settings.record(),
                    "engine": chosen.name,
                    "device": chosen.device,
                    "model": opened.record(),
                    **{name: given for name, given in layers.items() if given},
                    "teacher": taught_by and {"file": str(teacher), "sha256": taught_by.sha256},
                    "data": {
                        "name": teaching.dataset.name,
                        **({} if isinstance(data, str | os.PathLike) else {"in_memory": True}),
                        "folder": None if data_dir is None else str(data_dir),
                        "digest": teaching.dataset.digest,
                        **rows,
                        "options": asdict(options),
                    },
                    "start": asdict(start),
                    "tasks": [asdict(task) for task in splits.train.tasks],
                    "metric": splits.train.metric,
                    "versions": versions(),
                }
            )

        run = RunDirectory.create(None if run_dir is None else Path(run_dir), stem, fill)
        teaching.forget_training_rows()
        surgeon = make_surgeon(found.kind, run, settings, chosen, splits, pool, told, start, clock)
        return _finish(surgeon, splits, start, out, overwrite=overwrite)


def resume(
    run_dir: str | os.PathLike[str],
    *,
    data: DataSource | None = None,
    from_checkpoint: int | None = None,
    epochs: int | None = None,
    workers: int | str | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    callbacks: Callback | Iterable[Callback] = (),
    track: str | Sequence[str] = (),
    progress: Any = None,
    training_progress: TrainingProgress | None = None,
    clock: Clock | None = None,
) -> Evolved:
    """Continue the run in ``run_dir`` from its last checkpoint; it ends with the same best.onnx as if never stopped.

    ``from_checkpoint`` is the number of another line of its journal, a "started" or "decided", from which it goes on;
    with 0 it begins anew. The lines behind that one are given up. ``epochs`` makes the run longer than it was made for;
    the journal records that, so that it has this length when it is resumed once more. For a run whose rows were in
    memory, ``data`` are the same rows, as ``evolve`` takes them. The run does not remember whether it was tracked:
    ``track`` says so anew. The other arguments are those of ``evolve``.

    Raises:
        RunError: the folder is no run directory, its data set or a file has changed, or a line of its journal is
            damaged and no checkpoint is chosen; the text names the line. Nothing is changed then.
        OnnxSurgeonError: as ``evolve`` does.
    """
    if out is not None:
        require_writable(Path(out), overwrite=overwrite)
    run = RunDirectory.open(Path(run_dir))
    record = run.read_settings(get_type_hints(SurgeonSettings))
    last = find_checkpoint(run, from_checkpoint)
    try:
        settings = SurgeonSettings.from_record(record["settings"])
        require_choice(settings.search, (AUTO, *SEARCHES), "search")
        given, options = record["data"], InputOptions(**_tuples(record["data"]["options"]))
        folder = Path(given["folder"]) if given["folder"] else None
        engine, device, name, digest = record["engine"], record["device"], given["name"], given["digest"]
        taught = record.get("teacher")  # runs recorded before there were teachers lack it
        teacher = RecordedTeacher(str(taught["file"]), str(taught["sha256"])) if taught else None
        # Runs recorded before this entry existed count as untrained.
        start = Start(**record.get("start", {"is_trained": False, "reason": ""}))
        # Runs recorded before tables could be read lack these.
        rows: dict[str, Any] = {"target": tuple(given.get("target", ())), "impute": given.get("impute")}
        rows["validation_fraction"] = given.get("validation_fraction")
    except (KeyError, TypeError) as error:
        raise RunError(f"{run.settings_file}: lacks or misnames an entry: {error}", "settings-of-run") from error
    if data is None and given.get("in_memory"):
        raise RunError(
            f"{run.path}: its rows were in memory: give them again, from Python, as resume(run, data=…)", "other-data"
        )
    settings = replace(settings, epochs=last.run_epochs or settings.epochs)
    if epochs is not None:
        settings = _lengthened(settings, epochs)
    tracking = make_tracking(track, run.path.parent)
    told = Callbacks(callbacks, tracking)
    require_given(last.kept, run.branches)
    network = load(given_file(run.branches))
    chosen = make_engine(engine, device, network, settings)
    clock = clock or Clock(time.perf_counter())
    with make_workers(workers, training_progress) as pool, tracking:
        rows |= {"folder": folder, "progress": progress, "networks": (network,)}
        dataset = as_dataset(name if data is None else data, **rows)
        if dataset.digest != digest:
            raise RunError(
                f"{run.path}: data set '{name}' is not the one the run was started with; its contents differ",
                "other-data",
            )
        if last.event is not None:
            restored(last.event, run.branches)  # a state that cannot be restored is refused before anything is written
        teaching = Teaching(network, dataset, options, settings, chosen, teacher, run.path)
        del dataset  # it is the teaching's to free
        splits = split_rows(teaching)
        teaching.write(run.path)
        teaching.forget_training_rows()
        kind = search_for(network, settings, chosen, splits, start)
        surgeon = make_surgeon(kind, run, settings, chosen, splits, pool, told, start, clock)
        surgeon.from_checkpoint, surgeon.is_extended = from_checkpoint, epochs is not None
        surgeon.require_fit(last)
        changed = differences(versions(), record.get("versions", {}))
        return _finish(surgeon, splits, start, out, overwrite=overwrite, other_versions=changed)


def _lengthened(settings: SurgeonSettings, epochs: int) -> SurgeonSettings:
    """The settings of a run of ``epochs`` epochs.

    Raises:
        SettingsError: it would be no longer than it is.
    """
    if epochs <= settings.epochs:
        raise SettingsError(
            f"epochs: {epochs}: the run has {settings.epochs}; with --resume, expected more than these", "longer-only"
        )
    return replace(settings, epochs=epochs)


def _finish(
    surgeon: Surgeon,
    splits: Splits,
    start: Start,
    out: str | os.PathLike[str] | None,
    *,
    overwrite: bool,
    other_versions: Sequence[str] = (),
) -> Evolved:
    with surgeon.run.exclusive():  # it ends after the last of the workers' jobs
        with surgeon.workers:
            surgeon.announce(opening(surgeon, splits, start, other_versions))
            state = surgeon.evolve()
        surgeon.context.forget_orders()
        evolved, predictions = ended(surgeon, state, splits.test(), splits.classes)
        if out is not None:
            told = copy_model(surgeon.run.best, out, overwrite=overwrite)
            evolved = replace(evolved, remarks=(*evolved.remarks, *told))
        surgeon.tell(Finished(event="finished", **evolved.record(), predictions=predictions))
    return evolved


def _settings(given: SurgeonSettings | Mapping[str, Any] | None) -> SurgeonSettings:
    """Make settings of some that are given by name.

    Raises:
        SettingsError: the argument is something else, or a name is no setting's.
    """
    if given is None or isinstance(given, Mapping):
        return SurgeonSettings.from_preset(**(given or {}))
    if not isinstance(given, SurgeonSettings):
        raise SettingsError(
            f"settings: expected SurgeonSettings, or a mapping of some of them; found {kind_of(given)}", "wrong-type"
        )
    return given


def _texts(given: Sequence[str], name: str) -> tuple[str, ...]:
    """Names, where one may come by itself.

    Raises:
        SettingsError: they are none.
    """
    texts = (given,) if isinstance(given, str) else tuple(given)
    for text in texts:
        if not isinstance(text, str):
            raise SettingsError(f"{name}: expected names of layers; found {kind_of(text)}", "wrong-type")
    return texts


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
