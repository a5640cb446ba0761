"""Nothing is left alone in silence: every width that stays has a note with the reason, and repeated notes are one."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import ModelError, SurgeryError, Widen, from_model, operate
from onnxsurgeon.graph.notes import NAMED, listed
from tests.conftest import MODELS
from tests.graphs import Graph
from tests.segmented import CASES


def chain_of(op, count, **attributes):
    """``count`` dense layers of 6 units behind the first, with such a node behind each but the last."""
    g = Graph()
    g.inputs["x"], g.outputs["y"] = ("batch", 6), ("batch", 6)
    g.const(two=np.array([2]), to=np.array([-1, 6]), shift=np.zeros(6, "f"), scale=np.ones(6, "f"))
    inputs = {"LayerNormalization": " scale shift", "Reshape": " to"}.get(op, "")
    for i in range(count):
        g.dense(f"d{i}", "x" if i == 0 else f"b{i - 1}", "y" if i == count - 1 else f"a{i}", 6, 6)
        if i < count - 1:
            g.op(op, f"a{i}{inputs}", f"b{i}", name=f"n{i}", **attributes)
    return from_model(g.model())


@pytest.mark.parametrize(
    ("op", "attributes", "reason"),
    [
        ("Softmax", {"axis": -1}, "Softmax computes over all its units together (node 'n0')"),
    ],
)
def test_a_width_that_an_operator_holds_is_noted(op, attributes, reason):
    network = chain_of(op, 2, **attributes)
    assert network.topology == "6-6+6-6"
    assert network.frame.notes == (f"the width of 'd0' stays: {reason}",)


@pytest.mark.parametrize("style", ["Pow", "Mul", "twice"])
def test_a_layer_normalization_in_parts_is_called_so(style):
    """And whoever asks for a surgery there is told why it is none."""
    g = Graph()
    g.inputs["x"], g.outputs["y"] = ("batch", 6), ("batch", 3)
    g.const(two=np.array(2, "f"), tiny=np.array(1e-5, "f"))
    g.dense("d0", "x", "a", 6, 8)
    g.op("ReduceMean", "a", "mean", name="mean", axes=[-1], keepdims=1)
    g.op("Sub", "a mean", "c", name="centre")
    again = "c"
    if style == "twice":
        g.op("Sub", "a mean", "again", name="again")
        again = "again"
    g.op("Mul" if style == "Mul" else "Pow", f"{again} {again if style == 'Mul' else 'two'}", "square", name="square")
    g.op("ReduceMean", "square", "variance", name="variance", axes=[-1], keepdims=1)
    g.op("Add", "variance tiny", "more", name="more")
    g.op("Sqrt", "more", "deviation", name="deviation")
    g.op("Div", "c deviation", "n", name="n")
    g.op("Relu", "n", "r", name="r")
    g.dense("d1", "r", "y", 8, 3)
    network = from_model(g.model())
    reason = "the width of 'd0' stays: LayerNormalization computes over all its units together (node 'centre')"
    assert network.frame.notes == (reason,)
    with pytest.raises(SurgeryError, match=re.escape(f"has no hidden layer 1: it has none; {reason}")):
        operate(network, Widen(1, 3))


def test_widths_that_stay_for_the_same_reason_are_one_note():
    assert chain_of("Softmax", 3, axis=-1).frame.notes == (
        "the widths of 'd0', 'd1' stay: Softmax computes over all their units together (nodes 'n0', 'n1')",
    )
    (note,) = chain_of("Softmax", 30, axis=-1).frame.notes
    names, nodes = (", ".join(f"'{letter}{i}'" for i in range(NAMED)) for letter in "dn")
    assert note == (
        f"the widths of {names} and 21 more stay: Softmax computes over all their units together "
        f"(nodes {nodes} and 21 more)"
    )


def test_layers_that_several_read_are_one_note():
    g = Graph()
    g.inputs["x"] = ("batch", 6)
    g.dense("d0", "x", "s0", 6, 6)
    for i in range(1, 4):
        g.dense(f"d{i}", f"s{i - 1}", f"a{i}", 6, 6)
        g.op("Add", f"a{i} s{i - 1}", f"s{i}")
    g.op("Softmax", "s3", "p", axis=-1)  # which holds all of them
    g.dense("d4", "p", "y", 6, 3)
    assert from_model(g.model()).frame.notes == (
        "the widths of 'd0', 'd1', 'd2', 'd3' stay: as for their units, Softmax computes over all of them together "
        "(node 'Softmax_p')",
    )
    g = Graph()
    g.outputs["z"] = ("batch", 3)
    for letter, y in (("d", "y"), ("e", "z")):
        g.dense(f"{letter}0", "x", f"{letter}a", 4, 6)
        g.dense(f"{letter}1", f"{letter}a", f"{letter}b", 6, 6)
        g.op("Tanh", f"{letter}a", f"{letter}c")
        g.op("Mul", f"{letter}b {letter}c", f"{letter}e")
        g.op("Softmax", f"{letter}e", f"{letter}f", axis=-1)
        g.dense(f"{letter}2", f"{letter}f", y, 6, 3)
    assert from_model(g.model()).frame.notes == (
        "the widths of 'd0', 'd1', 'e0', 'e1' stay: as for their units, Softmax computes over all of them together "
        "(nodes 'Softmax_df', 'Softmax_ef')",
    )


def test_several_outputs_inside_are_one_note():
    g = Graph()
    g.outputs = {"a": ("batch", 6), "b": ("batch", 5), "y": ("batch", 3)}
    g.dense("d0", "x", "a", 4, 6)
    g.dense("d1", "a", "b", 6, 5)
    g.dense("d2", "b", "y", 5, 3)
    assert from_model(g.model()).frame.notes == (
        "the widths of 'd0', 'd1' stay: tensors 'a', 'b' are also outputs of the model",
        "outputs 'a', 'b' take no targets: trained layers are computed from them",
    )


@pytest.mark.parametrize("suffix", ["Softmax", "Sigmoid", "none"])
def test_of_what_the_model_is_for_nothing_is_said(suffix):
    """The last layer's width is the model's output: nobody expects it to change."""
    g = Graph()
    g.dense("d0", "x", "a", 4, 6)
    g.op("Relu", "a", "b")
    g.dense("d1", "b", "y" if suffix == "none" else "logits", 6, 3)
    if suffix != "none":
        g.op(suffix, "logits", "y")
    assert from_model(g.model()).frame.notes == ()


def noted_or_free(network):
    """Last layers of segments that lead on to another trained layer, are not free, and are not named in a note."""
    written = {writer.segment for group in network.units.free for writer in group.writers if not group.is_hidden}
    free = {number for each in written for number in network.uses(each)}
    steps = [step for step in network.frame.trunk.steps if not isinstance(step, int)]
    reads = {name for step in steps for name in step.inputs} | {segment.input_name for segment in network.segments}
    heads = {head.tensor for head in network.heads}
    for segment in (each for number, each in enumerate(network.segments[:-1]) if number not in free):
        name = segment.layers[-1].names.node
        if segment.output_name in reads - heads and not any(f"'{name}'" in note for note in network.frame.notes):
            yield name


@pytest.mark.parametrize("name", [*CASES, *(path.stem for path in (MODELS / "exports").glob("*.onnx"))])
def test_no_width_is_held_without_a_word(name):
    path = MODELS / "exports" / f"{name}.onnx"
    model = CASES[name].model() if name in CASES else onnx.load(path)
    try:
        network = from_model(model)
    except ModelError:
        pytest.skip("refused, with a reason that other tests look at")
    assert list(noted_or_free(network)) == []


def test_dropouts_in_training_form_are_one_note():
    weights = {"w0": (4, 6), "w1": (6, 6), "w2": (6, 3)}
    held = [numpy_helper.from_array(np.ones(shape, "f"), name) for name, shape in weights.items()]
    held += [numpy_helper.from_array(np.float32(0.5), "ratio"), numpy_helper.from_array(np.bool_(True), "yes")]

    def network(*dropped):
        nodes, x = [], "x"
        for i in range(3):
            nodes.append(helper.make_node("MatMul", [x, f"w{i}"], ["y" if i == 2 else f"a{i}"], name=f"d{i}"))
            if i in dropped:
                nodes.append(helper.make_node("Dropout", [f"a{i}", "ratio", "yes"], [f"b{i}"], name=f"drop{i}"))
            x = f"b{i}" if i in dropped else f"a{i}"
        x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", k]) for n, k in (("x", 4), ("y", 3)))
        graph = helper.make_graph(nodes, "g", [x], [y], held)
        return from_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))

    what = "in training form, dropping at random:"
    assert network(0).frame.notes == (f"'drop0' (Dropout) was {what} it is written in inference form",)
    assert network(0, 1).frame.notes == (f"'drop0', 'drop1' (Dropout) were {what} they are written in inference form",)


def test_listed():
    assert listed(["a"]) == "'a'"
    assert listed([str(i) for i in range(NAMED)]).count(",") == NAMED - 1
    assert listed([str(i) for i in range(NAMED + 5)]).endswith(f"'{NAMED - 1}' and 5 more")


def notes_of(build):
    g = Graph()
    build(g)
    return from_model(g.model()).frame.notes


def body(nodes, output, shape, *held):
    value = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
    return helper.make_graph(nodes, "body", [], [value], list(held))


def layers_in_bodies(count):
    """Each If has a layer in either branch, and stands behind a layer of its own."""

    def build(g):
        g.const(limit=np.float32(0))  # a flag that is constant would leave no body
        g.op("ReduceMax", "x", "top", keepdims=0)
        g.op("Less", "top limit", "flag")
        weight = numpy_helper.from_array(np.eye(6, dtype="f"), "inner")
        x = "x"
        for i in range(count):
            g.dense(f"d{i}", x, f"a{i}", 4 if i == 0 else 6, 6)
            branches = [
                body([helper.make_node("MatMul", [f"a{i}", "inner"], ["b"], name=f"{k}{i}")], "b", ("n", 6), weight)
                for k in "et"
            ]
            g.op("If", "flag", f"c{i}", name=f"if{i}", then_branch=branches[1], else_branch=branches[0])
            x = f"c{i}"
        g.dense("last", x, "y", 6, 3)

    return build


def weight_that_is_computed(g):
    g.const(W=np.ones((4, 6), "f"))
    g.op("Abs", "W", "A")
    g.op("MatMul", "x A", "h", name="layer")
    g.dense("last", "h", "y", 6, 3)


def input_that_is_transposed(g):
    g.inputs["x"] = (4, 5)
    g.const(W=np.ones((4, 6), "f"))
    g.op("Gemm", "x W", "h", name="layer", transA=1)
    g.dense("last", "h", "y", 6, 3)


def bias_that_is_computed(g):
    g.const(W=np.ones((4, 6), "f"))
    g.op("Slice", "x from to along", "part")
    g.const(**{"from": np.array([0]), "to": np.array([1]), "along": np.array([1])})
    g.op("Gemm", "x W part", "h", name="layer")
    g.dense("last", "h", "y", 6, 3)


def stack_of_weights(g):
    g.inputs["x"], g.outputs["y"] = ("batch", 2, 4), ("batch", 2, 3)
    g.const(W=np.ones((2, 4, 6), "f"))
    g.op("MatMul", "x W", "h", name="layer")
    g.dense3("last", "h", "y", 6, 3)


EVEN = "its weight is a vector of evenly spaced values, or of two alone, as of a sum or an expected value"


def vector_as_a_weight(g):
    g.outputs["y"] = ("batch",)
    g.dense("first", "x", "h", 4, 6)
    g.const(w=np.ones(6, "f"))
    g.op("MatMul", "h w", "y", name="layer")


def nothing_behind(g):
    g.dense("first", "x", "h", 4, 6)
    g.op("Relu", "h", "r")
    g.dense("last", "r", "y", 6, 3)
    g.dense("layer", "r", "unread", 6, 2)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (weight_that_is_computed, "its weight is not constant"),
        (input_that_is_transposed, "it transposes its input"),
        (bias_that_is_computed, "its bias is not one constant value for each unit"),
        (stack_of_weights, "its input or its weight is not two-dimensional"),
        (vector_as_a_weight, EVEN),
        (nothing_behind, "no output depends on it"),
    ],
)
def test_a_layer_that_is_not_worked_on_is_named_with_the_reason(build, reason):
    assert f"'layer' stays as it is: {reason}" in notes_of(build)


@pytest.mark.parametrize("how", ["ReduceSum", "Einsum"])
def test_a_width_that_is_summed_over_is_said(how):
    """A scalar product of two layers' outputs: neither width is the output's."""

    def build(g):
        g.outputs["y"] = ("batch",)
        g.dense("one", "x", "a", 4, 6)
        g.dense("other", "x", "b", 4, 6)
        if how == "Einsum":
            g.op("Einsum", "a b", "y", name="product", equation="bi,bi->b")
            return
        g.const(last=np.array([1]))
        g.op("Mul", "a b", "c")
        g.op("ReduceSum", "c last", "y", name="product", keepdims=0)

    assert notes_of(build) == (f"the widths of 'one', 'other' stay: node 'product' ({how}) sums over all their units",)


def test_layers_inside_bodies_are_named_with_their_owner():
    assert notes_of(layers_in_bodies(1)) == (
        "'d0' stays as it is: node 'if0' (If) behind 'd0' cannot be trained through: it has no gradient rule",
        "'e0', 't0' stay as they are: they stand inside node 'if0' (If)",
        "node 'if0' (If) takes one branch for all rows of a batch: features of a row may change with the rows that are "
        "run with it",
    )


def test_layers_frozen_for_the_same_reason_are_one_note_with_a_count():
    frozen, inside, _ = notes_of(layers_in_bodies(12))
    nodes = ", ".join(f"'if{i}'" for i in range(NAMED))
    layers = ", ".join(f"'{letter}{i}'" for i in range(NAMED // 2) for letter in "et")
    assert frozen.endswith("behind them cannot be trained through: it has no gradient rule")
    assert "and 4 more stay as they are: nodes" in frozen
    assert inside == (f"{layers} and 16 more stay as they are: they stand inside nodes {nodes} and 4 more (If)")


@pytest.mark.parametrize("count", [3, 20])
def test_many_idle_inputs_and_shared_weights_are_one_note(count):
    def build(g):
        g.inputs |= {f"u{i}": ("batch", 2) for i in range(count)}
        g.outputs |= {f"c{i}": (4, 4) for i in range(count)}
        x = "x"
        for i in range(count):
            g.dense(f"d{i}", x, "y" if i == count - 1 else f"a{i}", 4, 4)
            g.op("Abs", f"d{i}.W", f"c{i}")
            x = f"a{i}"

    notes = notes_of(build)
    about_inputs = [note for note in notes if "on input" in note]
    about_copies = [note for note in notes if "own cop" in note]
    assert [len(about_inputs), len(about_copies)] == ([3, 3] if count == 3 else [1, 1])
    if count == 20:
        assert "and 12 more" in about_inputs[0]
        assert about_copies[0].count("and 12 more") == 3


def test_whoever_asks_for_a_surgery_is_told_of_frozen_layers_too():
    g = Graph()
    g.inputs["x"], g.outputs["y"] = ("batch", 6), ("batch", 3)
    g.dense("d0", "x", "a", 6, 8)
    g.op("ReduceL2", "a", "n", name="norm", axes=[-1], keepdims=1)
    g.op("Div", "a n", "b", name="divided")
    g.dense("d1", "b", "y", 8, 3)
    network = from_model(g.model())
    reason = (
        "'d0' stays as it is: node 'norm' (ReduceL2) behind 'd0' cannot be trained through: it has no gradient rule"
    )
    assert network.frame.notes == (reason,)
    with pytest.raises(SurgeryError, match=re.escape(f"has no hidden layer 1: it has none; {reason}")):
        operate(network, Widen(1, 3))


@pytest.mark.parametrize("given", ["a a", "a b"])
def test_a_node_that_reads_a_head_twice_is_named_once(given):
    g = Graph()
    g.inputs["x"], g.outputs["y"] = ("batch", 6), ("batch", 3)
    g.dense("d0", "x", "a", 6, 3)
    g.op("Mod", given, "y", name="twice", fmod=1)
    if given == "a b":
        g.dense("d1", "x", "b", 6, 3)
        g.nodes.insert(0, g.nodes.pop())
    network = from_model(g.model())
    assert [head.readers for head in network.heads] == [("Mod",)] * len(network.heads)


def test_types_that_numpy_has_no_name_for_are_looked_at_too():
    """The bfloat16 of a tensor that is no constant: random weights that are no layer, and what ends training."""
    kind = TensorProto.BFLOAT16
    weight = helper.make_tensor("W", kind, [4, 4], np.eye(4, dtype=np.float32).reshape(-1) + 0.5)
    axis = helper.make_tensor("axis", TensorProto.INT64, [], [1])
    nodes = [
        helper.make_node("RandomNormal", [], ["r"], shape=[4, 4], dtype=kind),
        helper.make_node("MatMul", ["x", "r"], ["noisy"], name="noise"),
        helper.make_node("MatMul", ["noisy", "W"], ["h"], name="layer"),
        helper.make_node("CumSum", ["h", "axis"], ["y"], name="sums"),
    ]
    ends = [helper.make_tensor_value_info(name, kind, ["b", 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight, axis])
    notes = from_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])).frame.notes
    assert any(note.startswith("'noise' stays as it is: ") for note in notes)
    assert any(note.startswith("node 'sums' (CumSum) cannot be trained through: ") for note in notes)


@pytest.mark.parametrize("name", ["", "heads"])
def test_a_reshape_that_splits_units_over_axes_is_named(name):
    """As the heads of an attention: their number is told where the file makes them."""
    rng = np.random.default_rng(0)
    constants = {"A": rng.standard_normal((4, 6)), "B": rng.standard_normal((6, 3))}
    tensors = [numpy_helper.from_array(values.astype(np.float32), key) for key, values in constants.items()]
    tensors += [numpy_helper.from_array(np.array(shape), key) for key, shape in (("s", [0, 0, 2, 3]), ("t", [0, 0, 6]))]
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["a"], name="q"),
        helper.make_node("Reshape", ["a", "s"], ["b"], name=name),
        helper.make_node("Transpose", ["b"], ["c"], perm=[0, 2, 1, 3]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Transpose", ["d"], ["e"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["e", "t"], ["f"]),
        helper.make_node("MatMul", ["f", "B"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, ["n", 5, size]) for end, size in (("x", 4), ("y", 3))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    network = from_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert (
        f"the width of 'q' stays: a Reshape splits its units over several axes (node '{name or 'b'}')"
    ) in network.frame.notes


def test_a_mean_over_units_is_no_normalisation():
    """Behind x − mean x without a division, the note named an operator that the file has not."""
    g = Graph()
    g.dense("d", "x", "a", 4, 6)
    g.op("ReduceMean", "a", "m", axes=[1])
    g.op("Sub", "a m", "c", name="centre")
    g.dense("e", "c", "y", 6, 3)
    notes = from_model(g.model()).frame.notes
    assert notes == ("the width of 'd' stays: a mean is taken over all its units (node 'centre')",)


@pytest.mark.parametrize("opset", [21, 23])
def test_layers_before_a_group_normalization_are_trained_in_every_opset(opset):
    """Of those from opset 21 on, onnx infers no shape."""
    g = Graph()
    g.opset = opset
    g.const(axis=np.array([2]), gains=g.weight(6), shifts=g.weight(6))
    g.dense("d", "x", "a", 4, 6)
    g.op("Unsqueeze", "a axis", "u")
    g.op("GroupNormalization", "u gains shifts", "n", num_groups=2)
    g.op("Squeeze", "n axis", "s")
    g.dense("e", "s", "y", 6, 3)
    model = g.model()
    model.ir_version = 10
    network = from_model(model)
    assert network.topology == "4-6+6-3"
    assert not any("stays as it is" in note for note in network.frame.notes)


@pytest.mark.parametrize("open_size", ["batch", "steps"])
def test_nobody_is_advised_to_fix_the_batch(open_size):
    """A recurrent state has the batch on its second axis; a number there would make a model for so many rows alone."""
    g = Graph()
    g.inputs = {"x": ("batch", 4), "state": (1, open_size, 6)}
    g.dense("d", "x", "a", 4, 6)
    g.op("Sin", "a", "s")  # which is not trained through
    g.const(first=np.array([0]))
    g.op("ReduceMean", "state", "m", axes=[0, 1], keepdims=0)
    g.op("Add", "s m", "t")
    g.dense("e", "t", "y", 6, 3)
    told = [note for note in from_model(g.model()).frame.notes if "leaves the size" in note]
    assert len(told) == (open_size == "steps")
