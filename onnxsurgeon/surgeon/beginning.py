"""The beginning of a run: its rows, whether the given network is trained, and the search that fits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.given import DataSource, as_dataset
from onnxsurgeon.data.heads import class_names, with_class_names
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.teacher import TeacherModel
from onnxsurgeon.data.told import data_notes
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.traces import traces_note, without_traces
from onnxsurgeon.graph.untouched import untouched_note
from onnxsurgeon.runs.events import Run, StartRecord
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.surgeon.algorithm1 import Algorithm1
from onnxsurgeon.surgeon.callbacks import Callbacks
from onnxsurgeon.surgeon.clock import Clock
from onnxsurgeon.surgeon.ensemble import require_ensemble
from onnxsurgeon.surgeon.fields import require_choice
from onnxsurgeon.surgeon.file_size import bytes_as_written
from onnxsurgeon.surgeon.grow_and_shrink import GrowAndShrink
from onnxsurgeon.surgeon.misread import require_reading
from onnxsurgeon.surgeon.own_settings import AUTO
from onnxsurgeon.surgeon.registry import SEARCHES
from onnxsurgeon.surgeon.remarks import little_evidence
from onnxsurgeon.surgeon.search import Surgeon
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.surgeon.shrink_trained import ShrinkTrained
from onnxsurgeon.surgeon.start import ITSELF, Start, grows, require_fast_enough, require_reachable, start_of
from onnxsurgeon.surgeon.teaching import Teaching
from onnxsurgeon.surgeon.workers import Workers
from onnxsurgeon.task import SQUARED
from onnxsurgeon.training.augmentation import require_images
from onnxsurgeon.training.choose import make_engine
from onnxsurgeon.training.engine import Engine

SEARCHED_BY = (Algorithm1, GrowAndShrink, ShrinkTrained)  # imported, and so registered


@dataclass(frozen=True, eq=False)
class Splits:
    """The rows of a run's data set; the test rows are prepared when they are needed.

    Attributes:
        train: rows to train on.
        validation: rows to choose by.
        is_held_out: whether these were held out of the training rows, and not given apart.
        given_rows: number of the training rows, the first ones, that were given; the others were made.
        test: makes the rows of the test split.
        notes: notes on the network.
        classes: names of each head's classes, () for a head that numbers them.
    """

    train: Examples
    validation: Examples
    is_held_out: bool
    given_rows: int
    test: Callable[[], Examples]
    notes: tuple[str, ...]
    classes: tuple[tuple[str, ...], ...]

    @property
    def given(self) -> Examples:
        """The training rows without those that were made."""
        return self.train.first(self.given_rows)


@dataclass(frozen=True, eq=False)
class Beginning:
    """Everything with which a run begins.

    Attributes:
        network: the given one.
        engine: trains and evaluates.
        taught_by: the teacher that was given.
        teaching: makes rows with their targets.
        splits: the rows of the run.
        start: whether the network is trained.
        kind: the search.
    """

    network: Network
    engine: Engine
    taught_by: TeacherModel | None
    teaching: Teaching
    splits: Splits
    start: Start
    kind: type[Surgeon]


def begin(
    network: Network,
    data: DataSource,
    settings: SurgeonSettings,
    options: InputOptions,
    engine: str,
    device: str,
    rows: dict[str, Any],
    teacher: str | os.PathLike[str] | None,
    data_dir: str | os.PathLike[str] | None,
    progress: Any,
) -> Beginning:
    """Read the data and choose the search; nothing is written.

    The arguments are those of ``evolve``; ``rows`` are target, impute and validation_fraction.

    Raises:
        OnnxSurgeonError: an argument cannot be used.
    """
    require_choice(settings.search, (AUTO, *SEARCHES), "search")
    network, traces = without_traces(network)
    taught_by = None if teacher is None else TeacherModel.read(teacher)
    require_ensemble(network, settings)
    require_reachable(network, settings)
    require_fast_enough(network, settings)
    chosen = make_engine(engine, device, network, settings)
    require_images(network, settings.augment, chosen.name)
    folder = None if data_dir is None else Path(data_dir)
    dataset = as_dataset(data, **rows, folder=folder, progress=progress, networks=(network,))
    teaching = Teaching(network, dataset, options, settings, chosen, taught_by)
    splits = split_rows(teaching)
    splits = replace(splits, notes=(*splits.notes, *traces_note(traces)))
    start = start_of(network, settings, chosen, splits.given, splits.validation)
    if settings.start == "auto" and not start.is_trained:
        require_reading(network, chosen, dataset, options)
    kind = search_for(network, settings, chosen, splits, start)
    require_reachable(network, settings, blocks=kind.removes_blocks)
    return Beginning(network, chosen, taught_by, teaching, splits, start, kind)


def search_for(
    network: Network, settings: SurgeonSettings, engine: Engine, splits: Splits, start: Start
) -> type[Surgeon]:
    """The search that is asked for, or the one that fits the wishes and the given network."""
    if settings.search != AUTO:
        return SEARCHES[settings.search]
    if not start.is_trained:
        return GrowAndShrink
    accuracy = engine.evaluate(network, splits.validation).accuracy
    return GrowAndShrink if grows(network, settings, accuracy, bytes_as_written(network)) else ShrinkTrained


def make_surgeon(
    kind: type[Surgeon],
    run: RunDirectory,
    settings: SurgeonSettings,
    engine: Engine,
    splits: Splits,
    workers: Workers,
    callbacks: Callbacks,
    start: Start,
    clock: Clock,
) -> Surgeon:
    """Make the search of that kind."""
    # Only a race can tell whether rows that were made unasked pay.
    all_rows = kind.races_made_rows or settings.more_rows is not None
    return kind(
        run,
        settings,
        engine,
        splits.train if all_rows else splits.given,
        splits.validation,
        workers,
        callbacks,
        splits.is_held_out,
        start.is_trained,
        splits.given_rows,
        clock,
    )


def split_rows(teaching: Teaching) -> Splits:
    """Make the rows of a run, each with its targets.

    Raises:
        DataError: they cannot be used.
    """
    network, dataset = teaching.network, teaching.dataset
    notes = (*network.frame.notes, *untouched_note(network), *data_notes(network, dataset, teaching.options))
    classes = class_names(with_class_names(network, teaching.options.classes), dataset)
    if teaching.settings.decide_by == "test":
        train, test = teaching.prepared("train", dataset.train), teaching.prepared("test", dataset.test)
        return Splits(train, test, False, dataset.train.rows, lambda: test, (*notes, *teaching.notes), classes)
    teaching.require_test_rows()
    rows, held_out = dataset.hold_out()
    train, validation = teaching.prepared("train", rows), teaching.prepared("validation", held_out)
    notes = (*notes, *_little_evidence(teaching.settings, validation, is_held_out=dataset.validation is None))
    return Splits(
        train,
        validation,
        dataset.validation is None,
        rows.rows,
        partial(teaching.prepared, "test", dataset.test),
        (*notes, *teaching.notes),
        classes,
    )


def _little_evidence(settings: SurgeonSettings, rows: Examples, *, is_held_out: bool) -> Iterator[str]:
    """Say it before a run where the rows that decide are too few for what is asked for."""
    found = little_evidence(settings, rows.rows, is_held_out)
    if found and settings.heeds_wishes and all(task.loss != SQUARED for task in rows.tasks):
        yield found


def opening(surgeon: Surgeon, splits: Splits, start: Start, other_versions: Sequence[str]) -> Run:
    """Make the event that begins the work of this process."""
    notes = list(splits.notes)
    if start.reason == ITSELF and surgeon.settings.has_no_wish:
        notes.append("nothing is asked for: the smallest network that has 0.99 of the given model is looked for")
    return Run(
        event="run",
        path=str(surgeon.run.path),
        settings=surgeon.settings.record(),
        rows=splits.given_rows,
        made_rows=surgeon.train.rows - splits.given_rows,
        batches_per_epoch=surgeon.batches_per_epoch,
        validation_rows=surgeon.validation.rows,
        validation=surgeon.settings.decide_by,
        engine=surgeon.engine.name,
        device=surgeon.engine.device,
        workers=surgeon.workers.count,
        cluster=surgeon.workers.cluster,
        classes=surgeon.train.classes,
        task=" and ".join(dict.fromkeys(task.kind for task in surgeon.train.tasks)),
        metric=surgeon.train.metric,
        start=StartRecord(is_trained=start.is_trained, reason=start.reason),
        notes=notes,
        other_versions=list(other_versions),
    )
