"""Nets that are not one sequence: what is found, and that whatever is done to it leaves the rest as it is."""

from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import (
    Examples,
    Factorize,
    InsertIdentity,
    Merge,
    ModelError,
    Narrow,
    TrainingSpec,
    Widen,
    from_model,
    make_engine,
    operate,
)
from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.calibration.gradients import with_gradients
from onnxsurgeon.data.features import compute_features
from onnxsurgeon.graph.equivalence import compare_models
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.operating.measure import found_error
from onnxsurgeon.runtime import run
from onnxsurgeon.surgery import FactorizeData, Grow, MergeData, Prune
from onnxsurgeon.task import SQUARED, Task
from tests.graphs import Graph

ROWS = 6


@dataclass
class Case:
    build: object
    topologies: list
    notes: tuple
    shared: tuple

    def model(self):
        graph = Graph()
        self.build(graph)
        return graph.model()


CASES = {}


def case(*topologies, notes=(), shared=()):
    """``shared``: of each width that several segments share its units, and how many layers write or read it."""

    def add(build):
        CASES[build.__name__] = Case(build, list(topologies), notes, shared)
        return build

    return add


@case("4-6", "6-9-6", "6-3", shared=((6, 4),))
def residual_with_the_activation_behind_the_sum(g):
    g.dense("d1", "x", "a", 4, 6)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 6, 9)
    g.op("Relu", "c", "d")
    g.dense("d3", "d", "e", 9, 6)
    g.op("Add", "b e", "s")
    g.op("Relu", "s", "f")
    g.dense("d4", "f", "y", 6, 3)


@case("4-6", "6-9-6", "6-7-6", "6-3", shared=((6, 6),))
def residual_with_activations_before_the_layers(g):
    g.dense("d0", "x", "s0", 4, 6)
    for i, width in ((1, 9), (2, 7)):
        g.op("Relu", f"s{i - 1}", f"a{i}")
        g.dense(f"d{i}a", f"a{i}", f"b{i}", 6, width)
        g.op("Tanh", f"b{i}", f"c{i}")
        g.dense(f"d{i}b", f"c{i}", f"e{i}", width, 6)
        g.op("Add", f"e{i} s{i - 1}", f"s{i}")
    g.dense("d3", "s2", "y", 6, 3)


@case("4-8-6", "6-5-3", "6-7-2", shared=((6, 3),))
def two_heads(g):
    g.outputs["z"] = ("batch", 2)
    g.dense("d1", "x", "a", 4, 8)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 8, 6)
    g.op("Relu", "c", "d")
    g.dense("h1", "d", "e", 6, 5)
    g.op("Relu", "e", "f")
    g.dense("h2", "f", "logits", 5, 3)
    g.op("Softmax", "logits", "y")
    g.dense("k1", "d", "p", 6, 7)
    g.op("Tanh", "p", "q")
    g.dense("k2", "q", "z", 7, 2)


@case("4-6-5", "3-7-5", "10-8-2", shared=((5, 2), (5, 2)))
def two_inputs_joined(g):
    g.inputs["w"] = ("batch", 3)
    g.dense("d1", "x", "a", 4, 6)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 6, 5)
    g.dense("e1", "w", "p", 3, 7)
    g.op("Tanh", "p", "q")
    g.dense("e2", "q", "r", 7, 5)
    g.op("Concat", "c r", "s", axis=1)
    g.op("Relu", "s", "t")
    g.dense("d3", "t", "u", 10, 8)
    g.op("Relu", "u", "v")
    g.dense("d4", "v", "y", 8, 2)


@case(
    "4-7-6",
    "4-5-1",
    "6-3",
    notes=("the width of 'g2' stays: Mul joins its units with others, one by one (node 'Mul_t')",),
    shared=((6, 2),),
)
def gating_by_one_column(g):
    g.dense("d1", "x", "a", 4, 7)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 7, 6)
    g.dense("g1", "x", "p", 4, 5)
    g.op("Tanh", "p", "q")
    g.dense("g2", "q", "r", 5, 1)
    g.op("Sigmoid", "r", "s")
    g.op("Mul", "c s", "t")
    g.dense("d3", "t", "y", 6, 3)


@case(
    "4-7-6",
    "4-5-6",
    "6-3",
    notes=(
        "the width of 'd2' stays: Mul joins its units with others, one by one (node 'Mul_t')",
        "the width of 'g2' stays: Softmax computes over all its units together (node 'Softmax_s')",
    ),
)
def a_softmax_gate(g):
    g.dense("d1", "x", "a", 4, 7)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 7, 6)
    g.dense("g1", "x", "p", 4, 5)
    g.op("Tanh", "p", "q")
    g.dense("g2", "q", "r", 5, 6)
    g.op("Softmax", "r", "s", axis=-1)
    g.op("Mul", "c s", "t")
    g.dense("d3", "t", "y", 6, 3)


@case("4-6", "6-8-7-9-6", "6-3", shared=((6, 4),))
def a_skip_over_several_layers(g):
    g.dense("d1", "x", "a", 4, 6)
    g.op("Relu", "a", "b")
    for i, (n_in, n_out) in enumerate([(6, 8), (8, 7), (7, 9)]):
        g.dense(f"m{i}", "b" if i == 0 else f"n{i - 1}", f"m{i}_out", n_in, n_out)
        g.op("Relu", f"m{i}_out", f"n{i}")
    g.dense("d5", "n2", "c", 9, 6)
    g.op("Add", "c b", "s")
    g.dense("d6", "s", "y", 6, 3)


@case("4-6-5-3")
def an_input_that_skips_everything(g):
    g.outputs["y"] = ("batch", 7)
    g.dense("d1", "x", "a", 4, 6)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 6, 5)
    g.op("Relu", "c", "d")
    g.dense("d3", "d", "e", 5, 3)
    g.op("Concat", "x e", "y", axis=1)


@case("4-8-6", "6-7-2", shared=((6, 2),))
def three_axes_and_a_mean(g):
    g.inputs["x"] = ("batch", 5, 4)
    g.dense3("d1", "x", "a", 4, 8)
    g.op("Relu", "a", "b")
    g.dense3("d2", "b", "c", 8, 6)
    g.op("ReduceMean", "c", "d", axes=[1], keepdims=0)
    g.dense("d3", "d", "e", 6, 7)
    g.op("Relu", "e", "f")
    g.dense("d4", "f", "y", 7, 2)


@case("4-8-6", "30-7-2", shared=((6, 2),))
def three_axes_flattened(g):
    g.inputs["x"] = ("batch", 5, 4)
    g.dense3("d1", "x", "a", 4, 8)
    g.op("Tanh", "a", "b")
    g.dense3("d2", "b", "c", 8, 6)
    g.op("Flatten", "c", "d")
    g.dense("d3", "d", "e", 30, 7)
    g.op("Relu", "e", "f")
    g.dense("d4", "f", "y", 7, 2)


@case("4-8-6", "3-5-3", "6-2", shared=((3, 2), (3, 2), (3, 2)))
def a_split_one_half_of_which_is_worked_on(g):
    g.const(halves=np.array([3, 3]))
    g.dense("d1", "x", "a", 4, 8)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 8, 6)
    g.op("Split", "c halves", "left right", axis=1)
    g.dense("d3", "left", "d", 3, 5)
    g.op("Relu", "d", "e")
    g.dense("d4", "e", "f", 5, 3)
    g.op("Concat", "f right", "s", axis=1)
    g.op("Tanh", "s", "t")
    g.dense("d5", "t", "y", 6, 2)


@case(
    "4-8-6",
    "4-5-2",
    notes=("the width of 'd2' stays: Slice takes parts of its output (node 'Slice_d')",),
    shared=((4, 2),),
)
def a_slice(g):
    g.const(begin=np.array([1]), end=np.array([5]), axis=np.array([1]))
    g.dense("d1", "x", "a", 4, 8)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 8, 6)
    g.op("Slice", "c begin end axis", "d")
    g.dense("d3", "d", "e", 4, 5)
    g.op("Relu", "e", "f")
    g.dense("d4", "f", "y", 5, 2)


@case("4-8-6", "6-5-2", notes=("the width of 'd2' stays: Gather takes parts of its output (node 'Gather_d')",))
def the_last_time_step_gathered(g):
    g.inputs["x"] = ("batch", 5, 4)
    g.const(last=np.array(-1))
    g.dense3("d1", "x", "a", 4, 8)
    g.op("Relu", "a", "b")
    g.dense3("d2", "b", "c", 8, 6)
    g.op("Gather", "c last", "d", axis=1)
    g.dense("d3", "d", "e", 6, 5)
    g.op("Relu", "e", "f")
    g.dense("d4", "f", "y", 5, 2)


@case("4-8-6", "6-5-2", shared=((6, 2),))
def layer_normalization_between(g):
    g.const(scale=np.linspace(0.5, 1.5, 6, dtype="f"), shift=np.linspace(-1, 1, 6, dtype="f"))
    g.dense("d1", "x", "a", 4, 8)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 8, 6)
    g.op("LayerNormalization", "c scale shift", "d", axis=-1)
    g.op("Relu", "d", "e")
    g.dense("d3", "e", "f", 6, 5)
    g.op("Relu", "f", "g")
    g.dense("d4", "g", "y", 5, 2)


@case("4-8-6", "6-5-6", "6-2", shared=((6, 4),))
def batch_normalization_whose_input_has_two_readers(g):
    g.const(scale=np.linspace(0.5, 1.5, 6, dtype="f"), shift=np.linspace(-1, 1, 6, dtype="f"))
    g.const(mean=np.linspace(-0.3, 0.5, 6, dtype="f"), variance=np.linspace(0.5, 2, 6, dtype="f"))
    g.dense("d1", "x", "a", 4, 8)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 8, 6)
    g.op("BatchNormalization", "c scale shift mean variance", "d")
    g.op("Relu", "d", "d2")
    g.dense("d3", "d2", "e", 6, 5)
    g.op("Relu", "e", "f")
    g.dense("d4", "f", "h", 5, 6)
    g.op("Add", "h c", "s")
    g.dense("d5", "s", "y", 6, 2)


@case(
    "4-8-6",
    "3-5-3",
    "6-2",
    shared=((3, 2),),
    notes=("the width of 'd2' stays: a Reshape splits its units over several axes (node 'Reshape_d')",),
)
def shape_arithmetic_before_a_reshape(g):
    """The shape is computed from the batch's at run time, as exporters write a view."""
    g.const(zero=np.array(0), to=np.array([2, 3]), six=np.array([6]), axes=np.array([0]))
    g.dense("d1", "x", "a", 4, 8)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 8, 6)
    g.op("Shape", "c", "shape")
    g.op("Gather", "shape zero", "rows", axis=0)
    g.op("Unsqueeze", "rows axes", "rows1")
    g.op("Concat", "rows1 to", "three", axis=0)
    g.op("Reshape", "c three", "d")
    g.dense3("d3", "d", "e", 3, 5)
    g.op("Relu", "e", "f")
    g.dense3("d4", "f", "h", 5, 3)
    g.op("Concat", "rows1 six", "two", axis=0)
    g.op("Reshape", "h two", "k")
    g.op("Tanh", "k", "l")
    g.dense("d5", "l", "y", 6, 2)


@case(
    "4-8-6-3",
    notes=(
        "'inside' stays as it is: it stands inside node 'choice' (If)",
        "node 'choice' (If) cannot be trained through: it has no gradient rule; its inputs take the targets",
    ),
)
def an_if_in_the_suffix_whose_body_reads_an_outer_dense_output(g):
    g.dense("d1", "x", "a", 4, 8)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 8, 6)
    g.op("Relu", "c", "d")
    g.dense("d3", "d", "logits", 6, 3)
    inner = numpy_helper.from_array(g.weight(3, 3), "inner.W")
    out = helper.make_tensor_value_info("branch", TensorProto.FLOAT, ["batch", 3])
    bodies = [
        helper.make_graph(
            [helper.make_node("MatMul", ["logits", "inner.W"], ["branch"], name="inside")], "t", [], [out], [inner]
        ),
        helper.make_graph([helper.make_node("Identity", ["logits"], ["branch"])], "e", [], [out]),
    ]
    g.const(limit=np.float32(0))
    g.op("ReduceSum", "x", "total", keepdims=0)
    g.op("Greater", "total limit", "large")
    g.op("If", "large", "y", then_branch=bodies[0], else_branch=bodies[1], name="choice")


@case(
    "6-5-2",
    notes=(
        "'d1', 'd2' stay as they are: node 'choice' (If) behind 'd1', 'd2' cannot be trained through: it has no "
        "gradient rule",
        "node 'choice' (If) takes one branch for all rows of a batch: features of a row may change with the rows that "
        "are run with it",
    ),
)
def an_if_between_dense_layers(g):
    g.dense("d1", "x", "a", 4, 8)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 8, 6)
    out = helper.make_tensor_value_info("branch", TensorProto.FLOAT, ["batch", 6])
    bodies = [helper.make_graph([helper.make_node(op, ["c"], ["branch"])], op, [], [out]) for op in ("Sin", "Identity")]
    g.const(limit=np.float32(0))
    g.op("ReduceSum", "x", "total", keepdims=0)
    g.op("Greater", "total limit", "large")
    g.op("If", "large", "d", then_branch=bodies[0], else_branch=bodies[1], name="choice")
    g.dense("d3", "d", "e", 6, 5)
    g.op("Relu", "e", "f")
    g.dense("d4", "f", "y", 5, 2)


@case(
    "4-20",
    "126-7-2",
    notes=(
        "'conv' stays as it is: transposed convolutions are not worked on",
        "the width of 'd1' stays: a Reshape splits its units over several axes (node 'Reshape_b')",
    ),
)
def a_transposed_convolution_behind_a_dense_layer(g):
    g.const(to=np.array([-1, 1, 4, 5]), K=g.weight(1, 3, 3, 3))
    g.dense("d1", "x", "a", 4, 20)
    g.op("Reshape", "a to", "b")
    g.op("ConvTranspose", "b K", "c", name="conv")
    g.op("Relu", "c", "d")
    g.op("Flatten", "d", "e")
    g.dense("d2", "e", "f", 126, 7)
    g.op("Relu", "f", "h")
    g.dense("d3", "h", "y", 7, 2)


@case(
    "10-7-2",
    notes=(
        "'d1' stays as it is: node 'sine' (Sin) behind 'd1' cannot be trained through: it has no gradient rule",
        "'e1' stays as it is: node 'cosine' (Cos) behind 'e1' cannot be trained through: it has no gradient rule",
    ),
)
def two_branches_that_are_blocked_by_different_nodes(g):
    g.dense("d1", "x", "a", 4, 5)
    g.op("Sin", "a", "b", name="sine")
    g.dense("e1", "x", "c", 4, 5)
    g.op("Cos", "c", "d", name="cosine")
    g.op("Concat", "b d", "e", axis=1)
    g.dense("d2", "e", "f", 10, 7)
    g.op("Relu", "f", "h")
    g.dense("d3", "h", "y", 7, 2)


@case("4-6-3", notes=("'u1', 'u2' stay as they are: no output depends on them",))
def dense_layers_that_lead_nowhere(g):
    g.dense("d1", "x", "a", 4, 6)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "y", 6, 3)
    g.dense("u1", "x", "p", 4, 5)
    g.op("Relu", "p", "q")
    g.dense("u2", "q", "r", 5, 2)


@case("4-6", "6-6", "6-6", "6-3", notes=(), shared=((6, 4),))
def weights_tied_between_two_layers(g):
    g.dense("d1", "x", "a", 4, 6)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 6, 6)
    g.op("Relu", "c", "d")
    g.const(**{"d3.b": g.weight(6)})
    g.op("Gemm", "d d2.W d3.b", "e", name="d3")
    g.op("Relu", "e", "f")
    g.dense("d4", "f", "y", 6, 3)


@case("4-6", "6-5", "4-6", "6-5", "10-2", notes=(), shared=((6, 3), (5, 2), (5, 2)))
def weights_tied_between_two_towers(g):
    g.inputs = {"x": ("batch", 4), "w": ("batch", 4)}
    g.dense("d1", "x", "a", 4, 6)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 6, 5)
    g.op("Gemm", "w d1.W d1.b", "p", name="e1")
    g.op("Relu", "p", "q")
    g.dense("e2", "q", "r", 6, 5)
    g.op("Concat", "c r", "s", axis=1)
    g.op("Relu", "s", "t")
    g.dense("d3", "t", "y", 10, 2)


@case("4-6-6", "6-4", notes=("the width of 'd2' stays: Mul joins its units with others, one by one (node 'Mul_d')",))
def a_prefix_and_a_suffix_of_several_nodes(g):
    g.const(mean=np.float32(0.3), std=np.float32(0.7))
    g.op("Sub", "x mean", "x1")
    g.op("Sin", "x1", "x2")
    g.op("Div", "x2 std", "x3")
    g.dense("d1", "x3", "a", 4, 6)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 6, 6)
    g.op("Mul", "c x1_wide", "d")
    g.nodes.insert(1, helper.make_node("Concat", ["x1", "x1_left"], ["x1_wide"], axis=1, name="wide"))
    g.const(zero=np.array([0]), two=np.array([2]), one=np.array([1]))
    g.nodes.insert(1, helper.make_node("Slice", ["x1", "zero", "two", "one"], ["x1_left"], name="left"))
    g.dense("d3", "d", "e", 6, 4)
    g.op("Softmax", "e", "probabilities", axis=-1)
    g.op("ArgMax", "probabilities", "class", axis=1, keepdims=0)
    g.op("Cast", "class", "y", to=TensorProto.FLOAT)
    g.outputs = {"y": ("batch",), "probabilities": ("batch", 4)}


def inputs_of(model, rows=ROWS, seed=1):
    rng = np.random.default_rng(seed)
    return {
        value.name: rng.standard_normal([rows, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:])]).astype(
            "f"
        )
        for value in model.graph.input
    }


def examples_of(network, model, rows=64):
    """The features that the prefix makes of random rows, and random targets for every head."""
    rng = np.random.default_rng(2)
    features = compute_features(network, inputs_of(model, rows), rows)
    tasks = tuple(Task(SQUARED, head.width) for head in network.heads)
    labels = tuple(rng.standard_normal((rows, task.outputs)) for task in tasks)
    return Examples(tuple(features.values()), labels, tasks)


def close(first, second, model, tolerance, label=""):
    difference = compare_models(first, second, inputs_of(model))
    assert difference.scale > 0
    assert difference.relative <= tolerance, label


def bytes_of(model):
    return {tensor.name: numpy_helper.to_array(tensor).tobytes() for tensor in model.graph.initializer}


@pytest.fixture(params=CASES)
def found(request):
    """The case, its model, and what was made of it."""
    model = CASES[request.param].model()
    return CASES[request.param], model, from_model(model)


def test_what_is_found(found):
    case, _, network = found
    assert [segment.topology for segment in network.segments] == case.topologies
    assert network.topology == "+".join(case.topologies)
    assert network.frame.notes == case.notes
    shared = [network.group(i) for i in range(network.hidden_count + 1, network.group_count + 1)]
    assert tuple((group.units, group.ports) for group in shared) == case.shared
    assert network.hidden_count == sum(topology.count("-") - 1 for topology in case.topologies)


def test_reading_and_writing_changes_nothing_but_the_dense_layers_spelling(found):
    _, model, network = found
    written = to_model(network)
    onnx.checker.check_model(written, full_check=True)
    close(model, written, model, 1e-6)
    for field in ("input", "output"):
        assert list(getattr(written.graph, field)) == list(getattr(model.graph, field))
    assert list(written.metadata_props) == list(model.metadata_props)
    assert (written.doc_string, written.graph.doc_string, written.ir_version, list(written.opset_import)) == (
        model.doc_string,
        model.graph.doc_string,
        model.ir_version,
        list(model.opset_import),
    )
    dense = {layer.names.node for layer in network.layers}
    activations = {layer.names.activation for layer in network.layers if layer.activation is not None}
    originals = {node.name: node for node in model.graph.node}
    adds = {f"{name}.add" for name in dense}  # of what is written as MatMul and Add, the Add gets its name from there
    assert {node.name for node in written.graph.node} >= set(originals) - adds
    for node in written.graph.node:
        if node.name in originals and node.name not in dense | activations:
            assert node == originals[node.name]
    again = from_model(written)
    assert to_model(again) == written
    assert again.topology == network.topology


def exact_surgeries(network):
    for i in range(1, network.hidden_count + 1):
        most = min(network.hidden(i).weight.shape)
        for surgery in (
            *(Widen(i, 3, mode) for mode in ("split", "equal", "fresh")),
            InsertIdentity(i),
            Factorize(i, most),
            Merge(i),
            Narrow(i, most),
        ):
            if surgery.is_exact(network):
                yield surgery


def test_every_exact_surgery_on_every_hidden_layer_preserves_the_whole_model(found):
    _, model, network = found
    done = 0
    for surgery in exact_surgeries(network):
        result = operate(network, surgery).network
        changed = network.segment_of(surgery.layer)
        for number, (old, new) in enumerate(zip(network.segments, result.segments, strict=True)):
            assert (old is new) == (number != changed)
            assert (old.widths[0], old.widths[-1]) == (new.widths[0], new.widths[-1])
        written = to_model(result)
        onnx.checker.check_model(written, full_check=True)
        close(model, written, model, 1e-5, str(surgery))
        assert from_model(written).topology == result.topology
        done += 1
    assert done >= 5 * network.hidden_count


def test_surgeries_on_all_hidden_layers_one_after_the_other(found):
    _, model, network = found
    for i in range(network.hidden_count, 0, -1):
        network = operate(network, InsertIdentity(i)).network
        network = operate(network, Widen(i, 2)).network
    close(model, to_model(network), model, 1e-5)


def test_data_aware_surgeries_predict_the_error_that_is_found_in_every_segment(found):
    """Behind glue, with three axes, beside a skip: what enters each hidden layer has its moments."""
    _, model, network = found
    examples = examples_of(network, model)
    rows = np.arange(examples.rows)
    moments = calibrate(network, examples, rows)
    for i in range(1, network.hidden_count + 1):
        half = max(1, min(network.hidden(i).weight.shape) // 2)
        for surgery in (FactorizeData(i, half), Prune(i, half), MergeData(i)):
            done = operate(network, surgery, moments=moments)
            expected = found_error(network, done, examples, rows)
            assert done.record.predicted == pytest.approx(expected, rel=1e-3, abs=1e-5), str(surgery)


def test_growth_by_gradients_in_every_segment(found):
    """Behind glue, with three axes, beside a skip: there are some, and growth by them is exact."""
    _, model, network = found
    examples, engine = examples_of(network, model), make_engine("loop")
    rows = np.arange(examples.rows)
    moments = with_gradients(calibrate(network, examples, rows), network, examples, rows)
    before = engine.evaluate(network, examples).loss
    for i in range(1, network.hidden_count + 1):
        assert np.abs(moments.gradient_of(network, i)).max() > 0
        grown = operate(network, Grow(i, 4), moments=moments, require_exact=True).network
        assert engine.evaluate(grown, examples).loss == pytest.approx(before, rel=1e-4)


def test_training_lowers_the_loss_and_touches_nothing_else(found):
    _, model, network = found
    examples, engine = examples_of(network, model), make_engine("loop")
    before = engine.evaluate(network, examples).loss
    batches = [np.arange(64).reshape(4, 16)] * 10
    trained = engine.train(network, examples, batches, TrainingSpec(0.02)).network
    assert engine.evaluate(trained, examples).loss < 0.97 * before
    for (name, old), (_, new) in zip(network.parameters(), trained.parameters(), strict=True):
        assert not np.array_equal(old, new), name
    parameters = {name for name, _ in network.parameters()}
    after = bytes_of(to_model(trained))
    assert {n: v for n, v in after.items() if n not in parameters} == {
        n: v for n, v in bytes_of(to_model(network)).items() if n not in parameters
    }
    originals = bytes_of(model)
    assert all(after[name] == values for name, values in originals.items() if name in after and name not in parameters)
    widened = operate(trained, Widen(1, 2)).network
    assert engine.evaluate(widened, examples).loss == pytest.approx(engine.evaluate(trained, examples).loss, rel=1e-4)


def test_a_forward_pass_of_the_trunk_equals_the_models_own(found):
    """Of heads that are outputs as they come."""
    from onnxsurgeon.training.forward import feeds_of, numbered
    from tests.forward_model import forward_model

    _, model, network = found
    feeds = inputs_of(model)
    features = compute_features(network, feeds, ROWS)
    shown = onnx.ModelProto()
    shown.CopyFrom(to_model(network))
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.ValueInfoProto(name=head.tensor) for head in network.heads)
    values = (rows.take() for rows in features.values())
    named = dict(zip(numbered("features", len(features)), values, strict=True))
    outputs = run(forward_model(network), {**named, **feeds_of(network)})
    for ours, theirs in zip(outputs, run(shown, feeds), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_sessions_are_not_mixed_up_between_models_that_differ_in_names_alone():
    """The last layer reads one input or the other, of the same width: one engine, two results."""
    engine = make_engine("loop")
    for read in ("x", "w"):
        g = Graph()
        g.inputs = {"x": ("batch", 4), "w": ("batch", 4)}
        g.dense("d1", "x", "a", 4, 4)
        g.op("Add", "a w", "b")
        g.op("Tanh", "b", "c")
        g.dense("d2", read, "d", 4, 4)
        g.op("Mul", "c d", "y")
        model = g.model()
        network, feeds = from_model(model), inputs_of(model, 64)
        assert list(network.frame.trunk.features) == ["x", "w"]
        y = run(model, feeds)[0].astype(np.float64)
        features = compute_features(network, feeds, 64)
        examples = Examples(tuple(features.values()), (y,), (Task(SQUARED, 4),))
        assert engine.evaluate(network, examples).loss < 1e-10


@pytest.mark.parametrize("opset", [11, 13])
def test_the_default_axis_of_softmax_depends_on_the_opset(opset):
    """Before opset 13 it is 1, and all axes from there on are taken together."""
    g = Graph()
    g.opset, g.inputs["x"] = opset, ("batch", 5, 4)
    g.dense3("d1", "x", "a", 4, 6)
    g.op("Softmax", "a", "b", name="gate")
    g.op("Flatten", "b", "c")
    g.dense("d2", "c", "y", 30, 2)
    network = from_model(g.model())
    if opset == 13:
        assert network.topology == "4-6+30-2"
        assert network.frame.notes == (
            "the width of 'd1' stays: Softmax computes over all its units together (node 'gate')",
        )
    else:
        assert network.topology == "30-2"
        assert network.frame.notes == (
            "'d1' stays as it is: node 'gate' (Softmax) behind 'd1' cannot be trained through: its axis is not the "
            "last one",
        )


def test_where_nothing_can_be_trained_the_reason_is_said():
    g = Graph()
    g.dense("d1", "x", "a", 4, 6)
    g.op("TopK", "a k", "values indices", name="best")
    g.const(k=np.array([2]))
    g.op("Cast", "indices", "y", to=TensorProto.FLOAT)
    model = g.model()
    network = from_model(model)
    assert (network.topology, [head.tensor for head in network.heads]) == ("4-6", ["a"])
    g = Graph()
    g.dense("d1", "x", "a", 4, 6)
    g.op("Relu", "x", "y")
    with pytest.raises(ModelError, match="no dense layer leads to an output of the model"):
        from_model(g.model(), source="net.onnx")
