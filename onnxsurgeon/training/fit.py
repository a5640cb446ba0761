"""Plain training of a network, without surgery: what ``onnxsurgeon train`` does, and every baseline."""

from __future__ import annotations

from collections.abc import Callable

from onnxsurgeon.data.dataset import Dataset
from onnxsurgeon.data.prepare import InputOptions, prepare
from onnxsurgeon.errors import EngineError, SettingsError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.training.engine import Engine, TrainedNetwork, TrainingSpec
from onnxsurgeon.training.metrics import Metrics
from onnxsurgeon.training.schedule import BatchSchedule


def fit(
    network: Network,
    dataset: Dataset,
    engine: Engine,
    options: InputOptions | None = None,
    *,
    epochs: int = 10,
    learning_rate: float = 0.005,
    batch_size: int = 16,
    seed: int = 0,
    report: Callable[[int, float], None] | None = None,
) -> tuple[TrainedNetwork, Metrics]:
    """Train ``network`` on the whole training split; return it, and its metrics on the test split.

    The batches are those that the Surgeon would see with the same seed. ``report`` is called after every epoch with
    its number and its mean training loss.

    Raises:
        DataError: the rows do not fit the network.
        EngineError: the network cannot be trained, or its weights became NaN.
    """
    if not 0 < learning_rate < float("inf"):
        raise SettingsError(f"learning-rate: {learning_rate} is no positive step size")
    examples = prepare(network, dataset, dataset.train, options)
    schedule = BatchSchedule(examples.rows, batch_size, seed)
    spec = TrainingSpec(learning_rate, report_loss=True)
    steps, seconds, loss, rounding = 0, 0.0, None, 0.0
    for epoch in range(epochs):
        window = schedule.window(epoch * schedule.batches_per_epoch, (epoch + 1) * schedule.batches_per_epoch)
        trained = engine.train(network, examples, window, spec)
        network, loss, rounding = trained.network, trained.mean_loss, trained.rounding
        steps, seconds = steps + trained.steps, seconds + trained.seconds
        if not network.is_finite:
            raise EngineError(f"training diverged in epoch {epoch + 1}; try a smaller --learning-rate")
        if report is not None and loss is not None:
            report(epoch + 1, loss)
    test = engine.evaluate(network, prepare(network, dataset, dataset.test, options))
    return TrainedNetwork(network, loss, steps, seconds, rounding), test
