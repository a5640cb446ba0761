"""Units that come and go together: proved by permuting them, without an oracle; and surgeries on shared widths."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import (
    Dataset,
    Grow,
    ModelError,
    Split,
    SurgeryError,
    Widen,
    calibrate,
    from_model,
    load,
    operate,
    parse,
    pruning_errors,
)
from onnxsurgeon.comparison.lineage import kinship
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.graph.equivalence import compare_models, random_inputs
from onnxsurgeon.graph.reader import METADATA_PREFIX
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.operating.perform import draw_sample, perform
from onnxsurgeon.recommend import inspect_pruning
from onnxsurgeon.runtime import run
from onnxsurgeon.surgery import MergeDuplicates, Narrow, Prune
from onnxsurgeon.surgery.proof import outputs_around, prove_group
from tests.actors import actor
from tests.branches import branch
from tests.conftest import MODELS, skip_unreadable
from tests.graphs import Graph
from tests.segmented import CASES

EXPORTS = [*sorted((MODELS / "exports").glob("*.onnx")), *sorted(Path(__file__).parent.glob("convolutions/*.onnx"))]
STREAM = 4  # the group that the blocks of ``residual`` share


def residual(norm=False, blocks=3):
    """20-12, blocks 12-16-12 that are added to what they read, and an output of 3."""
    g = Graph()
    g.inputs["x"], g.outputs["y"] = ("batch", 20), ("batch", 3)
    g.dense("stem", "x", "s0", 20, 12)
    for i in range(blocks):
        x = f"s{i}"
        if norm:
            g.const(**{f"scale{i}": np.linspace(0.5, 2, 12, dtype="f"), f"shift{i}": np.linspace(-1, 1, 12, dtype="f")})
            g.op("LayerNormalization", f"s{i} scale{i} shift{i}", f"n{i}", axis=-1)
            x = f"n{i}"
        g.dense(f"a{i}", x, f"h{i}", 12, 16)
        g.op("Relu", f"h{i}", f"r{i}")
        g.dense(f"b{i}", f"r{i}", f"d{i}", 16, 12)
        g.op("Add", f"s{i} d{i}", f"s{i + 1}")
    g.dense("out", f"s{blocks}", "y", 12, 3)
    return g.model()


def groups_of(network):
    return range(1, network.group_count + 1)


def readable(source):
    try:
        return from_model(source.model()) if hasattr(source, "model") else load(source)
    except ModelError:
        pytest.skip("refused, with a reason that other tests look at")


@pytest.mark.parametrize("source", [*CASES.values(), *EXPORTS], ids=lambda s: getattr(s, "stem", None))
def test_units_of_a_group_can_be_permuted_in_all_its_ports_and_not_in_one(source):
    network = readable(source)
    for i in groups_of(network):
        proof = prove_group(network, i)
        assert proof.together <= 1e-5
        assert proof.alone > 1e-4


@pytest.mark.parametrize("source", [*CASES.values(), *EXPORTS], ids=lambda s: getattr(s, "stem", None))
def test_a_shared_width_is_widened_exactly_in_the_whole_file(source):
    if isinstance(source, Path):
        skip_unreadable(source)
    network = readable(source)
    before = to_model(network)
    for i in groups_of(network)[network.hidden_count :]:
        if network.group(i).normalised:
            with pytest.raises(SurgeryError, match="normalises over these units"):
                operate(network, Widen(i, 3))
            continue
        done = operate(network, Widen(i, 3), np.random.default_rng(1))
        after = to_model(done.network)
        onnx.checker.check_model(after, full_check=True)
        assert [list(getattr(after.graph, each)) for each in ("input", "output")] == [
            list(getattr(before.graph, each)) for each in ("input", "output")
        ]
        assert done.record.parameters == Widen(i, 3).parameters_after(network)
        if not any(value.type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16 for value in after.graph.input):
            assert compare_models(before, after, random_inputs(before)).relative <= 1e-5
        again = from_model(after)
        assert (again.topology, again.group_count) == (done.network.topology, network.group_count)


def test_the_stream_of_residual_blocks_is_one_group():
    network = from_model(residual())
    group, (writers, readers) = network.group(STREAM), network.layers_of(STREAM)
    assert [layer.names.node for layer in writers] == ["stem", "b0", "b1", "b2"]
    assert [layer.names.node for layer in readers] == ["a0", "a1", "a2", "out"]
    assert (group.units, group.ports, network.frame.notes) == (12, 8, ())


@pytest.mark.parametrize("mode", ["split", "equal", "fresh"])
def test_moments_move_as_the_parameters_do(mode):
    """Parameters a step further, widened: as widened ones, a carried step further. Fresh units have no step."""
    network = from_model(residual())
    rng = np.random.default_rng(3)
    step = [rng.standard_normal(values.shape).astype("f") / 10 for _, values in network.parameters()]
    done = operate(network, Widen(STREAM, 5, mode), np.random.default_rng(7))
    carried = [values for _, values in done.carry(network.with_parameters(step), 1).parameters()]
    assert [v.shape for v in carried] == [v.shape for _, v in done.network.parameters()]
    outputs = outputs_around(network, STREAM)
    (moved,) = outputs(_further(network, step))
    (widened,) = outputs(_further(done.network, carried))
    assert np.abs(moved - widened).max() <= 1e-5 * np.abs(moved).max()
    assert np.abs(moved - outputs(network)[0]).max() > 0.1  # it was a step


def _further(network, step):
    moved = (values + more.astype(values.dtype) for (_, values), more in zip(network.parameters(), step, strict=True))
    return network.with_parameters(moved)


def data(width, targets, rows=600):
    x = np.random.default_rng(0).standard_normal((rows, width)).astype("f")
    split = Split(x, np.tile(x[:, :1], targets))
    return Dataset("mine", split, split, targets)


def pruned(network, *surgeries):
    targets = sum(head.width for head in network.heads)
    sample = draw_sample(network, data(network.segments[0].widths[0], targets), InputOptions())
    return perform(network, surgeries, sample)


def test_copies_in_a_shared_width_are_pruned_without_a_loss():
    network = from_model(residual())
    wider = operate(network, Widen(STREAM, 6, "split"), np.random.default_rng(0)).network
    smaller, (done,) = pruned(wider, Prune(STREAM, 12))
    assert smaller.topology == network.topology
    assert done.found < 1e-3
    feeds = random_inputs(to_model(network))
    assert compare_models(to_model(network), to_model(smaller), feeds).relative < 1e-3


def test_what_moments_predict_of_a_shared_width_is_found():
    network = from_model(actor(biases=(True, False)))
    assert network.group(1).ports == 3
    _, (done,) = pruned(network, Prune(1, 4))
    assert done.record.predicted == pytest.approx(done.found, rel=0.2)
    assert done.found > 0.01


@pytest.mark.parametrize("norm", [False, True])
def test_the_error_predicted_of_a_residual_stream_counts_what_its_blocks_make_of_it(norm):
    """Moments alone predict too little: a unit that goes changes those that stay, in later blocks and behind a norm."""
    network = from_model(residual(norm))
    rows = draw_sample(network, data(20, 3), InputOptions())
    moments = calibrate(network, rows.calibration)
    _, (done,) = pruned(network, Prune(STREAM, 11))
    assert pruning_errors(network, STREAM, moments)[10] < 0.5 * done.found
    assert done.record.predicted == pytest.approx(done.found, rel=0.1)
    assert operate(network, Prune(STREAM, 11), data=data(20, 3)).record.predicted == done.record.predicted

    reports = inspect_pruning(network, moments, rows.calibration)
    assert [report.errors.tolist() for report in reports[: STREAM - 1]] == [
        pruning_errors(network, i, moments).tolist() for i in range(1, STREAM)
    ]
    assert reports[STREAM - 1].errors[10] == pytest.approx(done.record.predicted, rel=0.1)
    assert reports[STREAM - 1].errors[11] == 0.0
    assert reports[STREAM - 1].candidate is None  # by moments alone, a unit may seem to cost less than a tenth


def test_behind_a_layer_normalization_units_are_pruned_with_their_scales_and_shifts():
    network = from_model(residual(norm=True))
    assert network.group(STREAM).normalised == "LayerNormalization_n0"
    smaller, (done,) = pruned(network, Prune(STREAM, 10))
    assert done.record.exact is False
    model = to_model(smaller)
    onnx.checker.check_model(model, full_check=True)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    given = np.linspace(0.5, 2, 12, dtype="f")
    kept = held["scale0"]
    assert len(kept) == 10
    assert set(kept) < set(given)
    assert all(np.array_equal(held[f"scale{i}"], kept) for i in range(3))
    assert 0 < done.found < 1
    assert from_model(model).topology == smaller.topology


def test_only_units_come_and_go_in_a_shared_width():
    network = from_model(residual())
    for surgery in (Narrow(STREAM, 3), MergeDuplicates(STREAM), Grow(STREAM, 2)):
        with pytest.raises(SurgeryError, match="4 is a width that several layers share, and no hidden layer"):
            operate(network, surgery)
    with pytest.raises(SurgeryError, match="has no hidden layer 5: it has 1 to 3"):
        operate(network, Widen(5, 1))


def flattened(*, shared_shape=False):
    """A width that a Reshape to a told shape lays out; two of them may read one constant."""
    g = Graph()
    g.inputs["x"], g.outputs["y"] = ("batch", 5, 4), ("batch", 2)
    g.const(to=np.array([-1, 30]))
    g.dense3("d1", "x", "a", 4, 6)
    g.op("Relu", "a", "b")
    g.op("Reshape", "b to", "c")
    g.dense("d2", "c", "d", 30, 2)
    if shared_shape:
        g.dense3("e1", "x", "p", 4, 6)
        g.op("Tanh", "p", "q")
        g.op("Reshape", "q to", "r")
        g.dense("e2", "r", "s", 30, 2)
        g.op("Add", "d s", "y")
    else:
        g.op("Identity", "d", "y")
    return g.model()


@pytest.mark.parametrize("shared", [False, True])
def test_a_told_shape_follows_and_no_other_with_it(shared):
    model = flattened(shared_shape=shared)
    network = from_model(model)
    (port,) = network.group(1).readers
    assert (port.outer, port.inner) == (5, 1)
    for surgery in (Widen(1, 2), Widen(1, 2, "equal"), Widen(1, 2, "fresh")):
        after = to_model(operate(network, surgery, np.random.default_rng(0)).network)
        onnx.checker.check_model(after, full_check=True)
        assert compare_models(model, after, random_inputs(model)).relative <= 1e-5
    if shared:
        both = operate(operate(network, Widen(1, 2)).network, Widen(2, 5)).network
        assert compare_models(model, to_model(both), random_inputs(model)).relative <= 1e-5


def split_model(opset, *, told=True):
    g = Graph()
    g.opset = opset
    g.inputs["x"], g.outputs["y"] = ("batch", 4), ("batch", 2)
    g.const(sizes=np.array([2, 4]))
    g.dense("d1", "x", "a", 4, 6)
    if not told:
        g.op("Split", "a", "b c", axis=1, **({"num_outputs": 2} if opset >= 18 else {}))
    elif opset < 13:
        g.op("Split", "a", "b c", axis=1, split=[2, 4])
    else:
        g.op("Split", "a sizes", "b c", axis=1)
    first = 2 if told else 3
    g.dense("d2", "b", "e", first, 3)
    g.dense("d3", "c", "f", 6 - first, 3)
    g.op("Mul", "e f", "h")
    g.dense("d4", "h", "y", 3, 2)
    return g.model()


@pytest.mark.parametrize(("opset", "told"), [(11, True), (11, False), (17, True), (17, False), (18, False), (20, True)])
def test_the_parts_of_a_split_are_groups_of_their_own(opset, told):
    model = split_model(opset, told=told)
    network = from_model(model)
    assert [network.group(i).units for i in groups_of(network)] == ([2, 4, 3] if told else [3, 3, 3])
    wider = network
    for i in (1, 2, 3):
        wider = operate(wider, Widen(i, i + 1), np.random.default_rng(0)).network
        after = to_model(wider)
        onnx.checker.check_model(after, full_check=True)
        assert compare_models(model, after, random_inputs(model)).relative <= 1e-5


def test_a_tensor_that_is_also_an_output_holds_its_units():
    model = residual()
    model.graph.output.append(onnx.helper.make_tensor_value_info("s2", onnx.TensorProto.FLOAT, ["batch", 12]))
    network = from_model(model)
    assert network.group_count == network.hidden_count
    assert any("tensor 's2' is also an output of the model" in each.reason for each in network.units.pinned)


@pytest.mark.parametrize("text", ["widen:4:5", "prune:4:8"])
def test_diff_knows_a_shared_width_by_the_lineage(text):
    before = from_model(residual())
    if text.startswith("widen"):
        after = branch(before, text)
    else:
        smaller, _ = pruned(before, Prune(STREAM, 8))
        after = replace(smaller, metadata={f"{METADATA_PREFIX}lineage": json.dumps([text])})
    for pair in ((before, after), (after, before)):
        found = kinship(*pair)
        assert found is not None
        assert len(found.groups) == len(before.layers)  # each layer has come of its own


def test_inspect_shows_what_is_tied_to_what_and_proves_it(cli, tmp_path):
    onnx.save(residual(), tmp_path / "r.onnx")
    code, out, _ = cli("inspect", "r.onnx", "--prove", "--json")
    record = json.loads(out)
    (width,) = record["shared_widths"]
    assert (code, width["layer"], width["units"]) == (0, STREAM, 12)
    assert (width["written_by"], width["read_by"]) == (["stem", "b0", "b1", "b2"], ["a0", "a1", "a2", "out"])
    assert len(record["proofs"]) == 4
    assert all(proof["together"] <= 1e-5 < 1e-3 < proof["alone"] for proof in record["proofs"])
    _, out, _ = cli("inspect", "r.onnx", "--prove")
    assert "Widths that several layers share" in out
    assert "everywhere at once" in out


def test_a_residual_net_becomes_half_as_large_with_its_stream(cli, tmp_path):
    onnx.save(residual(), tmp_path / "r.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "rows.npz", x=rng.standard_normal((1500, 20)).astype("f"))
    code, _, err = cli("evolve", "r.onnx", "--data", "rows.npz", "--shrink", 2, "--epochs", 3, "-o", "s.onnx", "--json")
    assert code == 0, err
    smaller, given = load(tmp_path / "s.onnx"), load(tmp_path / "r.onnx")
    assert smaller.parameter_count <= given.parameter_count / 2
    assert smaller.group(smaller.group_count).units < 12
    assert smaller.frame.notes == ()


@pytest.mark.parametrize("way", ["ones", "twos", "a constant expanded", "ones for all steps"])
def test_a_constant_that_the_file_lays_out_to_a_number_of_units_holds_it(way):
    """The trunk sees ones as nothing and twos as a scalar, so surgeries wrote models whose Mul did not fit."""
    g = Graph()
    g.dense("a", "x", "ha", 4, 8)
    g.op("Relu", "ha", "ra")
    g.dense("b", "x", "hb", 4, 8)
    g.op("Sigmoid", "hb", "rb")
    g.const(shape=np.array([1, 1] if "steps" in way else [1, 8]), two=np.full((1, 1), 2, "f"))
    if way == "a constant expanded":
        g.op("Expand", "two shape", "laid")
    else:
        value = helper.make_tensor("v", TensorProto.FLOAT, [1], [2.0 if way == "twos" else 1.0])
        g.op("ConstantOfShape", "shape", "laid", value=value)
    g.op("Mul", "ra laid", "scaled", name="scale")
    g.op("Mul", "scaled rb", "gated", name="gate")
    g.dense("c", "gated", "y", 8, 3)
    model = g.model()
    network = from_model(model)
    if "steps" in way:  # a size of 1 fits any number
        x = np.random.default_rng(0).standard_normal((9, 4)).astype("f")
        made = operate(network, parse("widen:1:3"), np.random.default_rng(0)).network
        np.testing.assert_allclose(run(to_model(made), {"x": x})[0], run(model, {"x": x})[0], atol=1e-5)
    else:
        assert network.group_count == 0
        assert any("the widths of 'a', 'b' stay" in note for note in network.frame.notes)
