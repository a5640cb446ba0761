"""What is trained through: every op's gradient against finite differences, through a trunk of two dense layers.

In each case a dense layer f: 5 → 6 stands before the glue and one g: n → 3 behind it, so that the gradient of f's
parameters has passed backward through the glue.
"""

import math

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from onnxsurgeon import Examples, TrainingSpec, from_model, make_engine
from onnxsurgeon.data.features import compute_features
from onnxsurgeon.graph.glue_readers import READERS
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.training.forward import (
    by_unit_arrays,
    feeds_of,
    from_by_unit,
    numbered,
    parameter_names,
)
from onnxsurgeon.training.glue import RULES
from onnxsurgeon.training.loop_graph import training_loop
from onnxsurgeon.training.metrics import correct_and_loss
from tests.forward_model import forward_model

RNG = np.random.default_rng(7)
ROWS = 7
# Values that broadcast from either side, none near 0.
ROW, FEATURES = np.linspace(0.6, 1.7, 6), np.linspace(-1.3, 1.1, 5)
ONE_COLUMN = RNG.uniform(0.5, 1.5, (6, 1)) / 6
SQUARE, BLOCK = RNG.standard_normal((6, 6)), RNG.standard_normal((6, 12)) / 2


def ints(*values):
    return np.array(values, np.int64)


def n(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"{op}_{outputs.split()[0]}", **attributes)


def trunk_model(nodes, constants=None, width=6, opset=17, dtype=np.float64):
    """x (rows, 5) → f: h = x A + P (rows, 6) → ``nodes`` from h to z (rows, width) → g: y = z B + Q (rows, 3)."""
    rng = np.random.default_rng(1)
    values = {
        "A": rng.standard_normal((5, 6)) * 0.6,
        "P": rng.standard_normal(6) * 0.4,
        "B": rng.standard_normal((width, 3)) * 0.6,
        "Q": rng.standard_normal(3) * 0.4,
    }
    own = {k: np.asarray(v) for k, v in (constants or {}).items()}
    values |= {k: v if v.dtype.kind in "ib" else v.astype(dtype) for k, v in own.items()}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [n("Gemm", "x A P", "h"), *nodes, n("Gemm", "z B Q", "y")],
        "trunk",
        [helper.make_tensor_value_info("x", kind, ["batch", 5])],
        [helper.make_tensor_value_info("y", kind, ["batch", 3])],
        [numpy_helper.from_array(v if v.dtype.kind in "ib" else v.astype(dtype), k) for k, v in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def examples(dtype=np.float64):
    rng = np.random.default_rng(3)
    return Examples.classification(rng.standard_normal((ROWS, 5)).astype(dtype), rng.integers(0, 3, ROWS), 3)


def positive(result, h="h"):
    """Nodes from h to ``result`` = h² + 0.5, smooth and positive, for ops with a restricted domain."""
    return [n("Mul", f"{h} {h}", f"{result}_square"), n("Add", f"{result}_square half", result)]


HALF = {"half": np.array(0.5)}
T3 = [n("Reshape", "h to3", "t")]  # (rows, 2, 3)
TO3 = {"to3": ints(-1, 2, 3)}
BACK = [n("Flatten", "u", "z")]
# name → (nodes, constants, width, the glue's ops in RULES that must come up)
CASES = {
    "Sum: two paths": ([n("Tanh", "h", "t"), n("Sum", "h t", "z")], {}, 6, {"Add"}),
    "Sum: three paths, one of them twice": ([n("Tanh", "h", "t"), n("Sum", "h t t", "z")], {}, 6, {"Add"}),
    "Sum: a column, a constant and two paths": (
        [n("MatMul", "h C", "s"), n("Tanh", "h", "t"), n("Sum", "s c t h", "z")],
        {"C": ONE_COLUMN, "c": ROW},
        6,
        {"Add"},
    ),
    "Add: two paths": ([n("Tanh", "h", "t"), n("Add", "h t", "z")], {}, 6, {"Add"}),
    "Add: x + x": ([n("Add", "h h", "z")], {}, 6, {"Add"}),
    "Add: feature on the left": (
        [n("Slice", "x b e a", "s"), n("Add", "s h", "z")],
        {"b": ints(0), "e": ints(1), "a": ints(1)},
        6,
        {"Add"},
    ),
    "Add: scalar": ([n("Exp", "h", "t"), n("Add", "c t", "u"), n("Log", "u", "z")], {"c": np.array(0.7)}, 6, {"Add"}),
    "Add: column on the left": ([n("MatMul", "h C", "s"), n("Add", "s h", "z")], {"C": ONE_COLUMN}, 6, {"Add"}),
    "Sub: column on the right": ([n("MatMul", "h C", "s"), n("Sub", "h s", "z")], {"C": ONE_COLUMN}, 6, {"Sub"}),
    "Sub: column on the left": ([n("MatMul", "h C", "s"), n("Sub", "s h", "z")], {"C": ONE_COLUMN}, 6, {"Sub"}),
    "Sub: constant on the left": (
        [n("Exp", "h", "t"), n("Sub", "c t", "u"), n("Tanh", "u", "z")],
        {"c": ROW},
        6,
        {"Sub"},
    ),
    "Mul: x · x": ([n("Mul", "h h", "z")], {}, 6, {"Mul"}),
    "Mul: gate on the right": (
        [n("MatMul", "h C", "s"), n("Sigmoid", "s", "t"), n("Mul", "h t", "z")],
        {"C": ONE_COLUMN},
        6,
        {"Mul"},
    ),
    "Mul: gate on the left": (
        [n("MatMul", "h C", "s"), n("Sigmoid", "s", "t"), n("Mul", "t h", "z")],
        {"C": ONE_COLUMN},
        6,
        {"Mul"},
    ),
    "Mul: three axes with two": (
        [*T3, n("MatMul", "h C", "s"), n("Unsqueeze", "s last", "w"), n("Mul", "w t", "u"), *BACK],
        {**TO3, "C": RNG.standard_normal((6, 2)), "last": ints(2)},
        6,
        {"Mul", "Reshape"},
    ),
    "Div: x / x'": ([*positive("d"), n("Div", "h d", "z")], HALF, 6, {"Div"}),
    "Div: column below": (
        [n("MatMul", "h C", "s"), *positive("d", "s"), n("Div", "h d", "z")],
        {**HALF, "C": ONE_COLUMN},
        6,
        {"Div"},
    ),
    "Div: column above": (
        [n("MatMul", "h C", "s"), *positive("d"), n("Div", "s d", "z")],
        {**HALF, "C": ONE_COLUMN},
        6,
        {"Div"},
    ),
    "Div: constant above": ([*positive("d"), n("Div", "c d", "z")], {**HALF, "c": ROW}, 6, {"Div"}),
    "Div: x / x of a feature": (
        [*positive("d"), n("Slice", "x b e a", "s"), n("Div", "s d", "z")],
        {**HALF, "b": ints(0), "e": ints(1), "a": ints(1)},
        6,
        {"Div"},
    ),
    "Neg": ([n("Exp", "h", "t"), n("Neg", "t", "u"), n("Exp", "u", "z")], {}, 6, {"Neg"}),
    "Abs": ([n("Abs", "h", "z")], {}, 6, {"Abs"}),
    "Sqrt": ([*positive("d"), n("Sqrt", "d", "z")], HALF, 6, {"Sqrt"}),
    "Exp": ([n("Tanh", "h", "t"), n("Exp", "t", "z")], {}, 6, {"Exp"}),
    "Log": ([*positive("d"), n("Log", "d", "z")], HALF, 6, {"Log"}),
    "Erf": ([n("Tanh", "h", "t"), n("Erf", "t", "z")], {}, 6, {"Erf"}),
    "Reciprocal": ([*positive("d"), n("Reciprocal", "d", "z")], HALF, 6, {"Reciprocal"}),
    "Pow: cube": ([n("Pow", "h c", "z")], {"c": np.array(3.0)}, 6, {"Pow"}),
    "Pow: of shape (1,), fraction": (
        [*positive("d"), n("Pow", "d c", "z")],
        {**HALF, "c": np.array([1.5])},
        6,
        {"Pow"},
    ),
    "Pow: integer exponent": ([n("Pow", "h c", "z")], {"c": ints(2)}, 6, {"Pow"}),
    "Transpose": ([*T3, n("Transpose", "t", "u", perm=[0, 2, 1]), *BACK], TO3, 6, {"Transpose", "Reshape"}),
    "Transpose: a cycle": (
        [n("Reshape", "h to4", "t"), n("Transpose", "t", "u", perm=[0, 3, 1, 2]), *BACK],
        {"to4": ints(-1, 1, 2, 3)},
        6,
        {"Transpose"},
    ),
    "Concat": ([n("Tanh", "h", "t"), n("Concat", "h x t h", "z", axis=-1)], {}, 23, {"Concat"}),
    "Concat: inner axis": (
        [*T3, n("Tanh", "t", "v"), n("Concat", "t v", "u", axis=1), *BACK],
        TO3,
        12,
        {"Concat"},
    ),
    "Slice": ([n("Slice", "h b e a", "z")], {"b": ints(1), "e": ints(-2), "a": ints(-1)}, 3, {"Slice"}),
    "Slice: beyond the end": (
        [n("Slice", "h b e a", "z")],
        {"b": ints(2), "e": ints(2**31), "a": ints(1)},
        4,
        {"Slice"},
    ),
    "Split": (
        [n("Split", "h parts", "t u v", axis=1), n("Mul", "t v", "w"), n("Concat", "w u", "z", axis=1)],
        {"parts": ints(2, 2, 2)},
        4,
        {"Slice", "Mul", "Concat"},
    ),
    "Gather": ([*T3, n("Gather", "t k", "z", axis=1)], {**TO3, "k": np.array(-1)}, 3, {"Slice", "Reshape"}),
    "ReduceSum": ([*T3, n("ReduceSum", "t k", "z", keepdims=0)], {**TO3, "k": ints(1)}, 3, {"ReduceSum"}),
    "ReduceSum: kept": (
        [*T3, n("ReduceSum", "t k", "s", keepdims=1), n("Mul", "s t", "u"), *BACK],
        {**TO3, "k": ints(-1)},
        6,
        {"ReduceSum", "Mul"},
    ),
    "ReduceMean": ([*T3, n("ReduceMean", "t", "z", axes=[-2], keepdims=0)], TO3, 3, {"ReduceMean"}),
    "ReduceMean: two axes, kept": (
        [*T3, n("ReduceMean", "t", "s", axes=[1, 2]), n("Sub", "t s", "v"), n("Tanh", "v", "u"), *BACK],
        TO3,
        6,
        {"ReduceMean", "Sub"},
    ),
    "ReduceMax": ([*T3, n("ReduceMax", "t", "z", axes=[-2], keepdims=0)], TO3, 3, {"ReduceMax"}),
    "ReduceMin: two axes, kept": (
        [*T3, n("ReduceMin", "t", "s", axes=[1, 2]), n("Sub", "t s", "v"), n("Tanh", "v", "u"), *BACK],
        TO3,
        6,
        {"ReduceMin", "Sub"},
    ),
    "MatMul: of two computed": (
        [*T3, n("Transpose", "t", "s", perm=[0, 2, 1]), n("Tanh", "s", "v"), n("MatMul", "t v", "u"), *BACK],
        TO3,
        4,
        {"Einsum"},
    ),
    "MatMul: attention": (
        [
            *T3,
            n("Transpose", "t", "s", perm=[0, 2, 1]),
            n("MatMul", "t s", "scores"),
            n("Softmax", "scores", "p", axis=-1),
            n("MatMul", "p t", "u"),
            *BACK,
        ],
        TO3,
        6,
        {"Einsum", "Softmax"},
    ),
    "MatMul: four axes": (
        [
            n("Reshape", "h to4", "t"),
            n("Transpose", "t", "s", perm=[0, 1, 3, 2]),
            n("Tanh", "s", "v"),
            n("MatMul", "t v", "u"),
            *BACK,
        ],
        {"to4": ints(-1, 2, 1, 3)},
        2,
        {"Einsum"},
    ),
    "MatMul: with a constant in front": (
        [*T3, n("MatMul", "K t", "u"), *BACK],
        {**TO3, "K": RNG.standard_normal((4, 2))},
        12,
        {"Einsum"},
    ),
    "MatMul: with a stack of constants": (
        [n("Reshape", "h to4", "t"), n("MatMul", "t K", "u"), *BACK],
        {"to4": ints(-1, 2, 1, 3), "K": RNG.standard_normal((2, 3, 2))},
        4,
        {"Einsum"},
    ),
    "Einsum: a dot product": (
        [*T3, n("Tanh", "t", "v"), n("Einsum", "t v", "z", equation="bij, bij -> bi")],
        TO3,
        2,
        {"Einsum"},
    ),
    "Einsum: an outer product": (
        [n("Tanh", "h", "t"), n("Einsum", "h t", "u", equation="zi,zj->zij"), *BACK],
        {},
        36,
        {"Einsum"},
    ),
    "Einsum: an ellipsis": (
        [*T3, n("Tanh", "t", "v"), n("Einsum", "t v", "u", equation="...ij,...kj->...ik"), *BACK],
        TO3,
        4,
        {"Einsum"},
    ),
    "Einsum: a constant": (
        [*T3, n("Einsum", "t K", "u", equation="bij,ijk->bik"), *BACK],
        {**TO3, "K": RNG.standard_normal((2, 3, 2))},
        4,
        {"Einsum"},
    ),
    "Softmax": ([n("Softmax", "h", "z", axis=-1)], {}, 6, {"Softmax"}),
    "Softmax: three axes": ([*T3, n("Softmax", "t", "u", axis=2), *BACK], TO3, 6, {"Softmax"}),
    "LayerNormalization": (
        [n("LayerNormalization", "h s c", "z", epsilon=1e-3)],
        {"s": ROW, "c": ROW[::-1]},
        6,
        {"LayerNormalization"},
    ),
    "LayerNormalization: no bias": (
        [*T3, n("LayerNormalization", "t s", "u", axis=2), *BACK],
        {**TO3, "s": ROW[:3]},
        6,
        {"LayerNormalization"},
    ),
    "BatchNormalization": (
        [n("Tanh", "h", "t"), n("BatchNormalization", "t s b m v", "w"), n("Add", "w t", "z")],
        {"s": ROW, "b": ROW - 1, "m": ROW / 3, "v": ROW**2},
        6,
        {"Affine", "Add"},
    ),
    "BatchNormalization: three axes": (
        [*T3, n("Tanh", "t", "v0"), n("BatchNormalization", "v0 s b m v", "w"), n("Add", "w v0", "u"), *BACK],
        {**TO3, "s": ROW[:2], "b": ROW[:2], "m": ROW[:2] / 3, "v": ROW[:2] ** 2},
        6,
        {"Affine"},
    ),
    "Dropout": ([n("Tanh", "h", "t"), n("Dropout", "t", "d"), n("Add", "d t", "z")], {}, 6, {"Add"}),
    "Activation: two in a row": ([n("Softplus", "h", "t"), n("Tanh", "t", "z")], {}, 6, {"Activation"}),
    "Activation: PRelu, its slopes fixed": (
        [n("PRelu", "h s", "t"), n("Mul", "t h", "z")],
        {"s": ROW - 1},
        6,
        {"Activation", "Mul"},
    ),
    "masks": (
        [n("Tanh", "h", "t"), n("Where", "M t c", "u"), n("Where", "N h u", "z")],
        {"M": np.arange(6) % 3 > 0, "N": np.array([[True, False] * 3]), "c": np.array(0.3)},
        6,
        {"Where"},
    ),
    "several readers": (
        [n("Tanh", "h", "t"), n("Mul", "t h", "u"), n("Sub", "u t", "v"), n("Add", "v h", "w"), n("Mul", "w t", "z")],
        {},
        6,
        {"Add", "Sub", "Mul"},
    ),
    "dense layers in a branch": (
        [
            n("Tanh", "h", "t"),
            n("MatMul", "t S", "s"),
            n("Relu", "s", "r"),
            n("MatMul", "r S", "q"),
            n("Add", "q t", "z"),
        ],
        {"S": SQUARE},
        6,
        {"Add", "Activation"},
    ),
    "dense layers of three axes": (
        [
            *T3,
            n("MatMul", "t W", "s"),
            n("Add", "s b", "w"),
            n("Tanh", "w", "v"),
            n("MatMul", "v V", "q"),
            n("Mul", "q t", "u"),
            *BACK,
        ],
        {**TO3, "W": RNG.standard_normal((3, 4)), "b": RNG.standard_normal(4), "V": RNG.standard_normal((4, 3))},
        6,
        {"Mul"},
    ),
}

# Glue op → ops in the file that are read as it.
READ_AS = {
    "Identity": {"Identity", "Dropout", "Cast", "Held"},
    "Reshape": {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Gather", "View"},
    "Slice": {"Slice", "Split", "Gather"},
    "Concat": {"Concat", "Tile", "Expand"},
    "Einsum": {"Einsum", "MatMul"},
    "Affine": {"BatchNormalization"},
    "Add": {"Add", "Sum"},
}


def ops_of(network):
    return {step.op for step in network.frame.trunk.steps if not isinstance(step, int)}


class Erf(OpRun):
    """onnx.reference has erf in float32 alone, which is too coarse for differences."""

    op_domain = ""

    def _run(self, x):
        return (np.vectorize(math.erf, otypes=[x.dtype])(x),)


def reference(model, output, feeds):
    return ReferenceEvaluator(model, new_ops=[Erf]).run([output], feeds)[0]


def features_of(network, data):
    """What enters the trunk: x, and what the prefix makes of it."""
    return Examples(tuple(compute_features(network, {"x": data.features[0]}, ROWS).values()), data.labels, data.tasks)


def loop_gradients(network, data):
    """−(θ' − θ) after one step of rate 1 on all rows: the gradient of the mean loss."""
    names = parameter_names(network)
    feeds = {f"initial_{name}": values for name, values in zip(names, by_unit_arrays(network), strict=True)}
    feeds |= {
        "indices": np.arange(data.rows)[None],
        "rates": np.array([-1 / data.rows]),
        **dict(zip(numbered("features", len(data.features)), data.features, strict=True)),
        "targets": data.targets[0],
        "ones": np.ones((1, data.rows)),
    }
    outputs = ReferenceEvaluator(training_loop(network, data), new_ops=[Erf]).run(None, feeds)
    trained = from_by_unit(network, outputs).parameters()
    return [before - after for (_, before), (_, after) in zip(network.parameters(), trained, strict=True)]


def loss_of(network, data):
    """The mean loss as a function of the parameters, by onnx.reference on the model itself, not on what we made."""

    def loss(values):
        written = to_model(network.with_parameters(values))
        return correct_and_loss(reference(written, "y", {"x": data.features[0]}), data.labels[0])[1] / ROWS

    return loss


def finite_differences(function, values, h=1e-6):
    found = []
    for position, array in enumerate(values):
        expected = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            sides = []
            for sign in (1, -1):
                moved = [v.copy() for v in values]
                moved[position][index] += sign * h
                sides.append(function(moved))
            expected[index] = (sides[0] - sides[1]) / (2 * h)
        found.append(expected)
    return found


@pytest.mark.parametrize("name", CASES)
def test_gradients_against_finite_differences(name):
    nodes, constants, width, ops = CASES[name]
    network, data = from_model(trunk_model(nodes, constants, width)), examples()
    assert network.segments[0].input_name == "x"
    assert network.segments[-1].output_name == "y"
    assert ops <= ops_of(network)
    values = [v for _, v in network.parameters()]
    expected = finite_differences(loss_of(network, data), values)
    for gradient, wanted in zip(loop_gradients(network, features_of(network, data)), expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-5, atol=1e-8)
    assert all(np.abs(wanted).max() > 1e-4 for wanted in expected)  # what is dead would pass anything


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_onnxruntime_evaluates_and_trains_it(name, dtype):
    """The training graph's forward pass is the model's own, and a step of ONNX Runtime is that of onnx.reference."""
    nodes, constants, width, _ = CASES[name]
    exact, plain = from_model(trunk_model(nodes, constants, width)), examples()
    network = from_model(trunk_model(nodes, constants, width, dtype=dtype))
    data, engine = features_of(network, examples(dtype)), make_engine("loop")
    tolerance = 1e-5 if dtype == np.float32 or name == "Erf" else 1e-12
    expected = reference(to_model(exact), "y", {"x": plain.features[0]})
    feeds = dict(zip(numbered("features", len(data.features)), data.features, strict=True))
    found = reference(forward_model(network), "outputs", {**feeds, **feeds_of(network)})
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    correct, loss = correct_and_loss(expected, plain.labels[0])
    metrics = engine.evaluate(network, data)
    assert (metrics.accuracy, metrics.loss) == (correct / ROWS, pytest.approx(loss / ROWS, rel=1e-5))
    trained = engine.train(network, data, [np.arange(ROWS)[None]], TrainingSpec(1.0)).network
    for (_, before), (_, after), gradient in zip(
        network.parameters(), trained.parameters(), loop_gradients(exact, features_of(exact, plain)), strict=True
    ):
        assert after.dtype == dtype
        np.testing.assert_allclose(before - after, gradient, rtol=10 * tolerance, atol=10 * tolerance)


def test_there_is_a_rule_for_every_op_that_is_read_and_for_no_other():
    """``read_glue`` hands over nodes under their own op, or under another that is as good."""
    own = set(READERS) - {op for ops in READ_AS.values() for op in ops}
    assert own | set(READ_AS) | {"Activation"} == set(RULES)


def test_every_rule_is_tested_and_nodes_are_read_as_they_should_be():
    seen = set()
    for nodes, constants, width, _ in CASES.values():
        model = trunk_model(nodes, constants, width)
        ops = {node.name: node.op_type for node in model.graph.node}
        for step in from_model(model).frame.trunk.steps:
            if not isinstance(step, int) and step.node in ops:
                op = ops[step.node]
                allowed = {name for name, read in READ_AS.items() if op in read} or {op}
                assert step.op in (allowed if op in READERS else {"Activation"}), step.node
                seen.add(step.op)
    assert seen | {"Identity"} == set(RULES)  # test_casts_are_passed_through has that


def test_casts_are_passed_through():
    """A float16 island between float32 layers: the cast there and back is glue whose gradient passes unchanged."""
    nodes = [
        n("Tanh", "h", "t"),
        n("Cast", "t", "u", to=TensorProto.FLOAT16),
        n("Cast", "u", "z", to=TensorProto.FLOAT),
    ]
    network = from_model(trunk_model(nodes, dtype=np.float32))
    assert network.topology == "5-6+6-3"
    assert "Identity" in ops_of(network)
    plain = from_model(trunk_model([n("Tanh", "h", "t"), n("Identity", "t", "z")], dtype=np.float32))
    data, engine = examples(np.float32), make_engine("loop")
    results = [
        engine.train(each, data, [np.arange(ROWS)[None]], TrainingSpec(1.0)).network for each in (network, plain)
    ]
    for (_, ours), (_, theirs) in zip(*(result.parameters() for result in results), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
