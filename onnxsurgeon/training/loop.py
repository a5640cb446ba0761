"""Engine 2: the training loop itself as an ONNX graph.

A Scan over an array of row numbers (steps, batch) carries the parameters as its state; its body gathers the batch
from the resident data set, runs forward, backward and update. One ``session.run`` trains many steps.
"""

from __future__ import annotations

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
from onnxsurgeon.graph.network import DenseChain, Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line, onnxruntime, provider, session
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.engine import TrainedNetwork, TrainingSpec, require_trainable
from onnxsurgeon.training.forward import feeds_of, forward, forward_model, make_model, opset_for, parameter_names
from onnxsurgeon.training.gradients import Point, activation_gradients, require_rule
from onnxsurgeon.training.losses import softmax_cross_entropy
from onnxsurgeon.training.metrics import Metrics, correct_and_loss
from onnxsurgeon.training.optimizers import Gradient, ProductGradient, RowGradient, StoredGradient, sgd, sgd_scale

SESSIONS_KEPT = 32
EVALUATION_ROWS = 4096


def training_loop(chain: DenseChain, *, report_loss: bool = False) -> onnx.ModelProto:
    """The training loop of ``chain`` with SGD and softmax cross-entropy.

    Inputs: the parameters (biases as (1, n)); "indices" (steps, batch), row numbers; "rates" (steps,), −η/B;
    "features" (rows, n_in); "targets" (rows, C), one-hot; "ones" (1, batch).
    Outputs: the parameters after the last step, as "trained_…"; with ``report_loss``, "losses" (steps,), summed
    over each batch.

    Raises:
        EngineError: an activation has no gradient rule; names op and node.
    """
    for layer in chain.layers:
        if layer.activation is not None:
            require_rule(layer.activation, layer.names.activation)
    build = GraphBuilder(chain.dtype)
    names = parameter_names(chain)
    losses = _body(build, chain, names, report_loss=report_loss)

    kind = helper.np_dtype_to_tensor_dtype(chain.dtype)
    shapes = dict(zip(names, (_row(values).shape for _, values in chain.parameters()), strict=True))

    def declare(suffix: str) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(f"{suffix}{name}", kind, shape) for name, shape in shapes.items()]

    row_numbers = helper.make_tensor_value_info("batch", onnx.TensorProto.INT64, ["batch_size"])
    rate = helper.make_tensor_value_info("rate", kind, [])
    loss = [helper.make_tensor_value_info(losses, kind, [])] if report_loss else []
    body = helper.make_graph(build.nodes, "step", [*declare(""), row_numbers, rate], [*declare("next_"), *loss])

    outer = GraphBuilder(chain.dtype)
    outer.constants = build.constants
    outer.append(
        helper.make_node(
            "Scan",
            [*(f"initial_{name}" for name in names), "indices", "rates"],
            [*(f"trained_{name}" for name in names), *(["losses"] if report_loss else [])],
            num_scan_inputs=2,
            body=body,
        )
    )
    inputs = [
        *declare("initial_"),
        helper.make_tensor_value_info("indices", onnx.TensorProto.INT64, ["steps", "batch_size"]),
        helper.make_tensor_value_info("rates", kind, ["steps"]),
        helper.make_tensor_value_info("features", kind, ["rows", chain.widths[0]]),
        helper.make_tensor_value_info("targets", kind, ["rows", chain.widths[-1]]),
        helper.make_tensor_value_info("ones", kind, [1, "batch_size"]),
    ]
    outputs = declare("trained_")
    if report_loss:
        outputs.append(helper.make_tensor_value_info("losses", kind, ["steps"]))
    return make_model("training_loop", outer, inputs, outputs, opset_for(chain))


def _body(build: GraphBuilder, chain: DenseChain, names: list[str], *, report_loss: bool) -> str:
    """Append one training step; return the name of its loss."""
    x = build.add("Gather", "features", "batch")
    targets = build.add("Gather", "targets", "batch")
    traces = forward(build, chain, x, names)
    loss = softmax_cross_entropy(build, traces[-1].y, targets, report=report_loss)
    delta = sgd_scale(build, loss.gradient, "rate")
    for layer, trace in zip(reversed(chain.layers), reversed(traces), strict=True):
        # Here delta = ∂L/∂y of this layer, scaled; then ∂L/∂z.
        if layer.activation is not None:
            gradients = activation_gradients(build, layer.activation, Point(trace.z, trace.y, delta, trace.slope))
            delta = gradients.x
            if trace.slope:
                _update(build, trace.slope, StoredGradient(gradients.slope))
        _update(build, trace.weight, ProductGradient(trace.x, delta))
        if trace.bias:
            _update(build, trace.bias, RowGradient("ones", delta))
        if trace is not traces[0]:
            delta = build.add("Gemm", delta, trace.weight, transB=1)
    return loss.total


def _update(build: GraphBuilder, parameter: str, gradient: Gradient) -> None:
    sgd(build, parameter, gradient, f"next_{parameter}")


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
        self, network: Network, examples: Examples, batches: Iterable[Array], spec: TrainingSpec
    ) -> TrainedNetwork:
        """Train ``network``: one ``session.run`` for each array of batches."""
        require_trainable(network, spec)
        chain = network.chain
        key = ("train", _signature(chain), spec.report_loss)
        loop = self._session(key, lambda: training_loop(chain, report_loss=spec.report_loss))
        names = parameter_names(chain)
        state = {f"initial_{name}": _row(values) for name, values in feeds_of(chain).items()}
        resident = {"features": examples.features, "targets": examples.targets}
        total, rows, steps, seconds = 0.0, 0, 0, 0.0
        for indices in batches:
            count, size = indices.shape
            feeds = {
                **state,
                "indices": indices,
                "rates": np.full(count, -spec.learning_rate / size, chain.dtype),
                "ones": np.ones((1, size), chain.dtype),
            }
            start = time.perf_counter()
            outputs = self._run(loop, feeds, resident, examples)
            seconds += time.perf_counter() - start
            state = {f"initial_{name}": values for name, values in zip(names, outputs, strict=False)}
            steps, rows = steps + count, rows + indices.size
            if spec.report_loss:
                total += float(outputs[-1].astype(np.float64).sum())
        shapes = [values.shape for _, values in chain.parameters()]
        trained = network.with_parameters(
            values.reshape(shape) for values, shape in zip(state.values(), shapes, strict=True)
        )
        return TrainedNetwork(trained, total / rows if spec.report_loss and rows else None, steps, seconds)

    def evaluate(self, network: Network, examples: Examples) -> Metrics:
        """Accuracy and mean loss of ``network`` on all examples."""
        chain = network.chain
        run = self._session(("evaluate", _signature(chain)), lambda: forward_model(chain, opset_for(chain)))
        correct, loss = 0, 0.0
        for start in range(0, examples.rows, EVALUATION_ROWS):
            rows = slice(start, start + EVALUATION_ROWS)
            feeds = {"features": examples.features[rows], **feeds_of(chain)}
            logits = self._run(run, feeds, {}, examples)[0]
            right, total = correct_and_loss(logits, examples.labels[rows])
            correct, loss = correct + right, loss + total
        return Metrics(correct / examples.rows, loss / examples.rows, examples.rows)

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


def _signature(chain: DenseChain) -> tuple[Any, ...]:
    """What a training graph depends on besides the values of the weights."""
    layers = tuple((layer.bias is not None, str(layer.activation)) for layer in chain.layers)
    return chain.widths, str(chain.dtype), layers
