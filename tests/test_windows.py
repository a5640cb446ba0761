"""Means over windows of unequal sizes, as PyTorch's newer exporter writes them: picked, masked, added up, divided."""

import itertools
import math

import numpy as np
import pytest

from onnxsurgeon import Widen, from_model, operate
from onnxsurgeon.graph.equivalence import compare_models, random_inputs
from onnxsurgeon.graph.writer import to_model
from tests.graphs import Graph

CHANNELS = 4


def bounds(size, after):
    """Where each window begins and ends: PyTorch's definition."""
    return [(i * size // after, math.ceil((i + 1) * size / after)) for i in range(after)]


def adaptive(sizes=(7, 5), after=(3, 2), spoil=""):
    """A convolution, the pool written in parts, and a dense layer; ``spoil`` makes it no such pool."""
    g = Graph()
    g.opset = 18
    g.inputs, g.outputs = {"x": ("batch", 2, *sizes)}, {"y": ("batch", 3)}
    g.const(**{"c.W": g.weight(CHANNELS, 2, 3, 3), "c.b": g.weight(CHANNELS)})
    g.op("Conv", "x c.W c.b", "c", name="conv", pads=[1, 1, 1, 1])
    g.op("Relu", "c", "r")
    windows = [bounds(size, count) for size, count in zip(sizes, after, strict=True)]
    most = [max(end - begin for begin, end in each) for each in windows]
    places = [
        np.minimum(np.array([begin for begin, _ in each])[:, None] + np.arange(m), size - 1)
        for each, m, size in zip(windows, most, sizes, strict=True)
    ]
    grid = np.zeros((after[0], most[0], after[1], most[1], 2), np.int64)
    grid[..., 0], grid[..., 1] = places[0][:, :, None, None], places[1][None, None]
    lengths = [np.array([end - begin for begin, end in each]) for each in windows]
    masks = [np.arange(m)[None] >= length[:, None] for m, length in zip(most, lengths, strict=True)]
    g.const(places=grid, zero=np.float32(0), rows=masks[0][:, :, None, None], columns=masks[1])
    g.op("Transpose", "r", "ahead", perm=[2, 3, 0, 1])
    g.op("GatherND", "ahead places", "picked")
    g.op("Transpose", "picked", "laid", perm=[4, 5, 0, 1, 2, 3])
    if spoil == "one corner":
        mask = np.broadcast_to(masks[0][:, :, None, None], (after[0], most[0], after[1], most[1])).copy()
        mask[0, 0, 0, 0] = True
        g.const(rows=mask)
    if spoil == "a channel":
        g.const(rows=np.broadcast_to(masks[0][:, :, None, None], (1, CHANNELS, after[0], most[0], 1, 1)).copy())
        g.constants["rows"][0, 1] = False
    g.op("Where", "rows zero laid", "m1")
    g.op("Where", "columns zero m1", "m2")
    laid, total = "m2", ""
    if spoil == "squared":
        g.op("Mul", "m2 m2", "squares")
        laid = "squares"
    for i, j in itertools.product(range(most[0]), range(most[1])):
        g.const(**{f"i{i}": np.int64(i), f"i{j}": np.int64(j)})
        g.op("Gather", f"{laid} i{i}", f"row_{i}_{j}", axis=3)
        g.op("Gather", f"row_{i}_{j} i{j}", f"at_{i}_{j}", axis=4)
        if total:
            g.op("Add", f"{total} at_{i}_{j}", f"sum_{i}_{j}")
        total = f"sum_{i}_{j}" if total else f"at_{i}_{j}"
    g.const(divisor=(lengths[0][:, None] * lengths[1][None]).astype("f"))
    g.op("Div", f"{total} divisor", "pooled")
    if spoil == "read twice":
        g.outputs["also"] = ("batch", CHANNELS, *after)
        g.op("Identity", total, "also")
    g.const(flat=np.array([-1, CHANNELS * math.prod(after)]))
    g.op("Reshape", "pooled flat", "f")
    g.dense("d", "f", "y", CHANNELS * math.prod(after), 3)
    return g.model()


def resampled(network):
    return [step for step in network.frame.trunk.steps if not isinstance(step, int) and step.op == "Resample"]


@pytest.mark.parametrize(("sizes", "after"), [((7, 5), (3, 2)), ((5, 5), (7, 3)), ((6, 7), (2, 3)), ((8, 3), (5, 1))])
def test_the_windows_are_a_matrix_along_each_axis(sizes, after):
    model = adaptive(sizes, after)
    network = from_model(model)
    (found,) = resampled(network)
    for matrix, size, count in zip(found.attributes["matrices"], sizes, after, strict=True):
        expected = np.zeros((count, size))
        for row, (begin, end) in zip(expected, bounds(size, count), strict=True):
            row[begin:end] = 1 / (end - begin)
        np.testing.assert_allclose(matrix, expected, atol=1e-12)
    assert network.group_count == 1
    assert not network.frame.notes
    wider = operate(network, Widen(1, 3), np.random.default_rng(0)).network
    assert wider.topology == f"c2-c{CHANNELS + 3}+{(CHANNELS + 3) * math.prod(after)}-3"
    assert compare_models(model, to_model(wider), random_inputs(model, rows=3)).relative < 1e-5


@pytest.mark.parametrize("spoil", ["one corner", "a channel", "squared", "read twice"])
def test_what_is_no_such_product_is_left_as_it_is(spoil):
    network = from_model(adaptive(spoil=spoil))
    assert not resampled(network)
    assert any("moves the batch axis" in note for note in network.frame.notes)
