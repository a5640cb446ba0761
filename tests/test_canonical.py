"""Exporter idioms: each becomes the normal form, computes what ONNX Runtime does, and leaves the expected nodes."""

import sys

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon.graph.activations import ACTIVATIONS, Activation, prelu
from onnxsurgeon.graph.canonical import attributes_of, canonicalise, explain, explain_normalization, is_dense
from onnxsurgeon.graph.decompose import activation_nodes
from onnxsurgeon.runtime import run
from tests.canonical_form import canonical, compute, ops
from tests.conftest import skip_newer
from tests.graphs import node

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((4, 6)).astype("f"), RNG.standard_normal((6, 3)).astype("f")
P, Q = RNG.standard_normal(6).astype("f"), RNG.standard_normal(3).astype("f")
# ONNX Runtime 1.19, the last training build, reads no opset beyond 21.
OPSETS = (9, 11, 13, 17, 20, 23)
DENSE_RELU_DENSE = ["Dense", "Relu", "Dense"]


def build(nodes, constants, opset=17, shape=("batch", 4), outputs=("y",), dtype=TensorProto.FLOAT, inputs=("x",)):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, dtype, shape) for name in inputs],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    for value in graph.output:
        value.type.tensor_type.elem_type = dtype
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8)


def check(model, expected, rtol=1e-5):
    """The canonical form has these operators and computes what ONNX Runtime says of the original."""
    skip_newer(model.opset_import[0].version)
    shape = [d.dim_value or 5 for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = RNG.standard_normal(shape).astype("f")
    graph = canonical(model)
    assert ops(graph) == expected, [f"{n.op} {explain(n)}" for n in graph.nodes]
    originals = run(model, {"x": x})
    for found, original in zip(compute(graph, {"x": x}), originals, strict=True):
        np.testing.assert_allclose(found, original, rtol=rtol, atol=1e-5)
    return graph


def two_layers(first, second, **constants):
    """Nodes for x → a, Relu, b → y."""
    return [*first, node("Relu", "a", "b"), *second], constants


GEMM = [node("Gemm", "b B Q", "y")]
FORMS = {
    "gemm": ([node("Gemm", "x A P", "a")], {"A": A, "P": P}),
    "transB": ([node("Gemm", "x A P", "a", transB=1)], {"A": A.T, "P": P}),
    "transA of a transposed input": (
        [node("Transpose", "x", "t", perm=[1, 0]), node("Gemm", "t A P", "a", transA=1)],
        {"A": A, "P": P},
    ),
    "alpha and beta": ([node("Gemm", "x A P", "a", alpha=0.5, beta=2.0)], {"A": A, "P": P}),
    "beta of 0": (
        [node("Gemm", "x A C", "m", beta=0.0), node("Add", "m P", "a")],
        {"A": A, "C": np.float32(7), "P": P},
    ),
    "beta of 0 with a C of any shape": (
        [node("Gemm", "x A C", "m", beta=0.0), node("Add", "P m", "a")],
        {"A": A, "C": np.ones((1, 6), "f"), "P": P},
    ),
    "bias (1, n)": ([node("Gemm", "x A P", "a")], {"A": A, "P": P[None]}),
    "bias ()": ([node("Gemm", "x A P", "a")], {"A": A, "P": np.float32(0.3)}),
    "bias (1,)": ([node("Gemm", "x A P", "a")], {"A": A, "P": np.ones(1, "f")}),
    "bias (1, 1)": ([node("Gemm", "x A P", "a")], {"A": A, "P": np.ones((1, 1), "f")}),
    "matmul and add": ([node("MatMul", "x A", "m"), node("Add", "m P", "a")], {"A": A, "P": P}),
    "bias on the left": ([node("MatMul", "x A", "m"), node("Add", "P m", "a")], {"A": A, "P": P[None]}),
    "a scalar added": ([node("MatMul", "x A", "m"), node("Add", "P m", "a")], {"A": A, "P": np.float32(0.3)}),
    "a bias taken off": ([node("MatMul", "x A", "m"), node("Sub", "m P", "a")], {"A": A, "P": P}),
    "taken from a constant": ([node("MatMul", "x A", "m"), node("Sub", "P m", "a")], {"A": A, "P": P}),
    "two adds": ([node("MatMul", "x A", "m"), node("Add", "m P", "n"), node("Add", "P n", "a")], {"A": A, "P": P}),
    "add behind a bias": ([node("Gemm", "x A P", "m"), node("Add", "m R", "a")], {"A": A, "P": P, "R": P * 2}),
    "a cast weight": (
        [node("Cast", "A64", "A", to=1), node("MatMul", "x A", "m"), node("Add", "P m", "a")],
        {"A64": A.astype("d"), "P": P},
    ),
    "a transposed weight": (
        [node("Transpose", "AT", "A", perm=[1, 0]), node("Identity", "P0", "P"), node("Gemm", "x A P", "a")],
        {"AT": A.T.copy(), "P0": P},
    ),
    "a weight computed from constants": (
        [node("Mul", "A s", "A1"), node("Concat", "P1 P2", "P", axis=0), node("Gemm", "x A1 P", "a")],
        {"A": A, "s": np.float32(0.5), "P1": P[:2], "P2": P[2:]},
    ),
    "a scaled output": (
        [node("Gemm", "x A P", "m"), node("Mul", "m s", "n"), node("Div", "n d", "a")],
        {"A": A, "P": P, "s": P, "d": np.float32(3)},
    ),
    "negated": ([node("Gemm", "x A P", "m"), node("Neg", "m", "a")], {"A": A, "P": P}),
    "dropout": ([node("Gemm", "x A P", "m"), node("Dropout", "m", "a mask")], {"A": A, "P": P}),
    "flatten": ([node("Flatten", "x", "f"), node("Gemm", "f A P", "a")], {"A": A, "P": P}),
    "reshape": ([node("Reshape", "x s", "r"), node("Gemm", "r A P", "a")], {"A": A, "P": P, "s": np.array([-1, 4])}),
    "reshape there and back": (
        [node("Reshape", "x s", "r"), node("Reshape", "r t", "f"), node("Gemm", "f A P", "a")],
        {"A": A, "P": P, "s": np.array([-1, 2, 2]), "t": np.array([-1, 4])},
    ),
    "casts": (
        [node("Cast", "x", "c", to=1), node("Gemm", "c A P", "m"), node("Cast", "m", "a", to=1)],
        {"A": A, "P": P},
    ),
}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", FORMS)
def test_forms_of_a_dense_layer(name, opset):
    first, constants = FORMS[name]
    nodes, _ = two_layers(first, GEMM)
    graph = check(build(nodes, {**constants, "B": B, "Q": Q}, opset), DENSE_RELU_DENSE)
    dense = [n for n in graph.nodes if n.op == "Dense"]
    assert all(is_dense(n) for n in dense)
    kept = {"a cast weight": "A64", "a transposed weight": "AT", "a weight computed from constants": "A1"}
    assert dense[0].inputs[1].name == kept.get(name, "A")
    assert dense[0].attrs["exit"] == ("m" if name in ("dropout", "casts") else "a")
    assert dense[1].attrs["entry"] == "b"


def test_two_inputs_alone():
    nodes, _ = two_layers([node("Gemm", "x A", "a")], [node("Gemm", "b B", "y")])
    graph = check(build(nodes, {"A": A, "B": B}), DENSE_RELU_DENSE)
    assert all(len(n.inputs) == 2 for n in graph.nodes if n.op == "Dense")


ENTRIES = {
    "flatten": ("f", [node("Flatten", "x", "f"), node("Gemm", "f A P", "a")]),
    "identity": ("i", [node("Identity", "x", "i"), node("Gemm", "i A P", "a")]),
    "two no-ops": ("f", [node("Cast", "x", "c", to=1), node("Flatten", "c", "f"), node("MatMul", "f A", "a")]),
    "a function of x": ("t", [node("Tanh", "x", "t"), node("Gemm", "t A P", "a")]),
    "scaling before the first layer": ("s", [node("Mul", "x two", "s"), node("Gemm", "s A P", "a")]),
    "a transpose undone": ("x", [node("Transpose", "x", "t", perm=[1, 0]), node("Gemm", "t A P", "a", transA=1)]),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_is_what_the_file_reads(name):
    entry, first = ENTRIES[name]
    nodes, _ = two_layers(first, GEMM)
    graph = canonical(build(nodes, {"A": A, "P": P, "B": B, "Q": Q, "two": np.float32(2)}))
    assert next(n for n in graph.nodes if n.op == "Dense").attrs["entry"] == entry


def test_entry_goes_before_what_is_folded():
    nodes = [node("Gemm", "x A P", "a"), node("Relu", "a", "b"), node("Mul", "b s", "c"), node("Gemm", "c B Q", "y")]
    graph = check(build(nodes, {"A": A, "P": P, "B": B, "Q": Q, "s": P}), DENSE_RELU_DENSE)
    assert graph.nodes[2].attrs["entry"] == "b"


# --- the weight in slot A ----------------------------------------------------------------------------------------

COLUMN = {
    "gemm": [node("Gemm", "W1 t c1", "h"), node("Relu", "h", "r"), node("Gemm", "W2 r c2", "z")],
    "matmul": [
        node("MatMul", "W1 t", "m"),
        node("Add", "m c1", "h"),
        node("Relu", "h", "r"),
        node("MatMul", "W2 r", "n"),
        node("Add", "c2 n", "z"),
    ],
}
COLUMNS = {"W1": A.T.copy(), "c1": P[:, None], "W2": B.T.copy(), "c2": Q[:, None]}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", COLUMN)
def test_weights_in_slot_a_between_transposes(name, opset):
    nodes = [node("Transpose", "x", "t", perm=[1, 0]), *COLUMN[name], node("Transpose", "z", "y", perm=[1, 0])]
    graph = check(build(nodes, COLUMNS, opset), DENSE_RELU_DENSE)
    assert [n.attrs["entry"] is not None for n in graph.nodes if n.op == "Dense"] == [True, True]
    assert graph.nodes[0].attrs["entry"] == "x"
    assert graph.nodes[2].attrs["exit"] == "y"


def test_a_weight_in_slot_a_with_transposed_operands():
    nodes = [node("Gemm", "W x c", "t", transB=1), node("Transpose", "t", "y", perm=[1, 0])]
    graph = check(build(nodes, {"W": A.T.copy(), "c": P[:, None]}), ["Dense"])
    assert graph.nodes[0].attrs["entry"] == "x"


@pytest.mark.parametrize("name", COLUMN)
def test_columns_as_the_models_own_layout_are_refused_with_the_reason(name):
    nodes = [*COLUMN[name], node("Identity", "z", "y")]
    for n in nodes:
        n.input[:] = ["x" if i == "t" else i for i in n.input]
    graph = canonical(build(nodes, COLUMNS, shape=(4, "batch")))
    dense = [n for n in graph.nodes if n.op == "Dense"]
    assert len(dense) == 2
    assert not any(is_dense(n) for n in dense)
    assert explain(dense[0]) == "it transposes its input"


# --- more axes ---------------------------------------------------------------------------------------------------

RANK3 = {
    "matmul": [node("MatMul", "x A", "m"), node("Add", "m P", "a"), node("Relu", "a", "b"), node("MatMul", "b B", "y")],
    "reshaped": [
        node("Reshape", "x flat4", "f"),
        node("MatMul", "f A", "m"),
        node("Reshape", "m back6", "n"),
        node("Add", "n P", "a"),
        node("Relu", "a", "b"),
        node("Reshape", "b flat6", "g"),
        node("Gemm", "g B Q", "o"),
        node("Reshape", "o back3", "y"),
    ],
    "reshaped to a computed shape": [
        node("Shape", "x", "s"),
        node("Cast", "s", "s32", to=TensorProto.INT32),
        node("Gather", "s32 first", "lead", axis=0),
        node("Concat", "lead last", "full32", axis=0),
        node("Cast", "full32", "full", to=TensorProto.INT64),
        node("Reshape", "x flat4", "f"),
        node("MatMul", "f A", "m"),
        node("Reshape", "m full", "n"),
        node("Add", "n P", "a"),
        node("Relu", "a", "b"),
        node("MatMul", "b B", "y"),
    ],
    "reshaped once": [
        node("Reshape", "x flat4", "f"),
        node("Gemm", "f A P", "a"),
        node("Relu", "a", "b"),
        node("Gemm", "b B Q", "o"),
        node("Reshape", "o back3", "y"),
    ],
}
RANK3_CONSTANTS = {
    "A": A,
    "P": P,
    "B": B,
    "Q": Q,
    "flat4": np.array([-1, 4]),
    "flat6": np.array([-1, 6]),
    "back6": np.array([-1, 7, 6]),
    "first": np.array([0, 1]),
    "last": np.array([6], np.int32),
    "back3": np.array([-1, 7, 3]),
}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", RANK3)
def test_rank_3(name, opset):
    graph = check(build(RANK3[name], RANK3_CONSTANTS, opset, shape=("batch", 7, 4)), DENSE_RELU_DENSE)
    assert graph.nodes[0].attrs["entry"] == "x"
    assert len(graph.nodes[0].inputs[0].shape) == 3


def test_a_bias_of_another_rank_is_no_bias():
    nodes = [node("MatMul", "x A", "m"), node("Add", "m P", "y")]
    graph = canonical(build(nodes, {"A": A, "P": P[None, None]}))
    assert ops(graph) == ["Dense", "Add"]


@pytest.mark.parametrize(
    ("equation", "shape", "swap"),
    [
        ("bi,io->bo", (5, 4), False),
        ("bi,oi->bo", (5, 4), False),
        ("bti,io->bto", (5, 7, 4), False),
        ("bti, oi -> bto", (5, 7, 4), False),
        ("...i,io->...o", (5, 7, 4), False),
        ("oi,bi->bo", (5, 4), True),
        ("io,bti->bto", (5, 7, 4), True),
    ],
)
def test_einsum(equation, shape, swap):
    matrix = A if "io" in equation.replace(" ", "") else A.T.copy()
    nodes = [node("Einsum", "W x" if swap else "x W", "m", equation=equation), node("Add", "m P", "y")]
    check(build(nodes, {"W": matrix, "P": P}, shape=shape), ["Dense"])


def test_einsum_that_is_no_dense_layer():
    nodes = [node("Einsum", "x W", "y", name="sum", equation="bi,io->ob")]
    graph = canonical(build(nodes, {"W": A}))
    assert explain(graph.nodes[0]) == "its equation 'bi,io->ob' is not x W over the last axis"


# --- ONNX Runtime's own operators ---------------------------------------------------------------------------------


def fused(op, inputs, output, **attributes):
    return node(op, inputs, output, domain="com.microsoft", **attributes)


@pytest.mark.parametrize(
    ("activation", "attributes", "expected"),
    [
        ("Relu", {}, "Relu"),
        ("LeakyRelu", {"activation_alpha": 0.2}, "LeakyRelu"),
        ("Tanh", {}, "Tanh"),
        ("Sigmoid", {}, "Sigmoid"),
        ("Softsign", {}, "Softsign"),
    ],
)
def test_fused_gemm(activation, attributes, expected):
    nodes = [
        fused("FusedGemm", "x AT P", "b", activation=activation, transB=1, **attributes),
        node("Gemm", "b B Q", "y"),
    ]
    graph = check(build(nodes, {"AT": A.T.copy(), "P": P, "B": B, "Q": Q}), ["Dense", expected, "Dense"])
    assert graph.nodes[0].attrs["exit"] is None
    assert graph.nodes[0].attrs["op"] == "com.microsoft::FusedGemm"


@pytest.mark.parametrize("shape", [(5, 4), (5, 7, 4)], ids=str)
def test_fused_matmul(shape):
    nodes = [fused("FusedMatMul", "x AT", "m", alpha=0.5, transB=1), node("Add", "m P", "y")]
    check(build(nodes, {"AT": A.T.copy(), "P": P}, shape=shape), ["Dense"])


@pytest.mark.parametrize(
    ("made", "op", "attributes"),
    [
        (fused("Gelu", "a", "b"), "Gelu", {}),
        (fused("FastGelu", "a", "b"), "Gelu", {"approximate": "tanh"}),
        (fused("FastGelu", "a P", "b"), "Gelu", {"approximate": "tanh"}),
        (fused("BiasGelu", "a P", "b"), "Gelu", {}),
        (fused("QuickGelu", "a", "b", alpha=1.5), "Swish", {"alpha": 1.5}),
        (fused("QuickGelu", "a", "b"), "Swish", {"alpha": 1.702}),
    ],
    ids=lambda value: str(value.op_type) if isinstance(value, onnx.NodeProto) else None,
)
def test_fused_gelu(made, op, attributes):
    nodes = [node("MatMul", "x A", "a"), made, node("Gemm", "b B Q", "y")]
    graph = check(build(nodes, {"A": A, "P": P, "B": B, "Q": Q}), ["Dense", op, "Dense"], rtol=1e-4)
    assert {k: pytest.approx(v) for k, v in graph.nodes[1].attrs.items()} == attributes


def test_an_operator_of_another_domain_is_not_taken_for_onnxs():
    nodes = [node("Gemm", "x A P", "a"), node("Relu", "a", "b", domain="mine"), node("Gemm", "b B Q", "y")]
    model = build(nodes, {"A": A, "P": P, "B": B, "Q": Q})
    model.opset_import.add(domain="mine", version=1)
    assert ops(canonical(model)) == ["Dense", "mine::Relu", "Dense"]


# --- shapes computed ----------------------------------------------------------------------------------------------

COMPUTED = {
    "gather": [
        node("Shape", "a", "s"),
        node("Gather", "s zero", "g", axis=0),
        node("Unsqueeze", "g axes", "u"),
        node("Concat", "u minus", "w", axis=0),
    ],
    "slice": [node("Shape", "a", "s"), node("Slice", "s axes one", "u"), node("Concat", "u minus", "w", axis=0)],
    "cast": [
        node("Shape", "a", "s"),
        node("Cast", "s", "s32", to=TensorProto.INT32),
        node("Cast", "s32", "w", to=TensorProto.INT64),
    ],
}


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("name", COMPUTED)
def test_reshape_to_a_computed_shape(name, opset):
    nodes = [node("Gemm", "x A P", "a"), *COMPUTED[name], node("Reshape", "a w", "r"), node("Relu", "r", "b"), *GEMM]
    constants = {"zero": np.array(0), "axes": np.array([0]), "one": np.array([1]), "minus": np.array([6])}
    check(build(nodes, {**constants, "A": A, "P": P, "B": B, "Q": Q}, opset), DENSE_RELU_DENSE)


def test_a_cast_to_and_fro_between_types_is_no_no_op():
    nodes = [node("Cast", "x", "c", to=TensorProto.DOUBLE), node("Cast", "c", "d", to=1), node("Gemm", "d A P", "y")]
    assert ops(canonical(build(nodes, {"A": A, "P": P}))) == ["Cast", "Cast", "Dense"]


# --- affine nodes -------------------------------------------------------------------------------------------------

STATISTICS = {
    f"{kind}{size}": (np.abs(values) + 0.5 if kind == "var" else values).astype("f")
    for kind in ("scale", "shift", "mean", "var")
    for size in (4, 6, 3)
    for values in [RNG.standard_normal(size)]
}
CONSTANTS = {"A": A, "P": P, "B": B, "Q": Q, **STATISTICS}


def norm(x, y, size, **attributes):
    return node("BatchNormalization", f"{x} scale{size} shift{size} mean{size} var{size}", y, **attributes)


NORMALISED = {
    "before the activation": ([node("Gemm", "x A P", "m"), norm("m", "a", 6), node("Relu", "a", "b"), *GEMM], 0),
    "behind the activation": (
        [node("Gemm", "x A P", "a"), node("Relu", "a", "r"), norm("r", "b", 6), node("MatMul", "b B", "y")],
        0,
    ),
    "behind the last layer": (
        [node("MatMul", "x A", "a"), node("Relu", "a", "b"), node("Gemm", "b B Q", "m"), norm("m", "y", 3)],
        0,
    ),
    "before the first layer": ([norm("x", "n", 4), node("Gemm", "n A P", "a"), node("Relu", "a", "b"), *GEMM], 1),
}


@pytest.mark.parametrize("opset", [9, 13, 14, 15, 20])
@pytest.mark.parametrize("place", NORMALISED)
def test_batch_normalization(place, opset):
    nodes, left = NORMALISED[place]
    check(build(nodes, CONSTANTS, opset), ["BatchNormalization"] * left + DENSE_RELU_DENSE)


def test_batch_normalization_in_training_is_left_alone():
    nodes = [node("Gemm", "x A P", "m"), norm("m", "a mean var", 6, training_mode=1), node("Relu", "a", "b"), *GEMM]
    graph = canonical(build(nodes, CONSTANTS, 15))
    assert ops(graph) == ["Dense", "BatchNormalization", "Relu", "Dense"]
    assert explain_normalization(graph.nodes[1]) == "it is in training mode"


def test_affine_nodes_between_layers_with_two_readers_go_into_both():
    nodes = [
        node("Gemm", "x A P", "a"),
        node("Tanh", "a", "b"),
        node("Mul", "b s", "c"),
        node("Add", "t c", "d"),
        node("Gemm", "d B Q", "y"),
        node("Gemm", "d B", "z"),
    ]
    model = build(nodes, {**CONSTANTS, "s": P, "t": np.float32(0.5)}, outputs=("y", "z"))
    graph = check(model, ["Dense", "Tanh", "Dense", "Dense"])
    assert len({id(n.inputs[1]) for n in graph.nodes if n.op == "Dense"}) == 3


def test_a_weight_that_something_else_reads_keeps_its_value():
    nodes = [node("Gemm", "x A P", "m"), node("Mul", "m s", "y"), node("Abs", "A", "z")]
    check(build(nodes, {"A": A, "P": P, "s": P}, outputs=("y", "z")), ["Dense", "Abs"])


def test_tensors_that_are_outputs_stay():
    nodes = [node("Gemm", "x A P", "m"), node("Mul", "m s", "n"), node("Identity", "n", "i"), node("Relu", "i", "y")]
    graph = check(build(nodes, {"A": A, "P": P, "s": P}, outputs=("y", "m", "i")), ["Dense", "Mul", "Identity", "Relu"])
    assert [t.name for t in graph.outputs] == ["y", "m", "i"]


def test_what_a_subgraph_reads_stays():
    inner = helper.make_graph(
        [node("Add", "i i", "w")], "then", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, None)]
    )
    other = helper.make_graph(
        [node("Neg", "i", "v")], "else", [], [helper.make_tensor_value_info("v", TensorProto.FLOAT, None)]
    )
    nodes = [
        node("Gemm", "x A P", "m"),
        node("Identity", "m", "i"),
        node("Relu", "i", "b"),
        node("Gemm", "b B Q", "y"),
        node("If", "c", "z", then_branch=inner, else_branch=other),
    ]
    graph = canonical(build(nodes, {**CONSTANTS, "c": np.array(True)}, outputs=("y", "z")))
    assert ops(graph) == ["Dense", "Identity", "Relu", "Dense", "If"]


# --- constants ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"value": numpy_helper.from_array(P, "v")}, P),
        ({"value_floats": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}, np.arange(1, 7)),
        ({"value_float": 2.5}, np.full(6, 2.5)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_constant_nodes(attributes, expected):
    nodes = [helper.make_node("Constant", [], ["P"], **attributes), node("MatMul", "x A", "m"), node("Add", "m P", "y")]
    graph = check(build(nodes, {"A": A}), ["Dense"])
    np.testing.assert_allclose(graph.nodes[0].inputs[2].values, expected)


def test_constants_are_not_blown_up():
    column, row = np.ones((4096, 1), "f"), np.ones((1, 4096), "f")
    nodes = [
        node("Add", "c r", "big"),
        node("Gather", "r idx", "wide", axis=0),
        node("ReduceMax", "big", "m", keepdims=0),
        node("ReduceMax", "wide", "n", keepdims=0),
        node("Add", "m n", "o"),
        node("Add", "x o", "y"),
    ]
    graph = canonical(build(nodes, {"c": column, "r": row, "idx": np.zeros(4096, np.int64)}))
    assert ops(graph)[:2] == ["Add", "Gather"]


# --- activations --------------------------------------------------------------------------------------------------


def between_layers(phi_nodes, constants, opset, **options):
    nodes = [node("Gemm", "x A P", "a"), *phi_nodes, node("Gemm", "b B Q", "y")]
    return build(nodes, {"A": A, "P": P, "B": B, "Q": Q, **constants}, opset, **options)


F = np.float32
PARTS = {
    "Relu by Max": ("Relu", {}, [node("Max", "zero a", "b")]),
    "Relu by Where": ("Relu", {}, [node("Greater", "a zero", "c"), node("Where", "c a zero", "b")]),
    "Relu6 by Min": ("Clip", {"min": 0, "max": 6}, [node("Relu", "a", "r"), node("Min", "r six", "b")]),
    "LeakyRelu by Max": ("LeakyRelu", {"alpha": 0.2}, [node("Mul", "a fifth", "m"), node("Max", "a m", "b")]),
    "LeakyRelu of TensorFlow": (
        "LeakyRelu",
        {"alpha": 0.2},
        [
            node("Relu", "a", "p"),
            node("Neg", "a", "n"),
            node("Relu", "n", "q"),
            node("Mul", "q fifth", "s"),
            node("Sub", "p s", "b"),
        ],
    ),
    "Gelu of PyTorch": (
        "Gelu",
        {},
        [
            node("Div", "a root2", "d"),
            node("Erf", "d", "e"),
            node("Add", "e one", "f"),
            node("Mul", "a f", "g"),
            node("Mul", "g half", "b"),
        ],
    ),
    "Gelu of PyTorch 2": (
        "Gelu",
        {},
        [
            node("Mul", "a half", "h"),
            node("Mul", "a root_half", "d"),
            node("Erf", "d", "e"),
            node("Add", "one e", "f"),
            node("Mul", "f h", "b"),
        ],
    ),
    "Gelu by tanh": (
        "Gelu",
        {"approximate": "tanh"},
        [
            node("Pow", "a three", "c"),
            node("Mul", "c cubic", "d"),
            node("Add", "d a", "e"),
            node("Mul", "scale e", "f"),
            node("Tanh", "f", "t"),
            node("Add", "t one", "u"),
            node("Mul", "half a", "h"),
            node("Mul", "u h", "b"),
        ],
    ),
    "SiLU": ("Swish", {}, [node("Sigmoid", "a", "s"), node("Mul", "a s", "b")]),
    "SiLU by Exp": (
        "Swish",
        {},
        [node("Neg", "a", "n"), node("Exp", "n", "e"), node("Add", "e one", "f"), node("Div", "a f", "b")],
    ),
    "quick Gelu": (
        "Swish",
        {"alpha": 1.702},
        [node("Mul", "a quick", "q"), node("Sigmoid", "q", "s"), node("Mul", "s a", "b")],
    ),
    "Mish": ("Mish", {}, [node("Softplus", "a", "s"), node("Tanh", "s", "t"), node("Mul", "a t", "b")]),
    "Mish by Exp": (
        "Mish",
        {},
        [
            node("Exp", "a", "e"),
            node("Add", "e one", "f"),
            node("Log", "f", "s"),
            node("Tanh", "s", "t"),
            node("Mul", "t a", "b"),
        ],
    ),
    "HardSwish by HardSigmoid": (
        "HardSwish",
        {},
        [node("HardSigmoid", "a", "h", alpha=1 / 6, beta=0.5), node("Mul", "a h", "b")],
    ),
    "HardSwish by Clip": (
        "HardSwish",
        {},
        [
            node("Add", "a three", "c"),
            node("Max", "c zero", "d"),
            node("Min", "d six", "e"),
            node("Mul", "a e", "f"),
            node("Div", "f six", "b"),
        ],
    ),
    "HardSigmoid by Clip": (
        "HardSigmoid",
        {"alpha": 1 / 6, "beta": 0.5},
        [node("Add", "a three", "c"), node("Max", "c zero", "d"), node("Min", "d six", "e"), node("Div", "e six", "b")],
    ),
    "HardSigmoid of Keras": (
        "HardSigmoid",
        {"alpha": 0.2, "beta": 0.5},
        [
            node("Mul", "a fifth", "c"),
            node("Add", "c half", "d"),
            node("Max", "d zero", "e"),
            node("Min", "e one", "b"),
        ],
    ),
    "Softplus": ("Softplus", {}, [node("Exp", "a", "e"), node("Add", "e one", "f"), node("Log", "f", "b")]),
    "safe Softplus": (
        "Softplus",
        {},
        [
            node("Abs", "a", "n"),
            node("Neg", "n", "m"),
            node("Exp", "m", "e"),
            node("Add", "one e", "f"),
            node("Log", "f", "g"),
            node("Relu", "a", "r"),
            node("Add", "g r", "b"),
        ],
    ),
    "Softplus of PyTorch": (
        "Softplus",
        {},
        [
            node("Exp", "a", "e"),
            node("Add", "one e", "f"),
            node("Log", "f", "g"),
            node("Greater", "a twenty", "c"),
            node("Where", "c a g", "b"),
        ],
    ),
    "Sigmoid by Exp": (
        "Sigmoid",
        {},
        [node("Neg", "a", "n"), node("Exp", "n", "e"), node("Add", "e one", "f"), node("Reciprocal", "f", "b")],
    ),
    "Softsign": ("Softsign", {}, [node("Abs", "a", "m"), node("Add", "m one", "n"), node("Div", "a n", "b")]),
    "Elu": (
        "Elu",
        {},
        [
            node("Exp", "a", "e"),
            node("Sub", "e one", "f"),
            node("Greater", "a zero", "c"),
            node("Where", "c a f", "b"),
        ],
    ),
}
SCALARS = {
    "zero": F(0),
    "one": F(1),
    "half": F(0.5),
    "three": F(3),
    "six": F(6),
    "fifth": F(0.2),
    "twenty": F(20),
    "root2": F(np.sqrt(2)),
    "root_half": F(np.sqrt(0.5)),
    "cubic": F(0.044715),
    "scale": F(np.sqrt(2 / np.pi)),
    "quick": F(1.702),
}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", PARTS)
def test_activations_in_parts(name, opset):
    op, given, nodes = PARTS[name]
    attributes = {**ACTIVATIONS[op].attributes, **given}
    graph = check(between_layers(nodes, SCALARS, opset), ["Dense", op, "Dense"], rtol=1e-4)
    found = attributes_of(graph.nodes[1])
    assert found == {k: v if isinstance(v, str) else pytest.approx(v, rel=1e-5) for k, v in attributes.items()}
    # What folds scalars into layers must not have taken any part away.
    np.testing.assert_allclose(graph.nodes[0].inputs[1].values, A, rtol=0)
    np.testing.assert_allclose(graph.nodes[2].inputs[1].values, B, rtol=0)


def test_what_is_no_known_activation_stays():
    nodes = [node("Tanh", "a", "t"), node("Mul", "t a", "u"), node("Abs", "u", "b")]
    assert ops(canonical(between_layers(nodes, {}, 17))) == ["Dense", "Tanh", "Mul", "Abs", "Dense"]


def test_a_part_that_is_an_output_stays():
    nodes = [node("Sigmoid", "a", "s"), node("Mul", "a s", "b")]
    graph = check(between_layers(nodes, {}, 17, outputs=("y", "s")), ["Dense", "Sigmoid", "Mul", "Dense"])
    assert graph.outputs[1].name == "s"


@pytest.mark.parametrize(
    ("last", "sign"), [(("Sub", "p m"), 1), (("Add", "p m"), -1), (("Add", "m p"), -1)], ids=["a - b", "a + b", "b + a"]
)
@pytest.mark.parametrize("order", ["s q", "q s"])
def test_prelu_in_parts(order, last, sign):
    nodes = [
        node("Relu", "a", "p"),
        node("Neg", "a", "n"),
        node("Relu", "n", "q"),
        node("Mul", order, "m"),
        node(*last, "b"),
    ]
    graph = check(between_layers(nodes, {"s": sign * P}, 17), ["Dense", "PRelu", "Dense"])
    np.testing.assert_array_equal(graph.nodes[1].inputs[1].values, P)


@pytest.mark.parametrize("slope", [P, P[None], P[:1], P[:1, None], P[0]], ids=lambda slope: str(slope.shape))
def test_slopes_of_prelu(slope):
    graph = check(between_layers([node("PRelu", "a s", "b")], {"s": slope}, 17), ["Dense", "PRelu", "Dense"])
    assert graph.nodes[1].inputs[1].shape in ((1,), (6,))


def test_clip_with_bounds_from_constant_nodes():
    low = helper.make_node("Constant", [], ["low"], value_float=-1.0)
    graph = check(between_layers([low, node("Clip", "a low six", "b")], SCALARS, 17), ["Dense", "Clip", "Dense"])
    assert graph.nodes[1].attrs == {"min": -1.0, "max": 6.0}


CASES = [
    *(Activation(op) for op in ACTIVATIONS if op not in ("PRelu", "Clip")),
    Activation("Clip", {"min": 0.0, "max": 6.0}),
    Activation("Clip", {"min": -0.5}),
    Activation("Gelu", {"approximate": "tanh"}),
    Activation("Swish", {"alpha": 1.702}),
    Activation("LeakyRelu", {"alpha": 0.3}),
    Activation("LeakyRelu", {"alpha": 1.5}),
    Activation("Elu", {"alpha": 0.7}),
    Activation("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    prelu(P),
]
LARGE = np.array([-100, -20, -3, -1, -0.1, 0, 0.1, 1, 3, 20, 88, 100])


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("opset", [9, 11, 13, 17, 20, 24, 25])
@pytest.mark.parametrize("phi", CASES, ids=str)
def test_every_activation_can_be_written_and_is_read_back(phi, opset, dtype):
    skip_newer(opset)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    slope = "s" if phi.slope is not None else ""
    nodes, constants = activation_nodes(phi, "a", "b", "phi", np.dtype(dtype), opset, slope)
    assert nodes[-1].name == "phi"
    assert all(name.startswith("phi") for n in nodes[:-1] for name in n.output)
    values = {"I": np.eye(6, dtype=dtype), "s": P.astype(dtype)}
    model = build(
        [node("MatMul", "x I", "a"), *nodes, node("MatMul", "b I", "y")], values, opset, ("batch", 6), dtype=kind
    )
    model.graph.initializer.extend(constants)
    model.ir_version = 10
    for _ in range(2):
        model.graph.output[0].type.tensor_type.shape.dim.add()
    onnx.checker.check_model(model)
    x = np.repeat(LARGE[:, None], 6, axis=1).astype(dtype)
    expected = phi(x.astype(np.float64))
    np.testing.assert_allclose(run(model, {"x": x})[0], expected, rtol=2e-5, atol=2e-5)
    graph = canonical(model)
    read = phi.op_type if str(phi) != "Clip(min=0.0)" else "Relu"
    assert ops(graph) == ["Dense", read, "Dense"]
    found = graph.nodes[1]
    assert found.name == "phi"
    known = ACTIVATIONS[phi.op_type].attributes
    for name in known:
        value = found.attrs.get(name, known[name])
        assert value == (
            phi.attribute(name) if isinstance(value, str) else pytest.approx(phi.attribute(name), rel=1e-5)
        )


# --- bad graphs, large graphs --------------------------------------------------------------------------------------


def test_the_reasons():
    reasons = {
        "its weight is not constant": ([node("MatMul", "x x2", "y", name="n")], {}),
        "its bias is not one constant value for each unit": ([node("Gemm", "x A x2", "y", name="n")], {"A": A}),
        "its input or its weight is not two-dimensional": (
            [node("MatMul", "x K", "y", name="n")],
            {"K": np.ones((2, 4, 3), "f")},
        ),
    }
    for reason, (nodes, constants) in reasons.items():
        graph = canonical(build(nodes, constants, inputs=("x", "x2"), shape=(4, 4)))
        assert explain(graph.nodes[0]) == reason


def test_cyclic_graphs_end():
    for op in ("Identity", "Relu", "Neg", "Transpose"):
        a, b = gs.Variable("a", np.dtype("f"), ["n", 4]), gs.Variable("b", np.dtype("f"), ["n", 4])
        nodes = [gs.Node(op, "1", inputs=[a], outputs=[b]), gs.Node(op, "2", inputs=[b], outputs=[a])]
        graph = gs.Graph(nodes, outputs=[gs.Variable("y")])
        canonicalise(graph)
    a = gs.Variable("a", np.dtype("f"), ["n", 4])
    canonicalise(gs.Graph([gs.Node("Add", "1", inputs=[a, a], outputs=[a])], outputs=[a]))


@pytest.mark.parametrize(
    "op", ["Gemm", "MatMul", "Add", "Reshape", "Clip", "PRelu", "Sub", "Cast", "Max", "Einsum", "Shape"]
)
def test_nodes_without_their_inputs_do_not_crash(op):
    x, y = gs.Variable("x", np.dtype("f"), ["n", 4]), gs.Variable("y")
    for inputs in ([], [x], [x, x]):
        canonicalise(gs.Graph([gs.Node(op, "n", inputs=inputs, outputs=[gs.Variable("y")])], inputs=[x], outputs=[y]))


LARGE_GRAPHS = {
    "identities": lambda i: ("Identity", ()),
    "relus": lambda i: ("Relu", ()),
    "products": lambda i: ("Mul", ("s",)),
    "sums and squashes": lambda i: (("Add", ("s",)), ("Tanh", ()))[i % 2],
    "layers": lambda i: (("MatMul", ("W",)), ("Add", ("b",)), ("Relu", ()))[i % 3],
    "transposes": lambda i: ("Transpose", ()),
    "sums with the first": lambda i: ("Add", ("t0",)),
    "sums and products of the last two": lambda i: (("Add", "Mul")[i % 2], (f"t{max(0, i - 1)}",)),
}


def lines_run(function, *given):
    """How many lines of Python a call runs: a measure of its time that no other process changes."""
    count, before = 0, sys.gettrace()

    def trace(frame, event, _):
        nonlocal count
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        function(*given)
    finally:
        sys.settrace(before)
    return count


def large_graph(name, count):
    constants = {"s": np.float32(1.5), "W": np.eye(4, dtype="f"), "b": np.ones(4, "f")}
    nodes = []
    for i in range(count):
        op, more = LARGE_GRAPHS[name](i)
        nodes.append(helper.make_node(op, [f"t{i}", *more], [f"t{i + 1}"]))
    model = build(nodes, constants, inputs=("t0",), outputs=(f"t{count}",))
    return gs.import_onnx(onnx.shape_inference.infer_shapes(model))


@pytest.mark.parametrize("name", LARGE_GRAPHS)
def test_work_grows_with_the_graph(name):
    few, many = (lines_run(canonicalise, large_graph(name, count)) for count in (300, 1200))
    assert many < 4.4 * few


@pytest.mark.parametrize("name", ["sums with the first", "sums and products of the last two"])
def test_a_long_row_of_elementwise_nodes_is_not_looked_through_from_each_of_them(name):
    """Each node costs some 300 lines; looking back as far as an activation may reach from each, some 1,500."""
    few, many = (lines_run(canonicalise, large_graph(name, count)) for count in (300, 1200))
    assert (many - few) / 900 < 500
