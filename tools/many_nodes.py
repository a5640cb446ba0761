"""Models of very many nodes, and the seconds and memory that ``inspect`` takes for each.

    python tools/many_nodes.py [FOLDER] [--kind elementwise]

What is measured is the whole command, in a process of its own; its modules are compiled before, as an installation's
are. The files stay in FOLDER where one is given.
"""

from __future__ import annotations

import argparse
import compileall
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
UNITS, CLASSES = 8, 3
FUNCTIONS = ("Relu", "Tanh", "Sigmoid", "Neg", "Abs", "Exp")
JOINS = ("Add", "Mul", "Sub", "Max")


def elementwise(count: int) -> list[NodeProto]:
    """Functions of one tensor in a row, between two layers."""
    return [_node(FUNCTIONS[i % len(FUNCTIONS)], [f"t{i}"], f"t{i + 1}") for i in range(count)]


def residual(count: int) -> list[NodeProto]:
    """Each node joins what the two before it wrote."""
    return [_node(JOINS[i % len(JOINS)], [f"t{i}", f"t{max(0, i - 1)}"], f"t{i + 1}") for i in range(count)]


def scaled(count: int) -> list[NodeProto]:
    """Each multiplies by a constant, all of which go into the layer before; the product of all is e."""
    return [_node("Mul", [f"t{i}", "factor"], f"t{i + 1}") for i in range(count)]


def side_by_side(count: int) -> list[NodeProto]:
    """All read the first layer, and their sum is what the second reads."""
    branches = [_node(FUNCTIONS[i % 3], ["t0"], f"s{i}") for i in range(count - 1)]
    return [*branches, _node("Sum", [node.output[0] for node in branches], f"t{count}")]


def constant_ifs(count: int) -> list[NodeProto]:
    """If nodes whose branch is known."""
    return [_if("yes", i) for i in range(count)]


def computed_ifs(count: int) -> list[NodeProto]:
    """If nodes whose branch the rows decide, between the two layers."""
    return [*_decision("t0"), *(_if("decided", i) for i in range(count))]


def layers(count: int) -> list[NodeProto]:
    """Layers in a row, each with an activation."""
    nodes = []
    for i in range(count):
        nodes += [_node("Gemm", [f"t{i}", f"w{i}", f"b{i}"], f"g{i}"), _node("Relu", [f"g{i}"], f"t{i + 1}")]
    return nodes


KINDS: dict[str, tuple[Callable[[int], list[NodeProto]], int]] = {
    "elementwise": (elementwise, 100_000),
    "residual": (residual, 100_000),
    "scaled": (scaled, 100_000),
    "side by side": (side_by_side, 100_000),
    "constant ifs": (constant_ifs, 10_000),
    "computed ifs": (computed_ifs, 10_000),
    "ifs behind the head": (computed_ifs, 10_000),
    "layers": (layers, 3_000),
}


def main() -> int:
    """Parse the options, make the files and run the command; 1 where one of them is not read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="where the files are to stay; by default they are deleted")
    parser.add_argument("--kind", choices=KINDS, action="append", help="one kind, or several; by default all")
    options = parser.parse_args()
    compileall.compile_dir(ROOT / "onnxsurgeon", quiet=1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        ended = [measure(kind, folder) for kind in options.kind or KINDS]
    return max(ended)


def measure(kind: str, folder: Path) -> int:
    """Print what inspect takes for one kind; its exit code."""
    make, count = KINDS[kind]
    path = folder / f"{kind.replace(' ', '-')}.onnx"
    onnx.save(model(kind, make(count), count), path)
    start = time.perf_counter()
    command = [sys.executable, "-m", "onnxsurgeon", "inspect", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment) as process:
        assert process.stdout is not None
        printed = process.stdout.read().decode()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds, size = time.perf_counter() - start, path.stat().st_size / 1e6
    processor = used.ru_utime + used.ru_stime
    times = f"inspect {seconds:5.1f} s, processor {processor:5.1f} s, {used.ru_maxrss / 1000:5.0f} MB"
    print(f"{count:>7,} {kind:<20} {size:4.1f} MB  {times}, exit {process.returncode}", flush=True)
    if process.returncode:
        print(f"        {printed.strip().splitlines()[-1][:200]}")
    return process.returncode


def model(kind: str, nodes: list[NodeProto], count: int) -> ModelProto:
    """A model of these nodes: between two layers, behind them, or the layers themselves."""
    rng = np.random.default_rng(0)
    constants: dict[str, Any] = {"yes": np.bool_(True), "factor": np.float32(np.exp(1 / count)), "zero": np.float32(0)}
    if kind == "layers":
        for i in range(count):
            constants[f"w{i}"] = (rng.standard_normal((UNITS, UNITS)) * np.sqrt(2 / UNITS)).astype(np.float32)
            constants[f"b{i}"] = rng.standard_normal(UNITS).astype(np.float32)
        first = [_node("Identity", ["x"], "t0")]
    else:
        constants["w"] = rng.standard_normal((UNITS, UNITS)).astype(np.float32)
        first = [_node("MatMul", ["x", "w"], "t0")]
    constants["v"] = rng.standard_normal((UNITS, CLASSES)).astype(np.float32)
    last = _node("MatMul", [f"t{count}", "v"], "y")
    if kind == "ifs behind the head":
        first = [_node("MatMul", ["x", "w"], "h"), _node("Relu", ["h"], "r"), _node("MatMul", ["r", "v"], "t0")]
        last = _node("Identity", [f"t{count}"], "y")
    read = {name for node in (*first, *nodes, last) for name in node.input}
    graph = helper.make_graph(
        [*first, *nodes, last],
        kind.replace(" ", "-"),
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", UNITS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in read],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _node(operator: str, read: list[str], written: str) -> NodeProto:
    return helper.make_node(operator, read, [written])


def _decision(tensor: str) -> list[NodeProto]:
    """Nodes that write "decided", which the values of a tensor decide."""
    total = helper.make_node("ReduceSum", [tensor], ["sum"], keepdims=0)
    return [total, _node("Greater", ["sum", "zero"], "decided")]


def _if(condition: str, number: int) -> NodeProto:
    bodies = [_body(operator, f"t{number}", f"{operator}{number}") for operator in ("Relu", "Neg")]
    node = _node("If", [condition], f"t{number + 1}")
    for name, body in zip(("then_branch", "else_branch"), bodies, strict=True):
        node.attribute.append(helper.make_attribute(name, body))
    return node


def _body(operator: str, read: str, written: str) -> GraphProto:
    output = helper.make_tensor_value_info(written, TensorProto.FLOAT, None)
    return helper.make_graph([_node(operator, [read], written)], operator, [], [output])


if __name__ == "__main__":
    sys.exit(main())
