"""Images that are read otherwise than in a trained network's training: told, with the options that read them so."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxsurgeon import DataError, evolve, load, load_dataset, make_engine
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.surgeon.misread import other_reading


def bright_or_dark(path, channels=3, *, is_flat=False):
    """A network that says whether images of 4×4 are brighter than 0: a hidden unit each for and against."""
    size = 16 * channels
    first = np.tile([[1.0, -1.0]], (size, 1)).astype(np.float32)
    shape = ["N", size] if is_flat else ["N", channels, 4, 4]
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w1", "b1"], ["h"], name="one"),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], name="two"),
        ],
        "bright",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 2])],
        [
            numpy_helper.from_array(first, "w1"),
            numpy_helper.from_array(np.zeros(2, np.float32), "b1"),
            numpy_helper.from_array(np.array([[-1, 1], [1, -1]], np.float32), "w2"),
            numpy_helper.from_array(np.zeros(2, np.float32), "b2"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def images(path, channels=3, rows=300):
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, rows)
    low, high = np.where(y, 120, 0), np.where(y, 255, 130)
    x = rng.uniform(low[:, None, None, None], high[:, None, None, None], (rows, 4, 4, channels)).astype(np.uint8)
    np.savez(path, x=x, y=y)
    return path


def test_a_trained_network_is_not_taken_for_an_untrained_one(tmp_path):
    model, data = bright_or_dark(tmp_path / "bright.onnx"), images(tmp_path / "images.npz")
    with pytest.raises(DataError, match=r"read as it is, 'bright' has accuracy 0\.[45]") as refused:
        evolve(model, data, settings={"epochs": 1, "shrink": 1.2}, run_dir=tmp_path / "run")
    text = str(refused.value)
    assert refused.value.code == "D32"
    assert "--mean 0.5 --std 0.5 it has" in text
    assert "--start untrained" in text
    assert not (tmp_path / "run").exists()


def test_as_the_message_says_it_counts_as_trained(cli, tmp_path):
    model, data = bright_or_dark(tmp_path / "bright.onnx"), images(tmp_path / "images.npz")
    command = ("evolve", str(model), "--data", str(data), "--epochs", "1", "--dry-run")
    code, out, _ = cli(*command, "--mean", "0.5", "--std", "0.5")
    assert code == 0
    assert "counts as trained" in " ".join(out.split())
    code, out, _ = cli(*command, "--start", "untrained")
    assert code == 0
    assert "counts as untrained: --start untrained" in " ".join(out.split())


def test_nothing_is_said_of_weights_that_know_nothing_however_they_are_read():
    network, data = load("models/digits-small.onnx"), load_dataset("digits")
    assert other_reading(network, make_engine(), data, InputOptions()) is None


def test_a_flat_input_may_have_its_channels_first(tmp_path):
    """Of three channels the first alone counts: only where the order is right is it the first 16 values."""
    model = onnx.load(bright_or_dark(tmp_path / "red.onnx", is_flat=True))
    weights = np.zeros((48, 2), np.float32)
    weights[:16] = [[1, -1]]
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w1"))
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([-8, 8], np.float32), "b1"))
    onnx.save(model, tmp_path / "red.onnx")
    rng = np.random.default_rng(4)
    x = rng.integers(0, 256, (400, 4, 4, 3)).astype(np.uint8)
    np.savez(tmp_path / "red.npz", x=x, y=(x[..., 0].mean(axis=(1, 2)) > 127.5).astype(int))
    network, data = load(tmp_path / "red.onnx"), load_dataset(tmp_path / "red.npz")
    found = other_reading(network, make_engine(), data, InputOptions())
    assert found is not None
    assert found.options == "--layout chw"
    assert found.before < 0.75 < 0.95 < found.score


def test_tables_are_no_images(tmp_path):
    rng = np.random.default_rng(5)
    x = rng.normal(100, 1, (200, 48)).astype(np.float32)
    np.savez(tmp_path / "t.npz", x=x, y=(x.mean(axis=1) > 100).astype(int))
    model = bright_or_dark(tmp_path / "bright.onnx", is_flat=True)
    assert other_reading(load(model), make_engine(), load_dataset(tmp_path / "t.npz"), InputOptions()) is None


def test_evaluate_says_what_would_be_known_otherwise(cli, tmp_path):
    model, data = bright_or_dark(tmp_path / "bright.onnx"), images(tmp_path / "images.npz")
    code, out, err = cli("evaluate", str(model), "--data", str(data))
    assert code == 0
    assert "with --mean 0.5 --std 0.5 its accuracy is" in out + err
    code, out, err = cli("evaluate", str(model), "--data", str(data), "--mean", "0.5", "--std", "0.5")
    assert code == 0
    assert "with --" not in out + err
