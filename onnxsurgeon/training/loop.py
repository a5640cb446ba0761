"""Engine 2: runs the training loop that is itself an ONNX graph; see ``loop_graph``."""

from __future__ import annotations

import functools
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from onnxsurgeon.choices import AUGMENTATIONS
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.errors import EngineError
from onnxsurgeon.graph.head_names import head_names
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runtime import first_line, onnxruntime, provider
from onnxsurgeon.training import augmentation, dropout
from onnxsurgeon.training.blocks import channels_of_a_block
from onnxsurgeon.training.engine import TrainedNetwork, require_trainable
from onnxsurgeon.training.evaluation import evaluation_graph, from_tiles, rows_of_tile, tile_feeds
from onnxsurgeon.training.forward import by_unit_arrays, feeds_of, from_by_unit
from onnxsurgeon.training.in_place import InPlace, is_large
from onnxsurgeon.training.loop_graph import carried_names, series_names, training_loop
from onnxsurgeon.training.losses import require_tasks
from onnxsurgeon.training.metrics import Metrics, combined, tally
from onnxsurgeon.training.optimizers import make_optimizer
from onnxsurgeon.training.predictions import Watcher
from onnxsurgeon.training.resident import arrays, index_feeds, signature
from onnxsurgeon.training.sessions import Sessions
from onnxsurgeon.training.settings import TrainingSpec
from onnxsurgeon.training.state import OptimizerState, initial_state
from onnxsurgeon.training.threads import Threads, step_flops, useful_threads
from onnxsurgeon.training.units import from_units, in_units, state_from_units, state_in_units

# Values that one run of an evaluation returns, and its rows: values, logits and losses are in memory at once.
OUTPUTS, MOST_ROWS = 2**24, 2**16


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
        """Train ``network`` with one or two calls of ``session.run`` for each array of batches.

        See ``in_place`` for large ones.
        """
        require_trainable(network, examples, spec)
        augmentation.require_images(network, spec.augment)
        training = _Training(self, in_units(network, examples.tasks), examples, spec, state)
        steps = rows = 0
        for indices in batches:
            flops = step_flops(network, indices.shape[1])
            threads = useful_threads(flops, spec.threads() if self.device == "cpu" else 1)
            run, key = functools.partial(training.run, indices, steps), (training.key, indices.shape[1])
            for outputs in self._threads.run(run, training.carried, len(indices), threads, key, flops):
                training.keep(outputs)
            steps, rows = steps + len(indices), rows + indices.size
        trained, after = training.result(steps)
        # The next measurement is of the values that the file will hold.
        stored, rounding = trained.as_stored()
        return TrainedNetwork(stored, training.mean_loss(rows), steps, training.seconds, rounding, after)

    def evaluate(self, network: Network, examples: Examples, watch: Sequence[Watcher] = ()) -> Metrics:
        """Metric and mean loss of ``network`` on all examples; see ``Engine``."""
        require_tasks(network, examples.tasks)
        tallies = [tally(task) for task in examples.tasks]
        for rows, outputs in self.outputs(network, examples):
            for head, (output, labels) in enumerate(zip(outputs, examples.labels, strict=True)):
                tallies[head].add(output, labels[rows])
                if watch:
                    watch[head].add(output, labels[rows])
        return combined(examples.tasks, tallies, examples.rows, head_names(network))

    def outputs(self, network: Network, examples: Examples) -> Iterator[tuple[slice, list[Array]]]:
        """Yield the heads' outputs, (rows, …, width) each, for one part of the rows after the other; see ``Engine``."""
        key = ("evaluate", _signature(network), signature(examples))
        run = self.session(key, lambda: evaluation_graph(network, examples, self.block(network)), network)
        parameters = feeds_of(network)
        widest = max(head.width for head in network.heads)
        tile = rows_of_tile(network)
        step = max(1, min(MOST_ROWS, OUTPUTS // widest) // tile) * tile
        for start in range(0, examples.rows, step):
            rows = np.arange(start, min(start + step, examples.rows))
            feeds = {**parameters, **tile_feeds(examples, rows, tile)}
            found = self.run(run, feeds, examples, targets=False)
            yield slice(start, start + len(rows)), from_tiles(found, len(rows))

    def block(self, network: Network) -> int:
        """The number of channels of a block, for networks that have convolutions; see ``blocks``."""
        has_any = any(segment.is_convolution for segment in network.segments)
        return channels_of_a_block() if has_any and self.device == "cpu" else 0

    def session(self, key: tuple[Any, ...], make: Any, network: Network, threads: int = 1) -> Any:
        """The session of that key.

        Where there is none, it is made from the model that ``make`` returns; see ``Sessions``.
        """
        size = sum(values.nbytes for _, values in network.parameters())
        # What a batch takes is much beside the weights where these are laid over many positions: a run on images keeps
        # a session for each of some thirty topologies. Large networks rather give all back, with their sessions.
        shares = any(segment.rank > 2 for segment in network.segments) and not is_large(network)
        return self._sessions.get(key, make, size, threads, shares=shares)

    def run(self, run: Any, feeds: Mapping[str, Array], examples: Examples, *, targets: bool) -> Any:
        """Run a session on ``feeds`` and the rows of ``examples``, with their targets or without; return all outputs.

        Raises:
            EngineError: ONNX Runtime fails.
        """
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
            raise EngineError(f"training failed inside ONNX Runtime: {first_line(error)}", "runtime-failed") from error

    def _on_device(self, array: Array) -> Any:
        return onnxruntime().OrtValue.ortvalue_from_numpy(array, self.device, 0)


class _Training:
    """The training of one network: the inputs of each run of the loop, and the results so far.

    Attributes:
        key: the same for networks that are trained by the same graph.
        carried: the parameters, then each moment of all of them, as in ``by_unit_arrays``.
        seconds: time inside ONNX Runtime.
    """

    def __init__(
        self, engine: LoopEngine, network: Network, examples: Examples, spec: TrainingSpec, state: OptimizerState | None
    ) -> None:
        self._engine, self._network, self._examples, self._spec = engine, network, examples, spec
        self._optimizer = optimizer = make_optimizer(spec)
        # What the training graph depends on besides the network and the rows.
        self._options: dict[str, Any] = {
            "report_loss": spec.report_loss,
            "optimizer": optimizer,
            "drops": bool(spec.dropout and dropout.masked_layers(network)),
            "input_drops": bool(spec.input_dropout and dropout.masked_inputs(network)),
            "augments": spec.augment != AUGMENTATIONS[0],
            "block": engine.block(network),
        }
        self.key = ("train", _signature(network), signature(examples), *self._options.values())
        self._names = carried_names(network, optimizer)
        self._before = state_in_units(initial_state(network, state, optimizer.moments), network, examples.tasks)
        # A moment is treated as the parameters of a network, since it has their layout.
        networks = [network, *(network.with_parameters(each) for each in self._before.moments)]
        self.carried = [values for each in networks for values in by_unit_arrays(each)]
        self.seconds = 0.0
        self._losses: list[Array] = []

    @functools.cached_property
    def _graph(self) -> onnx.ModelProto:
        return training_loop(self._network, self._examples, **self._options)

    def run(self, indices: Array, first: int, threads: int, carried: Sequence[Array], part: slice) -> list[Array]:
        """The outputs for one part of ``indices`` (steps, batch), whose first step has the number ``first`` of all."""
        loop = self._engine.session(self.key, lambda: self._graph, self._network, threads)
        if self._engine.device == "cpu" and is_large(self._network):
            loop = InPlace(loop, self._graph)
        spec, rows, first, dtype = self._spec, indices[part], first + part.start, self._network.dtype
        count, size = rows.shape
        scalars = self._optimizer.values(spec.rates(first, count), size, self._before.steps + first)
        positions = np.arange(spec.position + first, spec.position + first + count)
        series = zip(series_names(self._optimizer), scalars, strict=True)
        feeds = {
            **{f"initial_{name}": values for name, values in zip(self._names, carried, strict=True)},
            **index_feeds(self._examples, rows, "indices"),
            **{name: values.astype(dtype) for name, values in series},
            **dropout.feeds(self._network, spec.dropout, spec.seed, positions, size, spec.input_dropout),
            **augmentation.feeds(self._network, spec.augment, spec.seed, positions),
            "ones": np.ones((1, size), dtype),
        }
        start = time.perf_counter()
        outputs: list[Array] = self._engine.run(loop, feeds, self._examples, targets=True)
        self.seconds += time.perf_counter() - start
        return outputs

    def keep(self, outputs: Sequence[Array]) -> None:
        """Take over the results of a run for the next one."""
        self.carried = list(outputs[: len(self._names)])
        self._losses += outputs[len(self._names) :]

    def mean_loss(self, rows: int) -> float | None:
        """Mean loss over that many rows; None where it was not asked for."""
        return float(np.concatenate(self._losses).astype(np.float64).sum()) / rows if self._losses else None

    def result(self, steps: int) -> tuple[Network, OptimizerState | None]:
        """The network after ``steps`` steps, and the optimizer's state for the next call."""
        network, tasks = self._network, self._examples.tasks
        count = len(network.parameters())
        parts = [self.carried[first : first + count] for first in range(0, len(self.carried), count)]
        trained, *moments = (from_by_unit(network, part) for part in parts)
        kept = tuple(tuple(values for _, values in each.parameters()) for each in moments)
        after = OptimizerState(self._before.steps + steps, kept)
        return from_units(trained, tasks), state_from_units(after, network, tasks) if kept else None


def _signature(network: Network) -> tuple[Any, ...]:
    """Everything on which a training graph depends, except the values of the weights."""
    segments = tuple(
        (
            segment.input_name,
            segment.output_name,
            segment.rank,
            segment.space,
            segment.widths,
            str(segment.dtype),
            tuple(
                (layer.bias is not None, str(layer.activation), layer.geometry, layer.is_turned)
                for layer in segment.layers
            ),
        )
        for segment in network.segments
    )
    places = tuple(map(tuple, network.parameter_places))
    return network.frame.trunk.digest, segments, places
