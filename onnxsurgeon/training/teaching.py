"""What a network is to imitate: the heads of a teacher, which may be the network itself, on rows without labels."""

from __future__ import annotations

from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.heads import imitation_tasks
from onnxsurgeon.data.prepare import InputOptions, prepare_rows
from onnxsurgeon.data.soft import space
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.engine import Engine


def head_outputs(network: Network, examples: Examples, engine: Engine | None = None) -> tuple[Array, ...]:
    """What the heads of ``network`` put out before their squash, (rows, …, width) each, for all of the examples.

    The examples may be without labels. Large outputs lie in a temporary file.

    Raises:
        EngineError: the network cannot be evaluated here.
    """
    if engine is None:
        from onnxsurgeon.training.loop import LoopEngine

        engine = LoopEngine()
    found: list[Array] = []
    for rows, outputs in engine.outputs(network, examples):
        if not found:
            found = [space((examples.rows, *values.shape[1:]), values.dtype) for values in outputs]
        for whole, values in zip(found, outputs, strict=True):
            whole[rows] = values
    return tuple(found)


def imitating(
    network: Network,
    dataset: Dataset,
    split: Split,
    options: InputOptions | None = None,
    *,
    engine: Engine | None = None,
    temperature: float = 1.0,
    like: Examples | None = None,
) -> Examples:
    """The rows of ``split`` with what ``network`` itself puts out for them as the only measure.

    Args:
        network: student and teacher.
        dataset: labelled or not.
        split: the rows.
        options: how rows become the model's input; its loss says what heads are taken for.
        engine: that evaluates the teacher.
        temperature: that softens cross-entropies.
        like: examples of the same data set, whose tasks these have too: the units of a regression.

    Raises:
        DataError: the rows do not fit the model, or the loss not a head.
        EngineError: the network cannot be evaluated here.
    """
    options = options or InputOptions()
    examples = prepare_rows(network, dataset, split, options)
    outputs = head_outputs(network, examples, engine)
    tasks = like.tasks if like is not None else imitation_tasks(network, outputs, options.loss, temperature)
    return examples.imitating(outputs, tasks)
