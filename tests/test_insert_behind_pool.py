"""Convolutions behind pools: exact, known by name, and trained and grown like any other."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import SurgeonSettings, create_convolutional, evolve, load, operate, resume, save
from onnxsurgeon.comparison.lineage import kinship, lineage_of
from onnxsurgeon.errors import ModelError, SurgeryError
from onnxsurgeon.graph.equivalence import compare_models, random_inputs
from onnxsurgeon.graph.reader import from_model
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.recommend import growth
from onnxsurgeon.report.write import render_report
from onnxsurgeon.runs.branch import Branch
from onnxsurgeon.runs.journal import file_digest
from onnxsurgeon.runtime import run
from onnxsurgeon.surgeon.spectra import spectra
from onnxsurgeon.surgery import InsertBehindPool, InsertIdentity, Widen
from onnxsurgeon.training.state import OptimizerState
from tests.conftest import branch_digests, skip_unreadable

START = create_convolutional("28x28x1-c8-p-c16-p-10", seed=1)
FILES = sorted((Path(__file__).parent / "convolutions").glob("*.onnx"))


def pooling(op="MaxPool", activation="Relu", *, behind="", count_include_pad=None, second_reader=False, bounds=(1, 6)):
    """A convolution, an activation, a pool, perhaps an activation behind it, and a dense layer; on 7 × 6 positions."""
    rng = np.random.default_rng(3)
    pads = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3], "strides": [2, 2]}
    more = {} if count_include_pad is None else {"count_include_pad": count_include_pad}
    limits = ["low", "high"] if activation == "Clip" else []
    nodes = [
        helper.make_node("Conv", ["x", "c.w", "c.b"], ["z"], "c", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        *([helper.make_node(activation, ["z", *limits], ["y"], "act")] if activation else []),
        helper.make_node(op, ["y" if activation else "z"], ["p"], "pool", **pads, **more),
        *([helper.make_node(behind, ["p"], ["q"], "behind")] if behind else []),
        helper.make_node("Flatten", ["q" if behind else "p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "d.w", "d.b"], ["logits"], "d"),
    ]
    if second_reader:
        nodes.append(helper.make_node("ReduceMean", ["y"], ["mean"], "mean", axes=[2, 3], keepdims=0))
        nodes.append(helper.make_node("Gemm", ["mean", "e.w"], ["more"], "e"))
    values = {"c.w": rng.standard_normal((5, 2, 3, 3)), "c.b": rng.standard_normal(5), "e.w": np.ones((5, 2))}
    values |= {
        "d.w": rng.standard_normal((60, 3)),
        "d.b": np.zeros(3),
        "low": np.array(bounds[0]),
        "high": np.array(bounds[1]),
    }
    used = {name for node in nodes for name in node.input}
    outputs = [("logits", 3), *([("more", 2)] if second_reader else [])]
    graph = helper.make_graph(
        nodes,
        "pooling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2, 7, 6])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name, width in outputs],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in values.items() if name in used],
    )
    return from_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8))


def same(network, other, tolerance=1e-6):
    given = to_model(network)
    return compare_models(given, to_model(other), random_inputs(given, rows=3)).relative <= tolerance


def test_a_convolution_comes_behind_each_pool_and_changes_nothing():
    last, record = operate(START, InsertBehindPool(2), require_exact=True)
    assert last.topology == "c1-c8+c8-c16+c16-c16+784-10"
    assert record.parameters == InsertBehindPool(2).parameters_after(START) == 9098 + 9 * 16 * 16 + 16
    first, _ = operate(last, InsertBehindPool(2), require_exact=True)  # of the first, before the last is there no more
    assert first.topology == "c1-c8+c8-c16+c16-c16-c16+784-10"
    first, _ = operate(last, InsertBehindPool(1), require_exact=True)
    assert first.topology == "c1-c8+c8-c8-c16+c16-c16+784-10"
    assert same(START, last)
    assert same(START, first)
    written = to_model(first)
    ops = ["Conv", "Relu", "MaxPool", "Conv", "Relu", "Conv", "Relu", "MaxPool", "Conv", "Relu", "Flatten", "Gemm"]
    assert [node.op_type for node in written.graph.node] == [*ops, "Softmax"]
    assert from_model(written).topology == first.topology


def test_what_comes_behind_it_reads_it():
    """A dense layer behind the Flatten has its rows by position: units come and go in both."""
    network = operate(START, InsertBehindPool(2)).network
    rng = np.random.default_rng(2)
    moved = network.with_parameters(v + rng.normal(0, 0.1, v.shape).astype(v.dtype) for _, v in network.parameters())
    assert not same(network, moved, 1e-3)
    wider = operate(moved, Widen(3, 4), rng, require_exact=True).network
    assert wider.topology == "c1-c8+c8-c16+c16-c20+980-10"
    assert same(moved, wider, 1e-5)
    deeper = operate(moved, InsertIdentity(3), require_exact=True).network
    assert deeper.topology == "c1-c8+c8-c16+c16-c16-c16+784-10"
    assert same(moved, deeper, 1e-5)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_exact_wherever_it_can_be_done(path):
    try:
        network = load(path)
    except ModelError as error:
        pytest.skip(str(error))
    skip_unreadable(path)
    for i in range(1, network.group_count + 1):
        surgery = InsertBehindPool(i)
        try:
            done, _ = operate(network, surgery, require_exact=True)
        except SurgeryError:
            continue
        assert done.parameter_count == surgery.parameters_after(network) > network.parameter_count
        assert same(network, done)
        assert from_model(to_model(done)).topology == done.topology
        assert [(o.name, o.type) for o in to_model(done).graph.output] == [
            (o.name, o.type) for o in to_model(network).graph.output
        ]


def test_it_can_be_done_to_small_networks_of_every_rank():
    found = {path.stem for path in FILES}
    assert {"vgg-torch-dynamo", "sound-keras", "vgg-jax2onnx"} <= found
    for stem, i in (("vgg-torch-dynamo", 5), ("sound-keras", 2), ("vgg-jax2onnx", 3)):
        operate(load(FILES[0].parent / f"{stem}.onnx"), InsertBehindPool(i), require_exact=True)


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(("activation", "behind"), [("Relu", ""), ("", "Relu"), ("Tanh", "Relu")])
def test_its_activation_is_what_the_pooled_values_are_kept_by(op, activation, behind):
    network = pooling(op, activation, behind=behind)
    done = operate(network, InsertBehindPool(1), require_exact=True).network
    assert done.topology == "c2-c5+c5-c5+60-3"
    assert same(network, done)
    assert [node.op_type for node in to_model(done).graph.node][-4:] == ["Conv", "Relu", "Flatten", "Gemm"]


@pytest.mark.parametrize(
    ("settings", "is_kept"),
    [
        ({"op": "MaxPool"}, True),
        ({"op": "AveragePool", "bounds": (0, 6)}, True),
        ({"op": "AveragePool", "count_include_pad": 1}, False),  # zeros are among what a mean is of
    ],
)
def test_values_between_two_bounds_stay_there(settings, is_kept):
    network = pooling(activation="Clip", **settings)
    if is_kept:
        assert same(network, operate(network, InsertBehindPool(1), require_exact=True).network)
        return
    with pytest.raises(SurgeryError, match="layer 1: no convolution can stand behind its pool: values there"):
        operate(network, InsertBehindPool(1))


@pytest.mark.parametrize("activation", ["Tanh", ""])
def test_at_the_end_of_a_segment_it_is_never_linear(activation):
    with pytest.raises(SurgeryError, match="would be linear at the end of its segment"):
        operate(pooling(activation=activation), InsertBehindPool(1))


def test_what_something_else_reads_too_is_refused():
    with pytest.raises(SurgeryError, match="what 'c' puts out is not read by a pool alone"):
        operate(pooling(second_reader=True), InsertBehindPool(1))
    with pytest.raises(SurgeryError, match="what 'layer2' puts out is not read by a pool alone"):
        operate(create_convolutional("8x8x1-c4-c4-g-3"), InsertBehindPool(2))
    with pytest.raises(SurgeryError, match="no convolution can stand behind a pool of layer 1"):
        operate(create_convolutional("8x8x1-c4-c4-g-3"), InsertBehindPool(1))


def test_other_activations_become_slopes_that_are_trained_within_a_segment():
    network = create_convolutional("8x8x1-c4-p-c6-p-3", activation="Tanh")
    done, record = operate(network, InsertBehindPool(1), require_exact=True)
    assert done.topology == "c1-c4+c4-c4-c6+24-3"
    assert record.parameters == InsertBehindPool(1).parameters_after(network)
    assert done.hidden(1).activation.op_type == "PRelu"
    assert same(network, done)


def test_an_axis_of_one_position_has_one_tap():
    network = create_convolutional("4x2x1-c4-p-3")
    done = operate(network, InsertBehindPool(1), require_exact=True).network
    assert done.segments[1].layers[0].geometry.kernel == (3, 1)
    assert same(network, done)


def test_an_optimizers_state_goes_with_the_weights():
    rng = np.random.default_rng(3)
    operated = operate(START, InsertBehindPool(2))
    first, second = ([rng.random(v.shape) for _, v in START.parameters()] for _ in range(2))
    after = OptimizerState(7, (tuple(first), tuple(second))).mapped(START, operated.carry)
    names = [name for name, _ in START.parameters()]
    own = [name for name, _ in operated.network.parameters() if name not in names]
    assert own == ["layer2/behind.weight", "layer2/behind.bias"]
    for power, (given, made) in enumerate(zip((first, second), after.moments, strict=True), start=1):
        place = names.index("layer2.weight")
        mean = 0 if power == 1 else np.concatenate([given[place].ravel(), given[place + 1].ravel()]).mean()
        for (name, _), values in zip(operated.network.parameters(), made, strict=True):
            if name in names:
                np.testing.assert_array_equal(values, given[names.index(name)].astype(np.float32))
            else:
                np.testing.assert_allclose(values, mean, rtol=1e-6)


def test_lineages_and_spectra_know_it(tmp_path):
    surgeries = (InsertBehindPool(2), Widen(3, 4, "fresh"), InsertIdentity(3))
    network = START
    for surgery in surgeries:
        network = operate(network, surgery, np.random.default_rng(0)).network
    lineage = ("insert_behind_pool:2", "widen:3:4", "insert_identity:3")
    save(Branch(1, 0, "start", network, lineage).stamped(), tmp_path / "grown.onnx")
    there = kinship(START, load(tmp_path / "grown.onnx"))
    assert there.done == lineage
    assert [(group.before, group.after) for group in there.groups if group.before] == [
        ((0,), (0,)),
        ((1,), (1,)),
        ((2,), (4,)),
    ]
    assert [group.after for group in there.groups if not group.before] == [(2,), (3,)]
    told = spectra(START, InsertBehindPool(2), operate(START, InsertBehindPool(2)).network)
    assert told["before"] == told["after"][0]
    assert told["after"][1]["values"] == [1.0] * 16


def test_it_is_written_and_told_on_the_command_line(cli, tmp_path):
    save(START, tmp_path / "m.onnx")
    code, out, err = cli("operate", tmp_path / "m.onnx", "insert_behind_pool:2", "-o", tmp_path / "o.onnx", "--exact")
    assert (code, err) == (0, "")
    assert "c1-c8+c8-c16+c16-c16+784-10" in out
    rows = {"input": np.random.default_rng(1).random((4, 1, 28, 28)).astype(np.float32)}
    before, after = (run(onnx.load(tmp_path / name), rows)[0] for name in ("m.onnx", "o.onnx"))
    np.testing.assert_allclose(after, before, atol=1e-6)
    code, _, err = cli("operate", tmp_path / "m.onnx", "insert_behind_pool:3", "-o", tmp_path / "no.onnx")
    assert code == 2
    assert "has no hidden layer 3" in err
    assert not (tmp_path / "no.onnx").exists()


def test_a_search_that_puts_convolutions_behind_pools_is_told_and_resumed(tmp_path, monkeypatch):
    """Where every other shape is dear; a run that goes on from its growth ends in the same bytes."""
    monkeypatch.setattr(growth, "DEAR", 0)
    save(create_convolutional("8x8x1-c2-p-10", seed=1), tmp_path / "start.onnx")
    settings = SurgeonSettings.from_preset(epochs=8, growth=0.25, max_parameters=2_000, batch_size=64)
    done = evolve(tmp_path / "start.onnx", "digits", settings=settings, run_dir=tmp_path / "run")
    assert any("insert_behind_pool:1" in surgery for surgery in lineage_of(load(done.run / "best.onnx")))
    assert "behind" in load(done.run / "best.onnx").segments[1].layers[0].names.node
    page = render_report(done.run)
    assert b"insert_behind_pool:1" in page
    events = (done.run / "journal.jsonl").read_text().splitlines()
    first = next(n for n, line in enumerate(events, start=1) if '"decided"' in line)
    shutil.copytree(done.run, tmp_path / "again")
    again = resume(tmp_path / "again", from_checkpoint=first)
    assert branch_digests(again.run) == branch_digests(done.run)
    assert file_digest(again.run / "best.onnx") == file_digest(done.run / "best.onnx")
