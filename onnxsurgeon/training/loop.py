"""Engine 2: runs the training loop that is itself an ONNX graph; see ``loop_graph``."""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line, onnxruntime, provider, session
from onnxsurgeon.training.engine import TrainedNetwork, require_trainable
from onnxsurgeon.training.forward import (
    by_unit_arrays,
    feeds_of,
    forward_model,
    from_by_unit,
)
from onnxsurgeon.training.loop_graph import carried_names, series_names, training_loop
from onnxsurgeon.training.losses import require_tasks
from onnxsurgeon.training.metrics import Metrics, combined, tally
from onnxsurgeon.training.optimizers import make_optimizer
from onnxsurgeon.training.resident import (
    arrays,
    index_feeds,
    signature,
)
from onnxsurgeon.training.settings import TrainingSpec
from onnxsurgeon.training.state import OptimizerState, initial_state
from onnxsurgeon.training.units import from_units, in_units, state_from_units, state_in_units

SESSIONS_KEPT = 32
EVALUATION_ELEMENTS = 2**23  # 32 MB of the widest tensor: sets of some 10,000 rows are evaluated in one run


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
        key = ("train", _signature(network), signature(examples), spec.report_loss, optimizer)
        loop = self._session(
            key, lambda: training_loop(network, examples, report_loss=spec.report_loss, optimizer=optimizer)
        )
        moments = state_in_units(initial_state(network, state, optimizer.moments), network, examples.tasks)
        names, dtype = carried_names(network, optimizer), network.dtype
        # A moment is looked at as the parameters of a network: it is laid out as they are.
        networks = [network, *(network.with_parameters(each) for each in moments.moments)]
        before = [values for each in networks for values in by_unit_arrays(each)]
        carried = {f"initial_{name}": values for name, values in zip(names, before, strict=True)}
        total, rows, steps, seconds = 0.0, 0, 0, 0.0
        for indices in batches:
            count, size = indices.shape
            feeds = {
                **carried,
                **index_feeds(examples, indices, "indices"),
                "ones": np.ones((1, size), dtype),
            }
            scalars = optimizer.values(spec.rates(steps, count), size, moments.steps + steps)
            feeds |= {name: values.astype(dtype) for name, values in zip(series_names(optimizer), scalars, strict=True)}
            start = time.perf_counter()
            outputs = self._run(loop, feeds, examples, targets=True)
            seconds += time.perf_counter() - start
            carried = {f"initial_{name}": values for name, values in zip(names, outputs, strict=False)}
            steps, rows = steps + count, rows + indices.size
            if spec.report_loss:
                total += float(outputs[-1].astype(np.float64).sum())
        results = list(carried.values())
        count = len(results) // len(networks)
        trained, *moved = (
            from_by_unit(network, results[first : first + count]) for first in range(0, len(results), count)
        )
        kept = tuple(tuple(values for _, values in each.parameters()) for each in moved)
        after = state_from_units(OptimizerState(moments.steps + steps, kept), network, examples.tasks) if kept else None
        # What is measured next is what the file will hold.
        stored, rounding = from_units(trained, examples.tasks).as_stored()
        loss = total / rows if spec.report_loss and rows else None
        return TrainedNetwork(stored, loss, steps, seconds, rounding, after)

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
