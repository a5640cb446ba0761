"""Trained weights written into the user's file by runners: trainer.json tells how the file holds each."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxsurgeon_runner import Trainer, TrainerError

from onnxsurgeon import InputOptions, create, export_trainer, import_state, load, load_dataset, save
from tests.conftest import MODELS, randomised
from tests.trainers import EXPORTS

FILES = {
    "torch-dynamo-documented.onnx": {},
    "torch-legacy-residual.onnx": {"data": "digits"},
    "torch-legacy-float16.onnx": {},
    "torch-legacy-saturating.onnx": {},
    "sklearn-float64.onnx": {},
    "torch-legacy-rank3.onnx": {},
    "tf2onnx-residual.onnx": {},
    "keras-torch-rank3.onnx": {},
    "torch-legacy-tied.onnx": {},  # a matrix and its transpose
}


def changed(trainer, seed=0):
    """Other weights, as a training would leave them."""
    rng = np.random.default_rng(seed)
    for name, values in trainer.state.items():
        if name.startswith("parameter/"):
            trainer.state[name] = values + (0.05 * rng.standard_normal(values.shape)).astype(values.dtype)
    return trainer


def exported(path, folder, **given):
    network = load(path)
    loss = "auto" if any(head.squash for head in network.heads) else "cross-entropy"
    export_trainer(network, folder, options=InputOptions(loss=loss), file=path, **given)
    return network, Trainer(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_patched_file_is_the_imported_model_and_all_else_stays(tmp_path, name):
    network, trainer = exported(EXPORTS / name, tmp_path / "t")
    assert trainer.patch_model((EXPORTS / name).read_bytes()) == (EXPORTS / name).read_bytes()
    content = changed(trainer).patch_model((EXPORTS / name).read_bytes())
    (tmp_path / "patched.onnx").write_bytes(content)
    before, after = onnx.load(EXPORTS / name), onnx.load(tmp_path / "patched.onnx")
    assert list(before.graph.node) == list(after.graph.node)
    trained = {each["of"] for each in trainer.description["state"] if each["kind"] == "parameter"}
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        assert (old.name, old.data_type, list(old.dims)) == (new.name, new.data_type, list(new.dims))
        same = np.array_equal(numpy_helper.to_array(old), numpy_helper.to_array(new))
        assert same == (old.name not in trained)
    imported = import_state(network, trainer.state).network
    again = dict(load(tmp_path / "patched.onnx").parameters())
    for key, values in imported.parameters():
        np.testing.assert_array_equal(again[key], values)


def test_a_square_matrix_is_told_by_the_node_that_reads_it_where_its_values_do_not(tmp_path):
    network = create((4, 4, 3), seed=1)
    square = network.with_parameters(
        np.eye(4, dtype="f") if values.shape == (4, 4) else values for _, values in network.parameters()
    )
    save(square, tmp_path / "m.onnx")
    _, trainer = exported(tmp_path / "m.onnx", tmp_path / "t")
    assert {each.get("stored") for each in trainer.description["state"] if len(each["shape"]) == 2} == {"transposed"}
    changed(trainer)
    x = np.random.default_rng(0).standard_normal((5, 4)).astype("f")
    (tmp_path / "n.onnx").write_bytes(trainer.patch_model((tmp_path / "m.onnx").read_bytes()))
    session = ort.InferenceSession(tmp_path / "n.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    np.testing.assert_allclose(found, next(iter(trainer.predict(x).values())), rtol=1e-5, atol=1e-6)


def test_values_in_fields_of_floats_are_written_too(tmp_path):
    save(randomised(create((4, 5, 3), seed=1)), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, values.shape, values.reshape(-1).tolist()))
        assert not tensor.HasField("raw_data")
    onnx.save(model, tmp_path / "m.onnx")
    _, trainer = exported(tmp_path / "m.onnx", tmp_path / "t")
    (tmp_path / "n.onnx").write_bytes(changed(trainer).patch_model((tmp_path / "m.onnx").read_bytes()))
    weights = dict(load(tmp_path / "n.onnx").parameters())
    np.testing.assert_array_equal(weights["layer1.weight"].T, trainer.state["parameter/layer1.weight"])


@pytest.mark.parametrize(
    "name",
    [
        "torch-dynamo-bfloat16.onnx",
        "torch-dynamo-external.onnx",
        "torch-legacy-piecewise.onnx",  # one slope for all units
    ],
)
def test_what_a_file_holds_otherwise_is_not_written_by_runners(tmp_path, name):
    _, trainer = exported(EXPORTS / name, tmp_path / "t")
    with pytest.raises(TrainerError, match=r"does not say that the model's file holds '.*' as it is: use onnxsurgeon"):
        trainer.patch_model((EXPORTS / name).read_bytes())


def test_without_its_file_a_trainer_says_nothing_of_it(tmp_path):
    export_trainer(load(MODELS / "digits-small.onnx"), tmp_path / "t")
    description = json.loads((tmp_path / "t" / "trainer.json").read_text())
    assert not any("stored" in each for each in description["state"])


def test_other_files_and_damaged_ones_are_refused(tmp_path):
    path = MODELS / "digits-small.onnx"
    _, trainer = exported(path, tmp_path / "t")
    content = path.read_bytes()
    for damaged in (content[:-900], content[: len(content) // 2]):
        with pytest.raises(TrainerError, match=r"cut off|no ONNX file|another model's|not written to"):
            trainer.patch_model(damaged)
    save(create((64, 12, 10), seed=1), tmp_path / "other.onnx")
    with pytest.raises(TrainerError, match=r"another model's|not written to"):
        trainer.patch_model((tmp_path / "other.onnx").read_bytes())
    name = next(each["name"] for each in trainer.description["state"])
    trainer.state[name] = np.full_like(trainer.state[name], np.inf)
    with pytest.raises(TrainerError, match="has values in the state that float32 cannot hold"):
        trainer.patch_model(content)


def test_the_command_tells_how_the_file_holds_them(tmp_path, cli):
    code, _, errors = cli("export-trainer", MODELS / "digits-small.onnx", "-o", tmp_path / "t")
    assert (code, errors) == (0, "")
    trainer = changed(Trainer(tmp_path / "t"))
    (tmp_path / "n.onnx").write_bytes(trainer.patch_model((MODELS / "digits-small.onnx").read_bytes()))
    split = load_dataset("digits").train
    rows = (split.stored.source[split.stored.numbers[:20]] / np.float32(16)).astype("f")
    session = ort.InferenceSession(tmp_path / "n.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: rows.reshape(20, *session.get_inputs()[0].shape[1:])})
    ((_, expected),) = trainer.predict(rows.reshape(20, *trainer.description["inputs"][0]["shape"])).items()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
