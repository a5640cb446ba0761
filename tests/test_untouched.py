"""What of a file is not worked on is told, what exporters note is left out, and what was not measured is said."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxsurgeon import evolve, load, to_model
from onnxsurgeon.graph.traces import without_traces
from onnxsurgeon.graph.untouched import untouched, untouched_note
from tests.conftest import MODELS


def embedded(path, tokens=200):
    """Tokens (N, 5) as the mean of their vectors, 8 each, and two dense layers; the hidden one's input is an output."""
    rng = np.random.default_rng(1)
    values = {"table": (tokens, 8), "w1": (8, 16), "b1": (16,), "w2": (16, 3), "b2": (3,)}
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "tokens"], ["vectors"], name="look"),
            helper.make_node("ReduceMean", ["vectors"], ["mean"], name="average", axes=[1], keepdims=0),
            helper.make_node("Gemm", ["mean", "w1", "b1"], ["h"], name="one"),
            helper.make_node("Relu", ["h"], ["r"], name="relu"),
            helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], name="two"),
        ],
        "embedded",
        [helper.make_tensor_value_info("tokens", onnx.TensorProto.INT64, ["N", 5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(rng.normal(size=size).astype(np.float32), name) for name, size in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    for node in model.graph.node:
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="File somewhere, in forward " * 40)
        node.metadata_props.add(key="mine", value="kept")
    onnx.save(model, path)
    return path


def test_an_embedding_is_not_counted_which_is_said(tmp_path, cli):
    path = embedded(tmp_path / "m.onnx")
    network = load(path)
    assert untouched(network) == {"table": 1600}
    (note,) = untouched_note(network)
    assert network.parameter_count == 8 * 16 + 16 + 16 * 3 + 3 == 195
    assert note.startswith("1,600 of the file's 1,795 values stay as they are, and are not counted as parameters")
    assert note.endswith(": 'table' (Gather)")
    code, out, _ = cli("inspect", str(path))
    assert code == 0
    assert note in " ".join(out.split())


def test_of_a_network_that_is_worked_on_as_a_whole_nothing_is_said():
    assert untouched(load(MODELS / "digits-small.onnx")) == {}
    assert untouched_note(load(MODELS / "digits-small.onnx")) == ()


def test_notes_on_where_nodes_come_from_are_dropped_and_others_kept(tmp_path):
    network = load(embedded(tmp_path / "m.onnx"))
    bare, size = without_traces(network)
    assert size > 5 * 27 * 40
    before, after = to_model(network), to_model(bare)
    assert {entry.key for node in before.graph.node for entry in node.metadata_props} > {"mine"}
    assert [[entry.key for entry in node.metadata_props] for node in after.graph.node] == [["mine"]] * 5
    assert before.ByteSize() - after.ByteSize() >= size
    assert without_traces(bare) == (bare, 0)


def test_the_result_of_a_run_is_without_them_and_the_run_says_so(tmp_path):
    rng = np.random.default_rng(2)
    path, rows = embedded(tmp_path / "m.onnx"), {"tokens": rng.integers(0, 200, (400, 5))}
    told = []
    wish = {"epochs": 1, "shrink": 2}
    result = evolve(path, rows, settings=wish, run_dir=tmp_path / "run", workers=1, callbacks=told.append)
    notes = next(event["notes"] for event in told if event["event"] == "run")
    assert any("kB of the exporter's notes on where its nodes come from are left out" in note for note in notes)
    assert any("'table' (Gather)" in note for note in notes)
    best = onnx.load(result.run / "best.onnx")
    assert not any(entry.key.startswith("pkg.torch") for node in best.graph.node for entry in node.metadata_props)
    assert result.before.size == path.stat().st_size


def test_that_an_output_inside_was_not_measured_is_said_at_the_end(tmp_path):
    model = onnx.load(embedded(tmp_path / "m.onnx"))
    model.graph.node.append(helper.make_node("Gemm", ["y", "w3"], ["z"], name="three"))
    model.graph.initializer.append(numpy_helper.from_array(np.eye(3, dtype=np.float32), "w3"))
    model.graph.output.append(helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["N", 3]))
    rows = {"tokens": np.random.default_rng(3).integers(0, 200, (400, 5))}
    result = evolve(model, rows, settings={"epochs": 1, "shrink": 1.5}, run_dir=tmp_path / "run", workers=1)
    (said,) = [remark for remark in result.remarks if "no targets" in remark]
    assert said.startswith("output 'y' takes no targets")
    assert "nothing here measured that" in said


def test_small_tensors_count_too(tmp_path):
    """Of a recurrent layer whose input weights are small, all that stays is told."""
    path = embedded(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.node.insert(2, helper.make_node("Mul", ["mean", "gains"], ["scaled"], name="scale"))
    model.graph.node[3].input[0] = "scaled"
    model.graph.initializer.append(numpy_helper.from_array(np.arange(1, 9, dtype=np.float32), "gains"))
    onnx.save(model, path)
    network = load(path)
    stay = sum(untouched(network).values())
    assert stay + network.parameter_count == sum(np.prod(t.dims) for t in model.graph.initializer)
    (note,) = untouched_note(network)
    assert note.startswith(f"{stay:,} of the file's {stay + 195:,} values stay as they are")
    assert note.endswith(": 'table' (Gather)")
