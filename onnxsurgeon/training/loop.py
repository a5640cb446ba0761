"""Engine 2: the training loop itself as an ONNX graph.

A Scan over an array of row numbers (steps, batch) carries the parameters as its state; its body gathers the batch
from the resident data set, runs forward, backward and update. One ``session.run`` trains many steps.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line, onnxruntime, provider, session
from onnxsurgeon.task import Task
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.engine import TrainedNetwork, require_trainable
from onnxsurgeon.training.forward import (
    activations_of,
    backward,
    feature_inputs,
    feeds_of,
    forward,
    forward_model,
    make_model,
    numbered,
    parameter_names,
)
from onnxsurgeon.training.gradients import require_rule
from onnxsurgeon.training.losses import loss_nodes, require_tasks
from onnxsurgeon.training.metrics import Metrics, combined, tally
from onnxsurgeon.training.optimizers import SCALE, SGD, Gradient, Optimizer, make_optimizer, moment, updated
from onnxsurgeon.training.settings import TrainingSpec
from onnxsurgeon.training.state import OptimizerState, initial_state
from onnxsurgeon.training.units import from_units, in_units, state_from_units, state_in_units

SESSIONS_KEPT = 32
EVALUATION_ROWS = 4096


def training_loop(
    network: Network, tasks: Sequence[Task], *, report_loss: bool = False, optimizer: Optimizer | None = None
) -> onnx.ModelProto:
    """The training loop of ``network`` with an optimizer (plain SGD) and the losses of ``tasks``, one for each head.

    Inputs: the parameters (biases as (1, n)) and the optimizer's moments of them, as "initial_…"; "indices" (steps,
    batch), row numbers; "rates" (steps,), −η/B for SGD, and the optimizer's other scalars; "features" (rows, …),
    "features_1", …; "targets" (rows, C), one-hot for classes, "targets_1", …; "ones" (1, batch).
    Outputs: the parameters and moments after the last step, as "trained_…"; with ``report_loss``, "losses" (steps,),
    summed over each batch.

    Raises:
        EngineError: an activation has no gradient rule; names op and node.
    """
    for node, activation in activations_of(network):
        require_rule(activation, node)
    optimizer = optimizer or SGD(0.0)
    build = GraphBuilder(network.dtype)
    names = _carried(network, optimizer)
    losses = _body(build, network, tasks, optimizer, report_loss=report_loss)

    kind = helper.np_dtype_to_tensor_dtype(network.dtype)
    rows = [_row(values).shape for _, values in network.parameters()]
    shapes = dict(zip(names, rows * (1 + optimizer.moments), strict=True))

    def declare(suffix: str) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(f"{suffix}{name}", kind, shape) for name, shape in shapes.items()]

    row_numbers = helper.make_tensor_value_info("batch", onnx.TensorProto.INT64, ["batch_size"])
    scalars = [helper.make_tensor_value_info(name, kind, []) for name in optimizer.scalars]
    loss = [helper.make_tensor_value_info(losses, kind, [])] if report_loss else []
    body = helper.make_graph(build.nodes, "step", [*declare(""), row_numbers, *scalars], [*declare("next_"), *loss])

    outer = GraphBuilder(network.dtype)
    outer.constants = build.constants
    outer.append(
        helper.make_node(
            "Scan",
            [*(f"initial_{name}" for name in names), "indices", *_series(optimizer)],
            [*(f"trained_{name}" for name in names), *(["losses"] if report_loss else [])],
            num_scan_inputs=1 + len(scalars),
            body=body,
        )
    )
    targets = [
        helper.make_tensor_value_info(name, kind, ["rows", task.outputs])
        for name, task in zip(numbered("targets", len(tasks)), tasks, strict=True)
    ]
    inputs = [
        *declare("initial_"),
        helper.make_tensor_value_info("indices", onnx.TensorProto.INT64, ["steps", "batch_size"]),
        *(helper.make_tensor_value_info(name, kind, ["steps"]) for name in _series(optimizer)),
        *feature_inputs(network, kind),
        *targets,
        helper.make_tensor_value_info("ones", kind, [1, "batch_size"]),
    ]
    outputs = declare("trained_")
    if report_loss:
        outputs.append(helper.make_tensor_value_info("losses", kind, ["steps"]))
    return make_model("training_loop", outer, inputs, outputs)


def _carried(network: Network, optimizer: Optimizer) -> list[str]:
    """Names of what the loop carries from step to step: the parameters, then each moment of all of them."""
    names = parameter_names(network)
    return names + [moment(number, name) for number in range(optimizer.moments) for name in names]


def _series(optimizer: Optimizer) -> list[str]:
    """Names of the inputs that hold the optimizer's scalars of every step."""
    return [f"{name}s" for name in optimizer.scalars]


def _body(
    build: GraphBuilder, network: Network, tasks: Sequence[Task], optimizer: Optimizer, *, report_loss: bool
) -> str:
    """Append one training step; return the name of its loss."""
    trunk = network.frame.trunk
    features = [build.add("Gather", name, "batch") for name in numbered("features", len(trunk.features))]
    targets = [build.add("Gather", name, "batch") for name in numbered("targets", len(tasks))]
    trace = forward(build, network, features)
    totals, gradients = [], {}
    for head, task, target in zip(trunk.heads, tasks, targets, strict=True):
        loss = loss_nodes(build, task, trace.tensors[head.tensor], target, report=report_loss)
        totals.append(loss.total)
        gradients[head.tensor] = build.add("Mul", loss.gradient, SCALE)
    done: set[str] = set()

    def update(parameter: str, gradient: Gradient) -> None:
        optimizer.update(build, parameter, gradient)
        done.update((parameter, *(moment(number, parameter) for number in range(optimizer.moments))))

    backward(build, network, trace, gradients, update)
    for name in _carried(network, optimizer):
        if name not in done:  # what leads to no head stays as it is
            build.add("Identity", name, output=updated(name))
    while report_loss and len(totals) > 1:
        totals.append(build.add("Add", totals.pop(0), totals.pop(0)))
    return totals[0]


def _row(values: Array) -> Array:
    """Vectors as rows (1, n), the shape that a Gemm writes; matrices unchanged."""
    return values.reshape(1, -1) if values.ndim == 1 else values


class LoopEngine:
    """Trains with any ONNX Runtime from 1.17 on. One instance may be used from several threads."""

    name = "loop"

    def __init__(self, device: str = "cpu") -> None:
        provider(device)
        self.device = device
        self._sessions: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock = threading.Lock()
        self._resident: weakref.WeakKeyDictionary[Examples, dict[str, Any]] = weakref.WeakKeyDictionary()

    def train(
        self,
        network: Network,
        examples: Examples,
        batches: Iterable[Array],
        spec: TrainingSpec,
        state: OptimizerState | None = None,
    ) -> TrainedNetwork:
        """Train ``network``: one ``session.run`` for each array of batches."""
        require_trainable(network, examples, spec)
        optimizer = make_optimizer(spec)
        network = in_units(network, examples.tasks)
        key = ("train", _signature(network), examples.tasks, spec.report_loss, optimizer)
        loop = self._session(
            key, lambda: training_loop(network, examples.tasks, report_loss=spec.report_loss, optimizer=optimizer)
        )
        moments = state_in_units(initial_state(network, state, optimizer.moments), network, examples.tasks)
        names, dtype = _carried(network, optimizer), network.dtype
        arrays = [*feeds_of(network).values(), *(values for each in moments.moments for values in each)]
        carried = {f"initial_{name}": _row(values) for name, values in zip(names, arrays, strict=True)}
        resident = dict(zip(numbered("features", len(examples.features)), examples.features, strict=True))
        resident |= zip(numbered("targets", len(examples.targets)), examples.targets, strict=True)
        total, rows, steps, seconds = 0.0, 0, 0, 0.0
        for indices in batches:
            count, size = indices.shape
            feeds = {
                **carried,
                "indices": indices,
                "ones": np.ones((1, size), dtype),
            }
            scalars = optimizer.values(spec.rates(steps, count), size, moments.steps + steps)
            feeds |= {name: values.astype(dtype) for name, values in zip(_series(optimizer), scalars, strict=True)}
            start = time.perf_counter()
            outputs = self._run(loop, feeds, resident, examples)
            seconds += time.perf_counter() - start
            carried = {f"initial_{name}": values for name, values in zip(names, outputs, strict=False)}
            steps, rows = steps + count, rows + indices.size
            if spec.report_loss:
                total += float(outputs[-1].astype(np.float64).sum())
        olds = [old for _, old in network.parameters()]
        results = iter(carried.values())
        trained = network.with_parameters(
            next(results).reshape(old.shape).astype(old.dtype, copy=False) for old in olds
        )
        kept = tuple(tuple(next(results).reshape(old.shape) for old in olds) for _ in range(optimizer.moments))
        after = state_from_units(OptimizerState(moments.steps + steps, kept), network, examples.tasks) if kept else None
        # What is measured next is what the file will hold.
        stored, rounding = from_units(trained, examples.tasks).as_stored()
        loss = total / rows if spec.report_loss and rows else None
        return TrainedNetwork(stored, loss, steps, seconds, rounding, after)

    def evaluate(self, network: Network, examples: Examples) -> Metrics:
        """Metric and mean loss of ``network`` on all examples."""
        require_tasks(network, examples.tasks)
        run = self._session(("evaluate", _signature(network)), lambda: forward_model(network))
        tallies = [tally(task) for task in examples.tasks]
        names = numbered("features", len(examples.features))
        for start in range(0, examples.rows, EVALUATION_ROWS):
            rows = slice(start, start + EVALUATION_ROWS)
            feeds = {name: values[rows] for name, values in zip(names, examples.features, strict=True)}
            outputs = self._run(run, {**feeds, **feeds_of(network)}, {}, examples)
            for each, output, labels in zip(tallies, outputs, examples.labels, strict=True):
                each.add(output, labels[rows])
        return combined(examples.tasks, tallies, examples.rows)

    def _session(self, key: tuple[Any, ...], make: Any) -> Any:
        with self._lock:
            if key in self._sessions:
                self._sessions.move_to_end(key)
            else:
                self._sessions[key] = session(make(), device=self.device)
                if len(self._sessions) > SESSIONS_KEPT:
                    self._sessions.popitem(last=False)
            return self._sessions[key]

    def _run(self, run: Any, feeds: Mapping[str, Array], resident: Mapping[str, Array], examples: Examples) -> Any:
        try:
            if self.device == "cpu":
                return run.run(None, {**feeds, **resident})
            values = {name: self._on_device(array) for name, array in feeds.items()}
            with self._lock:
                if resident and examples not in self._resident:
                    self._resident[examples] = {name: self._on_device(array) for name, array in resident.items()}
                values.update(self._resident[examples] if resident else {})
            names = [output.name for output in run.get_outputs()]
            return [value.numpy() for value in run.run_with_ort_values(names, values)]
        except Exception as error:  # ONNX Runtime's exceptions share no narrower base
            raise EngineError(f"training failed inside ONNX Runtime: {first_line(error)}") from error

    def _on_device(self, array: Array) -> Any:
        return onnxruntime().OrtValue.ortvalue_from_numpy(array, self.device, 0)


def _signature(network: Network) -> tuple[Any, ...]:
    """What a training graph depends on besides the values of the weights."""
    segments = tuple(
        (
            segment.input_name,
            segment.output_name,
            segment.rank,
            segment.widths,
            str(segment.dtype),
            tuple((layer.bias is not None, str(layer.activation)) for layer in segment.layers),
        )
        for segment in network.segments
    )
    return network.frame.trunk.digest, segments
