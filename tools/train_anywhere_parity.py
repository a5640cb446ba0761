"""How far trainings by all runners are apart: the same networks, rows, batches and steps everywhere.

    make parity-anywhere                            # installs what it needs, and prints the tables
    python tools/train_anywhere_parity.py --only residual --steps 500

Each network is trained by the loop engine in float32, and by the runners in Python, in Node (onnxruntime-node and
onnxruntime-web's WebAssembly), in headless Chromium (WebAssembly) and in C++ (where its example is built). A figure is
the largest difference of a weight from the loop engine's, relative to the largest weight of its tensor.

A second table tells what rounding alone does to the loop engine: how far a step in float32 is from one in float64 from
the same state, the farthest of all steps; how far a training is from one whose first weights are each one rounding of
float32 away, median and largest of nine; and how far it is from the same in float64.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
from measuring.markdown import NONE, table
from playwright.sync_api import Browser, sync_playwright
from train_anywhere_speed import HERE, NODE, RUNNER, served

from onnxsurgeon import (
    EngineError,
    Examples,
    InputOptions,
    Network,
    TrainingSettings,
    create_convolutional,
    export_trainer,
    import_state,
    load,
    load_dataset,
    prepare,
)
from onnxsurgeon.data.inputs import model_inputs
from onnxsurgeon.training.loop import LoopEngine
from onnxsurgeon.training.state import OptimizerState

ROOT = Path(__file__).resolve().parent.parent
EXPORTS = ROOT / "models" / "exports"
CPP = ROOT / "runners" / "cpp" / "build" / "example"
BATCH, SEED, NUDGES = 16, 4, 9
SOFTWARE_GPU = ["--enable-features=Vulkan", "--disable-vulkan-surface", "--enable-unsafe-webgpu"]
SOFTWARE_GPU += ["--use-webgpu-adapter=swiftshader", "--use-vulkan=swiftshader"]
SETTINGS = {
    "sgd": TrainingSettings(optimizer="sgd", learning_rate=0.01),
    "adamw": TrainingSettings(optimizer="adamw", learning_rate=0.001, weight_decay=0.01),
}
Weights = dict[str, np.ndarray]
Found = tuple[Weights, float]


@dataclass(frozen=True)
class Entry:
    """A network and what it is trained on.

    Attributes:
        network: makes it.
        data: a data set's name, or a file of models/exports/data.
        target: the columns that are predicted.
        options: how rows become its input.
        fresh: whether it gets new weights: a trained one has gradients as small as what is rounded off.
    """

    network: Callable[[], Network]
    data: str = "digits"
    target: tuple[str, ...] = ()
    options: InputOptions = field(default_factory=InputOptions)
    fresh: bool = True


def _export(name: str, **given: Any) -> Entry:
    return Entry(functools.partial(load, EXPORTS / f"{name}.onnx"), **given)


ENTRIES = {
    "digits-small": Entry(functools.partial(load, ROOT / "models" / "digits-small.onnx")),
    "residual": _export("torch-dynamo-residual"),
    "regression": _export("torch-dynamo-regression", data="diabetes.csv", target=("progression",)),
    "binary": _export("sklearn-binary", data="breast-cancer.csv", target=("benign",)),
    "multi-label": _export("torch-legacy-multi-label", data="digits-facts.npz", options=InputOptions(scale=1 / 16)),
    "convolutional": Entry(functools.partial(create_convolutional, "8x8x1-c6-c4-p-12-10", seed=5), fresh=False),
    "transformer": Entry(functools.partial(load, ROOT / "tests" / "transformers" / "torch-dynamo.onnx"), fresh=False),
    "residual, trained": _export("torch-dynamo-residual", fresh=False),
}


class Case:
    """An entry with its rows and its trainer in a folder."""

    def __init__(self, entry: Entry, settings: TrainingSettings, folder: Path, steps: int) -> None:
        """Write the trainer and the rows."""
        network = entry.network()
        self.network = with_fresh_weights(network) if entry.fresh else network
        self.settings, self.folder = settings, folder
        path = entry.data if entry.data == "digits" else str(EXPORTS / "data" / entry.data)
        self.dataset = load_dataset(path, target=entry.target, networks=(self.network,))
        self.options = entry.options
        self.examples = prepare(self.network, self.dataset, self.dataset.train, entry.options)
        self.epochs = -(-steps // -(-self.examples.rows // BATCH))
        exported = export_trainer(
            self.network,
            folder / "trainer",
            dataset=self.dataset,
            options=entry.options,
            settings=settings,
            batch_size=BATCH,
            step=True,
        )
        (given,), (head,) = exported.description["inputs"], exported.description["targets"]
        ((_, found),) = model_inputs(self.network, self.dataset, self.dataset.train, entry.options).items()
        rows = found.source[slice(None) if found.numbers is None else found.numbers]
        self.rows = np.ascontiguousarray(rows.astype(given["dtype"]))
        self.targets = np.ascontiguousarray(self.examples.labels[0].astype(head["dtype"]))
        arrays = {"rows": self.rows, "targets": self.targets}
        (folder / "data.safetensors").write_bytes(safetensors.numpy.save(arrays))

    def batches(self) -> Iterator[np.ndarray]:
        """The batches that runners take, as arrays of batches of one size."""
        from onnxsurgeon_runner import order_of

        for epoch in range(self.epochs):
            order = order_of(SEED, epoch, self.examples.rows).astype(np.int64)
            full = len(order) // BATCH * BATCH
            yield order[:full].reshape(-1, BATCH)
            if full < len(order):
                yield order[full:].reshape(1, -1)


def with_fresh_weights(network: Network) -> Network:
    """The network with weights of Glorot's spread and biases of 0."""
    rng = np.random.default_rng(5)

    def fresh(values: np.ndarray) -> np.ndarray:
        reach = np.sqrt(6 / sum(values.shape))
        drawn = rng.uniform(-reach, reach, values.shape) if values.ndim == 2 else np.zeros(values.shape)
        return drawn.astype(values.dtype)

    return network.with_parameters(fresh(values) for _, values in network.parameters())


def by_engine(network: Network, case: Case, examples: Examples) -> Found:
    """Train by the loop engine."""
    spec = case.settings.spec(case.epochs, 1)
    trained = LoopEngine().train(network, examples, case.batches(), spec).network
    return dict(trained.parameters()), LoopEngine().evaluate(trained, examples).accuracy


class Wide:
    """A case's network and rows in float64."""

    def __init__(self, case: Case) -> None:
        """Convert what surrounds the weights."""
        model = onnx.ModelProto()
        model.CopyFrom(case.network.frame.model)
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
            if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
                value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                values = onnx.numpy_helper.to_array(tensor).astype(np.float64)
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        self._frame = replace(case.network.frame, model=model)
        self.network = self.of(case.network)
        self.examples = prepare(self.network, case.dataset, case.dataset.train, case.options)

    def of(self, network: Network) -> Network:
        """The same network in float64."""
        wide = network.with_parameters(values.astype(np.float64) for _, values in network.parameters())
        return replace(wide, frame=self._frame)


def widened(state: OptimizerState | None) -> OptimizerState | None:
    """An optimizer's state in float64."""
    if state is None:
        return None
    moments = tuple(tuple(values.astype(np.float64) for values in each) for each in state.moments)
    return OptimizerState(state.steps, moments)


def step_by_step(case: Case, wide: Wide) -> float:
    """How far a step in float32 is from one in float64 that starts from the same state: the farthest of all steps."""
    engine, network, state, found = LoopEngine(), case.network, None, 0.0
    for position, batch in enumerate(batch for part in case.batches() for batch in part):
        spec = case.settings.spec(case.epochs, 1, position=position)
        after = engine.train(network, case.examples, [batch[None]], spec, state)
        exact = engine.train(wide.of(network), wide.examples, [batch[None]], spec, widened(state)).network
        found = max(found, apart(dict(after.network.parameters()), dict(exact.parameters())))
        network, state = after.network, after.state
    return found


def nudged(case: Case, seed: int) -> Weights:
    """What the loop engine makes of the same network with every weight a rounding away, up or down by chance."""
    rng = np.random.default_rng(seed)

    def neighbour(values: np.ndarray) -> np.ndarray:
        towards = np.where(rng.random(values.shape) < 0.5, -np.inf, np.inf)
        found: np.ndarray = np.nextafter(values, towards.astype(values.dtype))
        return np.where(values == 0, values, found)  # a bias of 0 is no rounded one

    network = case.network.with_parameters(neighbour(values) for _, values in case.network.parameters())
    return by_engine(network, case, case.examples)[0]


def parameters_in(case: Case, state: Mapping[str, np.ndarray]) -> Weights:
    """A state's parameters as the network has them."""
    return dict(import_state(case.network, state).network.parameters())


def metric_in(found: Mapping[str, float]) -> float:
    """The one metric of what a runner evaluates."""
    return next(value for name, value in found.items() if name != "loss")


def by_python(case: Case) -> Found:
    """Train by runners/python."""
    from onnxsurgeon_runner import Trainer

    trainer = Trainer(case.folder / "trainer")
    list(trainer.train(case.rows, case.targets, epochs=case.epochs, seed=SEED))
    return parameters_in(case, trainer.state), metric_in(trainer.evaluate(case.rows, case.targets))


def by_node(runtime: str, case: Case) -> Found:
    """Train by runners/js in Node."""
    state = case.folder / "node.safetensors"
    given = [runtime, case.folder / "trainer", case.folder / "data.safetensors", case.epochs, SEED, state]
    command = ["node", str(HERE / "whole.mjs"), *map(str, given)]
    done = subprocess.run(command, cwd=RUNNER, capture_output=True, text=True, check=True)
    return parameters_in(case, safetensors.numpy.load_file(state)), metric_in(json.loads(done.stdout))


def by_page(browser: Browser, providers: list[str], case: Case) -> Found:
    """Train by runners/js in Chromium."""
    links = {"ort": RUNNER / "node_modules" / "onnxruntime-web" / "dist", "runner": RUNNER / "src"}
    for name, target in {**links, "index.html": HERE / "whole.html"}.items():
        if not (case.folder / name).exists():
            (case.folder / name).symlink_to(target)
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(0)
    asked = {"folder": "trainer/", "file": "data.safetensors", "epochs": case.epochs, "seed": SEED}
    try:
        with served(case.folder) as address:
            page.goto(address + ("?webgpu" if providers else ""))
            page.wait_for_function("globalThis.whole !== undefined")
            found = page.evaluate("asked => whole(asked)", asked | ({"providers": providers} if providers else {}))
    finally:
        context.close()
    return parameters_in(case, safetensors.numpy.load(bytes(found["state"]))), metric_in(found["metrics"])


def by_cpp(case: Case) -> Found:
    """Train by the example of runners/cpp."""
    case.rows.tofile(case.folder / "rows.bin")
    case.targets.tofile(case.folder / "targets.bin")
    state = case.folder / "cpp.safetensors"
    files = [case.folder / name for name in ("trainer", "rows.bin", "targets.bin")]
    command = [CPP, *files, case.epochs, SEED, state]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    told = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines()[case.epochs : case.epochs + 2])
    (metric,) = (float(value) for name, value in told.items() if name != "loss")
    return parameters_in(case, safetensors.numpy.load_file(state)), metric


def apart(weights: Weights, others: Weights) -> float:
    """The largest difference of a weight, relative to the largest of its tensor."""
    return max(
        float(np.abs(weights[name] - values).max() / max(np.abs(values).max(), 1e-30))
        for name, values in others.items()
    )


def rounding(name: str, optimizer: str, case: Case) -> list[str]:
    """The cells of what rounding alone does to a network's training."""
    weights, wide = by_engine(case.network, case, case.examples)[0], Wide(case)
    away = [apart(nudged(case, seed), weights) for seed in range(NUDGES)]
    try:
        whole = f"{apart(weights, by_engine(wide.network, case, wide.examples)[0]):.0e}"
        step = f"{step_by_step(case, wide):.0e}"
    except EngineError:  # ONNX Runtime has no Conv of float64
        whole = step = NONE
    return [name, optimizer, step, f"{median(away):.0e}", f"{max(away):.0e}", whole]


def row(name: str, optimizer: str, case: Case, peers: Mapping[str, Any]) -> list[str]:
    """The cells of how far its trainings are apart."""
    weights, metric = by_engine(case.network, case, case.examples)
    cells, others = [], []
    for train in peers.values():
        if train is None:
            cells.append(NONE)
            continue
        found, told = train(case)
        cells.append(f"{apart(found, weights):.0e}")
        others.append(abs(told - metric))
    return [name, optimizer, f"{metric:.4f}", *cells, f"{max(others):.4f}"]


def main() -> None:
    """Train everywhere, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500, help="at least so many; whole epochs")
    parser.add_argument(
        "--webgpu", action="store_true", help="also by step.onnx in Chromium on WebGPU, a GPU made of software"
    )
    parser.add_argument("--only", nargs="*", choices=list(ENTRIES), default=list(ENTRIES), help="networks")
    given = parser.parse_args()
    if not (RUNNER / "node_modules").is_dir():
        parser.error("runners/js/node_modules is missing: run make parity-anywhere")
    sys.path.insert(0, str(ROOT / "runners" / "python"))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has none
        if given.webgpu:
            arguments += SOFTWARE_GPU
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        peers: dict[str, Callable[[Case], Found] | None] = {
            "Python": by_python,
            **{name.replace("(wasm)", "wasm"): functools.partial(by_node, path) for name, path in NODE.items()},
            "Chromium, wasm": functools.partial(by_page, browser, []),
            "C++": by_cpp if CPP.is_file() else None,
        }
        if given.webgpu:
            peers["Chromium, WebGPU"] = functools.partial(by_page, browser, ["webgpu"])
        rows: list[list[str]] = []
        roundings: list[list[str]] = []
        for name in given.only:
            for optimizer, settings in SETTINGS.items():
                place = folder / f"{len(rows)}"
                place.mkdir()
                case = Case(ENTRIES[name], settings, place, given.steps)
                rows.append(row(name, optimizer, case, peers))
                print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
                roundings.append(rounding(name, optimizer, case))
                print(" | ".join(roundings[-1]), file=sys.stderr, flush=True)
        browser.close()
    print(table(["network", "optimizer", "accuracy or R²", *peers, "metrics apart"], rows, texts=2))
    head = ["network", "optimizer", "a step, to float64", "a rounding away, median", "largest", "all steps, to float64"]
    print(f"\n{table(head, roundings, texts=2)}")


if __name__ == "__main__":
    main()
