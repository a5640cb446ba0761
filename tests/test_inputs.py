"""How rows reach a model: several inputs from named columns, tables, texts, and what the prefix makes of them."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import (
    DataError,
    Dataset,
    InputOptions,
    ModelError,
    Split,
    Widen,
    from_model,
    make_engine,
    operate,
    prepare,
)
from onnxsurgeon.data.inputs import model_inputs
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import run
from onnxsurgeon.training.forward import feeds_of
from tests.forward_model import forward_model

RNG = np.random.default_rng(0)
ROWS = 13
A, B = RNG.standard_normal((4, 6)).astype("f"), RNG.standard_normal((6, 3)).astype("f")
FLOAT, INT64, STRING, DOUBLE = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING, TensorProto.DOUBLE
ML = {"domain": "ai.onnx.ml"}


def n(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"{op}_{outputs.split()[0]}", **attributes)


DENSE = [n("Gemm", "f A", "a"), n("Relu", "a", "b"), n("Gemm", "b B", "y")]  # what the prefix calls f, (rows, 4)


def build(nodes, inputs, constants=None, outputs=(), dense=DENSE, weights=None):
    """``nodes`` from ``inputs`` {name: (type, shape)} to f, and two dense layers behind."""
    values = (weights or {"A": A, "B": B}) | (constants or {})
    declared = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    y = outputs or [helper.make_tensor_value_info("y", FLOAT, ["batch", 3])]
    initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items()]
    graph = helper.make_graph([*nodes, *dense], "inputs", declared, list(y), initializers)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def mine(inputs, **more):
    rows = len(next(iter(inputs.values()))) if isinstance(inputs, dict) else len(inputs)
    split = Split(inputs, np.arange(rows) % 3)
    return Dataset("mine", split, split, 3, **more)


def logits(network, data, options=None):
    """What the trunk makes of the features that the data set is prepared as."""
    (features,) = prepare(network, data, data.train, options).features
    return run(forward_model(network), {"features": features, **feeds_of(network)})[0]


def agrees(model, data, feeds, options=None):
    expected = run(model, feeds, ["y"])[0]
    np.testing.assert_allclose(logits(from_model(model), data, options), expected, rtol=1e-5, atol=1e-5)


X4 = RNG.standard_normal((ROWS, 4)).astype("f")
COLUMNS = {"age": X4[:, 0].astype(np.float64), "size": X4[:, 1], "both": X4[:, 2:]}
SEVERAL = {"size": (FLOAT, ["batch", 1]), "age": (DOUBLE, ["batch", 1]), "both": (FLOAT, ["batch", 2])}
JOIN = [n("Cast", "age", "age1", to=FLOAT), n("Concat", "age1 size both", "f", axis=1)]


def test_several_inputs_from_the_columns_of_their_names():
    """In whatever order the columns come, of the inputs' own types, and others are left alone."""
    model = build(JOIN, SEVERAL)
    data = mine({**dict(reversed(COLUMNS.items())), "of no use": np.array(["text"] * ROWS)})
    inputs = model_inputs(from_model(model), data, data.train, InputOptions())
    assert {name: (v.dtype, v.shape) for name, v in inputs.items()} == {
        "size": (np.float32, (ROWS, 1)),
        "age": (np.float64, (ROWS, 1)),
        "both": (np.float32, (ROWS, 2)),
    }
    agrees(model, data, {"age": COLUMNS["age"][:, None], "size": X4[:, 1:2], "both": X4[:, 2:]})


def test_an_input_of_one_axis_takes_a_column_as_it_is():
    model = build(
        [n("Unsqueeze", "v one", "v1"), n("Concat", "v1 w", "f", axis=1)],
        {"v": (FLOAT, ["batch"]), "w": (FLOAT, ["batch", 3])},
        {"one": np.array([1])},
    )
    agrees(model, mine({"v": X4[:, 0], "w": X4[:, 1:]}), {"v": X4[:, 0], "w": X4[:, 1:]})


def test_a_missing_column_is_named():
    data = mine({"age": X4[:, 0], "height": X4[:, 1]})
    with pytest.raises(DataError, match="input 'size' of 'model' has no column of that name; found 'age', 'height'"):
        prepare(from_model(build(JOIN, SEVERAL)), data, data.train)


def test_rows_without_names_do_not_do_for_several_inputs():
    reason = "'model' has 3 inputs, 'size', 'age', 'both': expected columns or arrays of these names"
    with pytest.raises(DataError, match=reason):
        prepare(from_model(build(JOIN, SEVERAL)), mine(X4), mine(X4).train)


def test_a_column_of_another_width_names_the_input():
    data = mine({**COLUMNS, "both": X4})
    with pytest.raises(DataError, match=r"rows of shape \(4,\) do not fit the input .*\(2\)"):
        prepare(from_model(build(JOIN, SEVERAL)), data, data.train)


SINGLE = build([], {"f": (FLOAT, ["batch", 4])})


def test_a_table_is_the_rows_of_a_single_input():
    table = {name: X4[:, i] for i, name in enumerate("abcd")}
    agrees(SINGLE, mine(table), {"f": X4})
    agrees(SINGLE, mine(X4), {"f": X4})
    agrees(SINGLE, mine({"f": X4, "other": X4[:, 0]}), {"f": X4})  # a column of its name is the input


def test_a_tables_texts_are_one_hot_for_a_single_input_of_numbers():
    table = {"a": X4[:, 0], "kind": np.array(["cat", "dog", "eel"] * 5)[:ROWS]}
    data = mine(table, categories={"kind": ("cat", "dog", "eel")})
    one_hot = (table["kind"][:, None] == np.array(["cat", "dog", "eel"])).astype("f")
    agrees(SINGLE, data, {"f": np.concatenate([X4[:, :1], one_hot], axis=1)})


def test_a_table_of_the_wrong_width_names_its_columns():
    data = mine(dict.fromkeys(("age", "size", "weight"), X4[:, 0]))
    reason = "expected 4 columns for the input 'f' of 'model', found 3: 'age', 'size', 'weight'"
    with pytest.raises(DataError, match=reason):
        prepare(from_model(SINGLE), data, data.train)
    many = mine({f"c{i}": X4[:, 0] for i in range(30)})
    with pytest.raises(DataError, match=r"found 30: 'c0', .*'c11', …$"):
        prepare(from_model(SINGLE), many, many.train)


ENCODED = [
    n("LabelEncoder", "kind", "code", keys_strings=["cat", "dog", "eel"], values_floats=[0.0, 1.0, 5.0], **ML),
    n("OneHotEncoder", "size", "hot", cats_strings=["big", "small"], **ML),
    n("Reshape", "hot to2", "hot2"),
    n("Concat", "code hot2 age", "f", axis=1),
]
TEXTS = {"kind": (STRING, ["batch", 1]), "size": (STRING, ["batch", 1]), "age": (FLOAT, ["batch", 1])}


def test_texts_reach_the_prefix_as_texts():
    model = build(ENCODED, TEXTS, {"to2": np.array([-1, 2])})
    table = {
        "age": X4[:, 0],
        "kind": np.array(["eel", "cat", "dog"] * 5)[:ROWS],
        "size": np.array(["small", "big"] * 7)[:ROWS],
    }
    data = mine(table)
    features = prepare(from_model(model), data, data.train).features[0]
    np.testing.assert_allclose(features[:2], [[5, 0, 1, X4[0, 0]], [0, 1, 0, X4[1, 0]]], rtol=1e-6)
    agrees(model, data, {k: (v if v.dtype == np.float32 else v.astype(object))[:, None] for k, v in table.items()})


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("kind", X4[:, 0], "column 'kind' holds numbers; the input of 'model' takes texts"),
        ("age", np.array(["old"] * ROWS), "column 'age' holds texts; the input of 'model' takes numbers"),
    ],
)
def test_texts_and_numbers_are_not_mixed_up(column, values, reason):
    texts = np.array(["big"] * ROWS)
    data = mine({"age": X4[:, 0], "kind": texts, "size": texts, column: values})
    with pytest.raises(DataError, match=reason):
        prepare(from_model(build(ENCODED, TEXTS, {"to2": np.array([-1, 2])})), data, data.train)


def test_whole_numbers_for_an_input_of_integers():
    """As an embedding's indices; what is no whole number is not cut off in silence."""
    table = RNG.standard_normal((5, 3)).astype("f")
    model = build(
        [n("Gather", "E k", "e"), n("Concat", "e v", "f", axis=1)],
        {"k": (INT64, ["batch"]), "v": (FLOAT, ["batch", 1])},
        {"E": table},
    )
    indices = np.arange(ROWS) % 5
    for kind in (np.int64, np.float64):
        agrees(model, mine({"k": indices.astype(kind), "v": X4[:, 0]}), {"k": indices, "v": X4[:, :1]})
    broken = indices.astype(float)
    broken[4] = 2.5
    data = mine({"k": broken, "v": X4[:, 0]})
    with pytest.raises(DataError, match=r"2\.5 in row 4 .*'k' of 'model', which takes integers"):
        prepare(from_model(model), data, data.train)


def test_scaling_does_not_touch_integers():
    model = build([n("Cast", "k", "f", to=FLOAT)], {"k": (INT64, ["batch", 4])})
    values = RNG.integers(0, 255, (ROWS, 4)).astype(np.uint8)
    agrees(model, mine(values), {"k": values.astype(np.int64)}, InputOptions(scale=0.5))


@pytest.mark.parametrize("shape", [[], [1], [1, 1]], ids=str)
def test_an_input_that_only_the_suffix_needs_is_not_asked_for(shape):
    """One value for the whole batch is no feature: where it comes in, the suffix begins."""
    behind = [*DENSE[:2], n("Gemm", "b B", "z"), n("Div", "z temperature", "t"), n("Softmax", "t", "y")]
    model = build([], {"f": (FLOAT, ["batch", 4]), "temperature": (FLOAT, shape)}, dense=behind)
    network = from_model(model)
    assert [(head.tensor, head.readers) for head in network.heads] == [("z", ("Div",))]
    data = mine(X4)
    assert list(model_inputs(network, data, data.train, InputOptions())) == ["f"]
    expected = run(model, {"f": X4, "temperature": np.ones(shape, "f")})[0]
    z = logits(network, data)
    np.testing.assert_allclose(np.exp(z) / np.exp(z).sum(1, keepdims=True), expected, rtol=1e-5)
    assert [value.name for value in to_model(network).graph.input] == ["f", "temperature"]


def test_an_input_that_only_glue_reads_is_a_feature():
    behind = [*DENSE[:2], n("Mul", "b gate", "c"), n("Gemm", "c B", "y")]
    model = build([], {"f": (FLOAT, ["batch", 4]), "gate": (FLOAT, ["batch", 6])}, dense=behind)
    network, gate = from_model(model), RNG.random((ROWS, 6)).astype("f")
    data = mine({"gate": gate, "f": X4})
    examples = prepare(network, data, data.train)
    assert dict(network.frame.trunk.features) == {"f": (4,), "gate": (6,)}
    found = run(
        forward_model(network),
        {"features": examples.features[0], "features_1": examples.features[1], **feeds_of(network)},
    )
    np.testing.assert_allclose(found[0], run(model, {"f": X4, "gate": gate})[0], rtol=1e-5, atol=1e-5)
    assert make_engine("loop").evaluate(network, examples).rows == ROWS


def test_an_input_that_is_no_tensor_is_refused():
    model = build([n("SequenceAt", "s zero", "f")], {"x": (FLOAT, ["batch", 4])}, {"zero": np.array(0)})
    del model.graph.input[:]
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, ["batch", 4]))
    model.graph.input.append(helper.make_value_info("s", sequence))
    with pytest.raises(ModelError, match="its input 's' is no tensor"):
        prepare(from_model(model), mine(X4), mine(X4).train)


# The prefix.


def test_behind_an_op_of_unknown_shape_biases_of_shape_1_n_belong_to_their_layers():
    """As scikit-learn's converter writes them behind a Scaler, whose shape ONNX does not infer."""
    scaler = n("Scaler", "x", "f", offset=[0.5] * 4, scale=[2.0] * 4, **ML)
    dense = [
        n("MatMul", "f A", "a"),
        n("Add", "a P", "b"),
        n("Relu", "b", "c"),
        n("MatMul", "c B", "d"),
        n("Add", "d Q", "e"),
        n("Softmax", "e", "y", axis=1),
    ]
    biases = {"P": RNG.standard_normal((1, 6)).astype("f"), "Q": RNG.standard_normal((1, 3)).astype("f")}
    model = build([scaler], {"x": (FLOAT, [None, 4])}, biases, dense=dense)
    network = from_model(model)
    assert (network.topology, network.hidden_count, network.frame.notes) == ("4-6-3", 1, ())
    assert network.heads[0].squash == "Softmax"
    for written in (to_model(network), to_model(operate(network, Widen(1, 3)).network)):
        np.testing.assert_allclose(run(written, {"x": X4})[0], run(model, {"x": X4})[0], rtol=1e-5, atol=1e-6)
    assert to_model(from_model(to_model(network))) == to_model(network)


def test_an_op_of_unknown_shape_may_write_an_output_without_a_shape():
    """The search for shapes behind such an operator went on for ever, since the output's own declaration came first."""
    scaler = n("Scaler", "x", "f", offset=[0.5] * 4, scale=[2.0] * 4, **ML)
    dense = [n("MatMul", "f A", "a"), n("Relu", "a", "c"), n("MatMul", "c B", "y")]
    outputs = [helper.make_tensor_value_info(name, FLOAT, None) for name in ("f", "y")]
    model = build([scaler], {"x": (FLOAT, [None, 4])}, {}, dense=dense, outputs=outputs)
    assert from_model(model).topology == "4-6-3"


@pytest.mark.parametrize("batch", [1, 4, 13, 50])
def test_a_fixed_batch_size(batch):
    """Whether it divides the rows or not, or is larger."""
    model = build(
        [n("Sin", "x", "f")],
        {"x": (FLOAT, [batch, 4])},
        outputs=[helper.make_tensor_value_info("y", FLOAT, [batch, 3])],
    )
    features = prepare(from_model(model), mine(X4), mine(X4).train).features[0]
    np.testing.assert_allclose(features, np.sin(X4), rtol=1e-6)


def test_a_prefix_in_chunks(monkeypatch):
    monkeypatch.setattr("onnxsurgeon.data.features.CHUNK", 5)
    agrees(build([n("Sin", "x", "f")], {"x": (FLOAT, ["batch", 4])}), mine(X4), {"x": X4})


@pytest.mark.parametrize(
    "nodes",
    [
        [n("ReduceMean", "x", "f", axes=[0], keepdims=1)],
        [n("ReduceMean", "x", "m", axes=[0], keepdims=0), n("Unsqueeze", "m zero", "f")],
        [n("Concat", "x x", "f", axis=0)],
        [n("Slice", "x zero three zero", "f")],
    ],
    ids=["mean over the batch", "mean without its axis", "rows twice", "some of the rows"],
)
def test_a_prefix_that_has_no_row_for_each_row(nodes):
    model = build(
        [n("Sin", "x", "w")] + [self_renamed(node) for node in nodes],
        {"x": (FLOAT, ["batch", 4])},
        {"zero": np.array([0]), "three": np.array([3])},
    )
    with pytest.raises(DataError, match="which the dense layers read, has no row for each row"):
        prepare(from_model(model), mine(X4), mine(X4).train)


def self_renamed(node):
    """The node reading w where it read x."""
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    changed.input[:] = ["w" if name == "x" else name for name in node.input]
    return changed


ALONG = {
    "mean": [n("ReduceMean", "x", "m", axes=[0]), n("Sub", "x m", "f")],
    "mean of all": [n("ReduceMean", "x", "m"), n("Sub", "x m", "f")],
    "largest": [n("ReduceMax", "x", "m", axes=[0]), n("Add", "x m", "f")],
    "Softmax": [n("Softmax", "x", "f", axis=0)],
    "norm": [n("LpNormalization", "x", "f", axis=0)],
    "sums": [n("CumSum", "x first", "f")],
    "backwards": [n("Slice", "x last before zero last", "f")],
    "another row": [n("Gather", "x last", "l", axis=0), n("Add", "x l", "f")],
    "products": [n("Transpose", "x", "t", perm=[1, 0]), n("MatMul", "x t", "g"), n("MatMul", "g x", "f")],
    "the row's number": [
        n("Shape", "x", "s", end=1),
        n("Squeeze", "s zero", "c"),
        n("Range", "first c one", "k"),
        n("Cast", "k", "q", to=FLOAT),
        n("Unsqueeze", "q last", "p"),
        n("Add", "x p", "f"),
    ],
    "chance": [n("RandomNormalLike", "x", "e"), n("Add", "x e", "f")],
}


@pytest.mark.parametrize("batch", ["batch", 4])
@pytest.mark.parametrize("name", ALONG)
def test_a_prefix_that_computes_along_the_batch_is_refused(name, batch):
    integers = {"first": 0, "one": 1, "zero": [0], "last": [-1], "before": [-(2**31)]}
    model = build(
        ALONG[name],
        {"x": (FLOAT, [batch, 4])},
        {key: np.array(value, np.int64) for key, value in integers.items()},
        outputs=[helper.make_tensor_value_info("y", FLOAT, [batch, 3])],
    )
    with pytest.raises(DataError, match="'f', which the dense layers read, changes for a row with the other rows of"):
        prepare(from_model(model), mine(X4), mine(X4).train)


def test_a_branch_that_the_rows_of_a_batch_decide_together_has_a_note():
    def body(op):
        made = helper.make_tensor_value_info("inner", FLOAT, ["batch", 4])
        return helper.make_graph([helper.make_node(op, ["x"], ["inner"])], op, [], [made])

    mean = [n("ReduceMean", "x", "m", keepdims=0), n("Greater", "m limit", "c")]
    decides = helper.make_node("If", ["c"], ["f"], name="which", then_branch=body("Neg"), else_branch=body("Abs"))
    model = build([*mean, decides], {"x": (FLOAT, ["batch", 4])}, {"limit": np.float32(0)})
    network = from_model(model)
    assert [note for note in network.frame.notes if "branch" in note] == [
        "node 'which' (If) takes one branch for all rows of a batch: features of a row may change with the rows that "
        "are run with it"
    ]
    agrees(model, mine(X4), {"x": X4})


def test_rounding_that_depends_on_the_place_in_a_batch_is_no_dependence():
    wide, rows = RNG.standard_normal((300, 4)).astype("f"), RNG.standard_normal((ROWS, 300)).astype("f") * 1e4
    nodes = [n("Sin", "x", "s"), n("Abs", "x", "v"), n("Add", "s v", "u"), n("Cos", "k", "w"), n("MatMul", "u w", "f")]
    agrees(build(nodes, {"x": (FLOAT, ["batch", 300])}, {"k": wide}), mine(rows), {"x": rows})


def test_a_prefix_that_fails_on_the_rows_says_so():
    model = build([n("Gather", "E k", "f")], {"k": (INT64, ["batch"])}, {"E": np.ones((5, 4), "f")})
    data = mine({"k": np.arange(ROWS)})
    with pytest.raises(DataError, match="'model': its prefix fails on these rows") as error:
        prepare(from_model(model), data, data.train)
    assert "\n" not in str(error.value)


BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@pytest.mark.parametrize("kind", ["input", "cast", "constant"])
def test_a_prefix_in_bfloat16(kind):
    """ONNX Runtime's CPU provider has no kernels for it."""
    half = TensorProto.BFLOAT16
    weights = {"A": A.astype(BFLOAT16), "B": B.astype(BFLOAT16)}
    first = "x" if kind == "input" else "h"
    nodes = [] if kind == "input" else [n("Cast", "x", "h", to=half)]
    if kind == "constant":
        weights["shift"] = np.full(4, 0.5, BFLOAT16)
        nodes.append(n("Sub", "h shift", "f"))
    else:
        nodes.append(n("Neg", first, "f"))
    y = [helper.make_tensor_value_info("y", half, ["batch", 3])]
    model = build(nodes, {"x": (half if kind == "input" else FLOAT, ["batch", 4])}, outputs=y, weights=weights)
    network, data = from_model(model), mine(X4)
    assert network.chain.stored == BFLOAT16
    features = prepare(network, data, data.train).features[0]
    assert features.dtype == np.float32
    rounded = X4.astype(BFLOAT16).astype("f")
    given = network.frame.trunk.features.keys()
    moved = rounded - 0.5 if kind == "constant" else -rounded
    expected = moved if given == {"f"} else rounded  # else the dense layer has it
    np.testing.assert_allclose(features, expected, rtol=2**-7, atol=2**-8)


BESIDE = {
    "a number": ([n("Mul", "x t", "f")], [], "()"),
    "a vector": ([n("Add", "x t", "f")], [4], "(4,)"),
    "rows of a fixed number": ([n("MatMul", "x t", "f")], [4, 4], "(4, 4)"),
}


@pytest.mark.parametrize("case", BESIDE)
def test_an_input_that_all_rows_share_is_told_apart(case):
    nodes, shape, spelled = BESIDE[case]
    network = from_model(build(nodes, {"x": (FLOAT, ["batch", 4]), "t": (FLOAT, shape)}))
    data = mine({"x": RNG.standard_normal((ROWS, 4)), "t": RNG.standard_normal((ROWS, *shape))})
    with pytest.raises(DataError) as error:
        prepare(network, data, data.train)
    assert str(error.value) == (
        f"mine: the input 't' of 'model' has shape {spelled}, without an axis for the rows of a batch beside 'x', "
        "which has one; make it a constant of the model, or export it with such an axis"
    )


def test_labels_of_an_output_that_another_head_reads_are_told_of():
    """Its targets would be those of the head behind it."""
    dense = [n("Gemm", "f A", "a"), n("Relu", "a", "b"), n("Gemm", "b B", "y"), n("Concat", "b y", "c", axis=1)]
    dense.append(n("Gemm", "c C", "z"))
    constants = {"C": RNG.standard_normal((9, 2)).astype("f")}
    outputs = [helper.make_tensor_value_info(name, FLOAT, ["batch", size]) for name, size in (("y", 3), ("z", 2))]
    network = from_model(build([n("Identity", "x", "f")], {"x": (FLOAT, ["batch", 4])}, constants, outputs, dense))
    split = Split(RNG.standard_normal((ROWS, 4)), RNG.standard_normal((ROWS, 5)))
    with pytest.raises(DataError) as error:
        prepare(network, Dataset("mine", split, split, 0), split)
    assert str(error.value) == (
        "mine: expected 2 targets a row, one for each output of 'model'; found 5; "
        "output 'y' takes no targets: trained layers are computed from it"
    )


def test_a_layer_that_decides_indices_alone_is_said_to():
    dense = [n("Gemm", "f A", "a"), n("ArgMax", "a", "i", axis=1, keepdims=0), n("Gather", "E i", "b")]
    dense.append(n("MatMul", "b B", "y"))
    constants = {"E": RNG.standard_normal((6, 6)).astype("f")}
    network = from_model(build([n("Identity", "x", "f")], {"x": (FLOAT, ["batch", 4])}, constants, dense=dense))
    assert "'Gemm_a' stays as it is: nothing but indices, sizes or the like depends on it" in network.frame.notes
