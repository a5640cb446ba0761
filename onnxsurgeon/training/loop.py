"""Engine 2: runs the training loop that is itself an ONNX graph; see ``loop_graph``."""

from __future__ import annotations

import functools
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line, onnxruntime, provider
from onnxsurgeon.training.engine import TrainedNetwork, require_trainable
from onnxsurgeon.training.evaluation import ROWS, evaluation_graph, from_tiles, tile_feeds
from onnxsurgeon.training.forward import by_unit_arrays, feeds_of, from_by_unit
from onnxsurgeon.training.in_place import InPlace, is_large
from onnxsurgeon.training.loop_graph import carried_names, series_names, training_loop
from onnxsurgeon.training.losses import require_tasks
from onnxsurgeon.training.metrics import Metrics, combined, tally
from onnxsurgeon.training.optimizers import make_optimizer
from onnxsurgeon.training.resident import arrays, index_feeds, signature
from onnxsurgeon.training.sessions import Sessions
from onnxsurgeon.training.settings import TrainingSpec
from onnxsurgeon.training.state import OptimizerState, initial_state
from onnxsurgeon.training.threads import Threads, useful_threads
from onnxsurgeon.training.units import from_units, in_units, state_from_units, state_in_units

OUTPUTS = 2**24  # values that one run of an evaluation returns: a million rows of ten classes, and then some


class LoopEngine:
    """Trains with any ONNX Runtime from 1.17 on. One instance may be used from several threads."""

    name = "loop"

    def __init__(self, device: str = "cpu") -> None:
        provider(device)
        self.device = device
        self._sessions = Sessions(device)
        self._threads = Threads()
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
        """Train ``network``: a ``session.run`` or two for each array of batches; for large ones, see ``in_place``."""
        require_trainable(network, examples, spec)
        optimizer = make_optimizer(spec)
        network = in_units(network, examples.tasks)
        key = ("train", _signature(network), signature(examples), spec.report_loss, optimizer)
        moments = state_in_units(initial_state(network, state, optimizer.moments), network, examples.tasks)
        names, dtype = carried_names(network, optimizer), network.dtype
        # A moment is looked at as the parameters of a network: it is laid out as they are.
        networks = [network, *(network.with_parameters(each) for each in moments.moments)]
        carried = [values for each in networks for values in by_unit_arrays(each)]
        steps, seconds, losses = 0, 0.0, []
        in_place = self.device == "cpu" and is_large(network)

        @functools.cache
        def graph() -> onnx.ModelProto:
            return training_loop(network, examples, report_loss=spec.report_loss, optimizer=optimizer)

        def run(threads: int, before: Sequence[Array], part: slice) -> list[Array]:
            loop = self._session(key, graph, network, threads)
            if in_place:
                loop = InPlace(loop, graph())
            rows = indices[part]
            first, (count, size) = steps + part.start, rows.shape
            scalars = optimizer.values(spec.rates(first, count), size, moments.steps + first)
            feeds = {
                **{f"initial_{name}": values for name, values in zip(names, before, strict=True)},
                **index_feeds(examples, rows, "indices"),
                **{name: values.astype(dtype) for name, values in zip(series_names(optimizer), scalars, strict=True)},
                "ones": np.ones((1, size), dtype),
            }
            start = time.perf_counter()
            outputs: list[Array] = self._run(loop, feeds, examples, targets=True)
            nonlocal seconds
            seconds += time.perf_counter() - start
            return outputs

        trained_rows = 0
        for indices in batches:
            free = spec.threads() if self.device == "cpu" else 1
            threads = useful_threads(network, indices.shape[1], free)
            for outputs in self._threads.run(run, carried, len(indices), threads, key):
                carried = outputs[: len(names)]
                losses += outputs[len(names) :]
            steps, trained_rows = steps + len(indices), trained_rows + indices.size
        count = len(carried) // len(networks)
        trained, *moved = (
            from_by_unit(network, carried[first : first + count]) for first in range(0, len(carried), count)
        )
        kept = tuple(tuple(values for _, values in each.parameters()) for each in moved)
        after = state_from_units(OptimizerState(moments.steps + steps, kept), network, examples.tasks) if kept else None
        # What is measured next is what the file will hold.
        stored, rounding = from_units(trained, examples.tasks).as_stored()
        loss = float(np.concatenate(losses).astype(np.float64).sum()) / trained_rows if losses else None
        return TrainedNetwork(stored, loss, steps, seconds, rounding, after)

    def evaluate(self, network: Network, examples: Examples) -> Metrics:
        """Metric and mean loss of ``network`` on all examples."""
        require_tasks(network, examples.tasks)
        key = ("evaluate", _signature(network), signature(examples))
        run = self._session(key, lambda: evaluation_graph(network, examples), network)
        tallies = [tally(task) for task in examples.tasks]
        parameters = feeds_of(network)
        widest = max(head.width for head in network.heads)
        step = max(1, OUTPUTS // (widest * ROWS)) * ROWS
        for start in range(0, examples.rows, step):
            rows = np.arange(start, min(start + step, examples.rows))
            feeds = {**parameters, **tile_feeds(examples, rows)}
            outputs = from_tiles(self._run(run, feeds, examples, targets=False), len(rows))
            for each, output, labels in zip(tallies, outputs, examples.labels, strict=True):
                each.add(output, labels[rows])
        return combined(examples.tasks, tallies, examples.rows)

    def _session(self, key: tuple[Any, ...], make: Any, network: Network, threads: int = 1) -> Any:
        size = sum(values.nbytes for _, values in network.parameters())
        return self._sessions.get(key, make, size, threads)

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
