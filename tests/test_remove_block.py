"""The branch of a residual block taken out: the whole model's outputs, what is folded where, what speaks against it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import (
    Examples,
    OptimizerState,
    SettingsError,
    SurgeonSettings,
    SurgeryError,
    calibrate,
    create,
    diff,
    evolve,
    load,
    operate,
    parse,
    resume,
)
from onnxsurgeon.calibration.moments import Moments
from onnxsurgeon.graph.equivalence import random_inputs
from onnxsurgeon.graph.reader import METADATA_PREFIX, from_model
from onnxsurgeon.graph.without_block import last_layer
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.operating.measure import found_error
from onnxsurgeon.recommend import inspect_blocks
from onnxsurgeon.recommend.blocks import barest, removals
from onnxsurgeon.recommend.candidates import count_after
from onnxsurgeon.recommend.growth import growths
from onnxsurgeon.recommend.shrinking import least_count
from onnxsurgeon.report.write import render_report
from onnxsurgeon.runs.journal import RunDirectory, file_digest
from onnxsurgeon.runtime import run
from onnxsurgeon.surgeon.spectra import spectra
from onnxsurgeon.surgeon.start import require_reachable
from onnxsurgeon.surgery import InsertBlock, RemoveBlock, RemoveBlockData
from onnxsurgeon.training.fit import fit
from onnxsurgeon.training.loop import LoopEngine
from onnxsurgeon.training.settings import TrainingSettings
from tests.conftest import MODELS, branch_digests, skip_unreadable

HERE = Path(__file__).parent
FILES = [
    *(
        MODELS / "exports" / f"{maker}-residual.onnx"
        for maker in ("torch-legacy", "torch-dynamo", "keras-torch", "tf2onnx")
    ),
    *(MODELS / "exports" / f"{maker}-attention.onnx" for maker in ("torch-legacy", "torch-dynamo")),
    *(HERE / "transformers" / f"{maker}.onnx" for maker in ("torch-legacy", "torch-dynamo")),
    *sorted((HERE / "convolutions").glob("resnet-*.onnx")),
    *(path for path in sorted((HERE / "convolutions").glob("mobilenet-*.onnx")) if "jax2onnx" not in path.stem),
    *sorted((HERE / "convolutions").glob("convnext-*.onnx")),
]


def without_last(network, number):
    """The network whose block adds nothing: its branch's last layer is zero."""
    last = last_layer(network, network.block(number))
    gone = {last.names.weight, last.names.bias}
    return network.with_parameters(
        np.zeros_like(values) if name in gone else values for name, values in network.parameters()
    )


def residual(*, twice=False, reads="", seed=1, width=6):
    """5-6+6-8-6(+6-8-6)+6-3; behind each sum a Relu, or, with ``twice``, sums of sums.

    ``reads`` names a tensor inside the first branch that is an output of the model too.
    """
    rng, parts, nodes = np.random.default_rng(seed), [], []

    def dense(name, entry, inputs, units):
        values = rng.standard_normal((inputs, units)) / np.sqrt(inputs), rng.standard_normal(units) / 2
        for what, value in zip("wb", values, strict=True):
            parts.append(numpy_helper.from_array(value.astype(np.float32), f"{name}.{what}"))
        nodes.append(helper.make_node("Gemm", [entry, f"{name}.w", f"{name}.b"], [name], name=name))

    dense("stem", "x", 5, width)
    stream = "stem"
    for block in ("a", "b") if twice else ("a",):
        dense(f"{block}1", stream, width, 8)
        nodes.append(helper.make_node("Relu", [f"{block}1"], [f"{block}_relu"], name=f"{block}_relu"))
        dense(f"{block}2", f"{block}_relu", 8, width)
        nodes.append(helper.make_node("Add", [stream, f"{block}2"], [f"{block}_sum"], name=f"{block}_sum"))
        stream = f"{block}_sum"
        if not twice:
            nodes.append(helper.make_node("Relu", [stream], ["behind"], name="behind"))
            stream = "behind"
    dense("y", stream, width, 3)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])
        for name, size in (("x", 5), ("y", 3), *(((reads, 8),) if reads else ()))
    ]
    graph = helper.make_graph(nodes, "residual", ends[:1], ends[1:], parts)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def examples_of(rows=300):
    rng = np.random.default_rng(5)
    return Examples.classification(rng.standard_normal((rows, 5)).astype(np.float32) + 0.3, np.arange(rows) % 3, 3)


def values_of(model, name, examples):
    """A tensor of the model on all rows."""
    known = onnx.ModelProto()
    known.CopyFrom(model)
    known.graph.output.append(onnx.ValueInfoProto(name=name))
    names = [value.name for value in known.graph.output]
    rows = examples.features[0]
    return run(known, {"x": rows})[names.index(name)].astype(np.float64)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_without_a_branch_a_file_computes_what_it_does_where_the_branch_adds_nothing(path):
    skip_unreadable(path)
    network = load(path).parted()
    assert network.blocks
    feeds = random_inputs(onnx.load(path), rows=3)
    for block in network.blocks:
        silent = without_last(network, block.number)
        expected = run(to_model(silent), feeds)
        done, record = operate(network, RemoveBlock(block.number))
        assert not record.exact
        assert done.parameter_count == count_after(network, RemoveBlock(block.number)) < network.parameter_count
        model = to_model(done)
        assert [value.SerializeToString() for value in model.graph.input] == [
            value.SerializeToString() for value in onnx.load(path).graph.input
        ]
        for made, wanted in zip(run(model, feeds), expected, strict=True):
            np.testing.assert_allclose(made, wanted, atol=1e-5 * np.abs(wanted).max())
        assert operate(silent, RemoveBlock(block.number), require_exact=True).record.exact
        # Read from the file, it is the same network: layers and widths have the same numbers.
        again = from_model(model)
        assert (again.topology, again.group_count) == (done.topology, done.group_count)
        assert [name for name, _ in again.parameters()] == [name for name, _ in done.parameters()]
        known = dict(network.parameters())
        assert all(new is known[name] for name, new in done.parameters() if np.array_equal(new, known[name]))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_branch_of_a_bias_alone_leaves_it_exactly(path):
    skip_unreadable(path)
    network = load(path).parted()
    feeds = random_inputs(onnx.load(path), rows=3)
    for block in network.blocks:
        last = last_layer(network, block)
        if last.bias is None:
            continue
        constant = without_last(network, block.number)
        mean = np.linspace(-1, 1, last.units)
        constant = constant.with_parameters(
            mean.astype(values.dtype) if name == last.names.bias else values for name, values in constant.parameters()
        )
        moments = Moments({}, {}, {}, {}, {block.total: branch_moment(mean)})
        done, record = operate(constant, RemoveBlockData(block.number), moments=moments, require_exact=True)
        assert record.predicted == 0
        for made, wanted in zip(run(to_model(done), feeds), run(to_model(constant), feeds), strict=True):
            np.testing.assert_allclose(made, wanted, atol=1e-5 * np.abs(wanted).max())


def branch_moment(mean):
    from onnxsurgeon.calibration.moments import BranchMoment

    return BranchMoment(mean, 0.0, 1.0)


def test_the_mean_and_the_error_are_those_of_numpy():
    model, examples = residual(), examples_of()
    network = from_model(model)
    branch, total = (values_of(model, name, examples) for name in ("a2", "a_sum"))
    moments = calibrate(network, examples)
    found = moments.branch_of(network, 1)
    np.testing.assert_allclose(found.mean, branch.mean(axis=0), rtol=1e-5, atol=1e-7)
    lost = np.sqrt(branch.var(axis=0).sum() / total.var(axis=0).sum())
    operated = operate(network, RemoveBlockData(1), moments=moments)
    assert operated.record.predicted == pytest.approx(lost, rel=1e-5)
    assert found_error(network, operated, examples, np.arange(300)) == pytest.approx(lost, rel=1e-5)
    plain = operate(network, RemoveBlock(1))
    assert plain.record.predicted is None
    expected = np.sqrt((branch**2).sum(axis=1).mean() / total.var(axis=0).sum())
    assert found_error(network, plain, examples, np.arange(300)) == pytest.approx(expected, rel=1e-5)
    # y = Relu(x + m) W + b, by numpy
    known = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in model.graph.initializer}
    stem = values_of(model, "stem", examples)
    wanted = np.maximum(stem + branch.mean(axis=0), 0) @ known["y.w"] + known["y.b"]
    (made,) = run(to_model(operated.network), {"x": examples.features[0]})
    np.testing.assert_allclose(made, wanted, atol=1e-5)


def test_a_mean_goes_into_the_bias_of_what_the_branch_was_added_to():
    network, examples = from_model(residual()), examples_of()
    moments = calibrate(network, examples)
    done = operate(network, RemoveBlockData(1), moments=moments).network
    assert [node.op_type for node in to_model(done).graph.node] == ["Gemm", "Relu", "Gemm"]
    bias = dict(network.parameters())["stem.b"] + moments.branch_of(network, 1).mean
    np.testing.assert_allclose(dict(done.parameters())["stem.b"], bias, rtol=1e-6)


def test_a_mean_goes_past_a_sum_into_the_branch_before():
    network, examples = from_model(residual(twice=True)), examples_of()
    moments = calibrate(network, examples)
    done = operate(network, RemoveBlockData(2), moments=moments).network
    assert [node.op_type for node in to_model(done).graph.node] == ["Gemm", "Gemm", "Relu", "Gemm", "Add", "Gemm"]
    bias = dict(network.parameters())["a2.b"] + moments.branch_of(network, 2).mean
    np.testing.assert_allclose(dict(done.parameters())["a2.b"], bias, rtol=1e-6)
    np.testing.assert_array_equal(dict(done.parameters())["stem.b"], dict(network.parameters())["stem.b"])


def test_a_stem_that_something_else_reads_keeps_its_bias():
    model = residual()
    model.graph.output.append(helper.make_tensor_value_info("stem", TensorProto.FLOAT, ["rows", 6]))
    network, examples = from_model(model), examples_of()
    done = operate(network, RemoveBlockData(1), moments=calibrate(network, examples)).network
    assert [node.op_type for node in to_model(done).graph.node] == ["Gemm", "Add", "Relu", "Gemm"]
    np.testing.assert_array_equal(dict(done.parameters())["stem.b"], dict(network.parameters())["stem.b"])


def test_a_sum_that_is_an_output_keeps_its_name():
    model = residual(twice=True)
    model.graph.output.append(helper.make_tensor_value_info("b_sum", TensorProto.FLOAT, ["rows", 6]))
    done = operate(from_model(model), RemoveBlock(2)).network
    rows = np.random.default_rng(1).standard_normal((4, 5)).astype(np.float32)
    first, second = run(to_model(done), {"x": rows})
    assert [value.name for value in to_model(done).graph.output] == ["y", "b_sum"]
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    stem = rows @ known["stem.w"] + known["stem.b"]
    total = stem + np.maximum(stem @ known["a1.w"] + known["a1.b"], 0) @ known["a2.w"] + known["a2.b"]
    np.testing.assert_allclose(second, total, atol=1e-5)
    np.testing.assert_allclose(first, total @ known["y.w"] + known["y.b"], atol=1e-5)


@pytest.mark.parametrize("tensor", ["a_relu", "a1"])
def test_a_branch_that_is_read_elsewhere_stays(tensor):
    network = from_model(residual(reads=tensor))
    with pytest.raises(
        SurgeryError,
        match=r"block 1 stays: its tensor '\w+' is (read by .* too|needed elsewhere too|trained towards targets)",
    ):
        operate(network, RemoveBlock(1))
    (report,) = inspect_blocks(network)
    assert "block 1 stays" in report.reason
    assert list(removals(network, Moments({}, {}, {}, {}))) == []


def test_an_input_that_the_branch_alone_reads_keeps_it():
    model = residual()
    model.graph.input.append(helper.make_tensor_value_info("gate", TensorProto.FLOAT, ["rows", 6]))
    inner = next(node for node in model.graph.node if node.name == "a2")
    inner.output[0] = "a2_open"
    place = list(model.graph.node).index(inner) + 1
    model.graph.node.insert(place, helper.make_node("Mul", ["a2_open", "gate"], ["a2"], name="gate"))
    with pytest.raises(SurgeryError, match="block 1 stays: nothing else reads the model's input 'gate'"):
        operate(from_model(model), RemoveBlock(1))


def test_a_block_before_all_that_is_trained_stays():
    model = residual()
    stem = next(node for node in model.graph.node if node.name == "stem")
    model.graph.node.remove(stem)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 6
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = "x" if name == "stem" else name
    with pytest.raises(SurgeryError, match="block 1 stays: nothing that is trained would be before it"):
        operate(from_model(model), RemoveBlock(1))


def test_a_frozen_branch_stays():
    model = residual()
    model.metadata_props.add(key="onnxsurgeon.frozen", value='{"layers": ["a1", "a2"], "before": []}')
    network = from_model(model)
    reasons = [report.reason for report in inspect_blocks(network)]
    assert all("stays" in reason for reason in reasons)
    with pytest.raises(SurgeryError):
        operate(network, RemoveBlock(1))


def test_blocks_that_are_not_there():
    with pytest.raises(SurgeryError, match=r"has no residual block 3: it has 1 to 2"):
        operate(from_model(residual(twice=True)), RemoveBlock(3))
    with pytest.raises(SurgeryError, match=r"has no residual block 1: it has none"):
        operate(load(MODELS / "digits-small.onnx"), RemoveBlock(1))
    with pytest.raises(SurgeryError, match="'remove_block': expected remove_block:BLOCK"):
        parse("remove_block")
    with pytest.raises(SurgeryError, match="needs moments"):
        operate(from_model(residual()), RemoveBlockData(1))
    with pytest.raises(SurgeryError, match="remove_block:1: is not exact here"):
        operate(from_model(residual()), RemoveBlock(1), require_exact=True)


def test_a_projection_stays():
    path = HERE / "convolutions" / "resnet-torch-dynamo.onnx"
    skip_unreadable(path)
    network = load(path)
    assert [block.is_projected for block in network.blocks] == [False, True]
    done = operate(network, RemoveBlock(2)).network
    assert done.topology == "c3-c6+c6-c6-c6+c6-c8+8-5"
    assert "layers of its own, which stay" in inspect_blocks(network)[1].reason


def test_an_optimizers_state_goes_with_the_weights():
    network, examples = from_model(residual(twice=True)), examples_of()
    rng = np.random.default_rng(3)
    first, second = ([rng.random(v.shape) for _, v in network.parameters()] for _ in range(2))
    state = OptimizerState(7, (tuple(first), tuple(second)))
    for surgery in (RemoveBlock(1), RemoveBlockData(1)):
        operated = operate(network, surgery, moments=calibrate(network, examples))
        after = state.mapped(network, operated.carry)
        names = [name for name, _ in network.parameters()]
        assert after.steps == 7
        for given, made in zip((first, second), after.moments, strict=True):
            for (name, _), values in zip(operated.network.parameters(), made, strict=True):
                np.testing.assert_array_equal(values, given[names.index(name)].astype(network.dtype))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_another_block_adds_nothing_at_first(path):
    skip_unreadable(path)
    network = load(path)
    feeds = random_inputs(onnx.load(path), rows=3)
    for block in network.blocks:
        surgery = InsertBlock(block.number)
        if block.is_projected:
            with pytest.raises(SurgeryError, match="cannot be repeated: what it is added to goes through layers"):
                operate(network, surgery)
            continue
        done, _ = operate(network, surgery, require_exact=True)
        assert done.parameter_count == surgery.parameters_after(network) > network.parameter_count
        assert len(done.blocks) == len(network.blocks) + 1
        for made, wanted in zip(run(to_model(done), feeds), run(to_model(network), feeds), strict=True):
            np.testing.assert_allclose(made, wanted, atol=1e-5 * np.abs(wanted).max())
        # What it adds behind the block, once it does, is of that block's sum, and goes when it is taken out again.
        known = dict(network.parted().parameters())
        moved = done.with_parameters(
            v + np.float32(0.1) if name not in known and not v.any() else v for name, v in done.parameters()
        )
        assert not np.allclose(run(to_model(moved), feeds)[0], run(to_model(network), feeds)[0], atol=1e-4)
        back = operate(moved, RemoveBlock(block.number + 1)).network
        assert back.topology == network.topology
        for made, wanted in zip(run(to_model(back), feeds), run(to_model(network), feeds), strict=True):
            np.testing.assert_allclose(made, wanted, atol=1e-5 * np.abs(wanted).max())


def test_another_blocks_layers_are_copies_but_for_the_last():
    network = from_model(residual())
    operated = operate(network, InsertBlock(1))
    known = dict(operated.network.parameters())
    np.testing.assert_array_equal(known["a1.w/again"], known["a1.w"])
    assert not known["a2.w/again"].any()
    assert not known["a2.b/again"].any()
    model = to_model(operated.network)
    assert [node.op_type for node in model.graph.node] == ["Gemm", *["Gemm", "Relu", "Gemm", "Add", "Relu"] * 2, "Gemm"]
    rng = np.random.default_rng(3)
    first, second = ([rng.random(v.shape) for _, v in network.parameters()] for _ in range(2))
    after = OptimizerState(7, (tuple(first), tuple(second))).mapped(network, operated.carry)
    names = [name for name, _ in network.parameters()]
    for power, (given, made) in enumerate(zip((first, second), after.moments, strict=True), start=1):
        for (name, _), values in zip(operated.network.parameters(), made, strict=True):
            if name in names:
                np.testing.assert_array_equal(values, given[names.index(name)].astype(network.dtype))
                continue
            layer = name.partition(".")[0]
            own = [given[names.index(f"{layer}.{what}")] for what in "wb"]
            mean = 0 if power == 1 else np.concatenate([each.ravel() for each in own]).mean()
            np.testing.assert_allclose(values, mean, rtol=1e-6)


def test_a_network_can_grow_by_blocks():
    network = from_model(residual(twice=True))
    found = [str(each) for each in growths(network, 2 * network.parameter_count, mode="split")]
    assert any(each.startswith("insert_block:2+insert_block:1") for each in found)
    assert any(each.startswith("insert_block:2") and "insert_block:1" not in each for each in found)
    after = operate(network, InsertBlock(2)).network
    after = replace(after, metadata={METADATA_PREFIX + "lineage": '["insert_block:2"]'})
    assert diff(network, after).done == ("insert_block:2",)
    assert sum(not change.before for change in diff(network, after).layers) == 2


def test_lineage_and_spectra_tell_of_it(tmp_path):
    network = from_model(residual(twice=True))
    done = operate(
        operate(network, parse("prune:2:6"), moments=calibrate(network, examples_of())).network, RemoveBlock(1)
    )
    after = replace(done.network, metadata={METADATA_PREFIX + "lineage": '["prune:2:6", "remove_block:1"]'})
    found = diff(network, after)
    assert found.alignment == "lineage"
    assert found.done == ("prune:2:6", "remove_block:1")
    assert sum(not change.after for change in found.layers) == 2
    told = spectra(network, RemoveBlock(1), after)
    values = np.linalg.svd(last_layer(network, network.block(1)).weight, compute_uv=False)
    np.testing.assert_allclose(told["before"]["values"], values, rtol=1e-5)
    assert (told["layer"], told["after"]) == (1, [])


def test_inspect_and_operate_tell_of_blocks(cli, tmp_path):
    onnx.save(residual(twice=True), tmp_path / "m.onnx")
    code, out, _ = cli("inspect", tmp_path / "m.onnx")
    assert code == 0
    assert "Residual blocks" in out
    code, out, err = cli("operate", tmp_path / "m.onnx", "remove_block:2", "-o", tmp_path / "o.onnx")
    assert (code, err) == (0, "")
    assert load(tmp_path / "o.onnx").topology == "5-6+6-8-6+6-3"


def test_what_is_predicted_decides_which_goes_first():
    network, examples = from_model(residual(twice=True)), examples_of()
    small = {"a2.w", "a2.b"}
    network = network.with_parameters(v * np.float32(0.01 if n in small else 1) for n, v in network.parameters())
    plans = list(removals(network, calibrate(network, examples)))
    assert [[str(surgery.effect.block) for surgery in surgeries] for surgeries, _ in plans] == [["1"], ["2", "1"]]
    assert [left.topology for _, left in plans] == ["5-6+6-8-6+6-3", "5-6-3"]
    reports = inspect_blocks(network, calibrate(network, examples))
    assert [report.candidate is not None for report in reports] == [True, False]


BLOCKS = 6


@pytest.fixture(scope="module")
def idle_blocks(tmp_path_factory, digits):
    """A trained network of digits, 64-12-10, with residual blocks 12-12-12 that do next to nothing."""
    network = create((64, 12, 10), seed=3, input_shape=(8, 8))
    settings = TrainingSettings(learning_rate=0.01, optimizer="adamw", schedule="cosine")
    trained, test = fit(network, digits, LoopEngine(), epochs=15, settings=settings)
    assert test.accuracy > 0.85
    rng, model = np.random.default_rng(2), to_model(trained.network)
    nodes = list(model.graph.node)
    last = max(place for place, node in enumerate(nodes) if node.op_type in ("Gemm", "MatMul"))
    stream, made = nodes[last].input[0], []
    for block in range(BLOCKS):
        for name, scale in (("a", 0.3), ("b", 0.003)):
            values = scale * rng.standard_normal((12, 12)), scale * rng.standard_normal(12)
            for what, value in zip("wb", values, strict=True):
                tensor = numpy_helper.from_array(value.astype(np.float32), f"{name}{block}.{what}")
                model.graph.initializer.append(tensor)
        entry, stream = stream, f"sum{block}"
        made += [
            helper.make_node("Gemm", [entry, f"a{block}.w", f"a{block}.b"], [f"a{block}"], name=f"a{block}"),
            helper.make_node("Relu", [f"a{block}"], [f"relu{block}"], name=f"relu{block}"),
            helper.make_node("Gemm", [f"relu{block}", f"b{block}.w", f"b{block}.b"], [f"b{block}"], name=f"b{block}"),
            helper.make_node("Add", [entry, f"b{block}"], [stream], name=stream),
        ]
    nodes[last].input[0] = stream
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:last], *made, *nodes[last:]])
    file = tmp_path_factory.mktemp("idle") / "idle.onnx"
    onnx.save(model, file)
    return file, network.parameter_count


def test_evolve_takes_idle_blocks_out(idle_blocks, tmp_path):
    file, most = idle_blocks
    assert len(load(file).blocks) == BLOCKS
    settings = SurgeonSettings.from_preset(epochs=5, seed=5, batch_size=32, max_parameters=most)
    done = evolve(file, "digits", settings=settings, run_dir=tmp_path / "run")
    measured = [each for each in RunDirectory.open(done.run).read_journal() if each["event"] == "recuperated"]
    within = [each for each in measured if each["parameters"] <= most and each["epoch"] == 0]
    without = [each["loss"] for each in within if each["topology"] == "64-12-10"]
    pruned = [each["loss"] for each in within if "remove_block" not in each["surgery"]]
    assert min(without) < min(pruned)
    best = load(done.run / "best.onnx")
    assert best.parameter_count <= most
    assert "remove_block_data:6" in best.metadata[METADATA_PREFIX + "lineage"]
    pytest.importorskip("matplotlib")
    assert b"remove_block" in render_report(done.run)


def test_a_run_that_breaks_off_while_blocks_go_ends_in_the_same_bytes(idle_blocks, tmp_path):
    file, most = idle_blocks
    settings = SurgeonSettings.from_preset(epochs=5, seed=5, batch_size=32, max_parameters=most)
    whole = evolve(file, "digits", settings=settings, run_dir=tmp_path / "whole")

    def break_off(event):
        if event["event"] == "operated" and event["after"] == []:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evolve(file, "digits", settings=settings, run_dir=tmp_path / "run", callbacks=break_off)
    resumed = resume(tmp_path / "run")
    assert branch_digests(resumed.run) == branch_digests(whole.run)
    assert file_digest(resumed.run / "best.onnx") == file_digest(whole.run / "best.onnx")


def test_the_fewest_that_have_to_go_are_among_the_plans(idle_blocks):
    """Beside 1, 2, 4 and all: of transformers only feed-forward widths are free, and all blocks are far too many."""
    network = load(idle_blocks[0])
    moments = Moments({}, {}, {}, {})
    plain = [len(surgeries) for surgeries, _ in removals(network, moments)]
    assert plain == [1, 2, 4, 6]
    three = next(left for surgeries, left in removals(network, moments) if len(surgeries) == 2).parameter_count - 1
    found = list(removals(network, moments, lambda left: left.parameter_count <= three))
    assert [len(surgeries) for surgeries, _ in found] == [1, 2, 3, 4, 6]


@pytest.mark.parametrize("name", ["torch-dynamo", "torch-legacy"])
def test_limits_that_only_fewer_blocks_meet_are_no_longer_refused(name):
    network = load(HERE / "transformers" / f"{name}.onnx")
    by_units, by_blocks = least_count(network), least_count(barest(network))
    assert by_blocks < by_units
    wanted = SurgeonSettings(max_parameters=(by_units + by_blocks) // 2)
    require_reachable(network, wanted)
    with pytest.raises(SettingsError, match=f"has at least {by_units:,} parameters, with one unit in each"):
        require_reachable(network, wanted, blocks=False)
    less = replace(wanted, max_parameters=by_blocks - 1)
    with pytest.raises(SettingsError, match=f"at least {by_blocks:,} parameters, .*without the branches of residual"):
        require_reachable(network, less)
