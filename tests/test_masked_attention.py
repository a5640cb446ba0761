"""Masks that are shaped by the sizes of what a layer puts out; attention in float16, which ends ONNX Runtime 1.32."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import SurgeonSettings, evolve, load
from onnxsurgeon.data.features import prefix_model
from onnxsurgeon.runtime import run

ROWS, STEPS, WIDTH, CLASSES = 48, 4, 6, 3


def write(path, nodes, arrays, inputs, classes=CLASSES):
    """Write a model whose output is "scores"; the shapes of ``inputs`` are without the batch."""
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float16): TensorProto.FLOAT16}
    kind = kinds[next(values.dtype for values in arrays.values() if values.dtype.kind == "f")]
    graph = helper.make_graph(
        [helper.make_node(op, given, [made], name=made, **attrs) for op, given, made, attrs in nodes],
        "masked",
        [helper.make_tensor_value_info(name, kind, ["rows", *shape]) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("scores", kind, ["rows", classes])],
        [numpy_helper.from_array(values, name) for name, values in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def masked(tmp_path):
    """A mask (rows, steps) becomes (rows, steps, 1), the rows being asked of the embedding, and is added to that."""
    rng = np.random.default_rng(0)
    arrays = {
        "w": rng.standard_normal((WIDTH, 8)).astype(np.float32),
        "b": rng.standard_normal(8).astype(np.float32),
        "v": rng.standard_normal((8, 12)).astype(np.float32),
        "c": rng.standard_normal(12).astype(np.float32),
        "u": rng.standard_normal((12, CLASSES)).astype(np.float32),
        "d": rng.standard_normal(CLASSES).astype(np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "rest": np.array([STEPS, 1]),
    }
    nodes = [
        ("MatMul", ["x", "w"], "xw", {}),
        ("Add", ["xw", "b"], "embedded", {}),
        ("Shape", ["embedded"], "sizes", {}),
        ("Slice", ["sizes", "zero", "one"], "rows", {}),
        ("Concat", ["rows", "rest"], "shape", {"axis": 0}),
        ("Reshape", ["mask", "shape"], "wide", {}),
        ("Add", ["embedded", "wide"], "masked", {}),
        ("MatMul", ["masked", "v"], "hv", {}),
        ("Add", ["hv", "c"], "hidden", {}),
        ("Relu", ["hidden"], "bent", {}),
        ("ReduceMean", ["bent"], "mean", {"axes": [1], "keepdims": 0}),
        ("Gemm", ["mean", "u", "d"], "scores", {}),
    ]
    write(tmp_path / "masked.onnx", nodes, arrays, {"x": (STEPS, WIDTH), "mask": (STEPS,)})
    given = {
        "x": rng.standard_normal((ROWS, STEPS, WIDTH)).astype(np.float32),
        "mask": rng.integers(0, 2, (ROWS, STEPS)).astype(np.float32),
    }
    return tmp_path / "masked.onnx", given


def test_what_a_mask_is_shaped_by_is_computed_with_it(masked):
    path, given = masked
    network = load(path)
    (name,) = [name for name in network.frame.trunk.features if name != "x"]
    (found,) = run(prefix_model(network, [name]), given)
    np.testing.assert_array_equal(np.reshape(found, (ROWS, STEPS)), given["mask"])


def test_a_model_with_such_a_mask_evolves(masked, tmp_path):
    path, given = masked
    (scores,) = run(onnx.load(path), given)
    np.savez(tmp_path / "rows.npz", **given, y=scores.argmax(axis=1))
    evolve(path, tmp_path / "rows.npz", settings=SurgeonSettings.from_preset(epochs=2), run_dir=tmp_path / "r")
    (after,) = run(onnx.load(tmp_path / "r" / "best.onnx"), given)
    assert (after.argmax(axis=1) == scores.argmax(axis=1)).mean() > 0.7


OPENED = {
    "here": "from onnxsurgeon.runtime import session; session(onnx.load(sys.argv[1]))",
    "by a run": "from onnxsurgeon import RunModel; from pathlib import Path; file = Path(sys.argv[1])\n"
    "RunModel(file.parent, file.name, 1, '8-16', 2, 0.5).session()",
}


@pytest.mark.parametrize("code", OPENED.values(), ids=OPENED)
def test_attention_in_float16_does_not_end_the_process(code, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal(shape).astype(np.float16)
        for name, shape in {"w": (8, 16), "b": (16,), "v": (16, 48), "c": (48,)}.items()
    }
    arrays |= {"zero": np.array([0]), "two": np.array([2]), "units": np.array([48])}
    nodes = [
        ("MatMul", ["x", "w"], "xw", {}),
        ("Add", ["b", "xw"], "embedded", {}),
        ("Transpose", ["embedded"], "turned", {"perm": [1, 0, 2]}),
        ("MatMul", ["turned", "v"], "tv", {}),
        ("Add", ["c", "tv"], "inside", {}),
        ("Shape", ["turned"], "sizes", {}),
        ("Slice", ["sizes", "zero", "two"], "positions", {}),
        ("Concat", ["positions", "units"], "shape", {"axis": 0}),
        ("Reshape", ["inside", "shape"], "shaped", {}),
        ("Transpose", ["shaped"], "back", {"perm": [1, 0, 2]}),
        ("ReduceMean", ["back"], "scores", {"axes": [1], "keepdims": 0}),
    ]
    write(tmp_path / "half.onnx", nodes, arrays, {"x": (STEPS, 8)}, 48)
    code = f"import sys, onnx\n{code}\nprint('here')"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "half.onnx")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "here\n"), done.stderr
