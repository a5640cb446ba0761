"""Training of convolutions: gradients against difference quotients in float64, and a run in float32."""

from dataclasses import replace

import numpy as np
import pytest
from measuring.reference import evaluate

from onnxsurgeon import Examples, TrainingSpec, create, make_engine
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.runtime import run
from onnxsurgeon.training import blocks, convolution_weight, dropout
from onnxsurgeon.training import convolution as rules
from onnxsurgeon.training.blocks import channels_of_a_block
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.evaluation import evaluation_graph, from_tiles, rows_of_tile, tile_feeds
from onnxsurgeon.training.forward import feeds_of, from_by_unit
from onnxsurgeon.training.loop_graph import training_loop
from onnxsurgeon.training.resident import arrays
from tests.conftest import needs_training
from tests.convolutional import (
    convolution,
    difference_quotients,
    geometry,
    loop_feeds,
    loop_gradients,
    network_of,
    rows_for,
)

ONE_LAYER = {
    "3x3": ((2, 6, 5), geometry((3, 3), pads=1), 3),
    "no padding": ((2, 6, 5), geometry((3, 3)), 3),
    "asymmetric": ((2, 6, 7), geometry((3, 2), (2, 1), 1, (0, 1, 1, 0)), 3),
    "stride that leaves a rest": ((2, 8, 9), geometry((3, 3), 3, pads=1), 3),
    "dilated": ((2, 9, 9), geometry((3, 3), 2, 2, 1), 3),
    "even kernel": ((3, 7, 7), geometry((4, 4), 2, pads=1), 2),
    "many channels": ((13, 5, 5), geometry((3, 3), pads=1), 4),
    "wide padding": ((5, 4, 6), geometry((2, 3), 1, (1, 2), (1, 3, 0, 4)), 3),
    "padding past the kernel": ((5, 5, 5), geometry((3, 3), pads=3), 4),
    "many channels, many positions": ((13, 9, 9), geometry((3, 3), (1, 2), pads=1), 4),
    "pointwise": ((3, 5, 5), geometry((1, 1)), 4),
    "pointwise of many channels": ((14, 3, 3), geometry((1, 1)), 4),
    "pointwise with a stride": ((14, 5, 5), geometry((1, 1), 2), 4),
    "depthwise": ((4, 6, 6), geometry((3, 3), 2, 1, 1, 4), 4),
    "depthwise, two units a channel": ((3, 6, 6), geometry((3, 3), pads=1, groups=3), 6),
    "grouped": ((4, 6, 6), geometry((3, 3), pads=1, groups=2), 6),
    "grouped, many channels": ((26, 9, 9), geometry((3, 3), pads=1, groups=2), 4),
    "one axis": ((2, 11), geometry((5,), 2, 1, (2, 1)), 3),
    "three axes": ((2, 4, 5, 4), geometry((3, 3, 2), (1, 2, 1), pads=1), 3),
}


@pytest.mark.parametrize("case", ONE_LAYER)
def test_gradients_are_difference_quotients(case):
    """Of the layer itself, and of one before it, which its input's gradient leads to."""
    features, shape, units = ONE_LAYER[case]
    before = convolution(features[0], features[0], geometry((1,) * shape.rank), "Tanh", seed=1)
    net = network_of(features, [[before, convolution(features[0], units, shape, "Tanh", seed=2)]])
    check(net, rows_for(features))


FORMS = {  # form → what it is chosen by
    "by row": {"NARROW": 0, "FEW_POSITIONS": 0},
    "over the batch": {"NARROW": 0, "FEW_POSITIONS": 9999},
    "over patches": {"NARROW": 9999, "FEW_POSITIONS": 0},
    "turned": {"LEAST_TURNED": 0},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", [case for case in ONE_LAYER if ONE_LAYER[case][1].groups == 1])
def test_every_form_of_a_gradient_is_right(case, form, monkeypatch):
    for name, value in FORMS[form].items():
        monkeypatch.setattr(rules if name == "LEAST_TURNED" else convolution_weight, name, value)
    features, shape, units = ONE_LAYER[case]
    used = []
    turned = rules.by_turned_kernel
    monkeypatch.setattr(rules, "by_turned_kernel", lambda *given: used.append(form) or turned(*given))
    before = convolution(features[0], features[0], geometry((1,) * shape.rank), "Tanh", seed=1)
    net = network_of(features, [[before, convolution(features[0], units, shape, "Tanh", seed=2)]])
    check(net, rows_for(features))
    assert bool(used) == (form == "turned" and case in ("many channels", "wide padding"))


BLOCKED = {  # input, geometry, units, whether the layer has blocks, whether its input's gradient has
    "padded": ((16, 6, 5), geometry((3, 3), pads=1), 32, True, True),
    "not padded, few positions behind": ((32, 5, 5), geometry((3, 3)), 16, False, True),
    "asymmetric, in steps": ((16, 9, 8), geometry((3, 2), (2, 1), 1, (0, 1, 1, 0)), 16, True, False),
    "dilated, even kernel": ((32, 9, 9), geometry((2, 4), 1, (2, 1), (1, 2, 0, 1)), 32, True, True),
    "pointwise": ((16, 6, 6), geometry((1, 1)), 16, False, False),
    "other numbers of channels": ((24, 6, 6), geometry((3, 3), pads=1), 16, False, False),
    "groups": ((32, 6, 6), geometry((3, 3), pads=1, groups=2), 32, False, False),
}


@pytest.mark.skipif(channels_of_a_block() != 16, reason="this processor's blocks have another size")
@pytest.mark.parametrize("activation", ["Relu", "PRelu", None])
@pytest.mark.parametrize("case", BLOCKED)
def test_convolutions_over_blocks_of_channels_compute_the_same(case, activation):
    features, shape, units, forward, backward = BLOCKED[case]
    first = convolution(features[0], features[0], geometry((1, 1)), "Tanh", seed=1)
    net = in_float32(network_of(features, [[first, convolution(features[0], units, shape, activation, seed=2)]]))
    data = rows_for(features, dtype=np.float32)
    plain, blocked = (training_loop(net, data, block=block) for block in (0, 16))
    body = next(each.g for node in blocked.graph.node for each in node.attribute if each.name == "body")
    found = [node for node in body.node if node.op_type == "Conv" and node.domain]
    assert len(found) == forward + backward
    for ours, theirs in zip(run(blocked, loop_feeds(net, data)), run(plain, loop_feeds(net, data)), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    engine = make_engine("loop")
    ((_, (outputs,)),) = engine.outputs(net, data)
    expected = run(
        evaluation_graph(net, data),
        {**feeds_of(net), **tile_feeds(data, np.arange(data.rows)), **arrays(data, targets=False)},
    )
    assert outputs == pytest.approx(from_tiles(expected, data.rows)[0], abs=1e-5)


def test_blocks_are_for_float32_on_processors_that_have_them(monkeypatch):
    assert channels_of_a_block() in (0, 8, 16)
    assert GraphBuilder(np.dtype(np.float64), 16).block == 0
    net = in_float32(network_of((16, 6, 6), [[convolution(16, 16, geometry((3, 3), pads=1))]]))
    assert make_engine("loop").block(net) == channels_of_a_block()
    assert make_engine("loop").block(create((4, 3, 2))) == 0
    monkeypatch.setattr(blocks, "CANDIDATES", (4, 12))
    assert not any(map(blocks._is_right, blocks.CANDIDATES))


@pytest.mark.parametrize("activation", ["Relu", "PRelu", "LeakyRelu", "Sigmoid", "Clip", None])
def test_gradients_through_activations(activation):
    first, second = geometry((3, 3), pads=1), geometry((2, 2), 2)
    layers = [convolution(2, 4, first, activation, seed=1), convolution(4, 3, second, activation, bias=False, seed=2)]
    check(network_of((2, 6, 6), [layers]), rows_for((2, 6, 6)))


def check(net, data):
    for (name, _), gradient, (direction, slope) in zip(
        net.parameters(), loop_gradients(net, data), difference_quotients(net, data), strict=True
    ):
        assert np.vdot(gradient, direction) == pytest.approx(slope, rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize("is_known", [True, False], ids=["sizes known", "sizes not known"])
@pytest.mark.parametrize("case", ONE_LAYER)
def test_onnx_runtime_computes_the_same_step(case, is_known):
    features, shape, units = ONE_LAYER[case]
    before = convolution(features[0], features[0], geometry((1,) * shape.rank), "PRelu", seed=1)
    wide = network_of(features, [[before, convolution(features[0], units, shape, "Relu", seed=2)]])
    narrow = in_float32(wide)
    if not is_known:
        first, *rest = narrow.segments
        narrow = replace(narrow, segments=(replace(first, space=(None,) * shape.rank), *rest))
    data, narrow_data = rows_for(features), rows_for(features, dtype=np.float32)
    trained = make_engine("loop").train(narrow, narrow_data, [np.arange(data.rows)[None]], TrainingSpec(1.0)).network
    for (name, old), (_, new), gradient in zip(
        narrow.parameters(), trained.parameters(), loop_gradients(wide, data), strict=True
    ):
        assert abs(old - new - gradient).max() < 2e-6 * max(1, abs(gradient).max()), name


def in_float32(network):
    return network.with_parameters(values.astype(np.float32) for _, values in network.parameters())


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adamw"])
def test_training_lowers_the_loss_with_every_optimizer(optimizer):
    layers = [
        convolution(1, 6, geometry((3, 3), 2, pads=1), "PRelu", seed=1, dtype=np.float32),
        convolution(6, 8, geometry((3, 3), 2, pads=1), "Relu", seed=2, dtype=np.float32),
    ]
    net = network_of((1, 8, 8), [layers], dtype=np.float32)
    data = rows_for((1, 8, 8), rows=64, dtype=np.float32)
    engine = make_engine("loop")
    batches = [np.arange(64).reshape(4, 16)] * 20
    done = engine.train(net, data, batches, TrainingSpec(0.01, optimizer=optimizer, weight_decay=0.001))
    assert done.network.is_finite
    assert engine.evaluate(done.network, data).loss < 0.7 * engine.evaluate(net, data).loss
    first, last = (engine.train(start, data, batches[:10], TrainingSpec(0.01)) for start in (net, net))
    assert all(
        (a == b).all() for (_, a), (_, b) in zip(first.network.parameters(), last.network.parameters(), strict=True)
    )


ENGINES = ("loop", "artifacts")


@needs_training
@pytest.mark.parametrize("case", ["3x3", "stride that leaves a rest", "pointwise", "depthwise", "one axis"])
def test_both_engines_train_alike(case):
    features, shape, units = ONE_LAYER[case]
    before = convolution(features[0], features[0], geometry((1,) * shape.rank), "PRelu", seed=1)
    layers = [before, convolution(features[0], units, shape, "Relu", seed=2)]
    net, data = in_float32(network_of(features, [layers])), rows_for(features, dtype=np.float32)
    batches = [np.arange(data.rows)[None]]
    ours, theirs = (make_engine(name).train(net, data, batches, TrainingSpec(1.0)).network for name in ENGINES)
    for (name, a), (_, b) in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert a == pytest.approx(b, abs=1e-6), name


def test_a_convolution_that_stays_is_trained_through():
    rng, shape = np.random.default_rng(5), geometry((3, 2), (2, 1), 1, (1, 0, 1, 1))
    weight, bias = rng.standard_normal((4, 3, 3, 2)), rng.standard_normal(4)

    def fixed(x, before, y):
        behind = (None, 4, *shape.sizes_behind(before[2:]))
        shapes = (before, weight.shape, bias.shape)
        return [Glue("Conv", (x, "w", "b"), y, shapes, behind, {"geometry": shape})]

    first = convolution(2, 3, geometry((2, 2)), "Tanh", seed=1)
    check(network_of((2, 7, 6), [[first], fixed], constants={"w": weight, "b": bias}), rows_for((2, 7, 6)))


def test_large_maps_are_evaluated_few_rows_at_a_time():
    small, large = (network_of((1, size, size), [[convolution(1, 8, geometry((3, 3)), seed=1)]]) for size in (6, 66))
    assert rows_of_tile(small) == 256
    assert rows_of_tile(large) == 2**19 // (8 * 64 * 64)
    net, data = in_float32(large), rows_for((1, 66, 66), rows=40, dtype=np.float32)
    engine = make_engine("loop")
    ((rows, (outputs,)),) = engine.outputs(net, data)
    assert rows == slice(0, 40)
    ((_, (alone,)),) = engine.outputs(net, Examples((data.features[0][33:34],), (data.labels[0][33:34],), data.tasks))
    assert outputs[33] == pytest.approx(alone[0], abs=1e-5)


def test_what_is_left_out_of_maps_has_no_part_in_gradients():
    """Of a convolution behind a pool, and of the dense layer behind the maps; both by the masks of one step."""

    def pool(name, shape, output):
        half = (None, shape[1], shape[2] // 2, shape[3] // 2)
        return [Glue("MaxPool", (name,), output, (shape,), half, {"geometry": geometry((2, 2), 2)})]

    around = geometry((3, 3), pads=1)
    parts = [[convolution(2, 4, around, "Tanh", seed=1)], pool, [convolution(4, 3, around, "Tanh", seed=2)]]
    net, data = network_of((2, 6, 6), parts), rows_for((2, 6, 6))
    assert dropout.masked_maps(net) == {1: (4, 3, 3), 2: (27,)}
    assert dropout.masked_layers(net) == [36, 27]
    masks = dropout.feeds(net, 0.25, 3, np.array([5]), data.rows)
    graph = training_loop(net, data, report_loss=True, drops=True)

    def step(values):
        moved = net.with_parameters(values)
        *trained, losses = evaluate(graph, {**loop_feeds(moved, data), **masks})
        return from_by_unit(moved, trained), losses[0] / data.rows

    values, rng = [each for _, each in net.parameters()], np.random.default_rng(1)
    trained, _ = step(values)
    plain = loop_gradients(net, data)
    for number, ((name, before), (_, after)) in enumerate(zip(net.parameters(), trained.parameters(), strict=True)):
        direction = rng.standard_normal(before.shape)
        ahead, back = (
            step([v + sign * 1e-6 * direction if i == number else v for i, v in enumerate(values)])[1]
            for sign in (1, -1)
        )
        assert np.vdot(before - after, direction) == pytest.approx((ahead - back) / 2e-6, rel=1e-6, abs=1e-9), name
        assert not np.allclose(before - after, plain[number]), name


def test_channels_in_groups_and_large_maps_are_left_whole():
    depthwise, wide = geometry((3, 3), pads=1, groups=4), geometry((1, 1))
    first = [convolution(2, 4, geometry((1, 1)), seed=1)]
    net = network_of((2, 6, 6), [first, [convolution(4, 4, depthwise, seed=2)], [convolution(4, 3, wide, seed=3)]])
    assert dropout.masked_maps(net) == {2: (4, 6, 6), 3: (108,)}
    large = network_of((2, 300, 300), [first, [convolution(4, 1, geometry((3, 3), 60), seed=2)]])
    assert dropout.masked_maps(large) == {2: (25,)}


@pytest.mark.parametrize("picked", [None, np.arange(3, 15)])
def test_images_whose_channels_were_moved_are_read_where_they_lie(picked):
    rng = np.random.default_rng(2)
    images, labels = rng.integers(0, 256, (20, 6, 5, 2), np.uint8), rng.integers(0, 3, 20)
    moved = images.transpose(0, 3, 1, 2)
    net = in_float32(network_of((2, 6, 5), [[convolution(2, 3, geometry((3, 3), pads=1), seed=1)]]))
    outcomes = []
    for source in (moved, np.ascontiguousarray(moved)):
        rows = Rows(source, np.dtype(np.float32), picked, 1 / 255)
        data = Examples.classification(rows, labels if picked is None else labels[picked], 3)
        assert np.shares_memory(data.stored[0].source, source)
        engine = make_engine("loop")
        trained = engine.train(net, data, [np.arange(12).reshape(3, 4)], TrainingSpec(0.1)).network
        outcomes.append([*(values.tobytes() for _, values in trained.parameters()), engine.evaluate(trained, data)])
    assert outcomes[0] == outcomes[1]
