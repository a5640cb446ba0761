"""What a training engine is, what it trains on, and which one is chosen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.training.gradients import RULES
from onnxsurgeon.training.losses import require_tasks
from onnxsurgeon.training.metrics import Metrics

ENGINES = ("auto", "loop", "artifacts")
OPTIMIZERS = ("sgd",)


@dataclass(frozen=True)
class TrainingSpec:
    """How to train.

    Attributes:
        learning_rate: η, the step for the gradient of the batch's mean loss.
        optimizer: "sgd".
        report_loss: whether the mean training loss is computed along the way.
        artifact_directory: where the artifacts engine keeps its files; None: it does not keep them.
    """

    learning_rate: float = 0.005
    optimizer: str = "sgd"
    report_loss: bool = False
    artifact_directory: Path | None = None


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network.

    Attributes:
        network: the same topology with new weights.
        mean_loss: mean over all rows trained on, each before its own step; None where it was not asked for.
        steps: number of batches.
        seconds: time inside ONNX Runtime.
        rounding: largest change of a weight by writing it in the file's type, as a fraction of its tensor's largest.
    """

    network: Network
    mean_loss: float | None
    steps: int
    seconds: float
    rounding: float = 0.0


class Engine(Protocol):
    """Trains and evaluates networks. Both engines give the same numbers, up to rounding.

    Attributes:
        name: "loop" or "artifacts".
        device: "cpu" or "cuda".
    """

    name: str
    device: str

    def train(
        self, network: Network, examples: Examples, batches: Iterable[Array], spec: TrainingSpec
    ) -> TrainedNetwork:
        """Train ``network`` on the batches, in order.

        ``batches`` yields arrays of row numbers, shape (steps, batch), int64; the batch may differ between arrays.

        Raises:
            EngineError: the network cannot be trained by this engine.
        """

    def evaluate(self, network: Network, examples: Examples) -> Metrics:
        """Metric and mean loss of ``network`` on all examples.

        Raises:
            EngineError: the network cannot be evaluated here.
        """


def make_engine(name: str = "auto", device: str = "cpu", network: Network | None = None) -> Engine:
    """The engine of that name.

    "auto" is the loop, unless ``network`` contains an op without a gradient rule and the training build of ONNX
    Runtime is installed.

    Raises:
        EngineError: unknown name, not installed, or the device is not available.
    """
    from onnxsurgeon.training.artifacts import ArtifactsEngine, have_training
    from onnxsurgeon.training.forward import activations_of
    from onnxsurgeon.training.loop import LoopEngine

    if name not in ENGINES:
        raise EngineError(f"unknown engine '{name}': expected one of {', '.join(ENGINES)}")
    if name == "auto":
        activations = [] if network is None else activations_of(network)
        covered = all(activation.op_type in RULES for _, activation in activations)
        name = "artifacts" if not covered and have_training() else "loop"
    return ArtifactsEngine(device) if name == "artifacts" else LoopEngine(device)


def require_trainable(network: Network, examples: Examples, spec: TrainingSpec) -> None:
    """Raise EngineError where the optimizer is unknown, or the targets do not fit the network's heads."""
    if spec.optimizer not in OPTIMIZERS:
        raise EngineError(f"unknown optimizer '{spec.optimizer}': expected one of {', '.join(OPTIMIZERS)}")
    require_tasks(network, examples.tasks)
