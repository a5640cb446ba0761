"""A surgery of one's own, in a few lines: everything that goes by what surgeries say of themselves works with it."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from onnxsurgeon import create, load, operate, parse, save
from onnxsurgeon.comparison.lineage import kinship
from onnxsurgeon.graph.reader import METADATA_PREFIX
from onnxsurgeon.recommend.candidates import count_after
from onnxsurgeon.report.pictures.style import styles
from onnxsurgeon.surgeon.spectra import spectra
from onnxsurgeon.surgery import SURGERIES
from onnxsurgeon.surgery.base import Replacement, Surgery, register
from onnxsurgeon.surgery.effects import Kept


@pytest.fixture(autouse=True)
def turn():
    """``turn:LAYER`` puts a layer's units into the reverse order."""

    @register
    @dataclass(frozen=True)
    class Turn(Surgery):
        operation: ClassVar[str] = "turn"
        summary: ClassVar[str] = "its units in the reverse order"
        exact_if: ClassVar[str] = "always"
        marker: ClassVar[str] = "H"
        layer: int

        @property
        def effect(self):
            return Kept()

        def require(self, network):
            network.hidden(self.layer)

        def is_exact(self, network):
            return True

        def rewrite(self, network, rng):
            def turned(layers, power=1):
                layer, following = layers
                bias = None if layer.bias is None else layer.bias[::-1]
                first = replace(layer, weight=layer.weight[:, ::-1], bias=bias)
                return first, replace(following, weight=following.weight[::-1])

            return Replacement(2, turned(network.pair(self.layer)), turned)

    yield Turn
    del SURGERIES["turn"]


def test_it_is_operated(turn, cli, tmp_path):
    save(create((6, 5, 4, 3), seed=1), tmp_path / "m.onnx")
    code, out, err = cli("operate", tmp_path / "m.onnx", "turn:1", "-o", tmp_path / "o.onnx", "--exact")
    assert (code, err) == (0, "")
    assert "turn:1" in out
    before, after = load(tmp_path / "m.onnx"), load(tmp_path / "o.onnx")
    np.testing.assert_array_equal(after.hidden(1).weight, before.hidden(1).weight[:, ::-1])
    assert count_after(before, turn(1)) == before.parameter_count


def test_help_and_errors_tell_of_it(cli):
    code, out, _ = cli("operate", "--help")
    assert code == 0
    assert "turn:LAYER" in out
    assert "its units in the reverse order" in out
    code, _, err = cli("operate", "m.onnx", "turn", "-o", "o.onnx")
    assert code == 2
    assert "'turn': expected turn:LAYER" in err


def test_lineages_spectra_and_pictures_know_it(turn):
    before = create((6, 5, 4, 3), seed=1)
    after = operate(before, parse("turn:2")).network
    after = replace(after, metadata={METADATA_PREFIX + "lineage": '["turn:2"]'})
    found = kinship(before, after)
    assert found.done == ("turn:2",)
    assert len(found.groups) == len(before.layers)
    told = spectra(before, turn(2), after)
    assert told["before"]["values"] == pytest.approx(told["after"][0]["values"])
    assert styles()["turn"][0] == "H"
