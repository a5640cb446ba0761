"""Files of several segments with glue between and behind them."""

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.graphs import Graph


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


@case("4-8-6", "6-5-2", shared=((6, 2),))
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
