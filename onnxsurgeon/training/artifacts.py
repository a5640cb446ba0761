"""Engine 1: ONNX Runtime's own training artifacts, trained with its Module, Optimizer and CheckpointState."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsurgeon.choices import AUGMENTATIONS
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line, onnxruntime, provider, session_options
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, SQUARED, Task
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.checkpoint import read_state, write_state
from onnxsurgeon.training.engine import TrainedNetwork, require_trainable
from onnxsurgeon.training.forward import feature_inputs, forward, make_model, parameter_names
from onnxsurgeon.training.loop import LoopEngine
from onnxsurgeon.training.metrics import Metrics
from onnxsurgeon.training.predictions import Watcher
from onnxsurgeon.training.resident import numbered
from onnxsurgeon.training.settings import OptimizerSettings, TrainingSpec
from onnxsurgeon.training.state import OptimizerState, initial_state
from onnxsurgeon.training.units import from_units, in_units, state_from_units, state_in_units

# The last release of the training build reads no newer IR; a current onnx stamps one on what it writes.
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

    ``onnxruntime.training`` imports torch, which its two parts that are needed here do not. Where torch is not
    installed, a bare package module of that name, with the folder as its path, stands in for it.

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
    is_own = task.loss == BINARY or (task.loss == CROSS_ENTROPY and _has_soft_targets(task))
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
    """Enter the settings, which ``generate_artifacts`` takes none of; mode 0 is PyTorch's order, 1 Hugging Face's."""
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


def _has_soft_targets(task: Task) -> bool:
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

    ONNX Runtime's BCEWithLogitsLoss takes log(1 − σ(z)), which is −∞ in float32 from z = 17 on, and times 0 NaN.
    """
    rest = build.add(
        "Log", build.add("Add", build.scalar(1.0), build.add("Exp", build.add("Neg", build.add("Abs", z))))
    )
    linear = build.add("Sub", build.add("Relu", z), build.add("Mul", t, z))
    return build.add("ReduceMean", build.add("Add", linear, rest), keepdims=0)


@contextlib.contextmanager
def _quiet_graph_builder() -> Iterator[None]:
    """Keep the gradient builder from logging every graph transformer to the console.

    It makes session options of its own, which take no notice of the default logger's severity (release 1.19.2).
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


class _Running:
    """ONNX Runtime's three objects for one network in training, and the time spent in them."""

    def __init__(self, state: Any, module: Any, optimizer: Any) -> None:
        self.state, self.module, self.optimizer = state, module, optimizer
        self.seconds, self._rate = 0.0, float("nan")

    def step(self, features: Sequence[Array], labels: Array, rate: float) -> float:
        """Train one batch; return its mean loss."""
        start = time.perf_counter()
        if rate != self._rate:
            self.optimizer.set_learning_rate(rate)
            self._rate = rate
        loss = self.module(*features, labels)
        self.optimizer.step()
        self.module.lazy_reset_grad()
        self.seconds += time.perf_counter() - start
        return float(np.asarray(loss))

    def save(self, path: Path, *, has_state: bool) -> None:
        """Write the checkpoint, with the optimizer's state where it has any."""
        _, api = training_modules()
        api.CheckpointState.save_checkpoint(self.state, str(path), include_optimizer_state=has_state)

    def values(self, name: str) -> Array:
        """A parameter's current values."""
        return np.array(self.state.parameters[name].data)


class ArtifactsEngine:
    """Trains with ONNX Runtime's training build; one instance may be used from several threads."""

    name = "artifacts"

    def __init__(self, device: str = "cpu") -> None:
        training_modules()
        provider(device)
        # The optimizer's session takes no options; its default logger warns of shapes in its own model.
        onnxruntime().set_default_logger_severity(3)
        self.device = device
        self._evaluator = LoopEngine(device)

    def train(
        self,
        network: Network,
        examples: Examples,
        batches: Iterable[Array],
        spec: TrainingSpec,
        state: OptimizerState | None = None,
    ) -> TrainedNetwork:
        """Train ``network`` batch by batch; the weights are float32 while they are trained."""
        require_trainable(network, examples, spec)
        if why_not(spec):
            raise EngineError(f"'{network.name}': {why_not(spec)}", "engine-lacks")
        if spec.augment != AUGMENTATIONS[0]:
            raise EngineError(f"'{network.name}': the artifacts engine moves no images; use the loop", "engine-lacks")
        task = _only_task(network, examples)
        network = in_units(network, examples.tasks)
        with contextlib.ExitStack() as stack:
            directory = spec.artifact_directory
            if directory is None:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxsurgeon-")))
            generate(network, task, directory, spec)
            try:
                return self._train(network, examples, batches, spec, directory, state)
            except EngineError:
                raise
            except Exception as error:  # its exceptions share no narrower base
                raise EngineError(
                    f"training failed inside ONNX Runtime: {first_line(error)}", "runtime-failed"
                ) from error

    def _train(
        self,
        network: Network,
        examples: Examples,
        batches: Iterable[Array],
        spec: TrainingSpec,
        directory: Path,
        given: OptimizerState | None,
    ) -> TrainedNetwork:
        names = parameter_names(network)
        path = directory / "checkpoint"
        has_state = spec.optimizer == "adamw"
        before = initial_state(network, given, 2 if has_state else 0)
        task = examples.tasks[0]
        is_hard = task.loss == CROSS_ENTROPY and not _has_soft_targets(task)
        goal = examples.labels[0] if is_hard else examples.targets[0].astype(np.float32, copy=False)
        running = self._open(directory)

        def step(row_numbers: Array, rate: float) -> float:
            features = [rows.take(row_numbers).astype(np.float32, copy=False) for rows in examples.stored]
            labels = goal[row_numbers]
            return running.step(features, labels, rate)

        if before.steps:
            step(np.zeros(1, np.int64), 0.0)  # moves nothing; a checkpoint from before the first step has no step count
            running.save(path, has_state=True)
            write_state(path, names, _as_theirs(state_in_units(before, network, examples.tasks), spec))
            running = self._open(directory)
        total, rows, steps = 0.0, 0, 0
        for indices in batches:
            for row_numbers, rate in zip(indices, spec.rates(steps, len(indices)), strict=True):
                total += step(row_numbers, float(rate)) * len(row_numbers)
                rows += len(row_numbers)
            steps += len(indices)
        running.save(path, has_state=has_state)
        trained = network.with_parameters(
            running.values(name).astype(values.dtype).reshape(values.shape)
            for name, (_, values) in zip(names, network.parameters(), strict=True)
        )
        after = None
        if has_state:
            shapes = [values.shape for _, values in network.parameters()]
            after = _as_ours(read_state(path, names, shapes), spec) if steps else before
            after = state_from_units(after, network, examples.tasks) if steps else before
        trained, rounding = from_units(trained, examples.tasks).as_stored()
        loss = total / rows if spec.report_loss and rows else None
        return TrainedNetwork(trained, loss, steps, running.seconds, rounding, after)

    def _open(self, directory: Path) -> _Running:
        """Load the artifacts in ``directory``."""
        _, api = training_modules()
        state = api.CheckpointState.load_checkpoint(str(directory / "checkpoint"))
        module = api.Module(
            str(directory / "training_model.onnx"),
            state,
            str(directory / "eval_model.onnx"),
            device=self.device,
            session_options=session_options(),
        )
        optimizer = api.Optimizer(str(directory / "optimizer_model.onnx"), module)
        module.train()
        return _Running(state, module, optimizer)

    def evaluate(self, network: Network, examples: Examples, watch: Sequence[Watcher] = ()) -> Metrics:
        """Metric and mean loss of ``network`` on all examples, by an inference session; see ``Engine``."""
        return self._evaluator.evaluate(network, examples, watch)

    def outputs(self, network: Network, examples: Examples) -> Iterator[tuple[slice, list[Array]]]:
        """What the heads put out, by an inference session; see ``Engine``."""
        return self._evaluator.outputs(network, examples)


def _only_task(network: Network, examples: Examples) -> Task:
    """The one task of the network that ONNX Runtime's own losses can express.

    Raises:
        EngineError: it has several heads, or a squared error behind a Sigmoid.
    """
    if len(examples.tasks) > 1:
        raise EngineError(
            f"'{network.name}': the artifacts engine trains one head, not {len(examples.tasks)}; use the loop",
            "engine-lacks",
        )
    task = examples.tasks[0]
    if task.class_weights:
        raise EngineError(
            f"'{network.name}': the artifacts engine does not weigh classes (--class-weight balanced); use the loop",
            "engine-lacks",
        )
    if task.is_weighed:
        raise EngineError(
            f"'{network.name}': the artifacts engine cannot weigh outputs that no dense layer puts out; use the loop",
            "engine-lacks",
        )
    if task.loss == SQUARED and task.squash:
        raise EngineError(
            f"'{network.name}': the artifacts engine has no {task.loss} behind a {task.squash}; use the loop",
            "engine-lacks",
        )
    return task


def _as_theirs(state: OptimizerState, settings: OptimizerSettings) -> OptimizerState:
    """ONNX Runtime's moments m = (1 − β1) M and v = (1 − β2) V from the loop's sums."""
    return _scaled(state, (1 - settings.beta1, 1 - settings.beta2))


def _as_ours(state: OptimizerState, settings: OptimizerSettings) -> OptimizerState:
    """The inverse of ``_as_theirs``, up to rounding."""
    return _scaled(state, (1 / (1 - settings.beta1), 1 / (1 - settings.beta2)))


def _scaled(state: OptimizerState, factors: tuple[float, float]) -> OptimizerState:
    moments = zip(state.moments, factors, strict=True)
    return replace(state, moments=tuple(tuple(values * np.float32(c) for values in each) for each, c in moments))
