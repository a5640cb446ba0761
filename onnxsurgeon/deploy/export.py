"""A model's training loop as a folder of files for any ONNX Runtime: trained anywhere, without this package."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxsurgeon.data.dataset import Dataset
from onnxsurgeon.data.heads import class_names, imitation_tasks
from onnxsurgeon.data.inputs import model_inputs
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.prepare import require_targets
from onnxsurgeon.data.teacher import TeacherModel
from onnxsurgeon.deploy import names, state_file
from onnxsurgeon.deploy.description import describe
from onnxsurgeon.deploy.evaluate_graph import evaluate_graph
from onnxsurgeon.deploy.freezing import frozen_names, trained_part
from onnxsurgeon.deploy.layouts import layouts
from onnxsurgeon.deploy.operators import Operators, operators_of
from onnxsurgeon.deploy.plan import Plan, RowInput
from onnxsurgeon.deploy.predict_graph import features_graph, predict_graph
from onnxsurgeon.deploy.start import rows_of, tasks_of
from onnxsurgeon.deploy.teacher_graph import imitating_tasks, teacher_graph
from onnxsurgeon.deploy.train_graph import train_graph
from onnxsurgeon.errors import ModelError, SettingsError
from onnxsurgeon.graph.files import write_bytes
from onnxsurgeon.graph.files.atomic import temporary_beside
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line
from onnxsurgeon.task import Task
from onnxsurgeon.training.resident import numbered
from onnxsurgeon.training.settings import TrainingSettings

_ALL = (
    names.TRAIN,
    names.STEP,
    names.EVALUATE,
    names.PREDICT,
    names.FEATURES,
    names.TEACHER,
    names.STATE,
    names.DESCRIPTION,
)


@dataclass(frozen=True)
class Exported:
    """A trainer that was written.

    Attributes:
        folder: the folder.
        description: the content of trainer.json.
        operators: for each file, its demands on a runtime.
        remarks: sentences that the user should read.
    """

    folder: Path
    description: Mapping[str, Any]
    operators: Mapping[str, Operators]
    remarks: tuple[str, ...]


def export_trainer(
    network: Network,
    folder: str | os.PathLike[str],
    *,
    dataset: Dataset | None = None,
    options: InputOptions | None = None,
    settings: TrainingSettings | None = None,
    batch_size: int = 16,
    fixed_batch: bool = False,
    labels: int | None = None,
    freeze: Sequence[str] = (),
    rows: str = "",
    report_loss: bool = True,
    step: bool = False,
    teacher: TeacherModel | None = None,
    temperature: float = 1.0,
    file: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write the training loop of ``network`` to ``folder``, complete or not at all.

    Args:
        network: the model.
        folder: the folder to be made.
        dataset: its training rows decide the losses, a regression's units, and how rows are stored; None: only the
            model and ``options`` do.
        options: the loss, and how rows become the model's input.
        settings: optimizer, learning rate and schedule.
        batch_size: rows in a batch.
        fixed_batch: whether the files take no other number.
        labels: number of labels of a row for each head, where the model does not tell.
        freeze: hidden layers by number, nodes or parameters by name, that are not trained.
        rows: type of the rows as they are given, "uint8" for pixels; "": the model's own, or the data set's.
        report_loss: whether each step's loss is an output.
        step: whether to write step.onnx too.
        teacher: a model with the same inputs, whose outputs are the targets.
        temperature: softens a teacher's classes; 1 leaves them as they are.
        file: the file from which the network was read: trainer.json then says how it holds each weight, so that runners
            can write trained weights there.
        overwrite: whether files of an older trainer there may be replaced.

    Raises:
        DataError: the rows do not fit the network.
        EngineError: the network cannot be trained.
        ModelError: it cannot be written.
        SettingsError: an option makes no sense, or more has to be said.
    """
    settings, options = settings or TrainingSettings(), options or InputOptions()
    folder = Path(folder)
    _require_free(folder, overwrite=overwrite)
    settings.check(10**9)
    if batch_size < 1:
        raise SettingsError(f"batch: {batch_size} is no number of rows", "senseless-value")
    if not 0 < temperature < math.inf:
        raise SettingsError(f"temperature: {temperature} is no positive number", "senseless-value")
    if temperature != 1 and teacher is None:
        raise SettingsError("temperature: there is no teacher whose classes it could soften", "trainer-tells")
    frozen = frozen_names(network, freeze)
    plan = _trained_part(_plan(network, dataset, options, labels, rows, teacher, temperature), frozen)
    plan = replace(
        plan,
        settings=settings,
        batch_size=batch_size,
        is_fixed=fixed_batch,
        frozen=frozen,
        report_loss=report_loss,
        layouts={} if file is None else layouts(network, file),
    )
    _require_names(plan)
    predict, remarks = predict_graph(plan)
    if (settings.dropout or settings.input_dropout) and not plan.has_masks:
        remarks = [*remarks, f"dropout: nothing of '{network.name}' is left out: it has no hidden layer of two axes"]
    models = {names.TRAIN: train_graph(plan), names.EVALUATE: evaluate_graph(plan), names.PREDICT: predict}
    if step:
        models[names.STEP] = train_graph(plan, single=True)
    if plan.has_features:
        models[names.FEATURES], more = features_graph(plan)
        remarks = [*remarks, *more]
    if teacher is not None:
        models[names.TEACHER], more = teacher_graph(network, teacher, plan.tasks, plan.inputs)
        remarks = [*remarks, *more]
    operators = {name: operators_of(model) for name, model in models.items()}
    contents = {name: _bytes(model, folder / name) for name, model in models.items()}
    contents[names.STATE] = state_file.to_bytes(initial_state(plan))
    description = describe(plan, predict, {name: len(content) for name, content in contents.items()}, operators)
    text = json.dumps(description, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    contents[names.DESCRIPTION] = text.encode()
    _write(folder, contents, overwrite=overwrite)
    return Exported(folder, description, operators, tuple(remarks))


def initial_state(plan: Plan) -> dict[str, Array]:
    """The state before the first step: the file's weights, moments of zeros, 0 steps."""
    dtype = plan.network.dtype
    state = {names.parameter(each.name): np.ascontiguousarray(each.values, dtype) for each in plan.trained}
    for number in range(plan.optimizer.moments):
        state |= {names.moment(number, each.name): np.zeros(each.shape, dtype) for each in plan.trained}
    return {**state, names.STEPS: np.array(0, np.int32)}


def _plan(
    network: Network,
    dataset: Dataset | None,
    options: InputOptions,
    labels: int | None,
    rows: str,
    teacher: TeacherModel | None,
    temperature: float,
) -> Plan:
    """Plan what is trained, and by which rows."""
    if dataset is None:
        if teacher is None:
            tasks = tasks_of(network, options.loss, labels)
        else:
            tasks = imitating_tasks(network, teacher, options.loss, labels, temperature)
        inputs, own, has_features = rows_of(network, rows, options.scale, options.mean, options.std)
        return Plan(network, network, tasks, inputs, own, has_features=has_features)
    if rows:
        raise SettingsError("rows: with --data, rows are taken as the data set stores them", "trainer-tells")
    if teacher is None:
        tasks = require_targets(network, dataset, dataset.train, options)
    else:
        taught = teacher.outputs(network, dataset, dataset.train, options)
        tasks = imitation_tasks(network, taught.outputs, options.loss, temperature, taught.squashes)
    _require_plain(tasks)
    inputs, own, has_features = rows_of(network)
    stored = {
        name: RowInput(name, _stored_type(each.source.dtype, each.dtype), each.shape[1:], each.scale, each.offset, name)
        for name, each in model_inputs(network, dataset, dataset.train, options).items()
    }
    inputs = tuple(stored[each.name] for each in inputs)
    if not has_features:
        own = tuple(replace(stored[each.source], name=each.name) for each in own)
    names_of_classes = tuple(class_names(network, dataset))
    return Plan(network, network, tasks, inputs, own, has_features=has_features, classes=names_of_classes)


def _trained_part(plan: Plan, frozen: frozenset[str]) -> Plan:
    """The plan that leaves to features.onnx whatever no trained parameter leads to."""
    part = trained_part(plan.network, frozen)
    if part is plan.network:
        return plan
    features = part.frame.trunk.features
    made = zip(numbered(names.ROWS, len(features)), features.values(), strict=True)
    rows = tuple(RowInput(name, part.dtype, shape) for name, shape in made)
    return replace(plan, network=part, rows=rows, has_features=True)


def _stored_type(source: np.dtype[Any], used: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which rows are given: bytes stay bytes, all else comes as the model takes it."""
    return source if source in (np.dtype(np.uint8), np.dtype(np.int8)) else used


def _require_plain(tasks: Sequence[Task]) -> None:
    for task in tasks:
        if task.is_balanced:
            raise SettingsError("metric: evaluate.onnx has no balanced accuracy; leave it out", "trainer-tells")


def _require_names(plan: Plan) -> None:
    """Raise ModelError where two parameters bear one name, since a state could not tell them apart."""
    seen: set[str] = set()
    for each in plan.parameters:
        if each.name in seen:
            raise ModelError(f"'{plan.network.name}': two of its parameters are called '{each.name}'", "damaged-model")
        seen.add(each.name)


def _bytes(model: onnx.ModelProto, path: Path) -> bytes:
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except Exception as error:  # protobuf's own errors share no base
        raise ModelError(f"{path}: cannot be written: {first_line(error)}", "cannot-write") from error


def _require_free(folder: Path, *, overwrite: bool) -> None:
    if not folder.parent.is_dir():
        raise ModelError(f"{folder}: no such folder: {folder.parent}", "no-folder")
    if folder.exists() and not folder.is_dir():
        raise ModelError(f"{folder}: exists already, and is no folder", "exists")
    if folder.is_dir() and list(folder.iterdir()) and not overwrite:
        raise ModelError(
            f"{folder}: exists already, and is not empty; --force overwrites a trainer's files there", "exists"
        )


def _write(folder: Path, contents: Mapping[str, bytes], *, overwrite: bool) -> None:
    """Write the files to a folder beside, which then takes the place; into an existing folder, one after the other."""
    if folder.is_dir():
        for name, content in contents.items():
            write_bytes(folder / name, content, overwrite=True, error=ModelError)
        for name in set(_ALL) - set(contents):
            (folder / name).unlink(missing_ok=True)
        return
    temporary = temporary_beside(folder)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, content in contents.items():
            write_bytes(temporary / name, content, error=ModelError)
        temporary.replace(folder)
    except OSError as error:
        raise ModelError(f"{folder}: cannot be written: {error.strerror or error}", "cannot-write") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
