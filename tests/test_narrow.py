"""What the terminal shows in few columns: nothing is broken inside a number."""

import re

import pytest
from rich.cells import cell_len

from onnxsurgeon.cli import console
from onnxsurgeon.cli.event_printer import EventPrinter
from onnxsurgeon.cli.narrow import heading, packed, shorten, sparkline
from onnxsurgeon.runs.footprint import Footprint, figures, measured_figure
from tests.conftest import MODELS

LONG = "c1-c16+c16-c16-c16+c16-c32+c32-c32-c32+32-10"


def wide(monkeypatch, columns):
    """As if the terminal had so many columns; rich looks when a console is made, and that may be long ago."""
    monkeypatch.setenv("COLUMNS", columns)
    for each in (console.out, console.err):
        monkeypatch.setattr(each, "_width", int(columns))


@pytest.mark.parametrize("width", range(8, 46))
def test_a_long_topology_keeps_its_ends_and_whole_widths(width):
    short = shorten(LONG, width)
    assert len(short) <= width
    if width >= 10:
        head, mark, tail = short.partition("…")
        assert mark == "…" or short == LONG
        if mark:
            assert LONG.startswith(head)
            assert LONG.endswith(tail)
            assert head[-1] in "-+"
            assert tail[0] in "-+"


def test_a_sparkline_goes_from_the_lowest_to_the_highest():
    assert sparkline([0.1, 0.2, 0.8], 20) == "▁▂█"
    assert sparkline([0.5, 0.5], 20) == "▁▁"
    assert sparkline([], 20) == ""
    many = sparkline([i / 999 for i in range(1000)], 30)
    assert (len(many), many[0], many[-1]) == (30, "▁", "█")
    assert list(many) == sorted(many)
    assert sparkline([3, 1], 1) == "▁"


def test_items_are_packed_whole():
    items = [f"{i} (c1-c16+c16-…-32-10) 0.9{i}" for i in range(6)]
    text = packed("epoch  40: keep", items, 80)
    lines = text.splitlines()
    assert len(lines) > 1
    assert all(len(line) <= 80 for line in lines)
    assert re.findall(r"\d \(.*?\) 0\.9\d", text) == items
    assert packed("a:", ["x" * 100], 80) == f"a: {'x' * 100}"


@pytest.mark.parametrize("columns", ["60", "80", "140"])
@pytest.mark.parametrize("metric", ["accuracy", "balanced accuracy", "agreement and fidelity"])
def test_the_box_holds_every_figure_whole(metric, columns, capsys, monkeypatch):
    wide(monkeypatch, columns)
    before, after = Footprint(999_999, 2_140_000, 99.9), Footprint(888_888, 1_230_000, 0.0111)
    found = [*figures(before, after), measured_figure(metric, 0.9876, 0.9676)]
    console.figures_box(found)
    text = capsys.readouterr().out
    assert max(map(cell_len, text.splitlines())) <= int(columns)
    for each in found:
        assert f"{each.before} → {each.after}" in text
        assert each.change in text
        assert all(word in text for word in each.name.split())


def test_a_candidates_line_fits_eighty_columns(capsys, monkeypatch):
    wide(monkeypatch, "80")
    event = {"event": "trained", "branch": 1234, "surgery": "widen:2:8+widen:3:16", "topology": LONG}
    event |= {"parameters": 1_234_567, "accuracy": 0.9876, "gain": -0.0123, "score": -0.1234}
    EventPrinter()(event)
    (line,) = capsys.readouterr().out.splitlines()
    assert len(line) <= 80
    for words in ("1,234,567", "0.9876", "-0.0123", "-0.1234", "c1-c16+c16-…-10"):
        assert words in line
    assert line.count("…") == 2  # in the surgeries, and in the middle of the topology


@pytest.mark.parametrize("metric", ["accuracy", "balanced accuracy", "R²", "agreement", "fidelity"])
def test_a_columns_heading_is_of_its_metric_and_as_wide_as_its_values(metric):
    assert len(heading(metric)) <= len("0.9876")
    assert heading(metric)[0] == metric[0]
    assert (heading(metric) == "accur.") is (metric == "accuracy")


def test_of_heads_with_metrics_of_their_own_a_mean_is_shown():
    assert heading("agreement and fidelity") == heading("accuracy and R²") == "mean"


def test_headings_are_broken_between_words_alone(cli, monkeypatch):
    """The table of a convolutional network's layers has nine columns, and a terminal eighty."""
    wide(monkeypatch, "80")
    code, out, _ = cli("inspect", str(MODELS / "exports" / "torch-legacy-cnn.onnx"))
    assert code == 0
    (line,) = [line for line in out.splitlines() if line.split()[:3] == ["part", "layer", "node"]]
    assert line.split() == ["part", "layer", "node", "shape", "kernel", "activation", "params", "MACs", "removable"]
