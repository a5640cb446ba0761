"""Engine 1: ONNX Runtime's own training artifacts, trained with its Module, Optimizer and CheckpointState."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line, onnxruntime, provider, session_options
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, SQUARED, Task
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.engine import TrainedNetwork, TrainingSpec, require_trainable
from onnxsurgeon.training.forward import feature_inputs, forward, make_model, parameter_names
from onnxsurgeon.training.loop import LoopEngine
from onnxsurgeon.training.metrics import Metrics
from onnxsurgeon.training.resident import numbered
from onnxsurgeon.training.units import from_units, in_units

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
        raise EngineError(TRAINING_ADVICE)
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
        raise EngineError(f"{TRAINING_ADVICE} ({first_line(error)})") from error


def generate(network: Network, task: Task, directory: Path) -> None:
    """Write the training artifacts of ``network`` for ``task`` to ``directory``: three models and a checkpoint."""
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
    output = helper.make_tensor_value_info("logits", kind, ["batch", task.outputs])
    if task.loss == BINARY:
        inputs.append(helper.make_tensor_value_info("target", kind, ["batch", task.outputs]))
        output = helper.make_tensor_value_info(_binary_cross_entropy(build, "logits", "target"), kind, [])
    model = make_model("forward", build, inputs, [output])
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with _quiet_graph_builder():
            artifacts.generate_artifacts(
                model,
                requires_grad=names,
                loss=artifacts.LossType[_LOSSES[task.loss]] if task.loss in _LOSSES else None,
                optimizer=artifacts.OptimType.SGD,
                artifact_directory=str(directory),
            )
    except Exception as error:  # it raises plain RuntimeError or pybind's own
        raise EngineError(f"training artifacts cannot be generated: {first_line(error)}") from error
    for file in directory.glob("*_model.onnx"):
        written = onnx.load(file)
        if written.ir_version > NEWEST_IR:
            written.ir_version = NEWEST_IR
            onnx.save(written, file)


def _binary_cross_entropy(build: GraphBuilder, z: str, t: str) -> str:
    """Append the mean of max(z, 0) − t z + log(1 + exp(−|z|)).

    ONNX Runtime's BCEWithLogitsLoss takes log(1 − σ(z)), which is −∞ in float32 from z = 17 on, and times 0 NaN.
    """
    rest = build.add(
        "Log", build.add("Add", build.scalar(1.0), build.add("Exp", build.add("Neg", build.add("Abs", z))))
    )
    linear = build.add("Sub", build.add("Relu", z), build.add("Mul", t, z))
    return build.add("ReduceMean", build.add("Add", linear, rest), keepdims=0, output="loss")


@contextlib.contextmanager
def _quiet_graph_builder() -> Iterator[None]:
    """Keep the gradient builder from logging every graph transformer to the console.

    It makes session options of its own, which take no notice of the default logger's severity (release 1.19.2).
    """
    utilities: Any = importlib.import_module("onnxruntime.training.onnxblock._training_graph_utils")
    original = utilities.SessionOptions

    def quiet() -> Any:
        options = original()
        options.log_severity_level = 3
        return options

    with _GENERATING:
        utilities.SessionOptions = quiet
        try:
            yield
        finally:
            utilities.SessionOptions = original


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
        self, network: Network, examples: Examples, batches: Iterable[Array], spec: TrainingSpec
    ) -> TrainedNetwork:
        """Train ``network`` batch by batch; the weights are float32 while they are trained."""
        require_trainable(network, examples, spec)
        task = _only_task(network, examples)
        network = in_units(network, examples.tasks)
        with contextlib.ExitStack() as stack:
            directory = spec.artifact_directory
            if directory is None:
                directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxsurgeon-")))
            generate(network, task, directory)
            try:
                return self._train(network, examples, batches, spec, directory)
            except EngineError:
                raise
            except Exception as error:  # its exceptions share no narrower base
                raise EngineError(f"training failed inside ONNX Runtime: {first_line(error)}") from error

    def _train(
        self, network: Network, examples: Examples, batches: Iterable[Array], spec: TrainingSpec, directory: Path
    ) -> TrainedNetwork:
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
        optimizer.set_learning_rate(spec.learning_rate)
        module.train()
        goal = examples.labels[0] if examples.classes else examples.targets[0].astype(np.float32)
        total, rows, steps, seconds = 0.0, 0, 0, 0.0
        for indices in batches:
            for row_numbers in indices:
                features = [rows.take(row_numbers).astype(np.float32, copy=False) for rows in examples.stored]
                labels = goal[row_numbers]
                start = time.perf_counter()
                loss = module(*features, labels)
                optimizer.step()
                module.lazy_reset_grad()
                seconds += time.perf_counter() - start
                total += float(np.asarray(loss)) * len(row_numbers)
                steps, rows = steps + 1, rows + len(row_numbers)
        api.CheckpointState.save_checkpoint(state, str(directory / "checkpoint"))
        trained = network.with_parameters(
            self._values(state, name).astype(values.dtype).reshape(values.shape)
            for name, (_, values) in zip(parameter_names(network), network.parameters(), strict=True)
        )
        trained, rounding = from_units(trained, examples.tasks).as_stored()
        return TrainedNetwork(trained, total / rows if spec.report_loss and rows else None, steps, seconds, rounding)

    @staticmethod
    def _values(state: Any, name: str) -> Array:
        return np.array(state.parameters[name].data)

    def evaluate(self, network: Network, examples: Examples) -> Metrics:
        """Metric and mean loss of ``network`` on all examples, by an inference session."""
        return self._evaluator.evaluate(network, examples)


def _only_task(network: Network, examples: Examples) -> Task:
    """The one task of the network that ONNX Runtime's own losses can express.

    Raises:
        EngineError: it has several heads, or a squared error behind a Sigmoid.
    """
    if len(examples.tasks) > 1:
        raise EngineError(
            f"'{network.name}': the artifacts engine trains one head, not {len(examples.tasks)}; use the loop"
        )
    task = examples.tasks[0]
    if task.loss == SQUARED and task.squash:
        raise EngineError(
            f"'{network.name}': the artifacts engine has no {task.loss} behind a {task.squash}; use the loop"
        )
    return task
