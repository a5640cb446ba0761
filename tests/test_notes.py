"""Nothing is left alone in silence: every width that stays has a note with the reason, and repeated notes are one."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import ModelError, from_model
from onnxsurgeon.graph.notes import NAMED, listed
from tests.conftest import MODELS
from tests.test_segments import CASES, Graph


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
        ("LayerNormalization", {"axis": -1}, "LayerNormalization computes over all its units together (node 'n0')"),
    ],
)
def test_a_width_that_an_operator_holds_is_noted(op, attributes, reason):
    network = chain_of(op, 2, **attributes)
    assert network.topology == "6-6+6-6"
    assert network.frame.notes == (f"the width of 'd0' stays: {reason}",)


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
    g.dense("d4", "s3", "y", 6, 3)
    assert from_model(g.model()).frame.notes == (
        "the width of 'd0' stays: it is read by 'd1', 'Add_s1'",
        "the widths of 'd1', 'd2', 'd3' stay: Add joins their units with others, one by one "
        "(nodes 'Add_s1', 'Add_s2', 'Add_s3')",
    )
    g = Graph()
    g.outputs["z"] = ("batch", 3)
    for letter, y in (("d", "y"), ("e", "z")):
        g.dense(f"{letter}0", "x", f"{letter}a", 4, 6)
        g.dense(f"{letter}1", f"{letter}a", f"{letter}b", 6, 6)
        g.op("Tanh", f"{letter}a", f"{letter}c")
        g.op("Mul", f"{letter}b {letter}c", f"{letter}f")
        g.dense(f"{letter}2", f"{letter}f", y, 6, 3)
    assert from_model(g.model()).frame.notes == (
        "the widths of 'd0', 'e0' stay: each is read by several nodes",
        "the widths of 'd1', 'e1' stay: Mul joins their units with others, one by one (nodes 'Mul_df', 'Mul_ef')",
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
    """Last layers of segments that lead on to another trained layer, and are not named in a note."""
    steps = [step for step in network.frame.trunk.steps if not isinstance(step, int)]
    reads = {name for step in steps for name in step.inputs} | {segment.input_name for segment in network.segments}
    heads = {head.tensor for head in network.heads}
    for segment in network.segments[:-1]:
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
