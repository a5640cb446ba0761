"""Engine 1: trains with ONNX Runtime's Module, Optimizer and CheckpointState, from its own training artifacts."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line, onnxruntime, provider, session_options
from onnxsurgeon.task import CROSS_ENTROPY, SQUARED, Task
from onnxsurgeon.training.artifacts import generate, has_soft_targets, training_modules, why_not
from onnxsurgeon.training.augmentation import require_images
from onnxsurgeon.training.checkpoint import read_state, write_state
from onnxsurgeon.training.engine import TrainedNetwork, require_trainable
from onnxsurgeon.training.forward import parameter_names
from onnxsurgeon.training.loop import LoopEngine
from onnxsurgeon.training.metrics import Metrics
from onnxsurgeon.training.predictions import Watcher
from onnxsurgeon.training.settings import OptimizerSettings, TrainingSpec
from onnxsurgeon.training.state import OptimizerState, initial_state
from onnxsurgeon.training.units import from_units, in_units, state_from_units, state_in_units


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
        require_images(network, spec.augment, self.name)
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
        is_hard = task.loss == CROSS_ENTROPY and not has_soft_targets(task)
        goal = examples.labels[0] if is_hard else examples.targets[0].astype(np.float32, copy=False)
        running = self._open(directory)

        def step(row_numbers: Array, rate: float) -> float:
            features = [rows.take(row_numbers).astype(np.float32, copy=False) for rows in examples.stored]
            labels = goal[row_numbers].astype(np.int64) if is_hard else goal[row_numbers]
            return running.step(features, labels, rate)

        if before.steps:
            step(np.zeros(1, np.int64), 0.0)  # it moves nothing; a checkpoint before the first step has no step count
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
        """The heads' outputs, by an inference session; see ``Engine``."""
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
