"""Engine 2: the training loop itself as an ONNX graph.

A Scan over an array of row numbers (steps, batch) carries the parameters as its state; its body gathers the batch
from the resident data set, runs forward, backward and update. One ``session.run`` trains many steps.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line, onnxruntime, provider, session
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.engine import TrainedNetwork, TrainingSpec, require_trainable
from onnxsurgeon.training.forward import (
    activations_of,
    backward,
    by_unit_arrays,
    feeds_of,
    forward,
    forward_model,
    from_by_unit,
    make_model,
    parameter_names,
)
from onnxsurgeon.training.gradients import require_rule
from onnxsurgeon.training.losses import loss_nodes, require_tasks
from onnxsurgeon.training.metrics import Metrics, combined, tally
from onnxsurgeon.training.optimizers import Gradient, sgd, sgd_scale
from onnxsurgeon.training.resident import (
    arrays,
    declarations,
    index_feeds,
    index_names,
    read_features,
    read_targets,
    signature,
)
from onnxsurgeon.training.units import from_units, in_units

SESSIONS_KEPT = 32
EVALUATION_ELEMENTS = 2**23  # 32 MB of the widest tensor: sets of some 10,000 rows are evaluated in one run


def training_loop(network: Network, examples: Examples, *, report_loss: bool = False) -> onnx.ModelProto:
    """The training loop of ``network`` on rows stored as those of ``examples``, with SGD and their tasks' losses.

    Inputs: the parameters as of ``by_unit_arrays``; "indices" (steps, batch), row numbers, and "stored_indices" where
    the rows are a selection; "rates" (steps,), −η/B; "features" (rows, …), "features_1", …; "targets" (rows, C), or
    classes (rows,), "targets_1", …; "ones" (1, batch).
    Outputs: the parameters after the last step, as "trained_…"; with ``report_loss``, "losses" (steps,), summed
    over each batch.

    Raises:
        EngineError: an activation has no gradient rule; names op and node.
    """
    for node, activation in activations_of(network):
        require_rule(activation, node)
    build = GraphBuilder(network.dtype)
    names = parameter_names(network)
    losses = _body(build, network, examples, report_loss=report_loss)

    kind = helper.np_dtype_to_tensor_dtype(network.dtype)
    shapes = dict(zip(names, (values.shape for values in by_unit_arrays(network)), strict=True))

    def declare(suffix: str) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(f"{suffix}{name}", kind, shape) for name, shape in shapes.items()]

    def declare_indices(base: str, *shape: str) -> list[onnx.ValueInfoProto]:
        integers = onnx.TensorProto.INT64
        return [helper.make_tensor_value_info(name, integers, shape) for name in index_names(examples, base)]

    rate = helper.make_tensor_value_info("rate", kind, [])
    loss = [helper.make_tensor_value_info(losses, kind, [])] if report_loss else []
    scanned = [*declare_indices("batch", "batch_size"), rate]
    body = helper.make_graph(build.nodes, "step", [*declare(""), *scanned], [*declare("next_"), *loss])

    outer = GraphBuilder(network.dtype)
    outer.constants = build.constants
    outer.append(
        helper.make_node(
            "Scan",
            [*(f"initial_{name}" for name in names), *index_names(examples, "indices"), "rates"],
            [*(f"trained_{name}" for name in names), *(["losses"] if report_loss else [])],
            num_scan_inputs=len(scanned),
            body=body,
        )
    )
    inputs = [
        *declare("initial_"),
        *declare_indices("indices", "steps", "batch_size"),
        helper.make_tensor_value_info("rates", kind, ["steps"]),
        *declarations(examples, targets=True),
        helper.make_tensor_value_info("ones", kind, [1, "batch_size"]),
    ]
    outputs = declare("trained_")
    if report_loss:
        outputs.append(helper.make_tensor_value_info("losses", kind, ["steps"]))
    return make_model("training_loop", outer, inputs, outputs)


def _body(build: GraphBuilder, network: Network, examples: Examples, *, report_loss: bool) -> str:
    """Append one training step; return the name of its loss."""
    features, factors = read_features(build, network, examples)
    targets = read_targets(build, examples)
    trace = forward(build, network, features, factors=factors, by_unit=True)
    totals, gradients = [], {}
    for head, task, target in zip(network.heads, examples.tasks, targets, strict=True):
        loss = loss_nodes(build, task, trace.tensors[head.tensor], target, report=report_loss)
        totals.append(loss.total)
        gradients[head.tensor] = sgd_scale(build, loss.gradient, "rate")
    updated: set[str] = set()

    def update(parameter: str, gradient: Gradient) -> None:
        sgd(build, parameter, gradient, f"next_{parameter}")
        updated.add(parameter)

    backward(build, network, trace, gradients, update)
    for name in parameter_names(network):
        if name not in updated:  # what leads to no head stays as it is
            build.add("Identity", name, output=f"next_{name}")
    while report_loss and len(totals) > 1:
        totals.append(build.add("Add", totals.pop(0), totals.pop(0)))
    return totals[0]


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
        self, network: Network, examples: Examples, batches: Iterable[Array], spec: TrainingSpec
    ) -> TrainedNetwork:
        """Train ``network``: one ``session.run`` for each array of batches."""
        require_trainable(network, examples, spec)
        network = in_units(network, examples.tasks)
        key = ("train", _signature(network), signature(examples), spec.report_loss)
        loop = self._session(key, lambda: training_loop(network, examples, report_loss=spec.report_loss))
        names, dtype = parameter_names(network), network.dtype
        state = {f"initial_{name}": values for name, values in zip(names, by_unit_arrays(network), strict=True)}
        total, rows, steps, seconds = 0.0, 0, 0, 0.0
        for indices in batches:
            count, size = indices.shape
            feeds = {
                **state,
                **index_feeds(examples, indices, "indices"),
                "rates": np.full(count, -spec.learning_rate / size, dtype),
                "ones": np.ones((1, size), dtype),
            }
            start = time.perf_counter()
            outputs = self._run(loop, feeds, examples, targets=True)
            seconds += time.perf_counter() - start
            state = {f"initial_{name}": values for name, values in zip(names, outputs, strict=False)}
            steps, rows = steps + count, rows + indices.size
            if spec.report_loss:
                total += float(outputs[-1].astype(np.float64).sum())
        trained = from_by_unit(network, state.values())
        # What is measured next is what the file will hold.
        stored, rounding = from_units(trained, examples.tasks).as_stored()
        loss = total / rows if spec.report_loss and rows else None
        return TrainedNetwork(stored, loss, steps, seconds, rounding)

    def evaluate(self, network: Network, examples: Examples) -> Metrics:
        """Metric and mean loss of ``network`` on all examples."""
        require_tasks(network, examples.tasks)
        key = ("evaluate", _signature(network), signature(examples))
        run = self._session(key, lambda: forward_model(network, examples))
        tallies = [tally(task) for task in examples.tasks]
        parameters = feeds_of(network)
        step = _rows_at_once(network, examples)
        for start in range(0, examples.rows, step):
            rows = np.arange(start, min(start + step, examples.rows))
            outputs = self._run(run, {**parameters, **index_feeds(examples, rows)}, examples, targets=False)
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

    def _run(self, run: Any, feeds: Mapping[str, Array], examples: Examples, *, targets: bool) -> Any:
        resident = arrays(examples, targets=targets)
        try:
            if self.device == "cpu":
                return run.run(None, {**feeds, **resident})
            values = {name: self._on_device(array) for name, array in feeds.items()}
            with self._lock:
                there = self._resident.setdefault(examples, {})
                there.update({name: self._on_device(array) for name, array in resident.items() if name not in there})
                values.update({name: there[name] for name in resident})
            names = [output.name for output in run.get_outputs()]
            return [value.numpy() for value in run.run_with_ort_values(names, values)]
        except Exception as error:  # ONNX Runtime's exceptions share no narrower base
            raise EngineError(f"training failed inside ONNX Runtime: {first_line(error)}") from error

    def _on_device(self, array: Array) -> Any:
        return onnxruntime().OrtValue.ortvalue_from_numpy(array, self.device, 0)


def _rows_at_once(network: Network, examples: Examples) -> int:
    """Rows to evaluate in one run, so that no tensor of the trunk is large."""
    widest = max([math.prod(rows.shape[1:]) for rows in examples.stored] + [max(s.widths) for s in network.segments])
    return max(1, EVALUATION_ELEMENTS // widest)


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
