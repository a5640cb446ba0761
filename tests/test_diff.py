"""What lies between two models: on every surgery, on compositions of them, trained after, and on strangers."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxsurgeon import (
    DataError,
    RunError,
    SettingsError,
    SurgeonSettings,
    create,
    create_convolutional,
    diff,
    evolve,
    load,
    operate,
    parse,
    save,
)
from onnxsurgeon.comparison.groups import Group
from onnxsurgeon.comparison.lineage import kinship
from onnxsurgeon.comparison.similarity import align, best_alignment
from onnxsurgeon.graph.reader import METADATA_PREFIX
from onnxsurgeon.runs.branch import Branch
from onnxsurgeon.runs.selection import model_file
from onnxsurgeon.surgery.join import join
from tests.branches import branch, operated
from tests.conftest import MODELS, randomised, start_model

EXPORTS = MODELS / "exports"


def network(activation="Relu", sizes=(64, 20, 12, 16, 10)):
    return randomised(create(sizes, seed=1, activation=activation), scale=0.2)


def trained(parent, amount=0.1, seed=0):
    rng = np.random.default_rng(seed)
    return parent.with_parameters(
        (v + amount * (v.std() + 0.01) * rng.standard_normal(v.shape)).astype(v.dtype) for _, v in parent.parameters()
    )


def kinds(found):
    return [change.kind for change in found.layers]


K, T = "kept", "trained"
# From 64-20-12-16-10: what became of each layer, and which layers belong together.
SURGERIES = {
    "widen:1:5": ["widened", "refitted", K, K],
    "widen:3:16": [K, K, "widened", "refitted"],
    "insert_identity:2": [K, K, "inserted", K, K],
    "insert_identity:3": [K, K, K, "inserted", K],
    "narrow:1:15": ["narrowed", "refitted", K, K],
    "narrow:2:7": [K, "narrowed", "refitted", K],
    "factorize:1:8": ["factorized", K, K, K],
    "factorize:2:5": [K, "factorized", K, K],
    "merge:1": ["merged", K, K],
    "merge:2": [K, "merged", K],
    "merge:3": [K, K, "merged"],
}
COMPOSITIONS = {
    ("widen:1:5", "widen:2:4"): ["widened", "widened", "refitted", K],
    ("insert_identity:1", "merge:3"): [K, "inserted", "merged", K],
    ("factorize:1:8", "widen:1:2"): ["factorized", K, K, K],
    ("factorize:1:8", "widen:4:3"): ["factorized", K, "widened", "refitted"],
    ("merge:1", "insert_identity:2"): ["merged", K, "inserted", K],
    ("widen:3:5", "insert_identity:3"): [K, K, "widened", "inserted", "refitted"],
    ("merge:2", "widen:1:4"): ["widened", "merged", K],
}


@pytest.mark.parametrize("surgery", SURGERIES)
@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
def test_every_surgery_without_a_lineage(surgery, activation):
    before = network(activation)
    after = operated(before, surgery)
    found = diff(before, after)
    assert (found.alignment, found.done) == ("similarity", ())
    assert kinds(found) == SURGERIES[surgery]
    assert sum(change.parameters_before for change in found.layers) == before.parameter_count
    assert sum(change.parameters_after for change in found.layers) == after.parameter_count
    if not surgery.startswith("merge"):  # seen from behind, a layer more
        assert align(after, before) == [Group(*reversed(group)) for group in align(before, after)]
    (output,) = found.random.outputs
    assert output.rows == 256
    if surgery.startswith(("widen", "insert")):
        assert output.relative_maximum < 1e-5
        assert output.agreement == 1
    else:
        assert output.relative_maximum > 1e-3


@pytest.mark.parametrize("surgery", SURGERIES)
def test_every_surgery_trained_after(surgery):
    before = network()
    found = diff(before, trained(operated(before, surgery)))
    assert kinds(found) == [T if kind == K else kind for kind in SURGERIES[surgery]]
    moved = [change.change for change in found.layers if change.kind == T]
    assert all(0.05 < change < 0.2 for change in moved)


@pytest.mark.parametrize("surgery", SURGERIES)
def test_a_lineage_tells_the_same(surgery):
    before = network()
    after = branch(before, surgery)
    found = diff(before, after)
    assert (found.alignment, found.undone, found.done) == ("lineage", (), (surgery,))
    assert kinds(found) == SURGERIES[surgery]
    back = diff(after, before)
    assert (back.alignment, back.undone, back.done) == ("lineage", (surgery,), ())
    opposite = {"widened": "narrowed", "narrowed": "widened", "inserted": "removed", "factorized": "merged"}
    opposite |= {"merged": "factorized"}
    assert kinds(back) == [opposite.get(kind, kind) for kind in SURGERIES[surgery]]


@pytest.mark.parametrize("surgeries", COMPOSITIONS, ids=" ".join)
def test_compositions(surgeries):
    before = network()
    assert kinds(diff(before, branch(before, *surgeries))) == COMPOSITIONS[surgeries]
    assert kinds(diff(before, operated(before, *surgeries))) == COMPOSITIONS[surgeries]


def test_a_lineage_holds_where_the_weights_tell_nothing():
    """Trained beyond recognition: similarity is lost, the surgeries since are not."""
    before = network(sizes=(30, 10, 10, 10, 10, 5))
    surgeries = ("insert_identity:1", "merge:4", "factorize:2:3", "merge:1")
    after = Branch(1, 0, "start", randomised(operated(before, *surgeries), seed=9), surgeries).stamped()
    assert kinship(before, after).groups == [
        Group((0,), (0,)),
        Group((), (1,)),
        Group((1,), (2,)),
        Group((2, 3), (3,)),
        Group((4,), (4,)),
    ]


def test_branches_with_a_common_ancestor():
    start = network()
    common = ("widen:1:5", "insert_identity:2")
    a, b = branch(start, *common, "merge:3", "narrow:1:9"), branch(start, *common, "factorize:1:6", "widen:3:2")
    found = diff(a, b)
    assert (found.undone, found.done) == (("merge:3", "narrow:1:9"), ("factorize:1:6", "widen:3:2"))
    assert kinds(found) == ["factorized", "widened", "factorized", "kept"]
    assert [[layer.units for layer in change.after] for change in found.layers] == [[6, 25], [14], [12, 16], [10]]


def test_a_run_that_began_with_another_runs_result():
    first = branch(network(), "widen:1:5")
    second = branch(first, "merge:2")
    found = diff(first, second)
    assert (found.alignment, found.undone, found.done) == ("lineage", (), ("merge:2",))
    assert kinds(found) == ["kept", "merged", "kept"]


def test_a_lineage_that_does_not_fit_is_not_believed():
    before = network()
    after = branch(before, "merge:1")
    stale, _ = operate(after, parse("widen:2:3"))
    assert diff(before, stale).alignment == "similarity"
    for text in ("merge:1", '["cut:1"]', "[1]", '{"a": 1}', '["merge:77"]', '["merge:0"]'):
        damaged = replace(after, metadata={"onnxsurgeon.lineage": text})
        assert kinds(diff(before, damaged)) == SURGERIES["merge:1"]


def test_untouched_and_trained_and_another_activation():
    before = network()
    found = diff(before, before)
    assert kinds(found) == [K] * 4
    assert [change.change for change in found.layers] == [0] * 4
    assert (found.random.outputs[0].maximum, found.random.outputs[0].agreement) == (0, 1)
    layers = list(before.layers)
    layers[1] = replace(layers[1], weight=layers[1].weight * np.float32(1.5), bias=layers[1].bias * np.float32(1.5))
    found = diff(before, before.with_layers(layers))
    assert kinds(found) == [K, T, K, K]
    assert found.layers[1].change == pytest.approx(0.5)
    other = network("Tanh")
    assert kinds(diff(before, other)) == ["reactivated"] * 3 + [K]


@pytest.mark.parametrize(
    "model", ["torch-legacy-residual", "torch-legacy-two-heads", "torch-legacy-two-inputs", "torch-legacy-cnn"]
)
@pytest.mark.parametrize("operation", ["widen:{}:3", "insert_identity:{}", "narrow:{}:6", "merge:{}", "factorize:{}:2"])
def test_networks_of_several_segments(model, operation):
    before = load(EXPORTS / f"{model}.onnx")
    word = {"w": "widened", "i": "inserted", "n": "narrowed", "m": "merged", "f": "factorized"}[operation[0]]
    for i in range(1, before.hidden_count + 1):
        surgery = operation.format(i)
        after = branch(before, surgery)
        by_lineage = kinship(before, after).groups
        assert align(before, after) == by_lineage
        found = diff(before, after)
        changed = [change for change in found.layers if change.kind not in (K, "refitted")]
        assert [change.kind for change in changed] == [word]
        segment = before.segment_of(i) + 1
        assert {layer.segment for change in changed for layer in (*change.before, *change.after)} == {segment}
        assert kinship(after, before) is not None
        assert not found.random.notes


@pytest.mark.parametrize("surgery", ["widen:1:3", "narrow:2:6", "insert_identity:1", "factorize:2:4", "factorize:1:3"])
def test_convolutions_of_several_taps_are_aligned_by_their_weights(surgery):
    """Where one follows another, their matrices have no product; that ended in a traceback."""
    before = create_convolutional("8x8x1-c6-c8-c8-p-10", seed=3)
    after = branch(before, surgery)
    assert align(before, after) == kinship(before, after).groups
    assert kinds(diff(before, trained(before))) == [T, T, T, T]
    frozen = replace(before, metadata={})
    assert [change.kind for change in diff(frozen, trained(frozen)).layers] == [T, T, T, T]


def test_outputs_that_are_labels_or_dictionaries():
    path = EXPORTS / "sklearn-zipmap.onnx"
    found = diff(path, trained(load(path), 0.5)).random
    labels, probabilities = found.outputs
    assert labels.maximum is None
    assert labels.agreement == probabilities.agreement < 1
    assert probabilities.maximum > 0


def test_the_numbers_are_those_of_the_two_models():
    """Against the definition, on a model whose outputs are known: y = x and y = 2 x."""

    def model(factor):
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy")
        weight = onnx.numpy_helper.from_array(np.diag([factor, 1, 1]).astype("f"), "w")
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    from onnxsurgeon import from_model
    from onnxsurgeon.graph.equivalence import random_inputs

    (output,) = diff(from_model(model(1)), from_model(model(2))).random.outputs
    x = np.concatenate([random_inputs(model(1), rows=64, seed=seed)["x"] for seed in range(4)])
    assert output.maximum == pytest.approx(x[:, 0].max())
    assert output.mean == pytest.approx(x[:, 0].mean() / 3)
    assert output.scale == pytest.approx(x.max())
    assert output.agreement == np.mean(x.argmax(1) == (x * [2, 1, 1]).argmax(1)) < 1


def test_models_that_cannot_be_given_the_same(tmp_path):
    other = create((32, 20, 7))
    found = diff(network(), other)
    assert sum(len(change.before) for change in found.layers) == 4
    assert sum(len(change.after) for change in found.layers) == 2
    assert found.random.outputs == ()
    (note,) = found.random.notes
    assert "different inputs, float (batch, 64) and float (batch, 32)" in note
    (note,) = diff(network(), create((64, 20, 7))).random.notes
    assert "a row has shape (10,) and (7,)" in note


def test_the_alignment_of_plain_sequences():
    """Longest common subsequence: a match is worth 1, a gap nothing."""
    a, b = "kitten on a mat", "sitting on a mattress"

    def score(before, after):
        if len(before) + len(after) == 1:
            return 0.0
        return 1.0 if len(before) == len(after) == 1 and a[before[0]] == b[after[0]] else -np.inf

    groups, total = best_alignment(len(a), len(b), score)
    assert total == 13
    assert [i for group in groups for i in group.before] == list(range(len(a)))
    assert [j for group in groups for j in group.after] == list(range(len(b)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    settings = SurgeonSettings.from_preset(
        "corrected", epochs=2, initial_epochs=1, epoch_step=1, recuperation_batches=2, seed=6
    )
    return evolve(start_model(folder), "digits", settings=settings, run_dir=folder / "run").run


def test_every_branch_of_a_run_is_aligned_by_lineage(run):
    numbers = range(len(list((run / "branches").glob("*.onnx"))))
    for number in numbers:
        found = diff(f"{run}#{number}", run)
        assert found.alignment == "lineage"
        assert found.before.bytes == model_file(run, number).stat().st_size
        assert sum(change.parameters_after for change in found.layers) == found.after.parameters


def test_on_data_the_accuracies_are_those_of_evaluate(run, cli):
    code, out, err = cli("diff", f"{run}#0", run, "--data", "digits", "--json")
    assert (code, err) == (0, "")
    record = json.loads(out)
    for key, model in (("before", f"{run}/branches/0000-start.onnx"), ("after", f"{run}/best.onnx")):
        measured = json.loads(cli("evaluate", model, "--data", "digits", "--json")[1])
        assert record["data"][key]["accuracy"] == measured["accuracy"]
        assert record[key]["parameters"] == measured["parameters"]
    (output,) = record["data"]["outputs"]["outputs"]
    assert output["rows"] == 360
    assert 0 < output["agreement"] < 1
    for split, rows in (("train", 1437), ("validation", 144)):
        record = json.loads(cli("diff", f"{run}#0", run, "--data", "digits", "--split", split, "--json")[1])
        assert record["data"]["outputs"]["outputs"][0]["rows"] == record["data"]["after"]["rows"] == rows


def test_external_data_counts_as_part_of_the_file():
    path = EXPORTS / "torch-dynamo-external.onnx"
    size = path.stat().st_size + path.with_suffix(".onnx.data").stat().st_size
    assert diff(path, path).before.bytes == size


@pytest.mark.parametrize("columns", [80, 140])
def test_the_command_shows_every_layer(run, cli, monkeypatch, columns):
    from onnxsurgeon.cli import console

    monkeypatch.setattr(console.out, "_width", columns)
    code, out, err = cli("diff", f"{run}#0", run, "--data", "digits")
    assert (code, err) == (0, "")
    for text in (
        "matched by lineage",
        "64 × 20 Relu",
        "on random inputs",
        "on digits, test rows",
        "accuracy",
        "output",
    ):
        assert text in out
    assert max(len(line) for line in out.splitlines() if str(run) not in line) <= columns


def test_which_file_is_meant(run, tmp_path):
    assert model_file(run) == run / "best.onnx"
    assert model_file(f"{run}#2") == model_file(run, 2) == next((run / "branches").glob("0002-*.onnx"))
    odd = tmp_path / "a#2"
    save(network(), odd)
    assert model_file(odd) == odd
    last = len(list((run / "branches").glob("*.onnx"))) - 1
    with pytest.raises(RunError, match=rf"has no branch 99; it has branches 0 to {last}$"):
        model_file(run, 99)
    with pytest.raises(RunError, match="names a branch already"):
        model_file(f"{run}#2", 3)


def test_bad_input_is_one_clear_line_and_exit_code_2(run, cli, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "young" / "branches").mkdir(parents=True)
    (tmp_path / "young" / "settings.json").write_text("{}")
    save(network(), tmp_path / "a.onnx")
    small = str(MODELS / "digits-small.onnx")
    cases = [
        (("diff", "none.onnx", small), "none.onnx: no such file"),
        (("diff", small, "folder"), "folder: not a run directory: no settings.json in it"),
        (("diff", small, f"{run}#99"), "has no branch 99; it has branches 0 to"),
        (("diff", small, "young"), "young: has no best.onnx yet; it has no branches"),
        (("diff", small, small, "--split", "both"), "split: 'both' is unknown"),
        (("diff", small, small, "--data", "mnst"), "unknown data set 'mnst'"),
        (("diff", small, small, "--data", "digits", "--mean", "x"), "mean: 'x' is no list of numbers"),
        (("diff", small, MODELS / "mnist-small.onnx", "--data", "digits"), "do not fit"),
        (("view", "none.onnx"), "none.onnx: no such file"),
        (("view", "a.onnx", "--branch", "1"), "a.onnx: is a file; only a run has branches"),
        (("view", "none", "--branch", "1"), "none: no such folder; only a run has branches"),
        (("view", run, "--branch", "99"), "has no branch 99; it has branches 0 to"),
        (("view", "folder"), "folder: not a run directory"),
    ]
    for arguments, text in cases:
        code, out, err = cli(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), (arguments, err)
        assert text in err, (arguments, err)
    with pytest.raises(SettingsError):
        diff(small, small, split="both")
    with pytest.raises(DataError):
        diff(small, MODELS / "mnist-small.onnx", data="digits")


def test_networks_that_were_joined_are_aligned_by_their_lineage():
    member = create((6, 5, 4, 3), seed=1)
    joined = join([member, create((6, 5, 4, 3), seed=2)])
    joined = replace(joined, metadata={METADATA_PREFIX + "lineage": '["join:2", "widen:1:3"]'})
    wider = replace(operate(joined, parse("widen:1:3")).network, metadata=joined.metadata)
    found = kinship(member, wider)
    assert found.done == ("join:2", "widen:1:3")
    assert len(found.groups) == 3
    back = kinship(wider, member)
    assert back.undone == ("join:2", "widen:1:3")
    halves = replace(wider, metadata={METADATA_PREFIX + "lineage": '["join:3", "widen:1:3"]'})
    assert kinship(member, halves) is None  # ten units are not those of three networks of five
    for text in ("join:0", "join:-1"):  # metadata may be a stranger's
        damaged = replace(wider, metadata={METADATA_PREFIX + "lineage": f'["{text}"]'})
        assert kinship(member, damaged) is None
        assert kinship(damaged, member) is None
