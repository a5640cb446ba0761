"""A training step of convolutional networks, beside PyTorch's, onnxsim's and that of another checkout of onnxsurgeon.

All peers but the last are in one process and take turns, so the Python that runs this needs an ONNX Runtime, and torch
and onnxsim for their parts. Every one starts from the same weights, sees the same batches, and has as many threads as
are given. As a program, the side that runs on another checkout: takes batches, and answers with parameters.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, NamedTuple
from unittest import mock

import numpy as np

from benchmarking.environments import with_checkout
from benchmarking.image_networks import CLASSES, NETWORKS, ImageNetwork
from benchmarking.onnx_peers import SGD
from benchmarking.steps import Spread, ratio
from benchmarking.task import RATE, Array

HEADER = (
    "| network, batch | peer | ms a step | steps of the loop in that time | max \\|Δ weights\\| |\n"
    "| --- | --- | ---: | ---: | ---: |"
)
LOOP, ONNXSIM = "loop engine", "onnxsim.compile_training_loop"
# The untimed steps are so many at least, that the engine finds out whether threads pay; of other peers a few do.
ROWS, WARM_UP, FEW = 1_024, 48, 3

Step = Callable[[Array], list[Array]]  # trains on batches (steps, batch); the parameters in the end


class Peer(NamedTuple):
    """What trains from the start, and what is to be done before and in the end, outside the clock."""

    step: Step
    renew: Callable[[], None] = lambda: None
    close: Callable[[], None] = lambda: None


def measure(
    rounds: int, threads: int = 1, before: Path | None = None, networks: Sequence[ImageNetwork] = NETWORKS
) -> Iterator[dict[str, Any]]:
    """For each network and peer the time of a step in each round, and what the table shows.

    ``before`` is another checkout, whose loop engine is a peer. Of a peer that does not train a network the record says
    why, as "absent".
    """
    for network in networks:
        peers, absent = _peers(network, threads, before)
        try:
            yield from _records(network, rounds, threads, peers, absent)
        finally:
            for peer in peers.values():
                peer.close()


def _records(
    network: ImageNetwork, rounds: int, threads: int, peers: dict[str, Peer], absent: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Of all peers, in turns, and of those that fail."""
    *_, warm, batches = task(network)
    working = dict(peers)
    for name in peers:
        try:
            peers[name].renew()
            peers[name].step(warm if name.startswith(LOOP) else warm[:FEW])
        except Exception as error:  # peers' exceptions share no base, and one must not cost us the others
            if name == LOOP:
                raise
            absent[name] = _reason(error)
            del working[name]
    times: dict[str, list[float]] = {name: [] for name in working}
    ends: dict[str, list[Array]] = {}
    for turn in range(rounds):
        names = list(working)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            peers[name].renew()
            begun = time.perf_counter()
            ends[name] = peers[name].step(batches)
            times[name].append((time.perf_counter() - begun) / len(batches) * 1e3)
    for name, each in times.items():
        differences = [abs(a - b).max() for a, b in zip(ends[name], ends[LOOP], strict=True)]
        yield {
            "network": str(network),
            "peer": name,
            "threads": threads,
            "milliseconds": each,
            "ratio": vars(ratio(each, times[LOOP])),
            "deviation": float(max(differences)),
        }
    yield from ({"network": str(network), "peer": name, "absent": why} for name, why in absent.items())


def row(record: dict[str, Any]) -> str:
    """A row of the table."""
    if "absent" in record:
        return f"| {record['network']} | {record['peer']} | {record['absent']} | | |"
    cells = (
        record["network"],
        record["peer"],
        Spread.of(record["milliseconds"]).text(1),
        Spread(**record["ratio"]).text(2),
        f"{record['deviation']:.0e}",
    )
    return f"| {' | '.join(cells)} |"


def _peers(network: ImageNetwork, threads: int, before: Path | None) -> tuple[dict[str, Peer], dict[str, str]]:
    """All that can be made, the loop engine first, and why others cannot."""
    makers: dict[str, Callable[[], Peer]] = {LOOP: partial(loop, network, threads)}
    if before is not None:
        makers[f"{LOOP} of {before}"] = partial(_elsewhere, network, threads, before)
    if find_spec("torch") is not None:
        makers["PyTorch eager"] = partial(_torch, network, threads, channels_last=False)
        makers["PyTorch eager, channels last"] = partial(_torch, network, threads, channels_last=True)
    if find_spec("onnxsim") is not None:
        makers[ONNXSIM] = partial(_onnxsim, network, threads)
    peers, absent = {}, {}
    for name, make in makers.items():
        try:
            peers[name] = make()
        except Exception as error:  # as above
            if name == LOOP:
                raise
            absent[name] = _reason(error)
    return peers, absent


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def task(network: ImageNetwork) -> tuple[list[Array], tuple[Array, Array], Array, Array]:
    """Weights and biases, images and their labels, and batches: untimed ones and timed ones."""
    rng = np.random.default_rng(0)
    start = network.start(rng)
    images = rng.random((ROWS, network.channels, network.size, network.size), np.float32)
    batches = np.random.default_rng(1).integers(0, ROWS, (network.steps, network.batch))
    warm = np.random.default_rng(2).integers(0, ROWS, (max(network.steps, WARM_UP), network.batch))
    return start, (images, rng.integers(0, CLASSES, ROWS)), warm, batches


def loop(network: ImageNetwork, threads: int) -> Peer:
    """Onnxsurgeon's loop engine, from an ONNX model of the network."""
    from onnxsurgeon import Examples, TrainingSpec, from_model, make_engine

    start, (images, labels), *_ = task(network)
    model = from_model(network.model(start))
    examples, engine = Examples.classification(images, labels, CLASSES), make_engine("loop")
    spec = TrainingSpec(RATE, threads=lambda: threads)

    def step(batches: Array) -> list[Array]:
        trained = engine.train(model, examples, [batches], spec).network
        own = dict(pair for segment in trained.segments for pair in segment.parameters_in_file())
        found = [own[f"p{number}"] for number in range(len(start))]
        return [values if values.shape == old.shape else values.T for values, old in zip(found, start, strict=True)]

    return Peer(step)


def _elsewhere(network: ImageNetwork, threads: int, checkout: Path) -> Peer:
    """The loop engine of another checkout, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarking.convolutions", str(NETWORKS.index(network)), str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=with_checkout(checkout),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    asked, answers = process.stdin, process.stdout
    parameters = len(task(network)[0])

    def step(batches: Array) -> list[Array]:
        send(asked, batches)
        found = [receive(answers) for _ in range(parameters)]
        if any(values is None for values in found):
            raise RuntimeError(f"its process ended by code {process.wait()}")
        return [values for values in found if values is not None]

    def close() -> None:
        asked.close()
        process.wait()
        answers.close()

    return Peer(step, close=close)


def _torch(network: ImageNetwork, threads: int, *, channels_last: bool) -> Peer:
    """PyTorch as its tutorials write it."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    start, (images, labels), *_ = task(network)
    model = network.module()
    rows, goals = torch.from_numpy(images), torch.from_numpy(labels)
    if channels_last:
        model, rows = model.to(memory_format=torch.channels_last), rows.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), RATE)

    def step(batches: Array) -> list[Array]:
        with torch.no_grad():
            for parameter, values in zip(model.parameters(), start, strict=True):
                parameter.copy_(torch.from_numpy(values))
        for batch in torch.from_numpy(batches):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(rows[batch]), goals[batch]).backward()
            optimizer.step()
        return [parameter.detach().numpy().copy() for parameter in model.parameters()]

    return Peer(step)


def _onnxsim(network: ImageNetwork, threads: int) -> Peer:
    """``onnxsim.compile_training_loop``, which wants static shapes and a loss in the model."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper
    from onnxsim import compile_training_loop
    from onnxsim.compile_training import CustomOptimizer

    start, (images, labels), *_ = task(network)
    targets = np.eye(CLASSES, dtype=np.float32)[labels]
    model = network.model(start)
    graph, logits = model.graph, model.graph.output[0].name
    flatten = next(node for node in graph.node if node.op_type == "Flatten")  # it has no gradient of it
    flatten.CopyFrom(helper.make_node("Reshape", [flatten.input[0], "flat"], flatten.output))
    graph.initializer.append(numpy_helper.from_array(np.array([network.batch, start[-2].shape[1]]), "flat"))
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = network.batch
    graph.input.append(helper.make_tensor_value_info("targets", TensorProto.FLOAT, [network.batch, CLASSES]))
    graph.initializer.append(numpy_helper.from_array(np.array([0, 1]), "axes"))
    graph.initializer.append(numpy_helper.from_array(np.array(-1 / network.batch, np.float32), "scale"))
    graph.node.extend(
        [
            helper.make_node("Softmax", [logits], ["probabilities"], axis=-1),
            helper.make_node("Log", ["probabilities"], ["logs"]),
            helper.make_node("Mul", ["logs", "targets"], ["likelihood"]),
            helper.make_node("ReduceSum", ["likelihood", "axes"], ["total"], keepdims=0),
            helper.make_node("Mul", ["total", "scale"], ["loss"]),
        ]
    )
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("loss", TensorProto.FLOAT, []))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    names = [f"p{number}" for number in range(len(start))]
    made: list[Any] = []

    def renew() -> None:
        optimizer = CustomOptimizer(onnx.parser.parse_model(SGD), num_state=0)
        made[:] = [compile_training_loop(model, "loss", names, optimizer)]
        with mock.patch.object(onnxruntime, "SessionOptions", return_value=options):
            _ = made[0].step_graph  # compiles

    def step(batches: Array) -> list[Array]:
        for batch in batches:
            made[0]({"x": images[batch], "targets": targets[batch]}, lr=RATE)
        parameters = made[0].parameters()
        return [np.asarray(parameters[name]) for name in names]

    return Peer(step, renew)


def send(stream: IO[bytes], values: Array) -> None:
    """Write an array to a pipe: a line that says what it is, and its bytes."""
    stream.write(json.dumps([values.dtype.str, values.shape]).encode() + b"\n" + values.tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> Array | None:
    """What ``send`` wrote; None where nothing is left."""
    line = stream.readline()
    if not line:
        return None
    kind, shape = json.loads(line)
    return np.frombuffer(stream.read(math.prod(shape) * np.dtype(kind).itemsize), kind).reshape(shape)


def main() -> None:
    """Serve the loop engine of the onnxsurgeon that is imported: the network's number and the threads are given."""
    number, threads = map(int, sys.argv[1:])
    step = loop(NETWORKS[number], threads).step
    while (batches := receive(sys.stdin.buffer)) is not None:
        for values in step(batches):
            send(sys.stdout.buffer, values)


if __name__ == "__main__":
    main()
