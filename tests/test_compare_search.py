"""The comparison of searches: what it chooses, measures, keeps and prints; no search of another library is made."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import compare_search
import numpy as np
import pytest
from compare_search import METHODS, Rules
from searching import surgeon
from searching.networks import Candidate, Rows, Scale, Search, accuracy, chosen_rows, count, held_back_rows, within
from searching.results import Results, table
from searching.space import fit_widths

from onnxsurgeon import create, load_dataset, make_engine, prepare, save
from onnxsurgeon.graph.reader import METADATA_PREFIX

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "compare_search.py"
SETTINGS = {"data": "digits", "start": "digits-small.onnx", "seconds": 5.0, "cores": 1, "budgets": [1000, 3000]}
RULES = Rules("digits", ROOT / "models" / "digits-small.onnx", 5.0, (1000, 3000), 1)
OPTIONS = ("--data", "digits", "--start", "models/digits-small.onnx", "--time-limit", "5", "--cores", "1")


def run_tool(*arguments):
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )


def make_run(method, seed, small, large):
    def entry(test):
        return test and {"parameters": 900, "topology": "64-12-10", "validation": test, "how": {}, "test": test}

    found = {"1000": entry(small), "3000": entry(large)}
    counts = {"trials": 4, "epochs": 40, "search_seconds": 5.1, "seconds": 5.9}
    return {"method": method, "seed": seed, **counts, "versions": {}, "found": found}


def candidate(parameters, validation):
    return Candidate(parameters, "", validation, {}, None)


@pytest.mark.parametrize(("budget", "expected"), [(99, None), (100, 0.7), (200, 0.9), (1000, 0.9)])
def test_the_best_within_a_budget(budget, expected):
    found = within([candidate(100, 0.7), candidate(200, 0.9), candidate(300, 0.8)], budget)
    assert (found and found.validation) == expected


@pytest.mark.parametrize("budget", [10_000, 30_000, 100_000, 300_000])
@pytest.mark.parametrize("ratios", [(1.0,), (1.0, 0.5), (1.0, 0.25, 1.0)])
def test_widths_use_the_budget_and_no_more(budget, ratios):
    sizes = fit_widths(784, 10, ratios, budget)
    assert len(sizes) == len(ratios) + 2
    wider = fit_widths(784, 10, ratios, 2 * budget)
    assert 0.9 * budget - 800 < count(sizes) <= budget < count(wider)


def test_counted_as_onnxsurgeon_counts():
    assert count((784, 12, 10)) == create((784, 12, 10)).parameter_count


def test_every_method_sees_the_rows_of_onnxsurgeon():
    dataset = load_dataset("digits")
    train, validation = dataset.hold_out()
    mine, held = chosen_rows(dataset)
    np.testing.assert_array_equal(mine.labels, train.labels)
    np.testing.assert_array_equal(held.labels, validation.labels)
    np.testing.assert_array_equal(held_back_rows(dataset).labels, dataset.test.labels)
    assert abs(mine.features.mean()) < 1e-4
    assert mine.features.std() == pytest.approx(1, abs=1e-4)
    scale = Scale.of(train)
    np.testing.assert_allclose(
        held.features * scale.deviation + scale.mean, validation.inputs.reshape(validation.rows, -1), atol=1e-4
    )


def test_plain_layers_are_measured_as_onnx_runtime_does():
    dataset = load_dataset("digits")
    network = create((64, 16, 12, 10), seed=3)
    layers = [(layer.weight, layer.bias) for layer in network.layers]
    rows = Rows(
        dataset.test.inputs.reshape(dataset.test.rows, -1).astype(np.float32) / dataset.maximum, dataset.test.labels
    )
    measured = make_engine("loop").evaluate(network, prepare(network, dataset, dataset.test))
    assert accuracy(layers, rows) == pytest.approx(measured.accuracy)


def write_front(folder, **accuracies):
    (folder / "front").mkdir(parents=True)
    for number, (name, told) in enumerate(accuracies.items()):
        network = create((64, 8 + 8 * number, 10), seed=number)
        metadata = {} if told is None else {METADATA_PREFIX + "accuracy": repr(told)}
        save(replace(network, metadata=metadata), folder / "front" / f"{name}.onnx")


def test_a_front_is_read_off(tmp_path):
    write_front(tmp_path, small=0.8, large=0.9)
    found = {entry.how["file"]: entry for entry in surgeon.read_front(tmp_path)}
    assert (found["small.onnx"].topology, found["small.onnx"].validation) == ("64-8-10", 0.8)
    assert found["large.onnx"].parameters == count((64, 16, 10))


def test_a_front_that_says_nothing_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no front"):
        surgeon.read_front(tmp_path)
    write_front(tmp_path, mute=None)
    with pytest.raises(SystemExit, match=r"mute\.onnx: does not tell its accuracy"):
        surgeon.read_front(tmp_path)


def test_what_the_command_says_when_it_fails(tmp_path):
    job = surgeon.SurgeonJob(tmp_path / "missing.onnx", "digits", 7, 1.0, 1000, 1)
    with pytest.raises(SystemExit, match="onnxsurgeon, seed 7: ") as raised:
        surgeon.search(job, tmp_path / "run")
    assert "missing.onnx: no such file" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_chosen_is_measured_on_the_test_rows(monkeypatch, tmp_path):
    write_front(tmp_path, small=0.2, large=0.1)
    front = surgeon.read_front(tmp_path)
    monkeypatch.setattr(compare_search, "search", lambda *_: Search(front, 3, 12.0, 5.0))
    dataset = load_dataset("digits")
    run = compare_search.measure(RULES, dataset, "onnxsurgeon", 5)
    assert (run["seed"], run["trials"], run["epochs"]) == (5, 3, 12.0)
    network = next(entry.network for entry in front if entry.topology == "64-8-10")
    expected = make_engine("loop").evaluate(network, prepare(network, dataset, dataset.test)).accuracy
    for budget in ("1000", "3000"):  # the larger one is worse on the validation rows
        assert (run["found"][budget]["topology"], run["found"][budget]["test"]) == ("64-8-10", expected)
    json.dumps(run)


def test_the_table_has_a_line_for_each_budget():
    runs = [make_run("torch", 0, 0.8, 0.9), make_run("torch", 1, None, 0.92), make_run("sklearn", 0, None, 0.7)]
    lines = table(runs, METHODS, (1000, 3000)).splitlines()
    assert lines[0] == "| parameters at most | Optuna over PyTorch | Optuna over MLPClassifier |"
    assert lines[2:5] == [
        "| 1,000 | 0.8000 (1 without) | none found |",
        "| 3,000 | 0.9100 ± 0.0141 | 0.7000 |",
        "| seeds | 2 | 1 |",
    ]
    assert lines[-2:] == ["| seconds searched | 5 | 5 |", "| wall time, s | 6 | 6 |"]


def test_results_are_kept_after_every_search(tmp_path):
    path = tmp_path / "results.json"
    Results(SETTINGS, path).add(make_run("torch", 0, 0.8, 0.9))
    resumed = Results(SETTINGS, path)
    assert resumed.find("torch", 0) == make_run("torch", 0, 0.8, 0.9)
    assert resumed.find("torch", 1) is None
    assert resumed.find("sklearn", 0) is None
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "holds no results"),
        ("[1]", "holds no results"),
        (
            json.dumps({"settings": {**SETTINGS, "seconds": 30.0}, "runs": []}),
            r"begun with seconds 30\.0, now it is 5\.0",
        ),
    ],
)
def test_results_of_something_else_are_refused_and_stay(tmp_path, text, said):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(SystemExit, match=said):
        Results(SETTINGS, path)
    assert path.read_text() == text


def test_searches_that_were_made_are_not_made_again(tmp_path):
    path = tmp_path / "results.json"
    results = Results(SETTINGS, path)
    for method in METHODS:
        for seed in (0, 1):
            results.add(make_run(method, seed, 0.8, 0.9))
    before = path.read_text()
    done = run_tool(*OPTIONS, "--budgets", "3000", "1000", "--seeds", "0", "1", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert "| 1,000 | 0.8000 ± 0.0000 | 0.8000 ± 0.0000 | 0.8000 ± 0.0000 |" in done.stdout
    assert "1,293 rows to train on" in done.stdout
    assert "5 s of searching on 1 cores" in done.stdout
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--time-limit", "0"), "above 0"),
        (("--budgets", "0"), "above 0"),
        (("--methods", "grid"), "invalid choice"),
        (("--json", "missing/results.json"), "no such folder"),
        (("--cores", "1000000"), "--cores 1000000: this machine has"),
    ],
)
def test_options_that_make_no_sense(options, said):
    done = run_tool("--data", "digits", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
