"""Values that a model's numbers cannot hold are told in one line, with their row; numpy says nothing of its own."""

from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import (
    DataError,
    InputOptions,
    OnnxSurgeonError,
    SurgeonSettings,
    create,
    evolve,
    load_dataset,
    prepare,
    save,
)
from onnxsurgeon.data.dataset import Dataset, Selection, Split

RNG = np.random.default_rng(0)


def data(x, y=None):
    y = RNG.integers(0, 3, len(x)) if y is None else y
    split = Split(x, y)
    return Dataset("d", split, split, 3)


def rows(place=None, value=1e200, dtype=np.float64):
    x = RNG.standard_normal((40, 5)).astype(dtype)
    if place is not None:
        x[place] = value
    return x


@pytest.mark.parametrize("value", [1e200, -1e200, 3.5e38, 1.7e308])
def test_inputs_beyond_the_models_type_are_told(value):
    network = create((5, 4, 3))
    found = data(rows((7, 3), value))
    with pytest.raises(DataError, match=r"d: .* in row 7, column 3 is too large for the input 'input' of .*float32$"):
        prepare(network, found, found.train)
    selection = Selection(found.train.inputs, np.arange(5, 30), found.train.labels[5:30])
    with pytest.raises(DataError, match="in row 7, column 3"):  # the file's row, wherever a split has it
        prepare(network, found, selection)


def test_what_the_type_holds_is_taken():
    network = create((5, 4, 3))
    for x in (rows((7, 3), 1e30), rows((7, 3), 3e38, np.float32), RNG.integers(0, 9, (40, 5))):
        found = data(x)
        assert np.isfinite(prepare(network, found, found.train).features[0]).all()


def test_scaling_counts():
    network, found = create((5, 4, 3)), data(rows((7, 3), 1e30, np.float32))
    with pytest.raises(DataError, match=r"row 7, column 3 is too large .*, after --scale, --mean and --std"):
        prepare(network, found, found.train, InputOptions(scale=1e20))
    assert prepare(network, found, found.train, InputOptions(scale=0.5)).rows == 40
    found = data(RNG.integers(1, 9, (40, 5)))
    with pytest.raises(DataError, match=r"row 0, column \d is too large"):
        prepare(network, found, found.train, InputOptions(scale=1e38))


def test_images_name_their_place():
    network = create((12, 4, 3), input_shape=(2, 2, 3))
    x = RNG.standard_normal((40, 2, 2, 3))
    x[9, 1, 0, 2] = 1e200
    with pytest.raises(DataError, match=r"in row 9, column \(1, 0, 2\)"):
        prepare(network, data(x), data(x).train)


@pytest.mark.parametrize("shape", [(40,), (40, 2)])
def test_targets_beyond_the_networks_numbers_are_told(shape):
    network = create((5, 4, shape[1] if len(shape) > 1 else 1), softmax=False)
    y = RNG.standard_normal(shape)
    y[11] = 1e200
    found = replace(data(rows(), y), classes=0)
    with pytest.raises(DataError, match=r"d: target 1e.200 in row 11 is too large for .*float32"):
        prepare(network, found, found.train)


def test_outputs_that_are_not_finite_are_told():
    network = create((5, 4, 3), seed=1)
    found = data(rows(dtype=np.float32) * np.float32(1e38))
    with pytest.raises(DataError, match="what its head 'logits' puts out is not finite for these rows"):
        prepare(network.with_parameters([values * 1e3 for _, values in network.parameters()]), found, found.train)


def test_a_mean_that_is_no_number_is_told(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "t.csv"
    path.write_text("a,b,y\n" + "".join(f"{'' if i == 3 else 1.7e308},{i},{i % 2}\n" for i in range(40)))
    with pytest.raises(DataError, match=r"t\.csv: column 'a': its values are too large for their mean"):
        load_dataset(str(path), target=("y",), impute="mean")


def test_a_run_of_many_orders_of_magnitude_trains(tmp_path):
    x = rows(dtype=np.float64) * 10.0 ** np.array([-6, -3, 0, 3, 6])
    np.savez(tmp_path / "d.npz", x=np.tile(x, (5, 1)), y=np.arange(200) % 3)
    save(create((5, 4, 3), seed=1), tmp_path / "m.onnx")
    done = evolve(tmp_path / "m.onnx", str(tmp_path / "d.npz"), run_dir=tmp_path / "run", workers=1)
    assert np.isfinite(done.test.loss)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_targets_beyond_integers_are_those_of_a_regression(kind, tmp_path):
    """Floats as large as that are whole numbers all, and no classes."""
    x = np.random.default_rng(0).standard_normal((40, 4)).astype("f")
    y = (x[:, 0] * 1e22).astype(kind)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    data = load_dataset(str(tmp_path / "d.npz"))
    assert (data.classes, data.test.labels.dtype) == (0, kind)
    np.savez(tmp_path / "c.npz", x=x, y=(x[:, 0] > 0).astype(kind))
    assert load_dataset(str(tmp_path / "c.npz")).classes == 2


def test_targets_whose_units_lead_beyond_the_networks_numbers_are_told_in_a_line(tmp_path):
    """Warnings are errors here."""
    x = np.random.default_rng(0).standard_normal((100, 4)).astype("f")
    np.savez(tmp_path / "d.npz", x=x, y=x[:, 0] * np.float32(1e30))
    save(create((4, 6, 1), softmax=False), tmp_path / "m.onnx")
    settings = SurgeonSettings(epochs=3)
    with pytest.raises(OnnxSurgeonError, match="NaN or infinite"):
        evolve(tmp_path / "m.onnx", str(tmp_path / "d.npz"), settings=settings, run_dir=tmp_path / "r", workers=1)
