"""Microseconds per training step: the loop engine, and whatever else here can train the same network.

    python tools/benchmark.py [--sizes small large cifar-large] [--rounds 7] [--steps 500] [--json benchmark.json]

Every peer starts from the same weights, sees the same batches in the same order, and has one thread. They take turns,
so that whatever else the machine is doing meets all of them. A step is everything that one more batch takes: picking
its rows from the resident data, forward, backward, update; sessions and artifacts are made untimed. No environment
holds all peers; compare environments by the ratios to the loop engine:

    loop engine, numpy    in any environment of onnxsurgeon
    artifacts engine      with onnxsurgeon[training], which excludes the current ONNX Runtime
    PyTorch               where torch is installed; on the CPU
    onnxsim               where onnxsim 0.8 and an ONNX Runtime are installed

The table's last column says whether all did the same work: 1e-8 to 1e-7 is rounding; where rounding puts a Relu's
input on the other side of zero it is 1e-6 to 1e-4, still far below what the loop moved the weights.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import time
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import BatchSchedule, EngineError, Examples, Network, TrainingSpec, create, make_engine
from onnxsurgeon.linear_algebra import Array, single_threaded
from onnxsurgeon.runtime import first_line, onnxruntime, physical_cores, session_options
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import forward, make_model, parameter_names

SIZES = {"small": (784, 10, 10), "large": (784, 300, 100, 100, 10), "cifar-large": (3072, 300, 100, 100, 10)}
BATCH, SEED, RATE = 16, 0, 0.005
ROWS = 6_000  # a multiple of the batch: no batch is shorter than the others
WARM_UP = 20  # untimed steps at the start of each run: the first ones allocate what the rest reuse
PACKAGES = ("numpy", "onnx", "onnxsim", "onnxsurgeon", "torch")
LOOP = "loop engine"
# onnxsim's own optimizers are Adam and SGD with momentum 0.9.
SGD = """<ir_version: 8, opset_import: ["" : 17]>
    sgd (float[n] parameter, float[n] gradient, float rate) => (float[n] updated)
    { scaled = Mul(gradient, rate) updated = Sub(parameter, scaled) }"""


class Run(NamedTuple):
    """Microseconds per timed step, and the parameters in the end, in the order of ``chain.parameters()``."""

    microseconds: float
    parameters: list[Array]


class Task(NamedTuple):
    """What every peer is given; ``batches`` are row numbers (steps, batch), of which the first WARM_UP are untimed."""

    network: Network
    examples: Examples
    batches: Array

    @property
    def start(self) -> list[Array]:
        """Copies of the network's parameters: some peers train in place."""
        return [values.copy() for _, values in self.network.chain.parameters()]


def main() -> None:
    """Parse, measure, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each peer, in turns")
    parser.add_argument("--steps", type=int, default=500, help="timed steps in each run")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    arguments = parser.parse_args()
    if min(arguments.rounds, arguments.steps) < 1:
        parser.error("--rounds and --steps are 1 or more")
    settings = {"batch": BATCH, "rate": RATE, "threads": 1, "rounds": arguments.rounds, "steps": arguments.steps}
    report: dict[str, Any] = {"machine": machine(), "versions": versions(), "settings": settings}
    for title, entries in report.items():
        print(f"- {title}: " + ", ".join(f"{key} {value}" for key, value in entries.items()))
    # A bar would end the table's cell unless it is escaped.
    weights = rf"max \|Δ weights\| vs loop after {WARM_UP + arguments.steps} steps"
    print(f"\n| network | peer | µs per step: median (min..max) | ratio to loop | {weights} |")
    print("| --- | --- | ---: | ---: | ---: |")
    report |= {"results": [], "absent": {}}
    for size in dict.fromkeys(arguments.sizes):
        task = make_task(SIZES[size], arguments.steps)
        runs, absent = measure(task, arguments.rounds)
        records = [summary(size, peer, runs, task) for peer in runs]
        print("\n".join(map(markdown, records)), flush=True)
        report["results"] += records
        report["absent"] |= absent
    print("".join(f"\n- {peer}: {reason}" for peer, reason in report["absent"].items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def machine() -> dict[str, str | int]:
    """Platform, processor, cores and Python."""
    information = Path("/proc/cpuinfo")
    text = information.read_text() if information.is_file() else ""
    models = re.findall(r"^model name\s*: (.+)$", text, re.MULTILINE) or [platform.processor() or "unknown"]
    system = {"platform": platform.platform(), "processor": models[0]}
    return {**system, "cores": physical_cores(), "Python": platform.python_version()}


def versions() -> dict[str, str]:
    """Versions of the installed packages that matter here; ONNX Runtime is one of four."""
    installed = {distribution.name: distribution.version for distribution in distributions()}
    return {name: installed[name] for name in sorted(installed) if name in PACKAGES or name.startswith("onnxruntime")}


def make_task(sizes: tuple[int, ...], steps: int) -> Task:
    """Random rows and labels. The rows are short: with long ones SGD is near instability, where rounding grows."""
    rng = np.random.default_rng(SEED)
    features = rng.uniform(-0.1, 0.1, (ROWS, sizes[0])).astype(np.float32)
    examples = Examples.classification(features, rng.integers(0, sizes[-1], ROWS), sizes[-1])
    batches = np.concatenate(list(BatchSchedule(ROWS, BATCH, SEED).window(0, WARM_UP + steps)))
    return Task(create(sizes, seed=SEED), examples, batches)


@single_threaded()  # numpy's BLAS; the first call counts as well, or its threads would still spin in the next ones
def measure(task: Task, rounds: int) -> tuple[dict[str, list[Run]], dict[str, str]]:
    """Runs of every peer by its name, and why the others are absent."""
    runs: dict[str, list[Run]] = {}
    absent: dict[str, str] = {}
    for name, peer in PEERS.items():
        try:
            peer(task)  # not counted: it shows whether the peer works here
            runs[name] = []
        except Exception as error:  # peers' exceptions share no base, and one must not cost us the others
            missing = isinstance(error, ImportError | EngineError)
            kind = "not installed" if missing else f"fails on {task.network.topology}: {type(error).__name__}"
            absent[name] = f"{kind}: {first_line(error)}"
    if LOOP in absent:
        raise SystemExit(f"{LOOP}: {absent[LOOP]}")
    for _ in range(rounds):
        for name, ran in runs.items():
            ran.append(PEERS[name](task))
    return runs, absent


def summary(size: str, peer: str, runs: dict[str, list[Run]], task: Task) -> dict[str, Any]:
    """The record of one peer."""
    loop, times = runs[LOOP], [run.microseconds for run in runs[peer]]
    return {
        "network": f"{size}, {task.network.topology}",
        "peer": peer,
        "microseconds": times,
        "median": median(times),
        "ratio": median(times) / median(run.microseconds for run in loop),
        "deviation": deviation(runs[peer][-1].parameters, loop[-1].parameters),
        "moved": deviation(runs[peer][-1].parameters, task.start),
    }


def deviation(some: list[Array], others: list[Array]) -> float:
    """The largest difference between two lists of parameters; NaN where there is one."""
    return float(np.max([np.abs(mine - theirs).max() for mine, theirs in zip(some, others, strict=True)]))


def markdown(record: dict[str, Any]) -> str:
    """A row of the table; the loop's own says how far it got, since two that stand still agree as well."""
    times = f"{record['median']:.1f} ({min(record['microseconds']):.1f}..{max(record['microseconds']):.1f})"
    weights = f"moved by {record['moved']:.1e}" if record["peer"] == LOOP else f"{record['deviation']:.1e}"
    return f"| {record['network']} | {record['peer']} | {times} | {record['ratio']:.2f} | {weights} |"


def engine_peer(name: str, task: Task) -> Run:
    """One of onnxsurgeon's own engines, by its public interface.

    An engine asks for the next array of batches when it is done with the last. The clock is therefore in the
    iterator, where it leaves out what ``train`` does once: artifacts, sessions, reading the weights back.
    """
    times: list[float] = []

    def batches() -> Iterator[Array]:
        yield task.batches[:WARM_UP]
        times.append(time.perf_counter())
        yield task.batches[WARM_UP:]
        times.append(time.perf_counter())

    trained = make_engine(name).train(task.network, task.examples, batches(), TrainingSpec(RATE)).network
    microseconds = (times[1] - times[0]) / (len(task.batches) - WARM_UP) * 1e6
    return Run(microseconds, [values for _, values in trained.chain.parameters()])


def timed(step: Callable[[Any], object], batches: Array | tuple[Any, ...]) -> float:
    """Microseconds that ``step`` takes for one of ``batches``, those of the warm-up not counted."""
    for rows in batches[:WARM_UP]:
        step(rows)
    start = time.perf_counter()
    for rows in batches[WARM_UP:]:
        step(rows)
    return (time.perf_counter() - start) / (len(batches) - WARM_UP) * 1e6


def torch_peer(task: Task) -> Run:
    """PyTorch as its tutorials write it: Sequential, cross_entropy, backward, optim.SGD."""
    import torch

    torch.set_num_threads(1)
    features, labels = torch.from_numpy(task.examples.features[0]), torch.from_numpy(task.examples.labels[0])
    modules: list[Any] = []
    for layer in task.network.layers:
        modules += [torch.nn.Linear(layer.inputs, layer.units), torch.nn.ReLU()]
    model = torch.nn.Sequential(*modules[:-1])
    parameters = list(model.parameters())
    with torch.no_grad():
        for parameter, values in zip(parameters, task.start, strict=True):
            parameter.copy_(torch.from_numpy(values.T))  # a Linear's weight is (n_out, n_in)
    optimizer = torch.optim.SGD(parameters, RATE)

    def step(rows: Any) -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(features[rows]), labels[rows]).backward()
        optimizer.step()

    microseconds = timed(step, torch.from_numpy(task.batches).unbind())
    return Run(microseconds, [parameter.detach().numpy().T for parameter in parameters])


def onnxsim_peer(task: Task) -> Run:
    """``onnxsim.compile_training_loop``: one step as an ONNX graph, called from Python for every batch."""
    from onnxsim import compile_training_loop
    from onnxsim.compile_training import CustomOptimizer

    features, targets = task.examples.features[0], task.examples.targets[0]
    model, names = loss_model(task.network), parameter_names(task.network)
    loop = compile_training_loop(model, "loss", names, CustomOptimizer(onnx.parser.parse_model(SGD), num_state=0))
    # It takes no session options, and ONNX Runtime's default is a thread for each core. All else, such as its
    # choice of no graph optimization, is left to it.
    with mock.patch.object(onnxruntime(), "SessionOptions", return_value=session_options()):
        _ = loop.step_graph  # compiles

    def step(rows: Array) -> None:
        loop({"features": features[rows], "targets": targets[rows]}, lr=RATE)

    return Run(timed(step, task.batches), list(loop.parameters().values()))  # times first, then reads


def loss_model(network: Network) -> onnx.ModelProto:
    """Forward pass and mean cross-entropy with static shapes; onnxsim differentiates no LogSoftmax."""
    build, names = GraphBuilder(network.chain.dtype), parameter_names(network)
    for name, (_, values) in zip(names, network.chain.parameters(), strict=True):
        build.constants[name] = numpy_helper.from_array(values, name)
    logits = forward(build, network, ["features"]).tensors[network.heads[0].tensor]
    likelihood = build.add("Mul", build.add("Log", build.add("Softmax", logits, axis=-1)), "targets")
    total = build.add("ReduceSum", likelihood, build.axes(0, 1), keepdims=0)
    build.add("Mul", total, build.scalar(-1 / BATCH), output="loss")
    shapes = {"features": [BATCH, network.widths[0]], "targets": [BATCH, network.widths[-1]], "loss": []}
    *inputs, loss = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    return make_model("loss", build, inputs, [loss])


def numpy_peer(task: Task) -> Run:
    """The same step by hand: in place where numpy can, and scaled by the rate where the tensor is smallest."""
    features, targets, parameters = task.examples.features[0], task.examples.targets[0], task.start
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
        delta *= -RATE / BATCH
        for (weight, bias), x in zip(reversed(layers), reversed(outputs), strict=True):
            previous = (delta @ weight.T) * (x > 0) if x is not outputs[0] else delta
            weight += x.T @ delta
            bias += delta.sum(axis=0)
            delta = previous

    return Run(timed(step, task.batches), parameters)


PEERS: dict[str, Callable[[Task], Run]] = {
    LOOP: lambda task: engine_peer("loop", task),
    "artifacts engine": lambda task: engine_peer("artifacts", task),
    "PyTorch eager": torch_peer,
    "onnxsim.compile_training_loop": onnxsim_peer,
    "numpy by hand": numpy_peer,
}

if __name__ == "__main__":
    main()
