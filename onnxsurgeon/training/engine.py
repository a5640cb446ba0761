"""The interface of a training engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.losses import require_tasks
from onnxsurgeon.training.metrics import Metrics
from onnxsurgeon.training.predictions import Watcher
from onnxsurgeon.training.settings import OPTIMIZERS, TrainingSpec
from onnxsurgeon.training.state import OptimizerState


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network.

    Attributes:
        network: the same topology with new weights.
        mean_loss: mean over all rows trained on, each before its own step; None where it was not asked for.
        steps: number of batches.
        seconds: time inside ONNX Runtime.
        rounding: largest change of a weight by writing it in the file's type, as a fraction of its tensor's largest.
        state: the optimizer's state for the next call; None for an optimizer without one.
    """

    network: Network
    mean_loss: float | None
    steps: int
    seconds: float
    rounding: float = 0.0
    state: OptimizerState | None = None


class Engine(Protocol):
    """Trains and evaluates networks. Both engines give the same numbers, up to rounding.

    Attributes:
        name: "loop" or "artifacts".
        device: "cpu" or "cuda".
    """

    name: str
    device: str

    def train(
        self,
        network: Network,
        examples: Examples,
        batches: Iterable[Array],
        spec: TrainingSpec,
        state: OptimizerState | None = None,
    ) -> TrainedNetwork:
        """Train ``network`` on the batches, in order.

        ``batches`` yields arrays of row numbers, shape (steps, batch), int64; the batch may differ between arrays.
        ``state`` is the state that an earlier call returned; with None the optimizer starts afresh.

        Raises:
            EngineError: the network cannot be trained by this engine.
        """

    def evaluate(self, network: Network, examples: Examples, watch: Sequence[Watcher] = ()) -> Metrics:
        """Metric and mean loss of ``network`` on all examples; ``watch``, one for each head, see its outputs too.

        Raises:
            EngineError: the network cannot be evaluated here.
        """

    def outputs(self, network: Network, examples: Examples) -> Iterator[tuple[slice, list[Array]]]:
        """Yield the heads' outputs before their squash, (rows, …, width) each, for one part of the rows at a time.

        The examples may be without labels.

        Raises:
            EngineError: the network cannot be evaluated here.
        """


def require_trainable(network: Network, examples: Examples, spec: TrainingSpec) -> None:
    """Raise EngineError where the optimizer is unknown, or the targets do not fit the network's heads.

    Raises:
        SettingsError: a number of the optimizer is out of range.
    """
    if spec.optimizer not in OPTIMIZERS:
        raise EngineError(
            f"unknown optimizer '{spec.optimizer}': expected one of {', '.join(OPTIMIZERS)}", "unknown-choice"
        )
    spec.check_optimizer()
    require_tasks(network, examples.tasks)
