"""The user's arrays: .npz archives beyond Keras' form, pairs of .npy files, and every error."""

import re
import zipfile

import numpy as np
import pytest

from onnxsurgeon import DataError, Dataset, Split, create, load_dataset, prepare
from onnxsurgeon.data import dataset as sets
from onnxsurgeon.data.archive_keys import NPZ_KEYS, PARTS

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 4)).astype("f")
CLASSES = np.arange(50) % 3


def npz(folder, **arrays):
    path = folder / "a.npz"
    np.savez(path, **arrays)
    return str(path)


def npy(folder, x, y):
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    return str(folder / "x.npy"), (str(folder / "y.npy"),)


@pytest.mark.parametrize(
    ("labels", "dtype", "classes", "names"),
    [
        (CLASSES, "int64", 3, ()),
        (CLASSES.astype("f"), "int64", 3, ()),
        (CLASSES.astype(np.uint8)[:, None], "int64", 3, ()),
        (CLASSES == 1, "int64", 2, ()),
        (CLASSES * 5 - 5, "int64", 3, (-5, 0, 5)),
        (np.array(["dog", "ant", "cat"])[CLASSES], "int64", 3, ("ant", "cat", "dog")),
        (CLASSES + 0.5, "float64", 0, ()),
        ((CLASSES + 0.5).astype("f"), "float32", 0, ()),
        ((CLASSES + 0.5).astype(np.float16), "float64", 0, ()),
        (np.ones((50, 2)), "float64", 0, ()),
        (np.stack([CLASSES, CLASSES], 1), "int64", 0, ()),
        (np.stack([CLASSES == 1, CLASSES == 2], 1), "int64", 0, ()),
    ],
)
@pytest.mark.parametrize("form", ["npz", "npy"])
def test_labels_of_every_task(labels, dtype, classes, names, form, tmp_path):
    rows = np.arange(50.0)[:, None]
    if form == "npz":
        data = load_dataset(npz(tmp_path, x=rows, y=labels))
    else:
        path, target = npy(tmp_path, rows, labels)
        data = load_dataset(path, target=target)
    assert (data.classes, data.class_labels) == (classes, names)
    assert (data.train.rows, data.test.rows) == (40, 10)
    expected = labels[:, 0] if labels.shape[1:] == (1,) else labels
    for split in (*data.splits, *data.hold_out()):
        assert split.labels.dtype == dtype
        own = np.array(names)[split.labels] if names else split.labels
        np.testing.assert_array_equal(own, expected[split.inputs[:, 0].astype(int)])


@pytest.mark.parametrize("name", ["X", "pixels"])
def test_an_only_array_of_rows_fits_whatever_it_is_called(name, tmp_path):
    """Scikit-learn's users call it X; the message was "'X' has shape (50, 4); expected a column", of no file."""
    for keys in ({name: X, "y": CLASSES}, {f"{name}_train": X, "y_train": CLASSES}):
        data = load_dataset(npz(tmp_path, **keys))
        assert data.train.inputs.shape[1:] == (4,)
        assert data.train.rows + data.test.rows == 50


def test_classes_are_counted_over_all_splits(tmp_path):
    given = {"x_train": X, "y_train": CLASSES, "x_test": X[:2], "y_test": np.array([7, 0])}
    data = load_dataset(npz(tmp_path, **given))
    assert (data.classes, data.class_labels, data.test.labels.tolist()) == (4, (0, 1, 2, 7), [3, 0])
    given["y_test"] = np.array([0.5, 0])
    data = load_dataset(npz(tmp_path, **given))
    assert (data.classes, data.train.labels.dtype, data.test.labels.tolist()) == (0, "float64", [0.5, 0])


def test_integers_with_gaps_may_be_numbers_of_outputs(tmp_path):
    numbers = np.array([0, 1, 3])[CLASSES]
    data = load_dataset(npz(tmp_path, x=X, y=numbers))
    assert (data.classes, data.class_labels) == (3, (0, 1, 3))
    width = X.reshape(len(X), -1).shape[1]
    examples = prepare(create((width, 4)), data, data.train)  # a model that knows class 2 as well
    np.testing.assert_array_equal(examples.labels[0], np.array([0, 1, 3])[data.train.labels])
    examples = prepare(create((width, 3)), data, data.train)  # three outputs for three classes
    np.testing.assert_array_equal(examples.labels[0], data.train.labels)
    with pytest.raises(DataError, match=r"label 3 in row \d+ is outside the 2 classes of 'model'"):
        prepare(create((width, 2)), data, data.train)
    negative = load_dataset(npz(tmp_path, x=X, y=CLASSES - 1))
    with pytest.raises(DataError, match=r"label -1 in row \d+ is outside the 10 classes"):
        prepare(create((width, 10)), negative, negative.train)
    texts = load_dataset(npz(tmp_path, x=X, y=np.array(["a", "b", "c"])[CLASSES]))
    np.testing.assert_array_equal(prepare(create((width, 3)), texts, texts.test).labels[0], texts.test.labels)
    with pytest.raises(DataError, match="3 classes, from 'a' to 'c'; 'model' has 4, and gives them no names"):
        prepare(create((width, 4)), texts, texts.train)


def test_several_inputs(tmp_path):
    colour, image = np.array(["r", "g"])[np.arange(50) % 2], RNG.integers(0, 9, (50, 2, 3))
    for given in (
        {"colour": colour, "image": image, "y": CLASSES},
        {"colour_train": colour, "image_train": image, "y_train": CLASSES},
    ):
        data = load_dataset(npz(tmp_path, **given))
        assert {name: array.shape for name, array in data.train.inputs.items()} == {
            "colour": (40,),
            "image": (40, 2, 3),
        }
    given |= {"colour_test": colour[:5], "image_test": image[:5], "y_test": CLASSES[:5]}
    given |= {"colour_validation": colour[:3], "image_validation": image[:3], "y_validation": CLASSES[:3]}
    data = load_dataset(npz(tmp_path, **given))
    assert (data.train.rows, data.test.rows, data.hold_out()[1].rows) == (50, 5, 3)
    np.testing.assert_array_equal(data.test.inputs["image"], image[:5])
    given["image_test"] = image[:5, :1]
    with pytest.raises(DataError, match=r"rows of 'image' of shape \(1, 3\) and \(2, 3\) in one set"):
        load_dataset(npz(tmp_path, **given))


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"y": CLASSES}, "expected the keys x_train and y_train"),
        ({}, "expected the keys x_train and y_train"),
        ({"x_test": X}, "expected the keys x_train and y_train"),
        ({"x_train": X, "b": X}, "expected the keys x_train and y_train"),
        ({"arr_0": X, "arr_1": CLASSES}, "x_train and y_train"),
        ({"a_train": X, "b_train": X, "a_test": X}, "'a_test' has no 'b_test' beside it"),
        ({"x_train": X, "b": X, "y": CLASSES}, "expected the keys x_train and y_train"),
        ({"a_train": X, "y_train": CLASSES, "y_test": CLASSES}, "'y_test' has no 'a_test' beside it"),
        ({"a_train": X, "a_test": X, "b_test": X, "y_train": CLASSES, "y_test": CLASSES}, "'y_train' has no 'b_train'"),
        ({"x_train": X, "y_train": CLASSES, "x_test": X}, "'x_test' has no 'y_test' beside it"),
        (
            {"a": X, "b": X[:7], "y": CLASSES},
            "inputs of one split must have the same number of rows; found 50 of 'a'",
        ),
        ({"a": X, "y": CLASSES[:7]}, "'y' must have shape (50,), one label a row, or (50, …, k); it has (7,)"),
        ({"a": X * 1j, "y": CLASSES}, "'a' must be numbers of shape (rows,) or (rows, …); it is complex64 (50, 4)"),
        ({"x": X.astype(str), "y": CLASSES}, "'x' must be numbers of shape (rows, …); it is <U32 (50, 4)"),
        ({"x": X, "y": np.zeros((50, 2, 0))}, "one label a row, or (50, …, k); it has (50, 2, 0)"),
        ({"x": X, "y": np.zeros((50, 0))}, "'y' must have shape (50,), one label a row, or (50, …, k); it has (50, 0)"),
        ({"x": X, "y": CLASSES * 1j}, "'y' must hold numbers or texts; it is complex128"),
        ({"x": X, "y": np.where(CLASSES == 1, np.inf, 0)}, "'y' holds inf in row 1"),
        ({"x": X, "y": np.full((50, 2), "a")}, "labels in several columns must be numbers; found texts"),
        ({"x": X, "y": np.full((50, 2), -1)}, "labels in several columns count from 0; found -1"),
        ({"x": X, "y": np.full(50, 2**64 - 1, np.uint64)}, "label 18446744073709551615 is beyond the integers"),
        (
            {"x_train": X, "y_train": CLASSES, "x_test": X[:2], "y_test": np.array(["a", "b"])},
            "the labels of its splits must be of one kind and width; found <U1 (2,) and int64 (50,)",
        ),
        (
            {"x_train": X, "y_train": CLASSES, "x_test": X[:, :2], "y_test": CLASSES},
            "rows of shape (2,) and (4,) in one set",
        ),
    ],
)
def test_npz_that_cannot_be_used(arrays, reason, tmp_path):
    path = npz(tmp_path, **arrays)
    with pytest.raises(DataError, match=re.escape(reason)) as error:
        load_dataset(path)
    assert str(error.value).startswith(f"{path}: ")


def test_npy_stays_in_its_file_until_rows_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "_CHUNK_BYTES", 64)
    path, target = npy(tmp_path, X, CLASSES)
    mapped = load_dataset(path, target=target)
    archive = load_dataset(npz(tmp_path, x=X, y=CLASSES))
    assert mapped.digest == archive.digest
    train, validation = mapped.hold_out()
    assert all("inputs" not in vars(split) for split in (*mapped.splits, train, validation))
    assert isinstance(train.source, np.memmap)
    for own, other in zip((train, validation, mapped.test), (*archive.hold_out(), archive.test), strict=True):
        np.testing.assert_array_equal(own.inputs, other.inputs)
        np.testing.assert_array_equal(own.labels, other.labels)
        assert not isinstance(own.inputs, np.memmap)
        assert own.inputs is own.inputs
    np.testing.assert_array_equal(mapped.train.inputs, archive.train.inputs)


def test_npy_that_cannot_be_used(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "_CHUNK_BYTES", 64)
    bad = X.copy()
    bad[40, 2] = np.nan
    for x, y, reason in (
        (X, CLASSES[:9], r"y\.npy: the array must have shape \(50,\), one label a row, or \(50, …, k\); it has \(9,\)"),
        (X[:0], CLASSES[:0], r"x\.npy: the array has no rows"),
        (X[:, 0], CLASSES, r"x\.npy: the array must be numbers of shape \(rows, …\); it is float32 \(50,\)"),
        (X.astype(str), CLASSES, r"x\.npy: the array must be numbers of shape"),
        (bad, CLASSES, r"x\.npy: the array holds nan in row 40, column 2"),
        (X, np.full(50, np.nan), r"y\.npy: the array holds nan in row 0"),
        (X, np.full((50, 2), -3), r"y\.npy: labels in several columns count from 0; found -3"),
        (X[:1], CLASSES[:1], r"x\.npy: 1 row is too few to hold out 20% of them"),
    ):
        path, target = npy(tmp_path, x, y)
        with pytest.raises(DataError, match=reason):
            load_dataset(path, target=target)
    path, target = npy(tmp_path, X, CLASSES)
    for options, reason in (
        (
            {"target": (*target, *target)},
            r"x\.npy: expected --target with the \.npy file of its labels; found '.*' and",
        ),
        ({"target": ("y",)}, r"x\.npy: expected --target with the \.npy file of its labels; found 'y'"),
        ({"target": target, "impute": "mean"}, r"x\.npy: --impute fills missing values of tables; this is none"),
        ({"target": (str(tmp_path / "no.npy"),)}, r"no\.npy: no such file"),
    ):
        with pytest.raises(DataError, match=reason):
            load_dataset(path, **options)
    for content, reason in ((b"", "not a readable .npy file"), ((tmp_path / "x.npy").read_bytes()[:-1], "not a read")):
        (tmp_path / "x.npy").write_bytes(content)
        with pytest.raises(DataError, match=reason):
            load_dataset(path, target=target)
    np.save(tmp_path / "x.npy", np.array([[object()]]), allow_pickle=True)
    with pytest.raises(DataError, match=r"x\.npy: not a readable \.npy file: .*Python objects"):
        load_dataset(path, target=target)
    with (tmp_path / "x.npy").open("wb") as file:
        np.savez(file, x=X)
    with pytest.raises(DataError, match=r"x\.npy: not a readable \.npy file: the magic string is not correct"):
        load_dataset(path, target=target)


@pytest.mark.parametrize(
    ("position", "byte"), [("head", 40), ("central", 6), ("central", 8)], ids=["header", "version", "encryption"]
)
def test_damaged_bytes_that_once_escaped(position, byte, tmp_path):
    """Found by changing bytes at random: what zipfile and tokenize raise is of many types."""
    path, target = npy(tmp_path, X, CLASSES)
    if position == "head":
        content = bytearray((tmp_path / "x.npy").read_bytes())
        content[content.index(b"}")] = ord("(")
        (tmp_path / "x.npy").write_bytes(content)
    else:
        path, target = npz(tmp_path, x=X, y=CLASSES), ()
        content = bytearray((tmp_path / "a.npz").read_bytes())
        content[content.rindex(b"PK\x01\x02") + byte] = 0x61
        (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"not a readable \.np[yz] file: ") as error:
        load_dataset(path, target=target)
    assert "\n" not in str(error.value)


def test_options_that_do_not_fit(tmp_path):
    path = npz(tmp_path, x=X, y=CLASSES)
    for name, options, reason in (
        (path, {"target": ("y",)}, "takes no --target, its labels are in the file; found 'y'"),
        (path, {"impute": "mean"}, "--impute fills missing values of tables; this is none"),
        (
            "digits",
            {"target": ("y",)},
            "digits: --target is for tables and arrays of your own; this set has",
        ),
        ("digits", {"impute": "mean"}, "digits: --impute is for tables and arrays of your own"),
        ("digts", {"target": ("y",)}, "unknown data set 'digts'"),
    ):
        with pytest.raises(DataError, match=re.escape(reason)):
            load_dataset(name, **options)


def test_random_rows_are_held_out_where_there_are_no_classes():
    split = Split({"a": np.arange(40.0)}, np.arange(40.0))
    data = Dataset("r", split, split, 0, validation_fraction=0.25)
    train, validation = data.hold_out()
    assert (train.rows, validation.rows) == (30, 10)
    assert sorted([*train.labels, *validation.labels]) == list(range(40))
    np.testing.assert_array_equal(validation.inputs["a"], validation.labels)
    np.testing.assert_array_equal(validation.labels, data.hold_out()[1].labels)
    assert validation.labels.tolist() != list(range(10))


def test_the_digest_covers_names_texts_and_class_labels():
    def digest(inputs, labels=(0, 1), **more):
        split = Split(inputs, np.array(labels))
        return Dataset("d", split, split, 2, **more).digest

    texts = {"a": np.array(["x", "y"])}
    different = [
        digest(texts),
        digest({"b": texts["a"]}),
        digest({"c": texts["a"], "b": texts["a"]}),
        digest({"c": texts["a"][::-1], "b": texts["a"]}),
        digest({"c": texts["a"], "b": texts["a"][::-1]}),
        digest({"a": np.array(["x", "z"])}),
        digest(texts, (1, 0)),
        digest(texts, class_labels=("no", "yes")),
        digest(texts, class_labels=(3, 4)),
        digest(np.arange(4.0).reshape(2, 2)),
    ]
    assert len(set(different)) == len(different)
    assert digest(dict(texts), validation_fraction=0.3) == digest(texts)


def test_keys_that_are_accepted_are_those_the_error_names():
    assert set(re.findall(r"\b[xy]_\w+", NPZ_KEYS)) == {f"{kind}_{part}" for kind in "xy" for part in PARTS}


@pytest.mark.parametrize("axes", [70, 20_000])
def test_an_array_of_very_many_axes_is_told_in_a_line(axes, tmp_path):
    """Their sizes are multiplied before they are refused, beyond what any type holds."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'2, ' * axes}), }}".encode()
    content = b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + bytes(100)
    (tmp_path / "x.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", content)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(DataError, match=r"not a readable \.np[yz] file: ") as error:
            load_dataset(str(tmp_path / name))
        assert len(str(error.value)) < 1000


def test_arrays_of_other_names_are_told(tmp_path):
    x, y = np.zeros((10, 2)), np.arange(10) % 2
    data = load_dataset(npz(tmp_path, x_train=x, y_train=y, x_val=x, y_val=y))
    assert data.remarks == (
        "left out of the archive: 'x_val', 'y_val'; rows to decide by are x_validation and y_validation",
    )
    assert load_dataset(npz(tmp_path, x_train=x, y_train=y)).remarks == ()
