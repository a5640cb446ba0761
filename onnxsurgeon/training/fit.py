"""Plain training of a network, without surgery, for ``onnxsurgeon train`` and for every baseline."""

from __future__ import annotations

from collections.abc import Callable

from onnxsurgeon.data.dataset import Dataset
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.prepare import prepare
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.runtime import usable_cores
from onnxsurgeon.training.engine import Engine, TrainedNetwork
from onnxsurgeon.training.metrics import Metrics
from onnxsurgeon.training.schedule import BatchSchedule
from onnxsurgeon.training.settings import TrainingSettings


def fit(
    network: Network,
    dataset: Dataset,
    engine: Engine,
    options: InputOptions | None = None,
    *,
    epochs: int = 10,
    settings: TrainingSettings | None = None,
    batch_size: int = 16,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
) -> tuple[TrainedNetwork, Metrics]:
    """Train ``network`` on the whole training split; return it, and its metrics on the test split.

    The batches are those of the Surgeon with the same seed, and the optimizer goes on from epoch to epoch. ``report``
    is called after every epoch with its number and its mean training loss.

    Raises:
        DataError: the rows do not fit the network.
        EngineError: the network cannot be trained, or its weights became NaN.
        SettingsError: a setting is out of range.
    """
    settings = settings or TrainingSettings()
    settings.check(epochs)
    examples = prepare(network, dataset, dataset.train, options)
    schedule = BatchSchedule(examples.rows, batch_size, seed)
    per_epoch = schedule.batches_per_epoch
    steps, seconds, loss, rounding, state = 0, 0.0, None, 0.0, None
    for epoch in range(epochs):
        position = epoch * per_epoch
        spec = settings.spec(epochs, per_epoch, position, report_loss=True, threads=usable_cores, seed=seed)
        trained = engine.train(network, examples, schedule.window(position, position + per_epoch), spec, state)
        network, loss, rounding, state = trained.network, trained.mean_loss, trained.rounding, trained.state
        steps, seconds = steps + trained.steps, seconds + trained.seconds
        if not network.is_finite:
            raise EngineError(f"training diverged in epoch {epoch + 1}; try a smaller --learning-rate", "diverged")
        if report is not None and loss is not None:
            report(epoch + 1, loss)
    test = engine.evaluate(network, prepare(network, dataset, dataset.test, options, tasks=examples.tasks))
    return TrainedNetwork(network, loss, steps, seconds, rounding, state), test
