"""ONNX Runtime's own training artifacts: whether its training build is installed, and the files for a network."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.runtime import first_line, onnxruntime
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, SQUARED, Task
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import feature_inputs, forward, make_model, parameter_names
from onnxsurgeon.training.resident import numbered
from onnxsurgeon.training.settings import OptimizerSettings

# The last release of the training build reads no newer IR, and a current onnx writes a newer one.
NEWEST_IR = 10
_LOSSES = {CROSS_ENTROPY: "CrossEntropyLoss", SQUARED: "MSELoss"}
_GENERATING = threading.Lock()
TRAINING_ADVICE = (
    "the artifacts engine needs ONNX Runtime's training build, in an environment of its own: "
    "pip install 'onnxsurgeon[training]' (Linux x86-64, Python up to 3.12)"
)


def have_training() -> bool:
    """Whether the installed ONNX Runtime is a training build."""
    try:
        training_modules()
    except EngineError:
        return False
    return True


def training_modules() -> tuple[ModuleType, ModuleType]:
    """ONNX Runtime's ``training.artifacts`` and ``training.api``.

    ``onnxruntime.training`` imports torch, but the two parts that are needed here do not. Where torch is not installed,
    a bare package module of that name, with the folder as its path, stands in for it.

    Raises:
        EngineError: the installed ONNX Runtime is no training build.
    """
    package = "onnxruntime.training"
    folder = Path(str(onnxruntime().__file__)).parent / "training"
    if not (folder / "artifacts.py").is_file():
        raise EngineError(TRAINING_ADVICE, "no-training-build")
    stand_in = package not in sys.modules and importlib.util.find_spec("torch") is None
    if stand_in:
        module = ModuleType(package)
        module.__path__ = [str(folder)]
        sys.modules[package] = module
    try:
        return importlib.import_module(f"{package}.artifacts"), importlib.import_module(f"{package}.api")
    except ImportError as error:
        if stand_in:
            del sys.modules[package]
        raise EngineError(f"{TRAINING_ADVICE} ({first_line(error)})", "no-training-build") from error


def why_not(settings: OptimizerSettings) -> str:
    """Why this engine cannot train with the optimizer; "" where it can."""
    if settings.optimizer == "sgd" and settings.weight_decay:
        return "the artifacts engine's sgd has no weight decay; use the loop"
    if settings.optimizer not in ("sgd", "adamw"):
        return f"the artifacts engine has no optimizer {settings.optimizer}; use the loop"
    if settings.dropout or settings.input_dropout:
        return "the artifacts engine has no dropout; use the loop"
    return ""


def generate(network: Network, task: Task, directory: Path, settings: OptimizerSettings | None = None) -> None:
    """Write the training artifacts of ``network`` for ``task`` to ``directory``: three models and a checkpoint."""
    settings = settings or OptimizerSettings()
    artifacts, _ = training_modules()
    build = GraphBuilder(np.dtype(np.float32))
    names = parameter_names(network)
    for name, (_, values) in zip(names, network.parameters(), strict=True):
        build.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name)
    trunk = network.frame.trunk
    trace = forward(build, network, numbered("features", len(trunk.features)), prelu_in_parts=True)
    build.add("Identity", trace.tensors[trunk.heads[0].tensor], output="logits")
    kind = onnx.TensorProto.FLOAT
    inputs = feature_inputs(network, kind)
    axes = ["batch", *[None] * (trunk.heads[0].rank - 2)]
    output = helper.make_tensor_value_info("logits", kind, [*axes, task.outputs])
    is_own = task.loss == BINARY or (task.loss == CROSS_ENTROPY and has_soft_targets(task))
    if is_own:
        width = task.outputs * (2 if task.is_mixed else 1)
        inputs.append(helper.make_tensor_value_info("target", kind, [*axes, width]))
        output = helper.make_tensor_value_info(_cross_entropy(build, task, "logits", "target"), kind, [])
    model = make_model("forward", build, inputs, [output])
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with _quiet_graph_builder():
            artifacts.generate_artifacts(
                model,
                requires_grad=names,
                loss=None if is_own else artifacts.LossType[_LOSSES[task.loss]],
                optimizer=artifacts.OptimType.AdamW if settings.optimizer == "adamw" else artifacts.OptimType.SGD,
                artifact_directory=str(directory),
            )
    except Exception as error:  # it raises plain RuntimeError or pybind's own
        raise EngineError(
            f"training artifacts cannot be generated: {first_line(error)}", "no-training-build"
        ) from error
    for file in directory.glob("*_model.onnx"):
        written = onnx.load(file)
        written.ir_version = min(written.ir_version, NEWEST_IR)
        for node in written.graph.node:
            if node.op_type == "AdamWOptimizer":
                _set_adamw(node, settings)
        onnx.save(written, file)


def _set_adamw(node: onnx.NodeProto, settings: OptimizerSettings) -> None:
    """Enter the settings, since ``generate_artifacts`` takes none; mode 0 is PyTorch's order, 1 is Hugging Face's."""
    values = {
        "alpha": settings.beta1,
        "beta": settings.beta2,
        "epsilon": settings.epsilon,
        "weight_decay": settings.weight_decay,
        "correct_bias": 1,
        "adam_mode": 0,
    }
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(name, value) for name, value in values.items())


def has_soft_targets(task: Task) -> bool:
    """Whether targets are distributions rather than classes."""
    return task.teacher_weight > 0 or task.positions > 1


def _cross_entropy(build: GraphBuilder, task: Task, z: str, t: str) -> str:
    """Append the mean cross-entropy towards distributions or probabilities, softened and mixed as the task says."""
    one = _binary_cross_entropy if task.loss == BINARY else _soft_cross_entropy
    if not task.is_softened:
        return build.add("Identity", one(build, z, t), output="loss")
    softened = build.add("Mul", z, build.scalar(1 / task.temperature))
    factor = build.scalar(task.teacher_weight * task.temperature**2)
    if not task.is_mixed:
        return build.add("Mul", one(build, softened, t), factor, output="loss")
    width, last = task.outputs, build.integers(-1)
    labels, taught = (
        build.add("Slice", t, build.integers(first), build.integers(first + width), last) for first in (0, width)
    )
    hard = build.add("Mul", one(build, z, labels), build.scalar(1 - task.teacher_weight))
    return build.add("Add", hard, build.add("Mul", one(build, softened, taught), factor), output="loss")


def _soft_cross_entropy(build: GraphBuilder, z: str, t: str) -> str:
    """Append the mean over the rows of −Σ t log softmax(z)."""
    each = build.add("ReduceSum", build.add("Mul", t, build.add("LogSoftmax", z, axis=-1)), build.axes(-1), keepdims=0)
    return build.add("Neg", build.add("ReduceMean", each, keepdims=0))


def _binary_cross_entropy(build: GraphBuilder, z: str, t: str) -> str:
    """Append the mean of max(z, 0) − t z + log(1 + exp(−|z|)).

    ONNX Runtime's BCEWithLogitsLoss takes log(1 − σ(z)), which is −∞ in float32 from z = 17 on, and NaN times 0.
    """
    rest = build.add(
        "Log", build.add("Add", build.scalar(1.0), build.add("Exp", build.add("Neg", build.add("Abs", z))))
    )
    linear = build.add("Sub", build.add("Relu", z), build.add("Mul", t, z))
    return build.add("ReduceMean", build.add("Add", linear, rest), keepdims=0)


@contextlib.contextmanager
def _quiet_graph_builder() -> Iterator[None]:
    """Keep the gradient builder from logging every graph transformer to the console.

    It makes session options of its own, which ignore the default logger's severity (release 1.19.2).
    """
    utilities: Any = importlib.import_module("onnxruntime.training.onnxblock._training_graph_utils")
    original = utilities.SessionOptions

    def quiet() -> Any:
        options = original()
        options.log_severity_level = 4
        return options

    with _GENERATING:
        utilities.SessionOptions = quiet
        try:
            yield
        finally:
            utilities.SessionOptions = original
