"""The tools that measure trained networks made smaller: what they compute, keep, judge and print."""

import json
import math
import sys
from dataclasses import replace

import convolution_search
import numpy as np
import pytest
import shrink_images
import shrink_policies
import tables
import trained_networks
from fixtures.catalogue import read_index
from measuring import patients
from measuring.datasets import Table, split
from measuring.markdown import NONE, change, is_clearly_below, spread
from measuring.models import facts, outputs, r_squared
from measuring.policies import Drawn, read_rows
from measuring.pruning import pruned_straight
from searching.results import Results
from shrink_policies import Case, Rules
from trained_networks import GIVEN, OWN, STRAIGHT, Job

from onnxsurgeon import SurgeryError, create, load, load_dataset, make_engine, prepare, save
from onnxsurgeon.graph.writer import to_model
from tests.conftest import MODELS

MAKE_ROWS = """
import argparse
import numpy as np
parser = argparse.ArgumentParser()
for name in ("policy", "out", "--kind", "--rows", "--seed"):
    parser.add_argument(name)
given = parser.parse_args()
rng = np.random.default_rng(int(given.seed))
np.savez(given.out, input=rng.standard_normal((int(given.rows), 6)).astype(np.float32))
"""


@pytest.fixture
def policies(tmp_path):
    """A folder as the tool is given one: a policy of six inputs, and a script that draws rows."""
    folder = tmp_path / "policies"
    folder.mkdir()
    save(create((6, 16, 8, 3), seed=1, softmax=False, activation="Elu"), folder / "small.onnx")
    (folder / "make_rows.py").write_text(MAKE_ROWS)
    return folder


@pytest.fixture
def rules(policies, tmp_path):
    (tmp_path / "made").mkdir()
    return Rules(policies, tmp_path / "made", 5.0, 200, 50, 1, None)


CASE = Case("small", "white", 100, 1)


def test_figures_as_they_stand_in_tables():
    assert spread([]) == NONE
    assert spread([0.5]) == "0.5000"
    assert spread([0.5, 0.7]) == "0.6000 ± 0.1414"
    assert change(192_408, [96_000, 96_408]) == "192,408 → 96,204 (2.0×)"
    assert change(1, []) == NONE


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        ([0.80, 0.82], [0.83, 0.85], True),  # 0.03 apart, both deviations combined are 0.02
        ([0.80, 0.82], [0.82, 0.84], False),
        ([0.83, 0.85], [0.80, 0.82], False),
        ([0.8], [0.9], True),
        ([0.8], [0.8], False),
    ],
)
def test_what_is_clearly_below(own, others, expected):
    assert is_clearly_below(own, others) is expected


def test_r_squared_is_the_mean_over_the_outputs():
    truth = np.array([[0, 0], [1, 2], [2, 4]], np.float32)
    assert r_squared(truth, truth) == 1
    assert r_squared(truth, np.column_stack([truth[:, 0], np.full(3, 2)])) == pytest.approx(0.5)


def test_a_file_that_declares_one_row_is_run_on_many(tmp_path):
    network, path = create((6, 4, 2), seed=3, softmax=False), tmp_path / "one.onnx"
    model = to_model(network)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    path.write_bytes(model.SerializeToString())
    rows = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    first, last = network.layers
    expected = np.maximum(rows @ first.weight + first.bias, 0) @ last.weight + last.bias
    np.testing.assert_allclose(outputs(path, {"input": rows})[0], expected, rtol=1e-5, atol=1e-6)
    found = facts(path)
    assert (found["topology"], found["parameters"], found["bytes"]) == ("6-4-2", 38, path.stat().st_size)
    assert found["latency"] > 0


@pytest.mark.parametrize("most", [700, 300])
def test_straight_pruning_meets_the_limit_without_training(most):
    dataset, network = load_dataset("digits"), create((64, 16, 12, 10), seed=3)
    examples = prepare(network, dataset, dataset.train)
    pruned = pruned_straight(network, examples, most)
    assert 0.8 * most < pruned.parameter_count <= most
    again = pruned_straight(network, examples, most)
    for (_, values), (_, same) in zip(pruned.parameters(), again.parameters(), strict=True):
        np.testing.assert_array_equal(values, same)
    # Half the units of an untrained network stand for the others well enough to agree with it on most rows.
    both = [make_engine("loop").evaluate(each, examples).accuracy for each in (network, pruned)]
    assert both[1] == pytest.approx(both[0], abs=0.1)


def table_of(rows, *, classes):
    rng = np.random.default_rng(0)
    x = np.arange(rows, dtype=np.float32)[:, None]
    y = rng.integers(0, 3, rows) if classes else 100 + 10 * rng.standard_normal((rows, 2))
    return Table(x, y, most=60)


@pytest.mark.parametrize("classes", [True, False])
def test_a_split_holds_back_a_fifth_and_is_drawn_by_its_seed(classes):
    table = table_of(100, classes=classes)
    parts, same, other = split(table, 1), split(table, 1), split(table, 2)
    assert (len(parts.x_train), len(parts.x_test)) == (60, 20)
    assert not {*parts.x_train[:, 0]} & {*parts.x_test[:, 0]}
    np.testing.assert_array_equal(parts.x_test, same.x_test)
    assert {*parts.x_test[:, 0]} != {*other.x_test[:, 0]}
    rows = parts.x_train[:, 0].astype(int)
    if classes:
        assert (parts.is_classes, parts.outputs) == (True, 3)
        np.testing.assert_array_equal(parts.y_train, table.y[rows])
    else:
        assert (parts.is_classes, parts.outputs) == (False, 2)
        np.testing.assert_allclose(parts.y_train.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(parts.y_train.std(axis=0), 1)
        held = table.y[parts.x_test[:, 0].astype(int)]
        np.testing.assert_allclose(parts.y_test, (held - table.y[rows].mean(axis=0)) / table.y[rows].std(axis=0))


def test_a_test_set_of_its_own_is_kept():
    table = replace(table_of(100, classes=True), test=(np.full((7, 1), -1, np.float32), np.zeros(7, np.int64)))
    parts = split(table, 1)
    assert (len(parts.x_train), len(parts.x_test), parts.x_test.max()) == (60, 7, -1)


def test_a_split_is_read_as_onnxsurgeon_reads_it(tmp_path):
    parts = split(table_of(100, classes=False), 1)
    parts.write(tmp_path / "rows.npz")
    dataset = load_dataset(str(tmp_path / "rows.npz"))
    assert (dataset.classes, dataset.train.rows, dataset.test.rows) == (0, 60, 20)
    np.testing.assert_array_equal(dataset.test.labels, parts.y_test)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.npz"]


def test_rows_of_a_policy_are_drawn_once(policies, rules):
    drawn = Drawn(policies, rules.folder, "small", "white", 1, 200, 50)
    rows = read_rows(drawn)
    assert (rows.train.shape, rows.fresh.shape, rows.fresh_outputs.shape) == ((200, 6), (50, 6), (50, 3))
    assert not np.isin(rows.fresh, rows.train).any()
    with np.load(drawn.file) as arrays:
        assert sorted(arrays.files) == ["input_test", "input_train"]  # as rows without labels are given
    (policies / "make_rows.py").unlink()
    np.testing.assert_array_equal(read_rows(drawn).train, rows.train)
    assert [path.name for path in rules.folder.iterdir()] == [drawn.file.name]


def test_the_policy_pruned_straight_is_measured_against_the_policy(rules):
    run = shrink_policies.measure(rules, CASE, "straight")
    assert (run["method"], run["seed"], run["policy"], run["kind"], run["limit"]) == ("straight", 1, *CASE.key.values())
    assert run["parameters"] <= 100
    rows = read_rows(rules.drawn(CASE))
    made = outputs(rules.out(CASE, "straight"), {"input": rows.fresh})[0]
    assert run["r2"] == r_squared(rows.fresh_outputs, made)
    assert 0.2 < run["r2"] < 1


@pytest.mark.parametrize("limit", [100, 200])
def test_a_new_network_has_the_policys_shape_within_the_limit(rules, limit):
    sizes, activation = shrink_policies.shape(rules.drawn(CASE).model, 3, limit)
    assert (sizes[0], sizes[-1], len(sizes), activation) == (6, 3, 4, "Elu")
    assert sizes[1] / sizes[2] == pytest.approx(2, abs=0.5)
    count = create(sizes, softmax=False).parameter_count
    assert 0.8 * limit < count <= limit


def policy_run(method, seed, r2, parameters=90):
    figures = {"parameters": parameters, "bytes": 900, "latency": 0.01, "seconds": 1.0, "topology": "6-4-3"}
    return {"method": method, "seed": seed, **CASE.key, "r2": r2, **figures}


def test_policies_whose_results_are_there_are_not_measured_again(rules, tmp_path, monkeypatch, capsys):
    path, seeds = tmp_path / "results.json", (1, 2)
    cases = [replace(CASE, seed=seed) for seed in seeds]
    asked = []

    def measure(rules, case, method):
        asked.append((case.seed, method))
        return policy_run(method, case.seed, 0.9 + case.seed / 100)

    monkeypatch.setattr(shrink_policies, "measure", measure)
    monkeypatch.setattr(shrink_policies, "hold_cores", lambda cores: None)
    for _ in range(2):
        shrink_policies.compare(rules, cases, ["straight", "onnxsurgeon"], path)
    assert asked == [(1, "straight"), (1, "onnxsurgeon"), (2, "straight"), (2, "onnxsurgeon")]
    printed = capsys.readouterr().out
    assert "| small | white | 100 | 0.9150 ± 0.0071 | 0.9150 ± 0.0071 |" in printed
    assert "| small | white | onnxsurgeon | 100 | 275 → 90 (3.1×) |" in printed
    assert "- small, white, 100: straight pruning, no training is better" in printed  # it is equal, which is not above
    with pytest.raises(SystemExit, match=r"begun with seconds 5\.0"):
        shrink_policies.compare(replace(rules, seconds=6.0), cases, ["straight"], path)


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [
        ((0.96, 90_000), {"straight": 0.9, "scratch": 0.8, "trained-on": 0.96}, "as it has to be"),
        ((0.96, 97_000), {}, "a limit is not met"),
        ((0.96, 90_000), {"trained-on": 0.97}, "pruned, then trained on in PyTorch is better"),
        ((0.94, 90_000), {"straight": 0.9}, "0.9400, not 0.95"),
    ],
)
def test_what_a_policy_has_to_reach(own, others, expected):
    runs = {method: [policy_run(method, 1, value)] for method, value in others.items()}
    runs = {"straight": [], "scratch": [], "trained-on": [], **runs}
    runs["onnxsurgeon"] = [policy_run("onnxsurgeon", 1, *own)]
    (line,) = shrink_policies.verdicts([(("go1", "white", 96_000), runs)])
    assert line == f"- go1, white, 96,000: {expected}"


def test_policies_that_are_not_there(policies, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tool", "--policies", str(policies), "--names", "go1"])
    with pytest.raises(SystemExit) as raised:
        shrink_policies.main()
    assert raised.value.code == 2
    assert "holds no go1.onnx" in capsys.readouterr().err


def test_thirty_different_networks():
    assert len(set(patients.NAMES)) == 30
    assert {f"{name}.onnx" for name in patients.SUITE} <= {each.file for each in read_index() if not each.refused}


@pytest.mark.parametrize("name", patients.SUITE)
def test_networks_of_the_suite_are_good_on_their_rows_and_can_be_a_tenth(name, tmp_path):
    one = patients.patient(name, tmp_path)
    network, dataset = load(one.model), one.dataset()
    for rows in (one.deciding(network, dataset), one.test(network, dataset)):
        assert make_engine("loop").evaluate(network, rows).accuracy > 0.55
    pruned = pruned_straight(network, one.training(network, dataset), network.parameter_count // 10)
    assert pruned.parameter_count <= network.parameter_count // 10


def network_run(method, share, epochs, deciding, test, **others):
    figures = {"parameters": 100 // share, "bytes": 1000, "latency": 0.01, "seconds": 2.0, "topology": "4-3-2"}
    key = {"name": "pima", "share": share, "epochs": epochs, "limit": 100 // share}
    what = {"what": "two classes", "metric": "accuracy"} if method == GIVEN else {}
    return {"method": method, "seed": 1, **key, "deciding": deciding, "test": test, **figures, **what, **others}


def test_the_table_of_a_network_tells_what_is_wrong():
    results = Results({}, None)
    for run in (
        network_run(GIVEN, 1, 0, 0.9, 0.85),
        network_run(STRAIGHT, 2, 0, 0.8, 0.7),
        network_run(OWN, 2, 4, 0.79, 0.75),
        network_run(OWN, 2, 20, 0.85, 0.69, parameters=51),
        network_run(STRAIGHT, 4, 0, 0.6, 0.5),
        network_run(OWN, 4, 4, 0.6, 0.5),
        {"method": OWN, "seed": 1, "name": "pima", "share": 4, "epochs": 20, "limit": 25, "error": "refused"},
    ):
        results.add(run)
    text = trained_networks.report(results, ["pima"], [2, 4], [4, 20], 1)
    assert "**pima** (two classes), 4-3-2, 100 parameters, 1,000 bytes, 0.010 ms: accuracy 0.9000 / 0.8500" in text
    assert "| 1/2 | 0.8000 / 0.7000 | 0.7900 / 0.7500 ▼ | 0.8500 / 0.6900 ▲ | 51 (2.0×), 1,000 (1.0×)" in text
    assert "| 1/4 | 0.6000 / 0.5000 | 0.6000 / 0.5000 | refused ▲ | – |" in text
    assert "| 1/2, 4 epochs | 1 of 1 | 1 | +0.0500 | +0.0500 | 1 / 0 / 0 | 2.0 |" in text
    assert "| all | 2 of 4 | 1 | +0.0133 | +0.0000 | 1 / 1 / 1 | 2.0 |" in text


def test_a_result_is_not_held_against_pruning_that_missed_the_limit():
    base, own = network_run(STRAIGHT, 2, 0, 0.9, 0.9, parameters=60), network_run(OWN, 2, 4, 0.8, 0.8)
    assert not trained_networks.is_worse(own, base)
    assert trained_networks.is_worse(own, {**base, "parameters": 50})


def test_every_limit_and_length_is_run_once():
    made = list(trained_networks.jobs(["pima", "policy"], [2, 10], [4, 20, 60], MODELS, 1))
    assert len(made) == len({(job.method, *job.key.values()) for job in made}) == 2 * 2 * (1 + 3)


def test_a_network_is_pruned_and_evolved_and_measured_on_the_same_rows(tmp_path):
    name = "torch-legacy-two-heads"
    given = trained_networks.perform(Job(GIVEN, name, tmp_path, 1))
    pruned = trained_networks.perform(Job(STRAIGHT, name, tmp_path, 1, 2))
    evolved = trained_networks.perform(Job(OWN, name, tmp_path, 1, 2, 1))
    assert given["parameters"] // 2 == pruned["limit"] == evolved["limit"] >= pruned["parameters"]
    assert given["deciding"] == given["test"] == 1
    assert {"deciding", "test", "seconds", "bytes", "latency", "metric"} <= pruned.keys() & evolved.keys()
    one = patients.patient(name, tmp_path)
    network = load(tmp_path / f"{name}-2-1.onnx")
    examples = one.deciding(network, one.dataset())
    assert evolved["deciding"] == make_engine("loop").evaluate(network, examples).accuracy
    assert not list((tmp_path / "runs").iterdir())
    json.dumps([given, pruned, evolved])


def test_what_is_refused_is_a_result(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise SurgeryError("no width can meet it", "out-of-reach")

    monkeypatch.setattr(trained_networks, "evolve", refuse)
    run = trained_networks.perform(Job(OWN, "sklearn-gaps-arrays", tmp_path, 1, 10, 4))
    assert (run["error"], run["limit"]) == ("no width can meet it", 189)
    assert trained_networks.summary(run).endswith("4 epochs: no width can meet it")


def table_run(method, seed, test, **others):
    figures = {"parameters": 500, "bytes": 900, "latency": 0.01, "seconds": 3.0}
    return {"method": method, "seed": seed, "set": "pima", "rows": 240, "columns": 7, "test": test, **figures, **others}


def test_defaults_are_held_against_scikit_learns():
    results = Results({}, None)
    start = {"parameters": 1000, "bytes": 1800, "latency": 0.02}
    for seed, shift in ((1, -0.01), (2, 0.01)):
        results.add(table_run("mlp", seed, 0.7 + shift))
        results.add(table_run("mlp-standardised", seed, 0.75 + shift))
        results.add(table_run("untrained", seed, 0.7 + shift, start=start, start_test=0.5, metric="accuracy"))
        results.add(table_run("trained", seed, 0.74 + shift, start=start, start_test=0.75 + shift, metric="accuracy"))
    lines = tables.report(results, ["pima", "digits"], [1, 2]).splitlines()
    deviation = "± 0.0141"
    assert lines[2] == (
        f"| pima | 240 × 7 | accuracy | 0.7000 {deviation} | 0.7500 {deviation} | 0.7000 {deviation} "
        f"| 0.7500 {deviation} | 0.7400 {deviation} | untrained than MLP standardised |"
    )
    assert "| pima | 500; 3 s | 500; 3 s | 500; 3 s | 500; 3 s |" in lines
    assert "| pima | trained | 1,000 → 500 (2.0×) | 1,800 → 900 (2.0×) | 0.020 → 0.010 (2.0×) |" in lines
    assert not any("digits" in line for line in lines)  # nothing of it was measured


def test_evolve_is_run_on_the_rows_of_a_split(tmp_path):
    parts = split(table_of(100, classes=True), 1)
    save(create((1, 4, 3), seed=1), tmp_path / "start.onnx")
    rules = tables.Rules(tmp_path, None, 1, None, 1)
    run = tables.run(rules, tmp_path / "start.onnx", parts, 1)
    assert 0 <= run["test"] <= 1
    assert run["metric"] == "accuracy"
    assert run["parameters"] == load(tmp_path / "start" / "best.onnx").parameter_count
    assert not (tmp_path / "start.npz").exists()


def test_images_alone_come_without_labels(tmp_path, monkeypatch):
    dataset = load_dataset("digits")
    monkeypatch.setattr(shrink_images, "load_dataset", lambda name: dataset)
    rules = shrink_images.Rules(tmp_path, 30, 1, None, None, 1)
    with np.load(shrink_images.data_for(rules, "images")) as arrays:
        assert sorted(arrays.files) == ["x_test", "x_train"]
        assert (len(arrays["x_train"]), arrays["x_train"].dtype) == (30, np.uint8)
    with np.load(shrink_images.data_for(rules, "labels")) as arrays:
        np.testing.assert_array_equal(arrays["y_train"], dataset.train.labels[:30])
    assert shrink_images.data_for(replace(rules, rows=None), "labels") == "fashion-mnist"


def test_the_table_of_images_tells_what_was_lost():
    results = Results({}, None)
    given = {"parameters": 1000, "bytes": 4000, "latency": 0.04, "topology": "8-8"}
    results.add({"method": "given", "seed": 1, "test": 0.9, **given})
    small = {"seed": 1, "wish": "shrink-10", "seconds": 9.0, **given, "parameters": 100, "bytes": 400}
    results.add({**small, "method": "labels", "test": 0.91})
    results.add({**small, "method": "images", "test": 0.89})
    text = shrink_images.report(results, ["shrink-10"], ["straight", "labels", "images"], [1])
    assert "| shrink-10 | with labels | 0.9000 | 0.9100 | -0.0100 | 1,000 → 100 (10.0×) | 4,000 → 400 (10.0×) |" in text
    assert "- shrink-10, with labels: as it has to be" in text
    assert "- shrink-10, images alone: 0.0100 lost, not at most 0.005" in text
    assert shrink_images.verdict("shrink-10", "labels", 999, [small], -math.inf) == "the limit is not met"


def test_a_run_is_found_by_all_that_it_was_made_with(tmp_path):
    results = Results({}, tmp_path / "results.json")
    results.add({"method": "a", "seed": 1, "limit": 10, "value": 1})
    results.add({"method": "a", "seed": 1, "limit": 20, "value": 2})
    again = Results({}, tmp_path / "results.json")
    assert again.find("a", 1, limit=20) == {"method": "a", "seed": 1, "limit": 20, "value": 2}
    assert again.find("a", 1, limit=30) is None
    assert again.find("a", 1, policy="go1") is None


def test_the_table_of_grown_convolutions_says_how_much_is_missing():
    results = Results({}, None)
    run = {"method": "evolve", "limit": 20_000, "topology": "c1-c8+c8-c16+784-10", "parameters": 19_000}
    run |= {"bytes": 80_000, "latency": 0.05, "multiplications": 2_500_000, "seconds": 120.0}
    results.add({**run, "seed": 1, "test": 0.915})
    results.add({**run, "seed": 2, "test": 0.917})
    results.add({**run, "seed": 1, "limit": 60_000, "test": 0.93})
    results.add({**run, "seed": 1, "limit": 10_000, "test": 0.9})
    lines = convolution_search.report(results, [10_000, 20_000, 60_000, 200_000], [1, 2]).splitlines()
    assert (
        "| 20,000 | 2 | 0.9160 ± 0.0014 | 0.918 | 19,000 | 2.50 | 0.050 | 80,000 | 2.0 | c1-c8+c8-c16+784-10 |" in lines
    )
    assert "- 10,000: the limit is not met" in lines
    assert "- 20,000: 0.0020 short of 0.918" in lines
    assert "- 60,000: as it has to be" in lines
    assert not any("200,000" in line for line in lines)


def test_a_convolution_is_grown_on_some_images(tmp_path, monkeypatch):
    digits = load_dataset("digits")
    monkeypatch.setattr(convolution_search, "load_dataset", lambda name: digits)
    monkeypatch.setattr(convolution_search, "test_accuracy", lambda path: 0.5)
    rules = convolution_search.Rules(tmp_path, "8x8x1-c2-p-10", 300, 2, 1)
    run = convolution_search.measure(rules, 1000, 1)
    assert 0 < run["parameters"] <= 1000
    assert run["multiplications"] > 0
    assert load(tmp_path / "1000-1.onnx").topology == run["topology"]
