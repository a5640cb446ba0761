"""The targets of imitation: the heads of a teacher, which may be the network itself or a model in a file."""

from __future__ import annotations

import numpy as np

from onnxsurgeon.data.agreement import require_agreement
from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.heads import imitation_tasks
from onnxsurgeon.data.inputs import model_inputs
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.prepare import prepare_rows, require_plain_classes
from onnxsurgeon.data.soft import require_finite, space
from onnxsurgeon.data.teacher import Taught, TeacherModel
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import Task
from onnxsurgeon.training.engine import Engine

SAMPLE = 256  # rows on which the student's outputs are compared with its heads


def head_outputs(network: Network, examples: Examples, engine: Engine | None = None) -> tuple[Array, ...]:
    """The outputs of the heads of ``network`` before their squash, (rows, …, width) float32 each, for all examples.

    The examples may be without labels. Large outputs lie in a temporary file.

    Raises:
        DataError: an output is not finite.
        EngineError: the network cannot be evaluated here.
    """
    if engine is None:
        from onnxsurgeon.training.loop import LoopEngine

        engine = LoopEngine()
    found: list[Array] = []
    for rows, outputs in engine.outputs(network, examples):
        found = found or [space((examples.rows, *values.shape[1:]), np.dtype(np.float32)) for values in outputs]
        for head, whole, values in zip(network.heads, found, outputs, strict=True):
            require_finite(values, rows.start, f"'{network.name}': what its head '{head.tensor}' puts out")
            whole[rows] = values
    return tuple(found)


def taught_by(
    teacher: TeacherModel | None,
    network: Network,
    dataset: Dataset,
    split: Split,
    options: InputOptions,
    *,
    engine: Engine | None = None,
    examples: Examples | None = None,
    tasks: tuple[Task, ...] = (),
) -> Taught:
    """The teacher's outputs for the rows of ``split``, for each head of ``network``.

    Args:
        teacher: the model in a file; None: the network itself.
        network: the student.
        dataset: the data set of the rows.
        split: the rows.
        options: how rows become a model's input.
        engine: evaluates the network.
        examples: the rows as the network sees them, where they are prepared already.
        tasks: the tasks of the heads, where labels decide them.

    Raises:
        OnnxSurgeonError: the rows do not fit, or the outputs; see ``TeacherModel.outputs``.
    """
    if teacher is not None:
        return teacher.outputs(network, dataset, split, options, [task.loss for task in tasks])
    if examples is None:
        examples = prepare_rows(network, dataset, split, options)
    return Taught(head_outputs(network, examples, engine), tuple(head.squash for head in network.heads))


def imitating(
    network: Network,
    dataset: Dataset,
    split: Split,
    options: InputOptions | None = None,
    *,
    teacher: TeacherModel | None = None,
    engine: Engine | None = None,
    temperature: float = 1.0,
) -> Examples:
    """The rows of ``split`` with a teacher's outputs as the only measure, whether they have labels or not.

    Args:
        network: the student; without a teacher its own.
        dataset: the data set of the rows.
        split: the rows.
        options: how rows become the model's input; its loss decides how heads are imitated.
        teacher: the model in a file.
        engine: evaluates the network where it is its own teacher.
        temperature: softens cross-entropies.

    Raises:
        DataError: the rows do not fit the models, or the loss or the teacher's outputs not a head.
        ModelError: the student's outputs do not follow its heads.
        EngineError: the network cannot be evaluated here.
    """
    options = options or InputOptions()
    require_plain_classes(options)
    examples = prepare_rows(network, dataset, split, options)
    taught = taught_by(teacher, network, dataset, split, options, engine=engine, examples=examples)
    tasks = imitation_tasks(network, taught.outputs, options.loss, temperature, taught.squashes)
    if teacher is not None:
        require_student(network, dataset, split, options, tasks)
    return examples.imitating(taught.outputs, tasks)


def require_student(
    network: Network, dataset: Dataset, split: Split, options: InputOptions, tasks: tuple[Task, ...]
) -> None:
    """Raise ModelError where the nodes behind a head of the student change what it predicts.

    A network that imitates its own outputs needs no check.
    """
    few = split.take(np.arange(min(SAMPLE, split.rows)))
    require_agreement(network, tasks, model_inputs(network, dataset, few, options))
