"""Surgeries that change the number of convolutions: a centred identity, a product of thin ones, two made one."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnxsurgeon import Factorize, InsertIdentity, Merge, SurgeryError, create_convolutional, operate
from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.graph.equivalence import compare_models, random_inputs
from onnxsurgeon.graph.geometry import Geometry
from onnxsurgeon.graph.reader import from_model
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import run
from onnxsurgeon.surgery.proof import trunk_outputs
from tests.convolution_files import model, values
from tests.convolutional import rows_for
from tests.graphs import node


def two(first, second, activation="Relu", bias=True, rank=2, **constants):
    """φ(Conv(x)) and a second Conv behind it, with these attributes; kernels are of shapes ``K`` and ``L``."""
    between = [] if activation is None else [node(activation, "a", "h")]
    nodes = [
        node("Conv", "x K b" if bias else "x K", "a", name="first", **first),
        *between,
        node("Conv", "h L c" if between else "a L c", "y", name="second", **second),
    ]
    given = {"K": values(4, 3, *[3] * rank), "b": values(4), "L": values(5, 4, *[3] * rank), "c": values(5)} | constants
    if not bias:
        del given["b"]
    return model(nodes, given, ("batch", 3, *(9, 8, 7)[:rank]))


def done(given, surgery):
    """The network after the surgery, its record, and how far the whole model's outputs moved."""
    network = from_model(given)
    assert network.hidden_count == 1
    expected = surgery.parameters_after(network)
    result, record = operate(network, surgery)
    assert result.parameter_count == record.parameters == expected
    written = to_model(result)
    onnx.checker.check_model(written, full_check=True)
    assert from_model(written).topology == result.topology
    return result, record, compare_models(given, written, random_inputs(given, rows=3)).relative


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("activation", ["Relu", "Tanh", None])
def test_an_identity_behind_a_convolution_is_centred_and_changes_nothing(rank, activation):
    given = two({"pads": [1] * 2 * rank, "strides": [2] * rank}, {"pads": [1] * 2 * rank}, activation, rank=rank)
    result, record, moved = done(given, InsertIdentity(1))
    assert record.exact
    assert moved <= 1e-6
    assert result.topology == "c3-c4-c4-c5"
    layer = result.hidden(2)
    assert layer.geometry == Geometry((3,) * rank, (1,) * rank, (1,) * rank, (1,) * 2 * rank)
    kernels = layer.weight.T.reshape(4, 4, *[3] * rank)
    assert kernels.sum() == 4
    assert all(kernels[(i, i, *[1] * rank)] == 1 for i in range(4))
    assert str(layer.activation) == ("Relu" if activation == "Relu" else "PRelu")


def test_an_identity_behind_a_pointwise_convolution_is_pointwise():
    result, record, moved = done(two({}, {}, K=values(4, 3, 1, 1)), InsertIdentity(1))
    assert record.exact
    assert moved <= 1e-6
    assert result.hidden(2).geometry == Geometry.pointwise(2)
    assert result.hidden(2).weight.shape == (4, 4)


def test_along_an_axis_of_one_tap_it_has_one():
    given = two({"dilations": [1, 2]}, {}, K=values(4, 3, 1, 2))
    result, record, moved = done(given, InsertIdentity(1))
    assert record.exact
    assert moved <= 1e-6
    assert result.hidden(2).geometry == Geometry((1, 3), (1, 1), (1, 1), (0, 1, 0, 1))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_convolution_of_full_rank_is_a_product_of_a_thin_one_and_a_pointwise_one(rank):
    given = two({"pads": [1, 0] * rank, "strides": [2] * rank}, {}, rank=rank, L=values(5, 4, *[1] * rank))
    result, record, moved = done(given, Factorize(1, 4))
    assert record.exact
    assert moved <= 1e-5
    assert result.topology == "c3-c4-c4-c5"
    first, second = result.hidden(1), result.hidden(2)
    assert first.geometry == from_model(given).hidden(1).geometry
    assert (first.bias, first.activation) == (None, None)
    assert second.geometry == Geometry.pointwise(rank)
    np.testing.assert_array_equal(second.bias, from_model(given).hidden(1).bias)


def test_a_lower_rank_is_the_best_approximation_of_the_matrix():
    given = two({"pads": [1] * 4}, {})
    weight = from_model(given).hidden(1).weight.astype(np.float64)
    result, record, moved = done(given, Factorize(1, 2))
    assert not record.exact
    assert moved > 1e-4
    left = result.hidden(1).weight.astype(np.float64) @ result.hidden(2).weight.astype(np.float64)
    spectrum = np.linalg.svd(weight, compute_uv=False)
    assert np.linalg.norm(weight - left) == pytest.approx(np.sqrt((spectrum[2:] ** 2).sum()), rel=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False], ids=["with a bias", "without"])
def test_a_pointwise_convolution_merges_into_the_one_behind_it(rank, bias):
    given = two({}, {"strides": [2] * rank}, None, bias, rank, K=values(4, 3, *[1] * rank))
    result, record, moved = done(given, Merge(1))
    assert record.exact
    assert moved <= 1e-5
    assert result.topology == "c3-c5"
    assert result.layers[0].geometry == Geometry((3,) * rank, (2,) * rank, (1,) * rank, (0,) * 2 * rank)


@pytest.mark.parametrize("bias", [True, False], ids=["with a bias", "without"])
def test_a_pointwise_convolution_merges_into_the_one_before_it(bias):
    given = two({"pads": [1, 2, 0, 1], "strides": [2, 1]}, {}, None, bias, L=values(5, 4, 1, 1))
    result, record, moved = done(given, Merge(1))
    assert record.exact
    assert moved <= 1e-5
    assert result.layers[0].geometry == Geometry((3, 3), (2, 1), (1, 1), (1, 2, 0, 1))


@pytest.mark.parametrize("bias", [True, False], ids=["with a bias", "without"])
def test_a_bias_does_not_move_past_zeros_that_are_read(bias):
    """Inside, the result computes the same; at the border a bias would be there where the zeros had none."""
    given = two({}, {"pads": [1, 1, 1, 1]}, None, bias, K=values(4, 3, 1, 1))
    _, record, moved = done(given, Merge(1))
    assert record.exact != bias
    assert (moved > 1e-3) == bias


def test_two_convolutions_of_several_taps_do_not_merge():
    with pytest.raises(
        SurgeryError, match=r"^merge:1: of two convolutions that become one, one must have a single tap"
    ):
        operate(from_model(two({}, {}, None)), Merge(1))
    with pytest.raises(SurgeryError, match="neither steps nor padding"):
        operate(from_model(two({}, {"strides": [2, 2]}, None, L=values(5, 4, 1, 1))), Merge(1))


SURGERIES = {
    "identity": (two({"pads": [1] * 4}, {}, "Tanh"), InsertIdentity(1)),
    "factorize": (two({"pads": [1] * 4}, {}), Factorize(1, 2)),
    "merge ahead": (two({}, {}, None, K=values(4, 3, 1, 1)), Merge(1)),
    "merge behind": (two({}, {}, None, L=values(5, 4, 1, 1)), Merge(1)),
}


@pytest.mark.parametrize("name", SURGERIES)
def test_a_velocity_goes_through_a_surgery_as_the_parameters_do(name):
    """The first moment of θ moves as dθ does: where the result is smooth in θ, by finite differences."""
    given, surgery = SURGERIES[name]
    network = from_model(given)
    velocity = network.with_parameters(values(*array.shape, seed=9) for _, array in network.parameters())
    operated = operate(network, surgery)
    carried = [array for _, array in operated.carry(velocity, 1).parameters()]
    squares = [
        array
        for _, array in operated.carry(
            velocity.with_parameters(array**2 for _, array in velocity.parameters()), 2
        ).parameters()
    ]
    assert [array.shape for array in carried] == [array.shape for _, array in operated.network.parameters()]
    assert all((array >= 0).all() for array in squares)
    if not name.startswith("merge"):
        return
    step = 1e-3
    moved = network.with_parameters(
        old + np.float32(step) * change
        for (_, old), (_, change) in zip(network.parameters(), velocity.parameters(), strict=True)
    )
    back = network.with_parameters(
        old - np.float32(step) * change
        for (_, old), (_, change) in zip(network.parameters(), velocity.parameters(), strict=True)
    )
    ahead, behind = (operate(each, surgery).network.parameters() for each in (moved, back))
    for found, (_, high), (_, low) in zip(carried, ahead, behind, strict=True):
        np.testing.assert_allclose(found, (high - low) / (2 * step), atol=2e-3)


def test_sizes_that_the_file_does_not_tell_are_large_enough_for_the_proof():
    """Four kernels of five taps without padding need 17 places."""
    nodes, constants, x = [], {"W": values(3, 2)}, "x"
    for i in range(4):
        constants[f"K{i}"] = values(3, 3, 5, 5)
        nodes += [node("Conv", f"{x} K{i}", f"a{i}"), node("Relu", f"a{i}", f"h{i}")]
        x = f"h{i}"
    nodes += [node("ReduceMean", x, "m", axes=[2, 3], keepdims=0), node("Gemm", "m W", "y")]
    given = model(nodes, constants, ("batch", 3, "height", "width"))
    result, record = operate(from_model(given), InsertIdentity(2))
    assert record.exact
    assert record.deviation <= 1e-6
    assert compare_models(given, to_model(result), {"x": values(2, 3, 20, 19)}).relative <= 1e-5


@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
@pytest.mark.parametrize(("layer", "topology"), [(1, "c2-c3-c3+c3-c4+16-5"), (2, "c2-c3+c3-c4-c4+16-5")])
def test_an_identity_before_a_pool_is_behind_the_width_that_is_pooled(layer, topology, activation):
    network = create_convolutional("8x8x2-c3-p-c4-p-5", seed=1, activation=activation)
    given = to_model(network)
    expected = InsertIdentity(layer).parameters_after(network)
    operated = operate(network, InsertIdentity(layer))
    result, record = operated
    assert record.exact
    assert record.deviation == 0
    assert result.topology == topology
    assert result.parameter_count == expected
    assert str(result.hidden(1).activation) == ("Relu" if activation == "Relu" else "PRelu")
    written = to_model(result)
    onnx.checker.check_model(written, full_check=True)
    assert compare_models(given, written, random_inputs(given, rows=3)).relative == 0
    again = from_model(written)
    assert (again.topology, again.group_count) == (topology, 3)
    assert len({each.names.node for each in again.layers}) == 4
    squares = network.with_parameters(np.full(array.shape, 2, np.float32) for _, array in network.parameters())
    carried = operated.carry(squares, 2)
    assert [array.shape for _, array in carried.parameters()] == [array.shape for _, array in result.parameters()]
    assert all((array == 2).all() for _, array in carried.parameters())
    twice, _ = operate(result, InsertIdentity(result.group_count if layer == 2 else 2))
    assert twice.hidden_count == 2
    assert compare_models(given, to_model(twice), random_inputs(given, rows=3)).relative == 0


@pytest.mark.parametrize(("layer", "topology"), [(1, "c2-c2-c3+c3-c4+16-5"), (2, "c2-c3+c3-c4-c4+16-5")])
def test_a_convolution_before_a_pool_is_a_product_of_a_thin_one_and_a_pointwise_one(layer, topology):
    network = create_convolutional("8x8x2-c3-p-c4-p-5", seed=1)
    whole = network.segments[layer - 1].layers[0]
    thin = network.splice((layer - 1, 0), 1, [replace(whole, weight=whole.weight[:, [0, 1, 0, 1][: whole.units]])])
    given = thin if layer == 1 else network  # of rank 2, or of full rank
    surgery = Factorize(layer, 2 if layer == 1 else 4)
    expected = surgery.parameters_after(given)
    operated = operate(given, surgery)
    result, record = operated
    assert record.exact
    assert (result.topology, result.parameter_count) == (topology, expected)
    written = to_model(result)
    onnx.checker.check_model(written, full_check=True)
    assert from_model(written).topology == topology
    assert compare_models(to_model(given), written, random_inputs(written, rows=3)).relative <= 1e-5
    assert [array.shape for _, array in operated.carry(given, 1).parameters()] == [
        array.shape for _, array in result.parameters()
    ]


def test_a_dense_layer_that_ends_a_segment_is_not_factorized():
    nodes = [
        node("Gemm", "x A", "a"),
        node("Relu", "a", "h"),
        node("Concat", "h x", "both", axis=1),
        node("Gemm", "both B", "y"),
    ]
    network = from_model(model(nodes, {"A": values(6, 5), "B": values(11, 3)}, ("batch", 6)))
    assert (network.hidden_count, network.group_count) == (0, 1)
    with pytest.raises(SurgeryError, match="width 1 is shared, and written by no plain convolution"):
        operate(network, Factorize(1, 2))


def test_no_identity_goes_behind_a_sum_of_convolutions():
    nodes = [
        node("Conv", "x K", "a", name="first", pads=[1] * 4),
        node("Conv", "x L", "b", name="second", pads=[1] * 4),
        node("Add", "a b", "s"),
        node("Relu", "s", "h"),
        node("Conv", "h M", "y", name="third"),
    ]
    given = model(
        nodes, {"K": values(4, 3, 3, 3), "L": values(4, 3, 3, 3), "M": values(5, 4, 3, 3)}, ("batch", 3, 9, 9)
    )
    network = from_model(given)
    assert network.hidden_count == 0
    with pytest.raises(SurgeryError, match=r"width 1 is no single layer's: units can be added there and taken away"):
        operate(network, InsertIdentity(1))
    with pytest.raises(SurgeryError, match=r"width 1 is no single layer's: units can be added there and taken away"):
        operate(network, Factorize(1, 2))


@pytest.mark.parametrize("surgery", ["widen:1:3", "prune:1:4"])
@pytest.mark.parametrize("form", ["instance", "group"])
def test_channels_that_are_each_normalised_by_themselves_come_and_go(form, surgery):
    """The number of groups follows in the file, and in what is trained, which computed with the old number."""
    rng = np.random.default_rng(0)
    scales = {"s": rng.uniform(0.5, 2, 6).astype("f"), "b": rng.standard_normal(6).astype("f")}
    weights = {"W": values(6, 2, 3, 3), "V": values(4, 6, 3, 3), "U": values(4, 3)}
    kind, given = ("InstanceNormalization", {}) if form == "instance" else ("GroupNormalization", {"num_groups": 6})
    nodes = [
        node("Conv", "x W", "c", name="first"),
        node(kind, "c s b", "n", **given),
        node("Relu", "n", "r"),
        node("Conv", "r V", "d", name="second"),
        node("GlobalAveragePool", "d", "g"),
        node("Flatten", "g", "f"),
        node("MatMul", "f U", "y", name="head"),
    ]
    opset = 21 if form == "group" else 17
    network = from_model(model(nodes, {**weights, **scales}, ("batch", 2, 8, 8), opset=opset))
    moments = calibrate(network, rows_for((2, 8, 8), rows=40, dtype=np.float32), np.arange(40))
    after = operate(network, surgery, moments=moments).network
    (step,) = [each for each in after.frame.trunk.steps if getattr(each, "op", "") == "GroupNormalization"]
    assert step.attributes["groups"] == after.group(1).units == {"w": 9, "p": 4}[surgery[0]]
    x = values(5, 2, 8, 8)
    np.testing.assert_allclose(trunk_outputs(after, [x])[0], run(to_model(after), {"x": x})[0], atol=1e-5)
