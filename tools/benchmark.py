"""Microseconds per training step: the loop engine, and whatever else here can train the same network.

    python tools/benchmark.py
    python tools/benchmark.py --sizes small large --rounds 7 --steps 500 --json benchmark.json

Every peer starts from the same weights, sees the same batches in the same order, and has one thread. The peers take
turns, round by round, so that whatever else the machine is doing meets all of them. A step is everything that
training on one more batch takes: picking its rows from the resident data, forward, backward, update. What is done
once, such as making sessions and artifacts, is not timed. The last column of the table says whether they all did the
same work: it compares the weights in the end.

No environment holds all peers, since the training build of ONNX Runtime excludes the current one; ratios to the loop
engine, which runs everywhere, compare between environments better than microseconds do:

    loop        any environment of onnxsurgeon
    artifacts   onnxsurgeon[training]: onnxruntime-training-cpu or onnxruntime-training
    torch       where torch is installed; only its CPU is used
    onnxsim     where onnxsim with compile_training_loop (0.8 has it) and onnxruntime are installed
    numpy       any environment
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsurgeon import BatchSchedule, EngineError, Examples, Network, TrainingSpec, create, make_engine
from onnxsurgeon.linear_algebra import Array, single_threaded
from onnxsurgeon.runtime import first_line, onnxruntime, physical_cores, session_options
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import forward, make_model, parameter_names

SIZES = {
    "small": (784, 10, 10),
    "large": (784, 300, 100, 100, 10),
    "cifar-large": (3072, 300, 100, 100, 10),
}
BATCH = 16
ROWS = 6_000  # a multiple of the batch: no batch is shorter than the others
WARM_UP = 20  # untimed steps at the start of each run: the first ones allocate what the rest reuse
SEED = 0
PACKAGES = (
    "onnxsurgeon",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-training-cpu",
    "onnxruntime-training",
    "torch",
    "onnxsim",
)
COLUMNS = ("network", "peer", "µs per step: median (min..max)", "ratio to loop")


class Run(NamedTuple):
    """One run of one peer: seconds of the timed steps, and the parameters after them, as in the network."""

    seconds: float
    parameters: list[Array]


@dataclass(frozen=True)
class Task:
    """What every peer is given: where to start, and row numbers (steps, batch) untimed and timed."""

    network: Network
    examples: Examples
    warm_up: Array
    batches: Array
    learning_rate: float = TrainingSpec.learning_rate

    @property
    def start(self) -> list[Array]:
        """Parameters of the network, copied: some peers train in place."""
        return [values.copy() for _, values in self.network.chain.parameters()]


Peer = Callable[[], Run]


def main() -> None:
    """Parse, measure, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each peer, in turns")
    parser.add_argument("--steps", type=int, default=500, help="timed steps in each run")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    arguments = parser.parse_args()
    if min(arguments.rounds, arguments.steps) < 1:
        parser.error("--rounds and --steps are at least 1")
    report: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(),
        "settings": {
            "batch": BATCH,
            "rows": ROWS,
            "learning_rate": TrainingSpec.learning_rate,
            "threads": 1,
            "rounds": arguments.rounds,
            "steps": arguments.steps,
            "warm_up": WARM_UP,
        },
        "results": [],
        "absent": {},
    }
    for title in ("machine", "versions", "settings"):
        print(f"{title}: " + ", ".join(f"{key} {value}" for key, value in report[title].items()) + "\n")
    # A bar would end the table's cell unless it is escaped.
    print("| " + " | ".join((*COLUMNS, rf"max \|Δ weights\| vs loop after {WARM_UP + arguments.steps} steps")) + " |")
    print("| --- | --- | ---: | ---: | ---: |")
    for size in arguments.sizes:
        runs, absent = measure(make_task(SIZES[size], arguments.steps), arguments.rounds)
        for row in summary(size, runs, arguments.steps):
            report["results"].append(row)
            print(markdown(row), flush=True)
        for name, reason in absent.items():
            report["absent"].setdefault(name, {})[size] = reason
    for name, reasons in report["absent"].items():
        print("\n" + "\n".join(f"{name}: {reason}" for reason in dict.fromkeys(reasons.values())))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def machine() -> dict[str, str | int]:
    """Platform, processor, cores and Python."""
    processor = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text().splitlines()
        models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        processor = next(models, processor)
    return {
        "platform": platform.platform(),
        "processor": processor or "unknown",
        "cores": physical_cores(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def make_task(sizes: tuple[int, ...], steps: int) -> Task:
    """Random rows with random labels: what is in them changes no step's time."""
    generator = np.random.default_rng(SEED)
    features = generator.random((ROWS, sizes[0]), np.float32)
    examples = Examples(features, generator.integers(0, sizes[-1], ROWS), sizes[-1])
    batches = np.concatenate(list(BatchSchedule(ROWS, BATCH, SEED).window(0, WARM_UP + steps)))
    return Task(create(sizes, seed=SEED), examples, batches[:WARM_UP], batches[WARM_UP:])


def measure(task: Task, rounds: int) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """Runs of every peer by its name, the loop's first; and why the others are absent."""
    peers: dict[str, Peer] = {}
    absent: dict[str, str] = {}
    for name, make in PEERS.items():
        try:
            peers[name] = make(task)
        except (ImportError, EngineError) as error:
            absent[name] = f"not installed: {first_line(error)}"
    runs: dict[str, list[Run]] = {name: [] for name in peers}
    # The limit holds for libraries that are loaded by now, so it comes after every import.
    with single_threaded():
        for _ in range(rounds):
            for name in list(runs):
                try:
                    runs[name].append(peers[name]())
                except Exception as error:  # peers' exceptions share no base, and one must not cost us the others
                    if name == "loop":
                        raise
                    del runs[name]
                    absent[name] = f"failed: {type(error).__name__}: {first_line(error)}"
    # Deviations are measured from where the loop started as well: two peers that stand still agree, too.
    runs["start"] = [Run(0.0, task.start)]
    return runs, absent


def summary(size: str, runs: dict[str, list[Run]], steps: int) -> Iterator[dict[str, Any]]:
    """One record for each peer."""
    loop, start = runs["loop"], runs.pop("start")[-1]
    for name, ran in runs.items():
        microseconds = [run.seconds / steps * 1e6 for run in ran]
        yield {
            "network": f"{size}, {'-'.join(map(str, SIZES[size]))}",
            "peer": name,
            "microseconds": microseconds,
            "median": median(microseconds),
            "ratio": median(run.seconds for run in ran) / median(run.seconds for run in loop),
            "deviation": deviation(ran[-1], loop[-1]),
            "moved": deviation(ran[-1], start),
        }


def deviation(one: Run, other: Run) -> float:
    """The largest difference between two runs' parameters."""
    pairs = zip(one.parameters, other.parameters, strict=True)
    return max(float(np.abs(mine - theirs).max()) for mine, theirs in pairs)


def markdown(row: dict[str, Any]) -> str:
    """A record as a row of the table; the loop's own says how far it got from the start."""
    times = f"{row['median']:.1f} ({min(row['microseconds']):.1f}..{max(row['microseconds']):.1f})"
    weights = f"moved by {row['moved']:.1e}" if row["peer"] == "loop" else f"{row['deviation']:.1e}"
    return f"| {row['network']} | {row['peer']} | {times} | {row['ratio']:.2f} | {weights} |"


def engine_peer(name: str) -> Callable[[Task], Peer]:
    """One of onnxsurgeon's own engines, by its public interface.

    An engine asks for the next array of batches when it is done with the last: the clock is in the iterator, where
    it leaves out what ``train`` does before and after.
    """

    def make(task: Task) -> Peer:
        engine = make_engine(name)

        def run() -> Run:
            times: list[float] = []

            def batches() -> Iterator[Array]:
                yield task.warm_up
                times.append(time.perf_counter())
                yield task.batches
                times.append(time.perf_counter())

            trained = engine.train(task.network, task.examples, batches(), TrainingSpec(task.learning_rate)).network
            return Run(times[1] - times[0], [values for _, values in trained.chain.parameters()])

        return run

    return make


def timed(step: Callable[[Any], object], warm_up: Iterable[Any], batches: Iterable[Any]) -> float:
    """Seconds that ``step`` takes for all of ``batches``."""
    for rows in warm_up:
        step(rows)
    start = time.perf_counter()
    for rows in batches:
        step(rows)
    return time.perf_counter() - start


def torch_peer(task: Task) -> Peer:
    """PyTorch as its tutorials write it: Sequential, cross_entropy, backward, optim.SGD; eager."""
    import torch

    torch.set_num_threads(1)
    features, labels = torch.from_numpy(task.examples.features), torch.from_numpy(task.examples.labels)
    warm_up, batches = (torch.from_numpy(rows).unbind() for rows in (task.warm_up, task.batches))

    def run() -> Run:
        modules: list[Any] = []
        for layer in task.network.layers:
            modules += [torch.nn.Linear(layer.inputs, layer.units), torch.nn.ReLU()]
        model = torch.nn.Sequential(*modules[:-1])
        parameters = list(model.parameters())
        with torch.no_grad():
            for parameter, values in zip(parameters, task.start, strict=True):
                parameter.copy_(torch.from_numpy(values.T))  # a Linear's weight is (n_out, n_in)
        optimizer = torch.optim.SGD(parameters, task.learning_rate)

        def step(rows: Any) -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(features[rows]), labels[rows]).backward()
            optimizer.step()

        return Run(timed(step, warm_up, batches), [parameter.detach().numpy().T for parameter in parameters])

    return run


def numpy_peer(task: Task) -> Peer:
    """The same step by hand: in place where numpy can, and only the smallest tensor is scaled by the rate."""
    features, targets = task.examples.features, task.examples.targets
    rate = -task.learning_rate / BATCH

    def run() -> Run:
        parameters = task.start
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))

        def step(rows: Array) -> None:
            outputs = [features[rows]]
            for weight, bias in layers:
                z = outputs[-1] @ weight
                z += bias
                outputs.append(np.maximum(z, 0, out=z) if len(outputs) < len(layers) else z)
            delta = outputs.pop()
            delta -= delta.max(axis=1, keepdims=True)
            np.exp(delta, out=delta)
            delta /= delta.sum(axis=1, keepdims=True)
            delta -= targets[rows]
            delta *= rate
            for (weight, bias), x in zip(reversed(layers), reversed(outputs), strict=True):
                previous = (delta @ weight.T) * (x > 0) if x is not outputs[0] else delta
                weight += x.T @ delta
                bias += delta.sum(axis=0)
                delta = previous

        return Run(timed(step, task.warm_up, task.batches), parameters)

    return run


def onnxsim_peer(task: Task) -> Peer:
    """``onnxsim.compile_training_loop``: one step as an ONNX graph, called from Python for every batch.

    Of its own it has Adam and SGD with momentum 0.9; plain SGD is a CustomOptimizer without state.
    """
    from onnxsim import compile_training_loop
    from onnxsim.compile_training import CustomOptimizer

    features, targets = task.examples.features, task.examples.targets
    model, names = loss_model(task.network), parameter_names(task.network.chain)
    optimizer = CustomOptimizer(model=sgd_model(), num_state=0)

    def run() -> Run:
        loop = compile_training_loop(model, "loss", names, optimizer)
        # It takes no session options, and ONNX Runtime's own default is a thread for each core. All else, such as
        # its choice of no graph optimization, is left as it is.
        options = session_options()
        with mock.patch.object(onnxruntime(), "SessionOptions", lambda: options):
            _ = loop.step_graph  # compiles

        def step(rows: Array) -> None:
            loop({"features": features[rows], "targets": targets[rows]}, lr=task.learning_rate)

        seconds = timed(step, task.warm_up, task.batches)
        trained = loop.parameters()
        return Run(seconds, [trained[name] for name in names])

    return run


def loss_model(network: Network) -> onnx.ModelProto:
    """Forward pass and mean cross-entropy with static shapes; onnxsim differentiates no LogSoftmax."""
    build = GraphBuilder(network.chain.dtype)
    names = parameter_names(network.chain)
    for name, (_, values) in zip(names, network.chain.parameters(), strict=True):
        build.constants[name] = numpy_helper.from_array(values, name)
    logits = forward(build, network.chain, "features", names)[-1].y
    likelihood = build.add("Mul", build.add("Log", build.add("Softmax", logits, axis=-1)), "targets")
    total = build.add("ReduceSum", likelihood, build.axes(0, 1), keepdims=0)
    build.add("Mul", total, build.scalar(-1 / BATCH), output="loss")
    shapes = {"features": [BATCH, network.widths[0]], "targets": [BATCH, network.widths[-1]], "loss": []}
    features, targets, loss = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()
    )
    return make_model("loss", build, [features, targets], [loss])


def sgd_model() -> onnx.ModelProto:
    """θ' = θ − η g, for parameters of any shape."""
    build = GraphBuilder(np.dtype(np.float32))
    build.add("Sub", "parameter", build.add("Mul", "gradient", "rate"), output="updated")
    parameter, gradient, rate, updated = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in ("parameter", "gradient", "rate", "updated")
    )
    return make_model("sgd", build, [parameter, gradient, rate], [updated])


PEERS: dict[str, Callable[[Task], Peer]] = {
    "loop": engine_peer("loop"),
    "artifacts": engine_peer("artifacts"),
    "torch": torch_peer,
    "onnxsim": onnxsim_peer,
    "numpy": numpy_peer,
}


if __name__ == "__main__":
    main()
