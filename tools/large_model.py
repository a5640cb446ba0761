"""A model of more than 2 GB with external data: written, read, changed and written again, with seconds and memory.

    python tools/large_model.py FOLDER [--inputs 1200000] [--units 512]

Each step is a process of its own, so that each one's peak memory is its own. The files are deleted in the end.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

STEPS = ("imports", "write", "read", "replace", "reread", "load", "save", "inspect", "widen:2:8", "widen:1:8")


def main() -> int:
    """Parse the options, and run every step in a process, or one in this."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--inputs", type=int, default=1_200_000)
    parser.add_argument("--units", type=int, default=512)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        run_step(options.step, options.folder, (options.inputs, options.units, 64, 10))
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        for step in STEPS:
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--step", step], check=True)
    finally:
        for path in (*options.folder.glob("large.onnx*"), *options.folder.glob("changed.onnx*")):
            path.unlink()
    return 0


def run_step(step: str, folder: Path, sizes: tuple[int, ...]) -> None:
    """Run one step and print how long it took and how much memory."""
    from onnxsurgeon.graph.files import Parts, read_parts, write_parts

    with measured(step, folder / "large.onnx"):
        if step == "write":
            write_model_file(folder / "large.onnx", sizes)
        elif step == "read":
            read_parts(folder / "large.onnx")
        elif step == "replace":
            parts = read_parts(folder / "large.onnx")
            arrays = {**parts.arrays, "2.weight": np.ones((sizes[1], sizes[2]), "f")}
            write_parts(Parts(parts.skeleton, arrays, parts.external, parts.headers), folder / "changed.onnx")
        elif step == "reread":
            parts = read_parts(folder / "changed.onnx")
            if not (parts.arrays["2.weight"] == 1).all() or not parts.arrays["1.weight"][-1].any():
                raise SystemExit("what was read is not what was written")
        elif step != "imports":
            surgeon_step(step, folder)


@contextmanager
def measured(step: str, model: Path) -> Iterator[None]:
    """Print the seconds that the block takes, and this process's peak memory beside the size of ``model``."""
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    usage = resource.getrusage(resource.RUSAGE_SELF)
    size = sum(path.stat().st_size for path in model.parent.glob(f"{model.name}*"))
    peak = usage.ru_maxrss * 1024
    times = f", {peak / size:4.2f} times the model's {size / 1e9:.2f} GB" if size else ""
    processor = usage.ru_utime + usage.ru_stime
    print(f"{step:<18} {seconds:7.2f} s, processor {processor:7.2f} s, peak {peak / 1e9:5.2f} GB{times}", flush=True)


def surgeon_step(step: str, folder: Path) -> None:
    """What the command line's inspect and operate do; a surgery is proved and its result saved."""
    from onnxsurgeon import Thresholds, inspect_layers, load, operate, parse, propose, save

    network = load(folder / "large.onnx")
    if step == "inspect":
        inspect_layers(network, Thresholds())
        propose(network, Thresholds())
    elif step.startswith("widen"):
        network = operate(network, parse(step), require_exact=True).network
    if step not in ("load", "inspect"):
        save(network, folder / "changed.onnx", overwrite=True)


def write_model_file(
    path: Path, sizes: tuple[int, ...], *, storage: str = "external", rank: int = 0, gain: float = 1.0
) -> None:
    """A chain of Gemm and Relu with random weights of variance ``gain`` / n_in, drawn a block of rows at a time.

    ``storage`` is "external", "inline", or "transposed": inline, and read with transB = 1, as PyTorch writes weights.
    With a ``rank``, the hidden layers' weights are products of two thin ones.
    """
    from onnx import TensorProto, helper

    rng, transposed = np.random.default_rng(0), storage == "transposed"
    nodes, tensors, layers = [], [], list(pairwise(sizes))
    data = path.with_name(f"{path.name}.data")
    with data.open("wb") as file:
        for number, (n_in, n_out) in enumerate(layers, start=1):
            last = number == len(layers)
            weight = TensorProto(name=f"{number}.weight", data_type=TensorProto.FLOAT, dims=[n_in, n_out])
            offset = file.tell()
            for block in _blocks(rng, n_in, n_out, 0 if last else rank, gain):
                file.write(block.data)
            if storage == "external":
                weight.data_location = TensorProto.EXTERNAL
                for key, value in (("location", data.name), ("offset", offset), ("length", file.tell() - offset)):
                    weight.external_data.add(key=key, value=str(value))
            else:
                file.flush()
                values = np.memmap(data, "f", "r", offset, (n_in, n_out))
                if transposed:
                    weight.dims[:] = [n_out, n_in]
                    values = values.T
                weight.raw_data = values.tobytes()
            bias = helper.make_tensor(f"{number}.bias", TensorProto.FLOAT, [n_out], np.zeros(n_out, "f"))
            x, y = f"h{number - 1}" if number > 1 else "x", "y" if last else f"z{number}"
            nodes.append(
                helper.make_node("Gemm", [x, weight.name, bias.name], [y], name=f"{number}", transB=int(transposed))
            )
            if not last:
                nodes.append(helper.make_node("Relu", [y], [f"h{number}"], name=f"{number}.relu"))
            tensors += [weight, bias]
    if storage != "external":
        data.unlink()
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", sizes[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", sizes[-1]])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def _blocks(rng: np.random.Generator, n_in: int, n_out: int, rank: int, gain: float) -> Iterator[np.ndarray]:
    """Rows of a weight (n_in, n_out) of normal values, of at most ``rank`` unless that is 0."""
    scale = np.float32(np.sqrt(gain / n_in))
    right = rng.standard_normal((rank, n_out), dtype=np.float32) / np.float32(np.sqrt(rank)) if rank else None
    for first in range(0, n_in, 10_000):
        rows = min(10_000, n_in - first)
        block = rng.standard_normal((rows, rank or n_out), dtype=np.float32)
        yield (block if right is None else block @ right) * scale


if __name__ == "__main__":
    sys.exit(main())
