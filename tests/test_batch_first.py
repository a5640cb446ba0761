"""Parts of a model whose batch is not the first axis: trained through as if it were, and written back as they are."""

import exports_table
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import SurgeonSettings, evolve, from_model, load, load_dataset, make_engine, operate, save
from onnxsurgeon.graph.layouts import ROWS, NotToldError, factored
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import run
from onnxsurgeon.surgery import Widen
from onnxsurgeon.training.fit import fit
from onnxsurgeon.training.forward import feeds_of
from tests.forward_model import forward_model

ATTENTION = [
    fixture for fixture in exports_table.fixtures() if fixture.file.endswith(("-attention.onnx", "-steps-first.onnx"))
]
STEPS, UNITS, HEADS = 6, 8, 2
EACH = UNITS // HEADS


def in_trunk(network, x):
    return run(forward_model(network), {"features": x, **feeds_of(network)})[0]


def attention(rows, *, between="Softmax", batch_first=True):
    """Attention of two heads as PyTorch writes it, the steps in front, behind and before a layer."""
    rng = np.random.default_rng(3)
    merged = rows * HEADS if isinstance(rows, int) else -1
    flat = rows * STEPS if isinstance(rows, int) else -1
    unknown = rows if isinstance(rows, int) else -1
    constants = {
        "w": rng.standard_normal((5, UNITS)) / 2,
        "b": rng.standard_normal(UNITS),
        "place": rng.standard_normal((STEPS, 1, UNITS)),
        "v": rng.standard_normal((UNITS, UNITS)) / 2,
        "c": rng.standard_normal(UNITS),
        "u": rng.standard_normal((UNITS, 3)),
    }
    shapes = {"by_head": [STEPS, merged, EACH], "flat": [flat, UNITS], "steps": [STEPS, unknown, UNITS]}
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Add", ["h", "b"], ["z"]),
        node("Transpose", ["z"], ["t0"], perm=[1, 0, 2]),
        node("Add", ["t0", "place"], ["t"]),
        node("Reshape", ["t", "by_head"], ["heads"]),
        node("Transpose", ["heads"], ["q"], perm=[1, 0, 2]),
        node("Transpose", ["heads"], ["k"], perm=[1, 2, 0]),
        node("MatMul", ["q", "k"], ["scores"]),
        node(between, ["scores"], ["p"], **({"axis": -1} if between == "Softmax" else {})),
        node("MatMul", ["p", "q"], ["mixed"]),
        node("Transpose", ["mixed"], ["by_step"], perm=[1, 0, 2]),
        node("Reshape", ["by_step", "flat"], ["rows_of_steps"]),
        node("Gemm", ["rows_of_steps", "v", "c"], ["out"]),
        node("Reshape", ["out", "steps"], ["s"]),
        node("Transpose", ["s"], ["back"], perm=[1, 0, 2]),
        node("Relu", ["back"], ["a"]),
        node("ReduceMean", ["a"], ["mean"], axes=[1], keepdims=0),
        node("MatMul", ["mean", "u"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in constants.items()]
    tensors += [numpy_helper.from_array(np.array(shape, np.int64), name) for name, shape in shapes.items()]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, STEPS, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 3])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("fixture", ATTENTION, ids=lambda fixture: fixture.file)
def test_pytorchs_attention_is_trained_from_end_to_end(fixture):
    network = load(fixture.path)
    assert list(network.frame.trunk.features) == ["pixels"]
    assert sum(len(segment.layers) for segment in network.segments) == 6
    assert not any("trained through" in note for note in network.frame.notes)
    x = np.random.default_rng(0).random((5, 8, 8), np.float32)
    wanted = run(onnx.load(fixture.path), {"pixels": x})[0]
    np.testing.assert_allclose(in_trunk(network, x), wanted, rtol=1e-4, atol=1e-5)


def test_the_fixtures_are_there():
    assert len(ATTENTION) == 4


@pytest.mark.parametrize("rows", ["n", 1, 4])
def test_the_trunk_computes_what_the_file_does(rows):
    model = attention(rows)
    network = from_model(model)
    assert list(network.frame.trunk.features) == ["x"]
    assert network.topology.count("-") == 3
    x = np.random.default_rng(1).standard_normal((4, STEPS, 5)).astype(np.float32)
    batches = [x[i : i + 1] for i in range(4)] if rows == 1 else [x]
    wanted = np.concatenate([run(model, {"x": batch})[0] for batch in batches])
    np.testing.assert_allclose(in_trunk(network, x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", ["n", 4])
def test_what_is_trained_and_operated_on_is_written_into_the_file(rows, tmp_path):
    network = from_model(attention(rows))
    rng = np.random.default_rng(2)
    x = rng.standard_normal((64, STEPS, 5)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=rng.integers(0, 3, 64))
    trained = fit(network, load_dataset(str(tmp_path / "data.npz")), make_engine("loop"), epochs=3)[0].network
    assert any(
        not np.array_equal(before, after)
        for (_, before), (_, after) in zip(network.parameters(), trained.parameters(), strict=True)
    )
    for number, segment in enumerate(trained.segments):
        assert not np.array_equal(segment.layers[0].weight, network.segments[number].layers[0].weight)
    save(trained, tmp_path / "trained.onnx")
    again = load(tmp_path / "trained.onnx")
    assert again.topology == network.topology
    wanted = run(to_model(trained), {"x": x[:4]})[0]
    np.testing.assert_allclose(in_trunk(again, x[:4]), wanted, rtol=1e-4, atol=1e-5)


def test_what_is_not_understood_is_left_as_it_is():
    model = attention("n")
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    softmax.op_type, softmax.input[:] = "CumSum", ["scores", "axis"]
    del softmax.attribute[:]
    model.graph.initializer.append(numpy_helper.from_array(np.array(-1, np.int64), "axis"))
    network = from_model(model)
    assert any("moves the batch axis" in note or "CumSum" in note for note in network.frame.notes)
    assert network.frame.turned == frozenset()


def test_an_open_number_of_steps_is_said_with_what_helps():
    model = attention("n")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "steps"
    notes = [note for note in from_model(model).frame.notes if "leaves the size" in note]
    assert notes == [
        "input 'x' leaves the size 'steps' open; with a number in its place, more may be trained through: python -m "
        "onnxruntime.tools.make_dynamic_shape_fixed --dim_param steps --dim_value N MODEL FIXED"
    ]
    assert not any("leaves the size" in note for note in from_model(attention("n")).frame.notes)


@pytest.mark.parametrize(
    ("layout", "wanted", "rows", "found"),
    [
        (((6,), (ROWS,), (8,)), (6, None, 4), "n", ((6,), (ROWS, 2), (4,))),
        (((6,), (ROWS,), (8,)), (None, 8), "n", ((6, ROWS), (8,))),
        (((6, ROWS), (8,)), (6, "n", 8), "n", ((6,), (ROWS,), (8,))),
        (((6, ROWS), (8,)), (6, "n", None), "n", ((6,), (ROWS,), (8,))),
        (((ROWS, 2), (6,), (4,)), (None, 2, 6, 4), "n", ((ROWS,), (2,), (6,), (4,))),
        (((6,), (ROWS,), (24,)), (6, None, 3, 8), "n", ((6,), (ROWS,), (3,), (8,))),
        (((ROWS,), (1,), (8,)), (None, 1, 2, 4), "n", ((ROWS,), (), (2,), (4,))),
        (((6,), (ROWS,), (8,)), (6, 2, 4), 1, ((6,), (ROWS, 2), (4,))),
        (((6,), (ROWS,), (8,)), (6, 8), 1, ((6, ROWS), (8,))),
        (((6, ROWS), (8,)), (6, 1, 8), 1, ((6,), (ROWS,), (8,))),
        (((6,), (ROWS,), (8,)), (6, 10, 4), 5, ((6,), (ROWS, 2), (4,))),
        (((6,), (ROWS,), (8,)), (30, 8), 5, ((6, ROWS), (8,))),
    ],
)
def test_which_axis_holds_the_rows(layout, wanted, rows, found):
    layout = tuple(tuple(size for size in axis if size != 1) for axis in layout)
    assert factored(layout, wanted, rows) == found


@pytest.mark.parametrize(
    ("layout", "wanted", "rows"),
    [
        (((6,), (ROWS,), (8,)), (4, None), "n"),  # 12 of the steps and units beside the rows
        (((6,), (ROWS,), (8,)), (None, None, 4), "n"),
        (((6,), (ROWS,), (8,)), (7, None, 8), "n"),
        (((6,), (ROWS,), (8,)), (6, 3, 16), 5),
    ],
)
def test_rows_that_are_mixed_with_others_are_not_told(layout, wanted, rows):
    with pytest.raises(NotToldError):
        factored(layout, wanted, rows)


@pytest.mark.parametrize("fixture", ATTENTION, ids=lambda fixture: fixture.file)
def test_surgery_on_attention_is_exact(fixture):
    network = load(fixture.path)
    x = np.random.default_rng(4).random((3, 8, 8), np.float32)
    wanted = run(onnx.load(fixture.path), {"pixels": x})[0]
    changed = operate(network, Widen(1, 5)).network
    assert changed.parameter_count == network.parameter_count + 5 * 33
    np.testing.assert_allclose(run(to_model(changed), {"pixels": x})[0], wanted, rtol=1e-4, atol=1e-5)


def test_the_surgeon_makes_a_transformer_smaller(tmp_path):
    fixture = next(each for each in ATTENTION if each.file == "torch-legacy-attention.onnx")
    rows = np.random.default_rng(5).random((400, 8, 8), np.float32)
    np.savez(tmp_path / "rows.npz", x=rows)
    settings = SurgeonSettings(max_parameters=1_900, epochs=2)
    done = evolve(fixture.path, str(tmp_path / "rows.npz"), settings=settings, run_dir=tmp_path / "run", workers=1)
    assert done.network.parameter_count <= 1_900
    best = run(onnx.load(tmp_path / "run" / "best.onnx"), {"pixels": rows})[0]
    given = run(onnx.load(fixture.path), {"pixels": rows})[0]
    assert best.shape == given.shape == (400, 10)
    assert np.square(best - given).sum() < 0.2 * np.square(given - given.mean(0)).sum()


def turned_part(nodes, constants, *, rows="n", opset=17):
    """A layer of 8 units for each of 3 steps, the nodes given, which read "h" and write "t", and a layer behind."""
    rng = np.random.default_rng(6)
    made = [helper.make_node("MatMul", ["x", "w"], ["h"]), *nodes, helper.make_node("MatMul", ["t", "v"], ["y"])]
    constants = {"w": rng.standard_normal((5, 8)).astype(np.float32), **constants}
    graph = helper.make_graph(
        made,
        "turned",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 3, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 2])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def shape(*sizes):
    return np.array(sizes, np.int64)


def matrix(*sizes):
    return np.random.default_rng(7).standard_normal(sizes).astype(np.float32)


NODE = helper.make_node
TURNED = {
    "a bias is added behind the Transpose": (
        1,
        [
            NODE("Reshape", ["h", "flat"], ["f"]),
            NODE("MatMul", ["f", "u"], ["a"]),
            NODE("Transpose", ["a"], ["b"], perm=[1, 0]),
            NODE("Sub", ["b", "one"], ["c"]),
            NODE("Slice", ["c", "begin", "end", "begin"], ["d"]),
            NODE("Transpose", ["d"], ["t"], perm=[1, 0]),
        ],
        {"flat": shape(1, 24), "u": matrix(24, 4), "one": matrix(1)[0], "begin": shape(0), "end": shape(1)}
        | {"v": matrix(1, 2)},
    ),
    "numbers of units in front of the rows": (
        "n",
        [
            NODE("Transpose", ["h"], ["a"], perm=[2, 0, 1]),
            NODE("Concat", ["a", "a"], ["b"], axis=0),
            NODE("Reshape", ["b", "four"], ["c"]),
            NODE("Transpose", ["c"], ["d"], perm=[1, 0, 2, 3]),
            NODE("Reshape", ["d", "flat"], ["t"]),
        ],
        {"four": shape(16, -1, 1, 3), "flat": shape(-1, 48), "v": matrix(48, 2)},
    ),
    "a Reshape to the shape that it has": (
        4,
        [
            NODE("Transpose", ["h"], ["a"], perm=[1, 2, 0]),
            NODE("Relu", ["a"], ["b"]),
            NODE("ReduceMean", ["b"], ["c"], axes=[0], keepdims=0),
            NODE("Transpose", ["c"], ["d"], perm=[1, 0]),
            NODE("Reshape", ["d", "same"], ["t"]),
        ],
        {"same": shape(4, 8), "v": matrix(8, 2)},
    ),
    "Reshapes that are undone": (
        1,
        [
            NODE("Transpose", ["h"], ["a"], perm=[1, 2, 0]),
            NODE("Reshape", ["a", "two"], ["b"]),
            NODE("Reshape", ["b", "three"], ["c"]),
            NODE("Transpose", ["c"], ["d"], perm=[2, 0, 1]),
            NODE("Reshape", ["d", "flat"], ["t"]),
        ],
        {"two": shape(3, 8), "three": shape(3, 8, 1), "flat": shape(1, 24), "v": matrix(24, 2)},
    ),
}


@pytest.mark.parametrize("case", TURNED.values(), ids=TURNED)
def test_every_group_of_a_turned_part_is_widened_exactly_or_stays(case):
    rows, nodes, constants = case
    model = turned_part(nodes, constants, rows=rows)
    count = rows if isinstance(rows, int) else 4
    x = np.random.default_rng(8).standard_normal((count, 3, 5)).astype(np.float32)
    wanted = run(model, {"x": x})[0]
    network = from_model(model)
    np.testing.assert_allclose(run(to_model(network), {"x": x})[0], wanted, rtol=1e-4, atol=1e-5)
    for number in range(1, network.group_count + 1):
        changed = operate(network, Widen(number, 2)).network
        np.testing.assert_allclose(run(to_model(changed), {"x": x})[0], wanted, rtol=1e-4, atol=1e-5)
