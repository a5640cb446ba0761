"""Every bad model a user may have, and the line that onnxsurgeon answers with.

    python tools/bad_models.py            # prints a table: case, exit code, seconds, what the user sees

Each case is written to a folder of its own, and ``onnxsurgeon inspect`` is run on it as a user would run it. A few
are not bad, though they look it, and have to be read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parent.parent
FILE = "bad.onnx"


@dataclass(frozen=True)
class Case:
    """A bad model.

    Attributes:
        make: writes ``FILE``, and what it refers to, into a folder.
        names: what the user has to be told besides the file: the node, the tensor, the fault.
        code: the exit code.
    """

    make: Callable[[Path], None]
    names: tuple[str, ...] = ()
    code: int = 2


@dataclass(frozen=True)
class Answer:
    """What the user sees of a case."""

    code: int
    out: str
    err: str
    seconds: float


def main() -> int:
    """Run every case and print the table; 1 where an answer is not as it should be."""
    failed = 0
    print(f"{'case':<52}{'exit':>5}{'seconds':>9}  what the user sees")
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            answer = run_case(name, Path(folder))
        faults = find_faults(name, answer)
        failed += bool(faults)
        lines = (answer.err or answer.out).strip().replace(folder + os.sep, "").splitlines()
        shown = lines[0] if lines else ""
        print(f"{name:<52}{answer.code:>5}{answer.seconds:>9.2f}  {shown}")
        for fault in faults:
            print(f"{'':<52}      {fault}")
    print(f"\n{len(CASES)} cases, {failed} not as they should be")
    return 1 if failed else 0


def run_case(name: str, folder: Path) -> Answer:
    """Write the case into ``folder`` and let the command line inspect it."""
    CASES[name].make(folder)
    command = [sys.executable, "-m", "onnxsurgeon", "inspect", str(folder / FILE)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    return Answer(done.returncode, done.stdout, done.stderr, time.perf_counter() - start)


def find_faults(name: str, answer: Answer) -> list[str]:
    """What is not as it should be: exit code, number of lines, what they name."""
    case, faults = CASES[name], []
    if answer.code != case.code:
        faults.append(f"exit code {answer.code}, expected {case.code}")
    shown = answer.err if case.code else answer.out
    faults += [f"does not name {text!r}" for text in case.names if text not in shown]
    if case.code == 0:
        return faults + (["something on standard error"] if answer.err else [])
    if len(answer.err.splitlines()) != 1:
        faults.append(f"{len(answer.err.splitlines())} lines on standard error")
    if FILE not in answer.err:
        faults.append("does not name the file")
    if answer.out:
        faults.append("something on standard output")
    if answer.seconds > 10:
        faults.append(f"took {answer.seconds:.1f} s")
    return faults


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node named after its operator in small letters, and its first output."""
    outs = outputs.split()
    return helper.make_node(op, inputs.split(), outs, name=f"{op.lower()}_{outs[0]}", **attributes)


def chain() -> list[onnx.NodeProto]:
    """Five units and a Relu, from x to y."""
    return [node("Gemm", "x W1 b1", "a"), node("Relu", "a", "h"), node("Gemm", "h W2 b2", "y")]


def weights() -> dict[str, Any]:
    """Weights and biases of ``chain``."""
    rng = np.random.default_rng(0)
    arrays = {"W1": rng.standard_normal((4, 5)), "b1": np.zeros(5), "W2": rng.standard_normal((5, 3)), "b2": np.ones(3)}
    return {name: values.astype(np.float32) for name, values in arrays.items()}


def model(
    nodes: list[onnx.NodeProto] | None = None,
    extra: dict[str, Any] | None = None,
    *,
    shape: tuple[int | str, ...] = ("batch", 4),
    domain: str = "",
    without: tuple[str, ...] = (),
    feature: str = "x",
) -> ModelProto:
    """A good model, or one that becomes bad by its arguments."""
    values = {name: array for name, array in {**weights(), **(extra or {})}.items() if name not in without}
    graph = helper.make_graph(
        chain() if nodes is None else nodes,
        "g",
        [helper.make_tensor_value_info(feature, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in values.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if domain:
        made.opset_import.add(domain=domain, version=1)
    return made


def write(content: bytes | ModelProto) -> Callable[[Path], None]:
    """Write this as the model."""
    return lambda folder: _write(folder, content)


def _write(folder: Path, content: bytes | ModelProto) -> None:
    (folder / FILE).write_bytes(content if isinstance(content, bytes) else content.SerializeToString())


def edited(edit: Callable[[ModelProto], Any], **options: Any) -> Callable[[Path], None]:
    """Write the good model after a change."""
    made = model(**options)
    edit(made)
    return write(made)


def with_value(value: float) -> Callable[[Path], None]:
    """The second layer's weight holds ``value`` at row 1, column 2."""
    weight = weights()["W2"]
    weight[1, 2] = value
    return write(model(extra={"W2": weight}))


def external(location: str, offset: int = 0, length: int = 80) -> Callable[[Path], None]:
    """W1 is in a file elsewhere; beside the model are 80 bytes, and a link to a file outside."""

    def make(folder: Path) -> None:
        made = model()
        tensor = made.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        (folder / "weights.bin").write_bytes(bytes(80))
        (folder / "link.bin").symlink_to(__file__)
        _write(folder, made)

    return make


def declared(*dims: int) -> Callable[[ModelProto], None]:
    """Let W1 declare other sizes than it holds."""

    def edit(made: ModelProto) -> None:
        del made.graph.initializer[0].dims[:]
        made.graph.initializer[0].dims.extend(dims)

    return edit


def inside_if(nodes: list[onnx.NodeProto]) -> onnx.NodeProto:
    """An If with these nodes, which write z, in both its bodies."""
    body = helper.make_graph(nodes, "body", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])
    return node("If", "flag", "y", then_branch=body, else_branch=body)


def nested(depth: int) -> ModelProto:
    """If in If in If; only one branch is deep, so that the file is small."""
    body = helper.make_graph([node("Relu", "a", "o")], "b", [], [helper.make_tensor_value_info("o", 1, None)])
    shallow = body
    for _ in range(depth):
        inner = node("If", "flag", "o", then_branch=body, else_branch=shallow)
        body = helper.make_graph([inner], "b", [], [helper.make_tensor_value_info("o", 1, None)])
    first = chain()[0]
    return model([first, node("If", "flag", "h", then_branch=body, else_branch=shallow), chain()[2]], {"flag": True})


def bottomless(depth: int) -> bytes:
    """A graph in an attribute of a node of a graph, deeper than protobuf itself can write."""

    def field(number: int, content: bytes) -> bytes:
        length, digits = len(content), bytearray()
        while length > 127:
            digits.append(length & 127 | 128)
            length >>= 7
        return bytes([number << 3 | 2, *digits, length]) + content

    graph = b""
    for _ in range(depth):
        graph = field(1, field(5, field(6, graph)))  # graph.node, node.attribute, attribute.g
    return field(7, graph)


def batch_normalization() -> list[onnx.NodeProto]:
    """A BatchNormalization in training mode between the layers."""
    normal = node("BatchNormalization", "a s t m v", "n mean var", training_mode=1)
    return [chain()[0], normal, node("Relu", "n", "h"), chain()[2]]


STATISTICS = {name: np.ones(5, np.float32) for name in "stmv"}
QUANTIZED = [
    chain()[0],
    node("QuantizeLinear", "a scale zero", "q"),
    node("DequantizeLinear", "q scale zero", "d"),
    node("Relu", "d", "h"),
    chain()[2],
]
BY_THE_ROWS = [node("ReduceSum", "x", "sum", keepdims=0), node("Greater", "sum zero", "flag")]
DENSE_IN_IF = [node("Gemm", "x W1 b1", "a"), node("Relu", "a", "h"), node("Gemm", "h W2 b2", "z")]
GOOD = model().SerializeToString()
WHOLE = helper.make_node("Mystery", ["a"], ["h"], name="mystery", domain="com.example")
BEFORE = helper.make_node("Mystery", ["i"], ["x"], name="mystery", domain="com.example")
BEHIND = helper.make_node("Mystery", ["z"], ["y"], name="mystery", domain="com.example")

CASES: dict[str, Case] = {
    "truncated": Case(write(GOOD[:-40]), ("cut off or damaged",)),
    "empty": Case(write(b""), ("not an ONNX model",)),
    "not a protobuf: text": Case(write(b"\x89PNG\r\n\x1a\n no model at all"), ("not an ONNX model",)),
    "not a protobuf: JSON": Case(write(json.dumps({"model": 1}).encode()), ("not an ONNX model", "text file")),
    "cyclic": Case(edited(lambda m: m.graph.node[0].input.__setitem__(0, "h")), ("gemm_a", "cycle")),
    "initializer of a name twice": Case(
        edited(lambda m: m.graph.initializer.append(m.graph.initializer[0])), ("two initializers", "'W1'")
    ),
    "initializer missing": Case(write(model(without=("W2",))), ("gemm_y", "'W2'")),
    "NaN weight": Case(with_value(np.nan), ("gemm_y", "NaN")),
    "Inf weight": Case(with_value(np.inf), ("gemm_y", "infinity")),
    "zero-sized dimension of the input": Case(write(model(shape=("batch", 0))), ("'x'", "size zero")),
    "zero-sized weight": Case(
        write(model(extra={"W1": np.zeros((4, 0), "f"), "b1": np.zeros(0, "f"), "W2": np.zeros((0, 3), "f")})),
        ("gemm_a",),
    ),
    "dynamic feature dimension": Case(write(model(shape=("batch", "features"))), ("4-5-3",), 0),
    "dynamic feature dimension behind a Reshape": Case(
        write(
            model([node("Reshape", "i to", "x"), *chain()], {"to": np.array([0, -1])}, shape=("n", "k"), feature="i")
        ),
        ("4-5-3",),
        0,
    ),
    "custom operator before the layers": Case(
        write(model([BEFORE, *chain()], domain="com.example", feature="i")), ("Mystery", "4-5-3"), 0
    ),
    "custom operator behind the layers": Case(
        write(model([*chain()[:2], node("Gemm", "h W2 b2", "z"), BEHIND], domain="com.example")),
        ("Mystery", "4-5-3"),
        0,
    ),
    "custom operator between the layers": Case(
        write(model([chain()[0], WHOLE, chain()[2]], domain="com.example")), ("Mystery", "gemm_a"), 0
    ),
    "unknown operator of ONNX's own domain": Case(
        edited(lambda m: setattr(m.graph.node[1], "op_type", "Zig")), ("Zig", "relu_h")
    ),
    "external data missing": Case(external("gone.bin"), ("'W1'", "gone.bin")),
    "external data in ../": Case(external("../outside.bin"), ("'W1'", "../outside.bin", "out of the model's folder")),
    "external data at an absolute path": Case(external("/etc/passwd"), ("'W1'", "/etc/passwd")),
    "external data behind a link": Case(external("link.bin"), ("'W1'", "link.bin", "out of the model's folder")),
    "external data: offset beyond the file": Case(external("weights.bin", 4096), ("'W1'", "weights.bin", "4096")),
    "external data: length beyond the file": Case(external("weights.bin", 0, 2**40), ("'W1'", "weights.bin")),
    "sizes declared far beyond the file": Case(edited(declared(2**20, 2**10)), ("'W1'", "4294967296 bytes")),
    "initializer of 2^40 elements": Case(edited(declared(2**40)), ("'W1'", "4398046511104 bytes")),
    "dimensions whose product overflows": Case(edited(declared(2**40, 2**40)), ("'W1'",)),
    "ConstantOfShape of 2^40 elements": Case(
        write(model([node("ConstantOfShape", "n", "big"), *chain()], {"n": np.array([2**20, 2**20])})),
        ("'big'", "too large"),
    ),
    "subgraphs nested 20 deep": Case(write(nested(20)), ("nested",)),
    "subgraphs nested 10,000 deep": Case(write(bottomless(10_000)), ("not an ONNX model", "nested")),
    "opset 99": Case(edited(lambda m: setattr(m.opset_import[0], "version", 99)), ("opset 99",)),
    "bias of the wrong length": Case(write(model(extra={"b1": np.zeros(4, "f")})), ("gemm_a", "(4,)", "5 units")),
    "quantized": Case(
        write(model(QUANTIZED, {"scale": np.float32(0.1), "zero": np.int8(0)})),
        ("quantizelinear_q", "quantized"),
    ),
    "BatchNormalization in training mode": Case(
        write(model(batch_normalization(), STATISTICS)), ("batchnormalization_n", "training mode")
    ),
    "no dense layers": Case(write(model([node("Relu", "x", "y")])), ("no dense layer",)),
    "dense layers only inside an If": Case(
        write(model([*BY_THE_ROWS, inside_if(DENSE_IN_IF)], {"zero": np.float32(0)})), ("no dense layer",)
    ),
    "weights of several types": Case(
        write(model(extra={"W1": np.ones((4, 5)), "b1": np.zeros(5)})), ("gemm_a", "double")
    ),
    "no such file": Case(lambda folder: None, ("no such file",)),
    "a folder": Case(lambda folder: (folder / FILE).mkdir(), ("is a directory",)),
}


if __name__ == "__main__":
    sys.exit(main())
