"""The bar charts of ``inspect``: the right heights, the threshold where eq. 13 has it, on every terminal."""

import io
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from onnxsurgeon import Thresholds, create, inspect_layers, load
from onnxsurgeon.cli.spectra import ASCII, BLOCKS, MARK, WIDTH, chart, spectra
from onnxsurgeon.recommend import removable_neurons
from tests.conftest import MODEL_FILES, MODELS, randomised

PAPER, DEFAULT = Thresholds(0.005, 0.3, rank_bound=False), Thresholds()


def drawn(values, thresholds=PAPER, decades=0):
    return chart(np.array(values, float), thresholds, decades, BLOCKS, MARK).plain


def test_heights_are_in_proportion():
    assert drawn([8, 7, 6, 5, 4, 3, 2, 1]) == "█▇▆▅▄▃▂▁"
    assert drawn([8, 0.4, 0.2, 0.0]) == "█▁┊▁·"
    assert drawn([100, 10, 1, 0.6, 0.001], decades=4) == "█▆▄▄┊·"
    assert drawn([0.2, 0.1]) == "┊█▄"


def test_more_values_than_columns():
    values = np.linspace(10, 0.01, 300)
    text = drawn(values)
    assert len(text) == WIDTH + 1
    assert text[0] == "█"
    left, right = text.split(MARK)
    assert len(right) == pytest.approx(WIDTH * np.count_nonzero(values < 0.3) / 300, abs=1)
    assert list(left) == sorted(left, key=BLOCKS.index, reverse=True)
    few = drawn([*np.full(500, 5.0), 0.1])
    assert (len(few), few[-2]) == (WIDTH + 1, MARK)


def lines(network, encoding="utf-8", thresholds=DEFAULT):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    spectra(Console(file=stream, width=80), inspect_layers(network, thresholds), thresholds)
    stream.seek(0)
    return stream.read().splitlines()


@pytest.mark.parametrize("path", MODEL_FILES, ids=lambda path: path.stem)
def test_it_stays_inside_80_columns_and_marks_what_is_removable(path):
    network = load(path)
    shown = lines(network)
    assert max(len(line) for line in shown) <= 80
    for report, line in zip(inspect_layers(network, Thresholds()), shown[2:], strict=False):
        assert (MARK in line) == (removable_neurons(network.hidden(report.layer).weight, PAPER) > 0)


def test_the_scale_is_named():
    network = randomised(create((64, 20, 10, 10)), scale=0.2)
    assert any("linear from 0" in line for line in lines(network))
    large = network.with_parameters(values * 1000 for _, values in network.parameters())
    assert any("logarithmic from 0.001 σ max" in line for line in lines(large))
    assert "none is removable: σ < 0.005 σ max or σ < 0.3 (eq. 13)" in lines(network)
    strict = Thresholds(0.005, 1.0)
    assert "right of ┊ what is removable: σ < 0.005 σ max or σ < 1 (eq. 13)" in lines(network, thresholds=strict)


def test_the_caption_says_what_the_column_removable_counts():
    relu = randomised(create((6, 20, 10, 4)), scale=3)
    rule = "σ < 0.005 σ max or σ < 0.3 (eq. 13)"
    assert lines(relu)[-1] == f"none is removable: {rule}"
    linear = relu.with_layers([replace(relu.layers[0], activation=None), *relu.layers[1:]])
    assert [report.removable for report in inspect_layers(linear, DEFAULT)] == [14, 0]
    assert lines(linear)[-2:] == [
        "removable are a linear layer's units beyond its number of inputs, and none",
        f"by {rule}",
    ]
    assert lines(linear, thresholds=PAPER)[-1] == f"none is removable: {rule}"
    small = linear.with_layers([*linear.layers[:1], replace(relu.layers[1], weight=0 * relu.layers[1].weight + 0.01)])
    assert lines(small.with_layers([*small.layers, relu.layers[2]]))[-2:] == [
        f"right of ┊ what is removable: {rule}",
        "and, in a linear layer, units beyond its number of inputs",
    ]


def test_a_layer_of_zeros():
    network = create((8, 4, 2))
    zeros = network.with_parameters(np.zeros_like(values) for _, values in network.parameters())
    assert any("┊····" in line for line in lines(zeros))


def test_a_terminal_without_blocks():
    network = randomised(create((64, 20, 10, 10)), scale=0.2)
    shown = lines(network, encoding="ascii")
    assert not set("".join(shown)) & set(BLOCKS + MARK)
    assert set(shown[2].split("  ")[3]) <= {*ASCII, "|"}
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    command = [sys.executable, "-m", "onnxsurgeon", "inspect", str(MODELS / "mnist-medium.onnx")]
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    text = done.stdout.decode("ascii")
    assert "?" not in text
    assert " x " in text
