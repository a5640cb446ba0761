"""Attention as PyTorch's exporters write it: masks that are computed, other rows' steps, blocks written by hand."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from measuring.reference import evaluate

from onnxsurgeon import (
    Examples,
    SurgeonSettings,
    SurgeryError,
    evolve,
    load,
    make_engine,
    operate,
    save,
)
from onnxsurgeon.data.features import compute_features
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import run
from onnxsurgeon.surgery import InsertIdentity, Widen
from onnxsurgeon.task import SQUARED, Task
from onnxsurgeon.training.forward import from_by_unit
from onnxsurgeon.training.loop_graph import training_loop
from onnxsurgeon.training.resident import arrays
from tests.conftest import skip_newer
from tests.convolutional import loop_feeds

FOLDER = Path(__file__).parent / "attention"
FILES = sorted(path for path in FOLDER.glob("*.onnx") if not path.stem.startswith("half"))
UNITS = 8
LAYERS = {"plain": 6, "filled": 4, "cross": 6, "decoder": 10, "whole": 14}  # others have 6 too


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def path(request):
    """An export."""
    return request.param


def skip_newer_than_readable(path):
    """Where a file itself is run: the oldest ONNX Runtime reads no opset 23."""
    skip_newer(onnx.load(path).opset_import[0].version)


def form(path):
    return path.stem.rpartition("-")[0]


def held(path):
    return np.load(path.with_name(f"{form(path)}.npz"))


def feeds(path):
    values = held(path)
    names = [value.name for value in onnx.load(path).graph.input]
    return {name: values[name].astype("f") if values[name].dtype.kind == "f" else values[name] for name in names}


def rows_of(network, path, kind=np.float32):
    """The rows and targets that PyTorch was given."""
    values, given = held(path), feeds(path)
    features = compute_features(network, given, len(values["targets"]))
    if kind is not np.float32:
        features = {
            name: np.asarray(rows.take(slice(0, rows.shape[0]))).astype(kind) for name, rows in features.items()
        }
    stored = tuple(features[name] for name in network.frame.trunk.features)
    return Examples(stored, (values["targets"].astype(kind),), (Task(SQUARED, 3),))


def test_all_layers_are_trained(path):
    network = load(path)
    assert sum(len(segment.layers) for segment in network.segments) == LAYERS.get(form(path), 6)
    assert set(feeds(path)) - {"padding"} <= set(network.frame.trunk.features)
    assert not [note for note in network.frame.notes if "trained through" in note or "as it is" in note]
    before = make_engine("loop").evaluate(network, rows_of(network, path)).loss
    assert before == pytest.approx(np.mean((held(path)["scores"] - held(path)["targets"]) ** 2), rel=1e-5)


def gradients(network, examples):
    """Of the mean loss, by one step of rate 1 on all rows: θ − θ', in the order of the parameters."""
    given = {**loop_feeds(network, examples), **arrays(examples, targets=True)}
    trained = from_by_unit(network, evaluate(training_loop(network, examples), given))
    return [before - after for (_, before), (_, after) in zip(network.parameters(), trained.parameters(), strict=True)]


def test_gradients_are_those_of_pytorch(path):
    """Of the mean squared error, in float64."""
    network, values = load(path), held(path)
    examples = rows_of(network, path, np.float64)
    network = network.with_parameters([each.astype(np.float64) for _, each in network.parameters()])
    found = gradients(network, examples)
    wanted = {}
    for name in values:
        if name.startswith("parameter/"):
            rows = len(values[name])
            for begin, end in ((0, rows), (0, UNITS), (UNITS, rows)):  # nn.MultiheadAttention has one for three layers
                part, slope = (values[key][begin:end] for key in (name, name.replace("parameter/", "gradient/")))
                wanted[part.T.shape, part.T.tobytes()] = slope.T
    for (name, parameter), gradient in zip(network.parameters(), found, strict=True):
        expected = wanted[parameter.shape, parameter.tobytes()]
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-9, err_msg=name)


def test_surgeries_are_exact_and_are_written_into_the_file(path, tmp_path):
    skip_newer_than_readable(path)
    network, given = load(path), feeds(path)
    wanted = run(onnx.load(path), given)[0]
    done = 0
    for surgery in (*(Widen(number, 3) for number in range(1, network.group_count + 1)), InsertIdentity(1)):
        try:
            changed = operate(network, surgery).network
        except SurgeryError:  # copies of units that are normalised are not exact
            continue
        done += 1
        save(changed, tmp_path / f"{done}.onnx")
        again = load(tmp_path / f"{done}.onnx")
        assert again.parameter_count == changed.parameter_count > network.parameter_count
        np.testing.assert_allclose(run(to_model(again), given)[0], wanted, rtol=1e-4, atol=1e-5)
    assert done or not network.group_count


@pytest.mark.parametrize("stem", ["block-legacy", "encoder-dynamo", "decoder-dynamo23", "filled-legacy"])
def test_they_evolve(stem, tmp_path):
    path = FOLDER / f"{stem}.onnx"
    skip_newer_than_readable(path)
    values, given = held(path), feeds(path)
    np.savez(tmp_path / "rows.npz", **given, y=values["targets"].astype("f"))
    settings = SurgeonSettings.from_preset(epochs=2)
    evolve(path, str(tmp_path / "rows.npz"), settings=settings, run_dir=tmp_path / "run", workers=1)
    assert run(onnx.load(tmp_path / "run" / "best.onnx"), given)[0].shape == values["scores"].shape


def test_attention_in_float16_is_read_whole():
    path = FOLDER / "half-legacy.onnx"
    network, values = load(path), held(FOLDER / "cross-legacy.onnx")
    given = {name: values[name].astype(np.float16) for name in ("x", "memory")}
    assert sum(len(segment.layers) for segment in network.segments) == LAYERS["cross"]
    wanted = run(onnx.load(path), given)[0]
    np.testing.assert_allclose(run(to_model(network), given)[0], wanted, rtol=2e-2, atol=5e-3)
