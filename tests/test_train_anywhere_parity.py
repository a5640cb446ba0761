"""The tool that trains the same everywhere: its rows, by the runner that needs nothing else, and what rounding does."""

import numpy as np
import pytest
import train_anywhere_parity as tool


@pytest.fixture
def case(tmp_path):
    return tool.Case(tool.ENTRIES["binary"], tool.SETTINGS["adamw"], tmp_path, 20)


def test_a_row_tells_the_largest_difference_and_the_metrics(case):
    def elsewhere(case):
        weights, metric = tool.by_python(case)
        return {name: values * np.float32(1.25) for name, values in weights.items()}, metric - 0.5

    name, optimizer, metric, *cells, apart = tool.row("a", "b", case, {"Python": tool.by_python, "C++": None})
    assert (name, optimizer, cells[1]) == ("a", "b", tool.NONE)
    assert 0.5 < float(metric) <= 1
    assert float(cells[0]) <= 1e-6
    assert apart == "0.0000"
    *_, difference, apart = tool.row("a", "b", case, {"elsewhere": elsewhere})
    assert (difference, apart) == ("2e-01", "0.5000")  # 0.25 rounds to the even digit


def test_rounding_is_told_of_a_step_and_of_a_training(case):
    _, _, step, median, largest, whole = tool.rounding("a", "b", case)
    assert 1e-8 < float(step) < 1e-6
    assert 1e-8 < float(median) <= float(largest) < 1e-5
    assert 1e-8 < float(whole) < 1e-5


def test_every_network_is_there_and_takes_its_rows(tmp_path):
    for name, entry in tool.ENTRIES.items():
        folder = tmp_path / name
        folder.mkdir()
        case = tool.Case(entry, tool.SETTINGS["sgd"], folder, 1)
        assert case.epochs == 1
        assert len(case.rows) == len(case.targets) == case.examples.rows
        assert (folder / "trainer" / "step.onnx").is_file()
