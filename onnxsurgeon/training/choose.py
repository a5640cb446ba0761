"""The choice of the training engine."""

from __future__ import annotations

from onnxsurgeon.choices import ENGINES
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.suggestions import did_you_mean
from onnxsurgeon.training.artifacts import have_training, why_not
from onnxsurgeon.training.artifacts_engine import ArtifactsEngine
from onnxsurgeon.training.engine import Engine
from onnxsurgeon.training.forward import activations_of
from onnxsurgeon.training.gradients import has_rule
from onnxsurgeon.training.loop import LoopEngine
from onnxsurgeon.training.settings import OptimizerSettings


def make_engine(
    name: str = "auto",
    device: str = "cpu",
    network: Network | None = None,
    optimizer: OptimizerSettings | None = None,
) -> Engine:
    """Make the engine of that name.

    "auto" is the loop, unless ``network`` contains an operator without a gradient rule, the training build of ONNX
    Runtime is installed, and it has the ``optimizer``.

    Raises:
        EngineError: unknown name, not installed, the device is not available, or the engine lacks the optimizer.
    """
    if name not in ENGINES:
        raise EngineError(
            f"unknown engine '{name}': expected one of {', '.join(ENGINES)}{did_you_mean(name, ENGINES)}",
            "unknown-choice",
        )
    lacking = "" if optimizer is None else why_not(optimizer)
    if name == "auto":
        activations = [] if network is None else activations_of(network)
        covered = all(has_rule(activation) for _, activation in activations)
        name = "artifacts" if not covered and not lacking and have_training() else "loop"
    if name == "artifacts":
        engine = ArtifactsEngine(device)
        if lacking:
            raise EngineError(lacking, "engine-lacks")
        return engine
    return LoopEngine(device)
