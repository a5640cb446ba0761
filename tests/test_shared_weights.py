"""Layers that share their weights: one parameter, read, trained, operated on and written as one."""

import contextlib
import json
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from measuring.reference import evaluate
from onnx import TensorProto, numpy_helper

from onnxsurgeon import (
    Examples,
    Factorize,
    InsertIdentity,
    Merge,
    ModelError,
    SurgeryError,
    TrainingSpec,
    Widen,
    from_model,
    import_state,
    load,
    make_engine,
    operate,
    save,
)
from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.calibration.gradients import with_gradients
from onnxsurgeon.calibration.sensitivity import with_sensitivities
from onnxsurgeon.comparison.lineage import kinship
from onnxsurgeon.data.features import compute_features
from onnxsurgeon.data.inputs import model_inputs
from onnxsurgeon.graph.equivalence import compare_models, random_inputs
from onnxsurgeon.graph.files import read_parts
from onnxsurgeon.graph.freezing import frozen_network
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.operating.measure import found_error
from onnxsurgeon.recommend.candidates import count_after
from onnxsurgeon.recommend.resources import multiplications_of
from onnxsurgeon.runtime import run
from onnxsurgeon.surgery import FactorizeData, Grow, MergeData, MergeDuplicates, Narrow, Prune
from onnxsurgeon.surgery.apply import count_of
from onnxsurgeon.surgery.proof import prove_group
from onnxsurgeon.task import SQUARED, Task
from onnxsurgeon.training.forward import from_by_unit
from onnxsurgeon.training.loop_graph import training_loop
from onnxsurgeon.training.resident import arrays
from tests.branches import branch
from tests.conftest import MODELS, needs_training
from tests.convolutional import loop_feeds
from tests.graphs import Graph
from tests.trainers import OPTIMIZERS, PIXELS, Case, largest_difference

FOLDER = Path(__file__).parent / "shared_weights"
FILES = sorted(FOLDER.glob("*.onnx"))
TRAINED = [path for path in FILES if not path.stem.startswith("words")]
TOWERS = [path for path in FILES if path.stem.startswith("towers")]


def held(path):
    return np.load(path.with_name(f"{path.stem.rpartition('-')[0]}.npz"))


def rows_of(network, path, kind=np.float32):
    """The rows and targets that PyTorch was given."""
    values = held(path)
    feeds = {name: values[name].astype(kind) if values[name].dtype.kind == "f" else values[name] for name in values}
    names = [value.name for value in network.frame.model.graph.input]
    features = compute_features(network, {name: feeds[name] for name in names}, len(values["targets"]))
    stored = tuple(features[name] for name in network.frame.trunk.features)
    return Examples(stored, (values["targets"],), (Task(SQUARED, 3),))


def scores(model, path):
    feeds = {value.name: held(path)[value.name] for value in model.graph.input}
    return run(model, {name: v.astype("f") if v.dtype.kind == "f" else v for name, v in feeds.items()})[0]


def gradients(network, examples):
    """Of the mean loss, by one step of rate 1 on all rows: θ − θ', by name."""
    feeds = {**loop_feeds(network, examples), **arrays(examples, targets=True)}
    trained = from_by_unit(network, evaluate(training_loop(network, examples), feeds))
    pairs = zip(network.parameters(), trained.parameters(), strict=True)
    return {name: before - after for (name, before), (_, after) in pairs}


def shared_names(network):
    """Names of parameters that several layers have."""
    names = [name for segment in network.segments for name, _ in segment.parameters()]
    return {name for name in names if names.count(name) > 1}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request):
    """An export."""
    return request.param


@pytest.fixture(params=TRAINED, ids=lambda path: path.stem)
def tied(request):
    """An export with layers that share their weights."""
    return request.param


@pytest.fixture(params=TOWERS, ids=lambda path: path.stem)
def towers(request):
    """An export of two towers."""
    return request.param


def test_each_weight_is_one_parameter_and_one_initializer(path, tmp_path):
    network = load(path)
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    weights = [values for values in given.values() if values.dtype.kind == "f"]
    if not path.stem.startswith("words"):
        assert network.parameter_count == sum(values.size for values in weights)
        assert shared_names(network)
    assert not any("own cop" in note for note in network.frame.notes)
    save(network, tmp_path / "same.onnx")
    again = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "same.onnx").graph.initializer
    }
    assert sum(v.size for v in again.values() if v.dtype.kind == "f") == sum(v.size for v in weights)
    assert (tmp_path / "same.onnx").stat().st_size <= path.stat().st_size + 200
    np.testing.assert_allclose(scores(onnx.load(tmp_path / "same.onnx"), path), held(path)["scores"], atol=1e-5)
    once_more = load(tmp_path / "same.onnx")
    assert to_model(once_more) == to_model(network)
    assert once_more.tied == network.tied


def test_gradients_are_those_of_pytorch(tied):
    """Of the mean squared error, in float64, the sum over all places where a weight is applied."""
    network = load(tied)
    network = network.with_parameters([values.astype(np.float64) for _, values in network.parameters()])
    found = gradients(network, rows_of(network, tied, float))
    wanted = {name.removeprefix("gradient/"): v for name, v in held(tied).items() if name.startswith("gradient/")}
    assert len(found) == len(wanted)
    for name, expected in wanted.items():
        gradient = found[name]
        if expected.ndim == 4:
            expected = expected.reshape(len(expected), -1)
        np.testing.assert_allclose(gradient, expected.T if expected.ndim == 2 else expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adamw"])
def test_weights_stay_tied_in_training(tied, optimizer, tmp_path):
    network = load(tied)
    examples, engine = rows_of(network, tied), make_engine("loop")
    before = engine.evaluate(network, examples).loss
    done = engine.train(network, examples, [np.arange(12).reshape(3, 4)] * 20, TrainingSpec(0.01, optimizer=optimizer))
    assert engine.evaluate(done.network, examples).loss < before
    for name, values in done.network.parameters():
        copies = [v for segment in done.network.segments for n, v in segment.parameters() if n == name]
        assert all(np.array_equal(values, copy) for copy in copies)
        assert not np.array_equal(values, dict(network.parameters())[name]), name
    save(done.network, tmp_path / "trained.onnx")
    assert load(tmp_path / "trained.onnx").tied == network.tied
    x = scores(onnx.load(tmp_path / "trained.onnx"), tied)
    assert np.mean((x - held(tied)["targets"]) ** 2) == pytest.approx(
        engine.evaluate(done.network, examples).loss, rel=1e-4
    )


@needs_training
def test_the_other_engine_sums_gradients_too(tied):
    network = load(tied)
    examples, batches = rows_of(network, tied), [np.arange(12).reshape(1, 12)] * 3
    first, second = (
        make_engine(engine).train(network, examples, batches, TrainingSpec(0.01)).network
        for engine in ("loop", "artifacts")
    )
    for (name, a), (_, b) in zip(first.parameters(), second.parameters(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)


def groups_of(network):
    return range(1, network.group_count + 1)


def test_units_of_tied_layers_are_one_group(tied):
    network = load(tied)
    assert network.group_count >= 1
    for i in groups_of(network):
        proof = prove_group(network, i)
        assert proof.together <= 1e-5
        assert proof.alone > 1e-4


@pytest.mark.parametrize("mode", ["split", "equal", "fresh"])
def test_widening_is_exact_in_the_whole_file(tied, mode):
    network = load(tied)
    given = to_model(network)
    for i in groups_of(network):
        done = operate(network, Widen(i, 3, mode), np.random.default_rng(1), require_exact=True)
        after = to_model(done.network)
        onnx.checker.check_model(after, full_check=True)
        assert compare_models(given, after, random_inputs(given)).relative <= 1e-5
        assert done.record.parameters == Widen(i, 3).parameters_after(network)
        assert done.network.tied == network.tied
        again = from_model(after)
        assert (again.topology, again.tied) == (done.network.topology, network.tied)
        assert sum(t.name in shared_names(network) for t in after.graph.initializer) == len(shared_names(network))
        carried = done.carry(network, 1)
        assert [v.shape for _, v in carried.parameters()] == [v.shape for _, v in done.network.parameters()]


def test_layers_come_and_go_everywhere_at_once(towers):
    network = load(towers)
    given = to_model(network)
    most = min(network.hidden(1).weight.shape)
    assert network.hidden_count == 1
    for surgery in (InsertIdentity(1), Factorize(1, most)):
        done = operate(network, surgery, require_exact=True)
        after = to_model(done.network)
        onnx.checker.check_model(after, full_check=True)
        assert compare_models(given, after, random_inputs(given)).relative <= 1e-5
        assert done.record.parameters == surgery.parameters_after(network)
        assert len({len(segment.layers) for segment in done.network.segments[:2]}) == 1
        assert from_model(after).tied == done.network.tied == network.tied
        names = [node.name for node in after.graph.node]
        assert len(set(names)) == len(names)
        carried = done.carry(network, 2)
        assert [v.shape for _, v in carried.parameters()] == [v.shape for _, v in done.network.parameters()]
    factorized = operate(network, Factorize(1, most)).network
    merged = operate(factorized, Merge(1), require_exact=True).network
    assert merged.topology == network.topology
    assert compare_models(given, to_model(merged), random_inputs(given)).relative <= 1e-5
    copies = operate(network, Widen(1, 4, "equal")).network
    smaller = operate(copies, MergeDuplicates(1), require_exact=True).network
    assert (smaller.topology, smaller.tied) == (network.topology, network.tied)
    assert compare_models(given, to_model(smaller), random_inputs(given)).relative <= 1e-5
    deeper = operate(operate(network, InsertIdentity(1)).network, InsertIdentity(1)).network
    assert compare_models(given, to_model(deeper), random_inputs(given)).relative <= 1e-5


def many_rows(network, rows=400, seed=3):
    rng = np.random.default_rng(seed)
    model = to_model(network)
    feeds = {
        value.name: rng.standard_normal([rows, *(d.dim_value for d in value.type.tensor_type.shape.dim[1:])]).astype(
            "f"
        )
        + (0.5 if value.name == "b" else 0)
        for value in model.graph.input
    }
    y = run(model, feeds)[0]
    y = y + rng.standard_normal(y.shape) / 2
    features = compute_features(network, feeds, rows)
    stored = tuple(features[name] for name in network.frame.trunk.features)
    return Examples(stored, (y.astype(np.float64),), (Task(SQUARED, y.shape[1]),))


def test_calibration_is_over_the_rows_of_all_towers(towers):
    network = load(towers)
    examples = many_rows(network)
    rows = np.arange(examples.rows)
    moments = calibrate(network, examples, rows)
    both = np.concatenate([stored.take() for stored in examples.stored]).astype(np.float64)
    np.testing.assert_allclose(moments.inputs[0, 0].mean, both.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(moments.inputs[0, 0].covariance, np.cov(both.T, bias=True), rtol=1e-4, atol=1e-6)
    layer = network.hidden(1)
    hidden = np.maximum(both @ layer.weight + layer.bias, 0)
    np.testing.assert_allclose(moments.inputs[0, 1].covariance, np.cov(hidden.T, bias=True), rtol=1e-4, atol=1e-5)


def test_what_is_predicted_of_tied_layers_is_found_in_all(towers):
    network = load(towers)
    examples = many_rows(network)
    rows = np.arange(examples.rows)
    moments = calibrate(network, examples, rows)
    for surgery in (FactorizeData(1, 4), Prune(1, 8), MergeData(1)):
        done = operate(network, surgery, moments=moments)
        assert done.record.predicted == pytest.approx(found_error(network, done, examples, rows), rel=1e-3)
        assert from_model(to_model(done.network)).tied == network.tied
    for i in groups_of(network):
        smaller = operate(network, Prune(i, network.group(i).units - 1), moments=moments).network
        model = to_model(smaller)
        onnx.checker.check_model(model, full_check=True)
        assert from_model(model).tied == network.tied
        assert count_of(network, {i: network.group(i).units - 1}) == smaller.parameter_count
        assert multiplications_of(network, {i: network.group(i).units - 1}) == smaller.multiplications


def test_copies_are_pruned_without_a_loss(tied):
    network = load(tied)
    given = to_model(network)
    for i in groups_of(network):
        wider = operate(network, Widen(i, 2), np.random.default_rng(0)).network
        examples = many_rows(wider)
        moments = calibrate(wider, examples, np.arange(examples.rows))
        smaller = operate(wider, Prune(i, network.group(i).units), moments=moments).network
        assert smaller.parameter_count == network.parameter_count
        assert compare_models(given, to_model(smaller), random_inputs(given)).relative < 2e-3


def test_growth_by_gradients_of_all_towers_is_exact(towers):
    network = load(towers)
    examples, engine = many_rows(network), make_engine("loop")
    rows = np.arange(examples.rows)
    moments = with_gradients(calibrate(network, examples, rows), network, examples, rows)
    moments = with_sensitivities(moments, network, examples, rows)
    grown = operate(network, Grow(1, 4), moments=moments, require_exact=True).network
    assert compare_models(to_model(network), to_model(grown), random_inputs(to_model(network))).relative <= 1e-5
    assert engine.evaluate(grown, examples).loss == pytest.approx(engine.evaluate(network, examples).loss, rel=1e-4)
    assert np.abs(moments.gradient_of(network, 1)).max() > 0
    assert grown.tied == network.tied


def table(network, folder, rows=600):
    """Rows of their own, and targets that follow them, as a file."""
    rng = np.random.default_rng(7)
    model = to_model(network)
    shapes = {v.name: [rows, *(d.dim_value for d in v.type.tensor_type.shape.dim[1:])] for v in model.graph.input}
    feeds = {name: rng.standard_normal(shape).astype("f") for name, shape in shapes.items()}
    y = run(model, feeds)[0] + rng.standard_normal((rows, 3)).astype("f") / 10
    np.savez(folder / "rows.npz", **feeds, y=y)
    return folder / "rows.npz"


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_trainer_trains_tied_weights_as_the_engine_does(tied, optimizer, tmp_path):
    network = load(tied)
    made = Case(tmp_path, network, str(table(network, tmp_path)), **OPTIMIZERS[optimizer])
    batches = made.batches(21)
    state, _ = made.train("train", batches)
    assert len([name for name in state if name.startswith("parameter/")]) == len(network.parameters())
    found = import_state(network, state).network
    assert found.tied == network.tied
    assert largest_difference(found, made.expected(batches).network) <= (1e-4 if optimizer == "adamw" else 1e-6)
    parameters = {name: values for name, values in state.items() if name.startswith("parameter/")}
    raw = {name: values[:8] for name, values in made.raw().items()}
    (output,) = made.run("predict", {**raw, **parameters}).values()
    np.testing.assert_allclose(output, run(to_model(found), raw)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("freeze", [("1",), ("0.weight", "0.bias")])
def test_a_trainer_with_frozen_tied_layers(freeze, tmp_path):
    network = load(FOLDER / "towers-subtracted-legacy.onnx")
    names = [name for name, _ in network.parameters()]
    chosen = freeze if freeze == ("1",) else [name for name in names if name.endswith(freeze)]
    made = Case(tmp_path, network, str(table(network, tmp_path)), freeze=chosen, **OPTIMIZERS["sgd"])
    state, _ = made.train("train", made.batches(6))
    imported = import_state(network, state)
    assert set(imported.kept) == set(made.description["frozen"]) == {"tower.0.weight", "tower.0.bias"}
    assert len(imported.changed) == 4


def test_layers_are_frozen_together(tmp_path):
    path = FOLDER / "towers-subtracted-legacy.onnx"
    network, parts = load(path), read_parts(path)
    first, again = (network.segments[number].layers[0].names.node for number in (0, 1))
    frozen = frozen_network(parts, [again], [])
    assert frozen.parameter_count == network.parameter_count - network.segments[0].layers[0].weight.size - 12
    assert f"'{first}' stays as it is: it has the weights of '{again}', which does" in frozen.frame.notes
    assert frozen.tied
    only = frozen_network(parts, [], [first])
    assert only.parameter_count == 8 * 12 + 12
    save(only, tmp_path / "only.onnx")
    assert load(tmp_path / "only.onnx").parameter_count == only.parameter_count
    assert compare_models(to_model(network), to_model(only), random_inputs(to_model(network))).relative <= 1e-6


def test_inspect_says_whose_weights_a_layer_has(cli, tmp_path):
    path = FOLDER / "towers-subtracted-legacy.onnx"
    network = load(path)
    code, out, _ = cli("inspect", str(path), "--prove", "--json")
    record = json.loads(out)
    assert (code, record["parameters"]) == (0, network.parameter_count)
    nodes = [layer["node"] for layer in record["layers"]]
    assert [layer.get("weights_of") for layer in record["layers"]] == [None, None, nodes[0], nodes[1], None]
    assert sum(layer["parameters"] for layer in record["layers"]) == record["parameters"]
    assert len(record["hidden_layers"]) == 1
    assert all(proof["together"] <= 1e-5 < 1e-3 < proof["alone"] for proof in record["proofs"])
    (width,) = record["shared_widths"]
    assert width["written_by"] == [nodes[1], nodes[3]]
    code, out, _ = cli("inspect", str(path), "--prove")
    assert code == 0
    assert f"weights of {nodes[0]}" in " ".join(out.split())


@pytest.mark.parametrize(
    "name", ["towers-multiplied-legacy", "towers-concatenated-dynamo", "twice-dynamo", "images-legacy"]
)
def test_a_network_with_tied_layers_becomes_half_as_large(name, cli, tmp_path):
    path = FOLDER / f"{name}.onnx"
    network = load(path)
    data = table(network, tmp_path)
    given = ("evolve", str(path), "--data", str(data))
    code, out, err = cli(*given, "--shrink", 2, "--epochs", 2, "-o", "s.onnx", "--json")
    assert code == 0, err
    smaller = load(tmp_path / "s.onnx")
    assert smaller.parameter_count <= network.parameter_count / 2
    assert json.loads(out)["parameters"] == smaller.parameter_count
    assert smaller.tied == network.tied
    assert (tmp_path / "s.onnx").stat().st_size < path.stat().st_size + 1500
    assert shared_names(smaller)
    short = ("--preset", "corrected", "--initial-epochs", 1, "--epochs", 3, "--epoch-step", 1)
    code, _, err = cli(*given, *short, "-o", "e.onnx")
    assert code == 0, err
    assert load(tmp_path / "e.onnx").tied == network.tied


@pytest.mark.parametrize("text", ["widen:1:5", "insert_identity:1", "factorize:1:4", "widen:2:2"])
def test_diff_knows_tied_layers_by_the_lineage(text):
    before = load(FOLDER / "towers-subtracted-legacy.onnx")
    after = branch(before, text)
    for pair in ((before, after), (after, before)):
        found = kinship(*pair)
        assert found is not None
        assert sum(len(group.before) for group in found.groups) == len(pair[0].layers)
    forth = kinship(before, after).groups
    for group in forth:
        assert len({position // 2 for position in group.before if position < 4}) <= 1  # a tower's come of that tower's


def tied_by_hand(*, biases=True):
    """4-6, twice 6-6 with one weight, 3; the second with a bias of its own or the same."""
    g = Graph()
    g.dense("d1", "x", "a", 4, 6)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 6, 6)
    g.op("Relu", "c", "d")
    g.const(**{"d3.b": g.weight(6)})
    g.op("Gemm", f"d d2.W {'d3.b' if biases else 'd2.b'}", "e", name="d3")
    g.op("Relu", "e", "f")
    g.dense("d4", "f", "y", 6, 3)
    return g.model()


def test_one_weight_with_biases_of_their_own():
    """One group of all units: those that are read and those that are written are the same."""
    model = tied_by_hand()
    network = from_model(model)
    assert network.frame.notes == ()
    assert (network.topology, network.group_count) == ("4-6+6-6+6-6+6-3", 1)
    (group,) = network.units.free
    assert network.nodes_of(group.writers) == ["d1", "d2", "d3"]
    assert network.nodes_of(group.readers) == ["d2", "d3", "d4"]
    assert network.parameter_count == sum(numpy_helper.to_array(t).size for t in model.graph.initializer)
    wider = operate(network, Widen(1, 2), np.random.default_rng(0), require_exact=True)
    assert wider.record.parameters == Widen(1, 2).parameters_after(network) == count_of(network, {1: 8})
    assert compare_models(model, to_model(wider.network), random_inputs(model)).relative <= 1e-5
    proof = prove_group(network, 1)
    assert proof.together <= 1e-5 < 1e-3 < proof.alone
    for surgery in (InsertIdentity(1), Narrow(1, 3), Merge(1)):
        with pytest.raises(SurgeryError, match="units can be added there and taken away, and nothing else"):
            operate(network, surgery)


def test_the_table_of_an_embedding_stays_where_a_layer_reads_it_too():
    """As language models have it: rows are taken from it, and in the end all of it is multiplied with."""
    g = Graph()
    g.inputs["x"], g.outputs["y"] = ("batch",), ("batch", 9)
    g.const(table=g.weight(9, 5))
    g.op("Gather", "table x", "e", name="embedding")
    g.dense("d1", "e", "a", 5, 7)
    g.op("Relu", "a", "b")
    g.dense("d2", "b", "c", 7, 5)
    g.op("Transpose", "table", "t", perm=[1, 0])
    g.op("MatMul", "c t", "y", name="head")
    model = g.model()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    network = from_model(model)
    assert network.topology == "5-7-5"
    assert network.frame.notes[0] == (
        "'head' stays as it is: its weight is a table that node 'embedding' (Gather) reads too"
    )
    feeds = {"x": np.arange(9)}
    np.testing.assert_allclose(run(to_model(network), feeds)[0], run(model, feeds)[0], atol=1e-5)
    assert [t.name for t in to_model(network).graph.initializer].count("table") == 1
    assert (len(network.heads), network.heads[0].width) == (1, 9)


def test_nothing_to_train_but_a_table_is_refused_with_the_reason():
    g = Graph()
    g.inputs["x"], g.outputs["y"] = ("batch",), ("batch", 9)
    g.const(table=g.weight(9, 5))
    g.op("Gather", "table x", "e", name="embedding")
    g.op("Transpose", "table", "t", perm=[1, 0])
    g.op("MatMul", "e t", "y", name="head")
    model = g.model()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    with pytest.raises(ModelError, match=r"'head' stays as it is: its weight is a table that node 'embedding'"):
        from_model(model)


def stacked(times, *, kinds=("Relu", "Relu"), same_bias=True):
    """4-6, a block of two layers 6-8-6 that is applied several times, 3."""
    g = Graph()
    g.const(**{"p.W": g.weight(6, 8), "p.b": g.weight(8), "q.W": g.weight(8, 6), "q.b": g.weight(6)})
    g.dense("d0", "x", "x0", 4, 6)
    for i in range(times):
        bias = "p.b" if same_bias or not i else f"p.b{i}"
        if bias not in g.constants:
            g.const(**{bias: g.weight(8)})
        g.op("Gemm", f"x{i} p.W {bias}", f"h{i}", name=f"p{i}")
        g.op(kinds[i % len(kinds)], f"h{i}", f"r{i}")
        g.op("Gemm", f"r{i} q.W q.b", f"x{i + 1}", name=f"q{i}")
    g.dense("out", f"x{times}", "y", 6, 3)
    return g.model()


def test_a_block_that_is_applied_several_times_is_one_segment_with_a_hidden_layer():
    model = stacked(3)
    network = from_model(model)
    assert (network.topology, network.hidden_count) == ("4-6+6-8-6+6-8-6+6-8-6+6-3", 1)
    assert network.tied == {2: 1, 3: 1}
    assert network.group_count == 2
    for surgery in (Widen(1, 3), Widen(2, 3), InsertIdentity(1), Factorize(1, 6)):
        done = operate(network, surgery, np.random.default_rng(0), require_exact=True)
        assert done.record.parameters == surgery.parameters_after(network)
        assert compare_models(model, to_model(done.network), random_inputs(model)).relative <= 1e-5
        assert from_model(to_model(done.network)).tied == network.tied


@pytest.mark.parametrize("given", [{"kinds": ("Relu", "Tanh")}, {"same_bias": False}])
def test_where_applications_differ_inside_each_layer_is_by_itself(given):
    model = stacked(2, **given)
    network = from_model(model)
    assert (network.hidden_count, network.topology) == (0, "4-6+6-8+8-6+6-8+8-6+6-3")
    assert network.tied == {3: 1, 4: 2}
    assert network.parameter_count == sum(numpy_helper.to_array(t).size for t in model.graph.initializer)
    for i in groups_of(network):
        done = operate(network, Widen(i, 2), np.random.default_rng(0), require_exact=True)
        assert done.record.parameters == count_of(network, {i: network.group(i).units + 2})
        assert compare_models(model, to_model(done.network), random_inputs(model)).relative <= 1e-5


def test_a_deep_stack_is_read_in_a_moment():
    """As a recurrent layer that an exporter has unrolled."""
    model = stacked(300)
    network = from_model(model)
    assert len(network.tied) == 299
    assert network.parameter_count == sum(numpy_helper.to_array(t).size for t in model.graph.initializer)
    assert len(to_model(network).graph.initializer) == len(model.graph.initializer)


def test_a_weight_that_other_normalisations_are_folded_into_is_not_one():
    """What is worked on are other values for each: two parameters, as is said."""
    g = Graph()
    g.inputs = {"x": ("batch", 4), "w": ("batch", 4)}
    g.const(W=g.weight(4, 6))
    for name, x in (("a", "x"), ("b", "w")):
        scale = np.linspace(0.5, 2 if name == "a" else 3, 6, dtype="f")
        g.const(**{f"{name}.s": scale, f"{name}.t": g.weight(6), f"{name}.m": g.weight(6), f"{name}.v": scale})
        g.op("MatMul", f"{x} W", f"{name}0", name=f"{name}.layer")
        g.op("BatchNormalization", " ".join([f"{name}0", *(f"{name}.{part}" for part in "stmv")]), f"{name}1")
        g.op("Tanh", f"{name}1", f"{name}2")
    g.op("Mul", "a2 b2", "c")
    g.dense("out", "c", "y", 6, 3)
    model = g.model()
    network = from_model(model)
    assert network.tied == {}
    assert any("'W' is read elsewhere too: 'b.layer' has its own copy" in note for note in network.frame.notes)
    assert compare_models(model, to_model(network), random_inputs(model)).relative <= 1e-5


def test_a_killed_run_goes_on_with_tied_weights(tmp_path):
    """Branches are files, and their optimizer's state holds each parameter once."""
    network = load(FOLDER / "towers-subtracted-legacy.onnx")
    examples, engine = many_rows(network), make_engine("loop")
    spec = TrainingSpec(0.01, optimizer="adamw")
    batches = [np.arange(400).reshape(25, 16)]
    whole = engine.train(network, examples, batches * 2, spec)
    first = engine.train(network, examples, batches, spec)
    save(first.network, tmp_path / "branch.onnx")
    second = engine.train(load(tmp_path / "branch.onnx"), examples, batches, spec, first.state)
    for (name, a), (_, b) in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert all(len(moment) == len(network.parameters()) for moment in first.state.moments)


TRANSPOSED = [MODELS / "exports" / f"{name}-tied.onnx" for name in ("torch-legacy", "torch-dynamo", "ort")]


def pixels(rows=64):
    x = np.random.default_rng(0).standard_normal((rows, 64)).astype("f")
    return Examples((x,), (x.astype(np.float64),), (Task(SQUARED, 64),))


@pytest.mark.parametrize("path", TRANSPOSED, ids=lambda path: path.stem)
def test_a_matrix_and_its_transpose_stay_one_in_training(path, tmp_path):
    """Of an autoencoder that decodes with its encoder's matrices."""
    network = load(path)
    assert network.topology == "64-32-16-32-64"
    assert network.parameter_count == 64 * 32 + 32 * 16 + 32 + 16 + 32 + 64
    assert sum("transposed: they are trained as one" in note for note in network.frame.notes) == 2
    examples, engine = pixels(), make_engine("loop")
    spec = TrainingSpec(0.01, optimizer="adamw")
    trained = engine.train(network, examples, [np.arange(64).reshape(4, 16)] * 20, spec).network
    assert engine.evaluate(trained, examples).loss < 0.9 * engine.evaluate(network, examples).loss
    outer, inner, back, out = trained.layers
    assert np.array_equal(outer.weight.T, out.weight)
    assert np.array_equal(inner.weight.T, back.weight)
    save(trained, tmp_path / "trained.onnx")
    again = load(tmp_path / "trained.onnx")
    assert (tmp_path / "trained.onnx").stat().st_size <= path.stat().st_size
    assert [name for name, _ in again.parameters()] == [name for name, _ in network.parameters()]
    y = run(onnx.load(tmp_path / "trained.onnx"), {again.frame.model.graph.input[0].name: examples.features[0]})[0]
    assert np.mean((y - examples.features[0]) ** 2) == pytest.approx(engine.evaluate(trained, examples).loss, rel=1e-4)


def test_gradients_of_a_matrix_and_its_transpose_are_difference_quotients():
    network = load(TRANSPOSED[0])
    network = network.with_parameters([values.astype(np.float64) for _, values in network.parameters()])
    x = np.random.default_rng(1).standard_normal((5, 64))
    examples = Examples((x,), (x[:, ::-1].copy(),), (Task(SQUARED, 64),))
    found = gradients(network, examples)

    def loss(net):
        y = x
        for layer in net.layers:
            y = y @ layer.weight + layer.bias
            y = y if layer.activation is None else layer.activation(y)
        return np.mean((y - examples.labels[0]) ** 2)

    rng = np.random.default_rng(2)
    names = [name for name, _ in network.parameters()]
    for number, name in enumerate(names):
        direction = rng.standard_normal(found[name].shape)
        sides = []
        for sign in (1, -1):
            moved = [values for _, values in network.parameters()]
            moved[number] = moved[number] + sign * 1e-6 * direction
            sides.append(loss(network.with_parameters(moved)))
        assert (found[name] * direction).sum() == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-6)


@pytest.mark.parametrize("path", TRANSPOSED, ids=lambda path: path.stem)
def test_a_surgery_makes_two_of_a_matrix_and_its_transpose(path):
    network = load(path)
    given = to_model(network)
    for surgery in (Widen(1, 3), Widen(2, 4), InsertIdentity(2), Factorize(1, 32)):
        done = operate(network, surgery, np.random.default_rng(0), require_exact=True)
        assert done.record.parameters_before == network.parameter_count
        assert done.record.parameters == count_after(network, surgery) == done.network.parameter_count
        assert compare_models(given, to_model(done.network), random_inputs(given)).relative <= 1e-5
        step = [np.random.default_rng(3).standard_normal(v.shape).astype("f") for _, v in network.parameters()]
        carried = done.carry(network.with_parameters(step), 1)
        assert [v.shape for _, v in carried.parameters()] == [v.shape for _, v in done.network.parameters()]
    for i in groups_of(network):
        proof = prove_group(network, i)
        assert proof.together <= 1e-5 < 1e-3 < proof.alone


def test_an_exported_trainer_keeps_a_matrix_and_its_transpose(tmp_path):
    network = load(TRANSPOSED[0])
    made = Case(tmp_path, TRANSPOSED[0].name, "digits-autoencoder.npz", options=PIXELS, **OPTIMIZERS["adamw"])
    batches = made.batches(21)
    state, _ = made.train("train", batches)
    found = import_state(network, state).network
    assert largest_difference(found, made.expected(batches).network) <= 1e-4
    outer, inner, back, out = found.layers
    assert np.array_equal(outer.weight.T, out.weight)
    assert np.array_equal(inner.weight.T, back.weight)
    parameters = {name: values for name, values in state.items() if name.startswith("parameter/")}
    raw = {name: values[:8] for name, values in made.raw().items()}
    (output,) = made.run("predict", {**raw, **parameters}).values()
    held = model_inputs(network, made.dataset, made.dataset.train, PIXELS)
    own = {name: rows.take(slice(0, 8)) for name, rows in held.items()}
    np.testing.assert_allclose(output, run(to_model(found), own)[0], rtol=1e-4, atol=1e-4)


def test_an_autoencoder_of_tied_matrices_becomes_half_as_large(cli, tmp_path):
    data = MODELS / "exports" / "data" / "digits-autoencoder.npz"
    given = ("evolve", str(TRANSPOSED[0]), "--data", str(data), "--scale", 1 / 16, "--shrink", 2, "--epochs", 2)
    code, _, err = cli(*given, "-o", "s.onnx", "--json")
    assert code == 0, err
    assert load(tmp_path / "s.onnx").parameter_count <= load(TRANSPOSED[0]).parameter_count / 2


def test_inspect_says_whose_transpose_a_weight_is(cli):
    code, out, _ = cli("inspect", str(TRANSPOSED[0]), "--json")
    record = json.loads(out)
    nodes = [layer["node"] for layer in record["layers"]]
    assert (code, [layer.get("weights_of") for layer in record["layers"]]) == (0, [None, None, nodes[1], nodes[0]])
    assert [layer["parameters"] for layer in record["layers"]] == [64 * 32 + 32, 32 * 16 + 16, 32, 64]
    code, out, _ = cli("inspect", str(TRANSPOSED[0]), "--prove")
    assert code == 0
    assert f"weights of {nodes[1]}" in " ".join(out.split())


def test_one_of_a_matrix_and_its_transpose_is_not_frozen_alone():
    path = TRANSPOSED[0]
    network = load(path)
    nodes = [layer.names.node for layer in network.layers]
    frozen = frozen_network(read_parts(path), [nodes[1]], [])
    assert [layer.names.node for layer in frozen.layers] == [nodes[0], nodes[3]]
    assert f"'{nodes[2]}' stays as it is: it has the weights of '{nodes[1]}', which does" in frozen.frame.notes


@pytest.mark.parametrize("opset", [9, 17])
@pytest.mark.parametrize("axes", [2, 3])
def test_a_transpose_is_written_whatever_the_axes(opset, axes):
    """A Gemm transposes by itself; a MatMul reads what a Transpose writes."""
    g = Graph()
    shape = ("batch", 4) if axes == 2 else ("batch", 5, 4)
    g.opset, g.inputs["x"], g.outputs["y"] = opset, shape, shape
    g.const(W=g.weight(4, 6))
    g.op("MatMul", "x W", "a", name="there")
    g.op("Tanh", "a", "b")
    g.op("Transpose", "W", "t", perm=[1, 0])
    g.op("MatMul", "b t", "y", name="back")
    model = g.model()
    network = from_model(model)
    assert network.parameter_count == 24
    written = to_model(network)
    onnx.checker.check_model(written, full_check=True)
    assert [tensor.name for tensor in written.graph.initializer] == ["W"]
    assert compare_models(model, written, random_inputs(model)).relative <= 1e-6
    assert to_model(from_model(written)) == written
    wider = operate(network, Widen(1, 2), np.random.default_rng(0), require_exact=True).network
    assert compare_models(model, to_model(wider), random_inputs(model)).relative <= 1e-5


def encoder(twice=False):
    """x W there, and back by the transpose; what is between is an output too; once, or of two inputs."""
    g = Graph()
    g.inputs = {"x": ("batch", 4), "w": ("batch", 4)} if twice else {"x": ("batch", 4)}
    g.outputs = {}
    g.const(W=g.weight(4, 6), p=g.weight(6), q=g.weight(4))
    for x in g.inputs:
        g.op("Gemm", f"{x} W p", f"{x}.code", name=f"{x}.there")
        g.op("Tanh", f"{x}.code", f"{x}.h")
        g.op("Gemm", f"{x}.h W q", f"{x}.y", name=f"{x}.back", transB=1)
        g.outputs |= {f"{x}.code": ("batch", 6), f"{x}.y": ("batch", 4)}
    return g.model()


@pytest.mark.parametrize("twice", [False, True])
def test_a_matrix_and_its_transpose_in_segments_of_their_own(twice):
    model = encoder(twice)
    network = from_model(model)
    assert network.parameter_count == 4 * 6 + 6 + 4
    assert [layer.is_turned for layer in network.layers] == [False, True] * (1 + twice)
    assert network.tied == ({2: 0, 3: 1} if twice else {})
    written = to_model(network)
    assert compare_models(model, written, random_inputs(model)).relative <= 1e-6
    assert to_model(from_model(written)) == written
    whole = network.parted()
    assert (whole.tied, whole.parameter_count) == (network.tied, 2 * 4 * 6 + 6 + 4)
    assert compare_models(model, to_model(whole), random_inputs(model)).relative <= 1e-6
    rng = np.random.default_rng(0)
    rows = tuple(rng.standard_normal((32, 4)).astype("f") for _ in model.graph.input)
    labels = tuple(rng.standard_normal((32, head.width)) for head in network.heads)
    examples = Examples(rows, labels, tuple(Task(SQUARED, head.width) for head in network.heads))
    engine = make_engine("loop")
    trained = engine.train(network, examples, [np.arange(32).reshape(4, 8)] * 10, TrainingSpec(0.02)).network
    assert engine.evaluate(trained, examples).loss < engine.evaluate(network, examples).loss
    there, back = trained.layers[:2]
    assert np.array_equal(there.weight.T, back.weight)
    assert trained.tied == network.tied


@pytest.mark.parametrize("name", ["torch-legacy-tied", "torch-dynamo-tied", "ort-tied"])
@pytest.mark.parametrize("make", [InsertIdentity, partial(Factorize, rank=4), Merge, partial(Widen, units=3)])
def test_what_parting_a_matrix_and_its_transpose_adds_is_foreseen(name, make):
    network = load(MODELS / "exports" / f"{name}.onnx")
    for i in range(1, network.hidden_count + 1):
        surgery = make(i)
        with contextlib.suppress(SurgeryError):  # not every layer can be merged
            assert surgery.parameters_after(network) == operate(network, surgery).network.parameter_count


@pytest.mark.parametrize("name", ["torch-legacy-tied", "torch-dynamo-tied", "ort-tied"])
def test_a_file_that_is_read_and_written_is_read_as_the_same(name):
    written = to_model(load(MODELS / "exports" / f"{name}.onnx"))
    assert to_model(from_model(written)) == written
