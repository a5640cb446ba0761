"""Images moved and mirrored in the training loop: as numpy does it, the same again, refused where there are none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxsurgeon import (
    EngineError,
    SettingsError,
    SurgeonSettings,
    create,
    create_convolutional,
    evolve,
    load,
    load_dataset,
)
from onnxsurgeon.choices import AUGMENTATIONS
from onnxsurgeon.data.prepare import prepare
from onnxsurgeon.runtime import run
from onnxsurgeon.training.augmentation import SCANNED, augmented, declarations, feeds, images_of, require_images
from onnxsurgeon.training.builder import GraphBuilder
from onnxsurgeon.training.forward import make_model
from onnxsurgeon.training.loop import LoopEngine
from onnxsurgeon.training.settings import TrainingSpec
from tests.conftest import needs_training

NETWORK = create_convolutional("28x30x2-c2-p-3", seed=1)
POSITIONS = np.arange(200)


def moved_by_the_graph(x, position_feeds, step):
    """What the nodes make of x at one step."""
    from onnx import TensorProto, helper

    build = GraphBuilder(NETWORK.dtype)
    (found,) = augmented(build, NETWORK, ["x"])
    build.add("Identity", found, output="y")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, *x.shape[1:]]), *declarations()]
    model = make_model("moved", build, inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)])
    return run(model, {"x": x, **{name: position_feeds[f"{name}s"][step] for name in SCANNED}})[0]


@pytest.mark.parametrize("augment", AUGMENTATIONS[1:])
def test_images_are_moved_as_numpy_moves_them(augment):
    assert images_of(NETWORK) == {next(iter(NETWORK.frame.trunk.features)): (2, 28, 30)}
    x = np.random.default_rng(0).standard_normal((3, 2, 28, 30)).astype(np.float32)
    given = feeds(NETWORK, augment, 5, POSITIONS)
    wide = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), mode="edge")
    seen = set()
    for step in POSITIONS[:40]:
        found = moved_by_the_graph(x, given, step)
        matches = [
            (down, right, mirrored)
            for down in range(5)
            for right in range(5)
            for mirrored in (False, True)
            if np.array_equal(found, wide[:, :, down : down + 28, right : right + 30][..., :: -1 if mirrored else 1])
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert ({mirrored for *_, mirrored in seen} == {False, True}) == ("mirror" in augment)
    assert (len({place[:2] for place in seen}) > 12) == ("shift" in augment)
    assert "shift" in augment or {place[:2] for place in seen} == {(2, 2)}


def test_all_moves_come_up_about_as_often():
    given = feeds(NETWORK, "shift-mirror", 5, np.arange(5000))
    mirrored = given[f"{SCANNED[2]}s"][:, 1] < 0
    assert mirrored.mean() == pytest.approx(0.5, abs=0.03)
    counts = np.bincount(given[f"{SCANNED[0]}s"][:, 0], minlength=5)
    assert (abs(counts / 5000 - 0.2) < 0.03).all()
    again = feeds(NETWORK, "shift-mirror", 5, np.arange(1000, 2000))
    assert all(np.array_equal(again[name], given[name][1000:2000]) for name in given)
    other = feeds(NETWORK, "shift-mirror", 6, np.arange(5000))
    assert not np.array_equal(other[f"{SCANNED[0]}s"], given[f"{SCANNED[0]}s"])
    assert feeds(NETWORK, "none", 5, POSITIONS) == {}


@pytest.fixture(scope="module")
def digits_network():
    return create_convolutional("8x8x1-c3-p-10", seed=1)


def test_training_in_pieces_gives_the_same_bits(digits_network):
    data = load_dataset("digits")
    examples = prepare(digits_network, data, data.train)
    batches = np.arange(320).reshape(20, 16)
    spec = TrainingSpec(learning_rate=0.1, seed=3, augment="shift-mirror", dropout=0.2)
    whole = LoopEngine().train(digits_network, examples, [batches], spec).network
    first = LoopEngine().train(digits_network, examples, [batches[:9]], spec).network
    second = LoopEngine().train(first, examples, [batches[9:]], replace(spec, position=9)).network
    plain = LoopEngine().train(digits_network, examples, [batches], replace(spec, augment="none")).network
    pairs = zip(whole.parameters(), second.parameters(), plain.parameters(), strict=True)
    for (_, one), (_, pieces), (_, unmoved) in pairs:
        np.testing.assert_array_equal(one, pieces)
        assert not np.array_equal(one, unmoved)


def test_where_there_are_no_images_it_is_refused():
    network = create((64, 5, 10), input_shape=(8, 8))
    data = load_dataset("digits")
    spec = TrainingSpec(augment="shift")
    with pytest.raises(SettingsError, match=r"^augment: no image of a known size is read by convolutions in"):
        LoopEngine().train(network, prepare(network, data, data.train), [np.arange(16).reshape(1, 16)], spec)
    with pytest.raises(SettingsError, match=r"augment: 'shfit' is unknown: expected one of none, shift, mirror"):
        SurgeonSettings.from_preset(augment="shfit")


def test_images_whose_places_have_targets_are_not_moved():
    """An autoencoder's targets are images too, and would stay where they are."""
    network = load(Path(__file__).parent / "convolutions" / "autoencoder-torch-legacy.onnx")
    assert images_of(network)
    with pytest.raises(SettingsError, match=r"has targets for places of its images, which would not move with them"):
        require_images(network, "mirror")
    require_images(network, "none")


def test_it_is_refused_before_anything_is_written(tmp_path):
    from onnxsurgeon import save

    save(create((64, 5, 10), input_shape=(8, 8)), tmp_path / "dense.onnx")
    settings = SurgeonSettings.from_preset(epochs=2, augment="shift")
    with pytest.raises(SettingsError, match=r"^augment: no image of a known size is read by convolutions in 'dense'"):
        evolve(tmp_path / "dense.onnx", "digits", settings=settings, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@needs_training
def test_a_run_with_the_engine_that_moves_no_images_is_refused_before_anything_is_written(tmp_path):
    from onnxsurgeon import save

    save(create_convolutional("8x8x1-c2-p-10"), tmp_path / "start.onnx")
    settings = SurgeonSettings.from_preset(
        epochs=2, augment="shift", dropout=0.0, input_dropout=0.0, size_dropout=0.0, standardised_dropout=0.0
    )
    with pytest.raises(EngineError, match="'start': the artifacts engine moves no images; use the loop"):
        evolve(tmp_path / "start.onnx", "digits", settings=settings, run_dir=tmp_path / "run", engine="artifacts")
    assert not (tmp_path / "run").exists()


@needs_training
def test_the_engine_that_moves_no_images_says_so(digits_network):
    from onnxsurgeon.training.artifacts_engine import ArtifactsEngine

    data = load_dataset("digits")
    examples = prepare(digits_network, data, data.train)
    with pytest.raises(EngineError, match="the artifacts engine moves no images; use the loop"):
        ArtifactsEngine().train(
            digits_network, examples, [np.arange(16).reshape(1, 16)], TrainingSpec(augment="mirror")
        )


def test_a_run_moves_images_where_it_is_asked_to(digits_network, tmp_path):
    from onnxsurgeon import save

    save(digits_network, tmp_path / "start.onnx")
    accuracies = []
    for augment in ("none", "shift"):
        settings = SurgeonSettings.from_preset(epochs=2, growth=0.0, refit=False, augment=augment)
        evolved = evolve(tmp_path / "start.onnx", "digits", settings=settings, run_dir=tmp_path / augment)
        accuracies.append(evolved.test.loss)
    assert accuracies[0] != accuracies[1]
