"""Loaders on small files in the exact official formats, written here; splits; and how rows reach a network."""

import gzip
import io
import struct
import tarfile
import zipfile
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import (
    DataError,
    Dataset,
    InputOptions,
    Split,
    create,
    from_model,
    load,
    load_dataset,
    prepare,
)
from onnxsurgeon.data import load as loading
from onnxsurgeon.data.catalogue import CATALOGUE, RemoteFile
from onnxsurgeon.data.dataset import stratified
from onnxsurgeon.data.parsers import parse_idx, read_idx
from onnxsurgeon.graph.writer import to_model
from tests.conftest import MODELS

RNG = np.random.default_rng(0)


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def images(rows, shape):
    return RNG.integers(0, 256, (rows, *shape), dtype=np.uint8)


def write_mnist(folder, rows=(30, 10)):
    arrays = {}
    for part, count in zip(("train", "t10k"), rows, strict=True):
        arrays[part] = images(count, (28, 28)), np.arange(count) % 10
        for kind, array in zip(("images-idx3", "labels-idx1"), arrays[part], strict=True):
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    return arrays


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_files(name, tmp_path):
    arrays = write_mnist(tmp_path)
    data = load_dataset(name, folder=tmp_path)
    assert (data.name, data.classes, data.train.rows, data.test.rows) == (name, 10, 30, 10)
    np.testing.assert_array_equal(data.train.inputs, arrays["train"][0])
    np.testing.assert_array_equal(data.test.labels, arrays["t10k"][1])


def test_fashion_mnist_itself(fashion):
    assert (fashion.train.inputs.shape, fashion.test.inputs.shape) == ((60_000, 28, 28), (10_000, 28, 28))
    assert np.bincount(fashion.train.labels).tolist() == [6000] * 10
    # The first label of the training set is an ankle boot; the mean pixel is published as 0.2860.
    assert fashion.train.labels[0] == 9
    assert fashion.train.inputs.mean() / 255 == pytest.approx(0.2860, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "classes", "shift"), [("emnist", 62, 0), ("emnist:letters", 26, 1), ("emnist:digits", 10, 0)]
)
def test_emnist_is_transposed_and_letters_are_counted_from_1(name, classes, shift, tmp_path):
    split = name.partition(":")[2] or "byclass"
    stored = images(4, (28, 28))
    with zipfile.ZipFile(tmp_path / "gzip.zip", "w") as archive:
        for part in ("train", "test"):
            for kind, array in (("images-idx3", stored), ("labels-idx1", np.array([0, 1, 2, classes - 1]) + shift)):
                archive.writestr(f"gzip/emnist-{split}-{part}-{kind}-ubyte.gz", gzip.compress(idx(array)))
    data = load_dataset(name, folder=tmp_path)
    assert data.classes == classes
    np.testing.assert_array_equal(data.train.inputs[1], stored[1].T)
    assert data.test.labels.tolist() == [0, 1, 2, classes - 1]


def tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_cifar10_is_channel_first_on_disk(tmp_path):
    pixels = images(12, (3, 32, 32))
    records = np.concatenate([np.arange(12, dtype=np.uint8)[:, None] % 10, pixels.reshape(12, -1)], axis=1)
    members = {f"cifar-10-batches-bin/data_batch_{i + 1}.bin": records[2 * i : 2 * i + 2].tobytes() for i in range(5)}
    members["cifar-10-batches-bin/test_batch.bin"] = records[10:].tobytes()
    tar(tmp_path / "cifar-10-binary.tar.gz", members)
    data = load_dataset("cifar10", folder=tmp_path)
    assert (data.train.rows, data.test.rows) == (10, 2)
    np.testing.assert_array_equal(data.train.inputs, pixels[:10].transpose(0, 2, 3, 1))
    assert data.train.labels.tolist() == list(range(10))


def test_cifar100_takes_the_fine_labels(tmp_path):
    pixels = images(3, (3, 32, 32))
    labels = np.array([[7, 42], [0, 0], [19, 99]], np.uint8)
    content = np.concatenate([labels, pixels.reshape(3, -1)], axis=1).tobytes()
    tar(tmp_path / "cifar-100-binary.tar.gz", {f"cifar-100-binary/{part}.bin": content for part in ("train", "test")})
    data = load_dataset("cifar100", folder=tmp_path)
    assert data.train.labels.tolist() == [42, 0, 99]
    assert data.classes == 100


def test_svhn_calls_the_digit_0_ten(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    pixels = images(4, (32, 32, 3))
    for part in ("train", "test"):
        savemat(
            tmp_path / f"{part}_32x32.mat", {"X": pixels.transpose(1, 2, 3, 0), "y": np.array([[10], [1], [9], [10]])}
        )
    data = load_dataset("svhn", folder=tmp_path)
    np.testing.assert_array_equal(data.train.inputs, pixels)
    assert data.train.labels.tolist() == [0, 1, 9, 0]


def test_eurosat_gives_a_fifth_to_testing(tmp_path):
    image = pytest.importorskip("PIL.Image")
    names = ["AnnualCrop", "Forest", "River"]
    with zipfile.ZipFile(tmp_path / "EuroSAT_RGB.zip", "w") as archive:
        for position, name in enumerate(names):
            for number in range(1, 6):
                buffer = io.BytesIO()
                image.fromarray(np.full((64, 64, 3), 80 * position, np.uint8)).save(buffer, "JPEG")
                archive.writestr(f"EuroSAT_RGB/{name}/{name}_{number}.jpg", buffer.getvalue())
    data = load_dataset("eurosat", folder=tmp_path)
    assert (data.train.rows, data.test.rows) == (12, 3)
    assert sorted(data.test.labels.tolist()) == [0, 1, 2]
    assert {int(x.mean().round()) // 80 for x in data.train.inputs} == {0, 1, 2}
    assert all(x.mean().round() == 80 * y for x, y in zip(data.train.inputs, data.train.labels, strict=True))


def test_digits(digits):
    assert (digits.train.rows, digits.test.rows, digits.maximum) == (1437, 360, 16.0)
    assert digits.train.inputs.max() == 16
    rows = np.concatenate([digits.train.inputs, digits.test.inputs]).reshape(-1, 64)
    assert len(rows) == 1797
    assert digits.digest == load_dataset("digits").digest
    assert replace(digits, maximum=255.0).digest == digits.digest
    changed = Split(digits.test.inputs, 9 - digits.test.labels)
    assert replace(digits, test=changed).digest != digits.digest


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x09\x01\0\0\0\x01\0", "not an IDX file of unsigned bytes"),
        (b"\0\0\x08\x03\0\0", "header is cut off"),
        (idx(np.zeros((2, 3)))[:-1], "expected 18 bytes for shape"),
        (idx(np.zeros((2, 3))) + b"x", "found 19"),
        (b"\0\0\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff", "expected 18446744065119617037 bytes"),
    ],
)
def test_damaged_idx(content, reason):
    with pytest.raises(DataError, match=reason) as error:
        parse_idx(content, "file")
    assert str(error.value).startswith("file: ")


def test_damaged_archives_are_named(tmp_path):
    for name in ("mnist", "emnist", "cifar10", "cifar100", "eurosat"):
        for file in CATALOGUE[name].files:
            (tmp_path / file.name).write_bytes(b"not what it should be")
        with pytest.raises(DataError) as error:
            load_dataset(name, folder=tmp_path)
        assert str(tmp_path) in str(error.value)
        assert "cannot be read" in str(error.value)


def test_a_truncated_cifar_file(tmp_path):
    tar(
        tmp_path / "cifar-100-binary.tar.gz",
        {f"cifar-100-binary/{part}.bin": b"x" * 3000 for part in ("train", "test")},
    )
    with pytest.raises(DataError, match="3000 bytes are no whole number of 3074-byte records"):
        load_dataset("cifar100", folder=tmp_path)


def test_labels_without_images(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(7))))
    with pytest.raises(DataError, match="30 images, but 7 labels"):
        load_dataset("mnist", folder=tmp_path)


def test_unknown_names():
    with pytest.raises(DataError, match="unknown data set 'mnst': expected one of digits, mnist"):
        load_dataset("mnst")
    with pytest.raises(DataError, match="emnist: unknown split 'byage': expected one of byclass"):
        load_dataset("emnist:byage")


def test_where_files_are_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "cache_folder", lambda key: tmp_path / "cache" / key)
    monkeypatch.delenv(loading.DATA_VARIABLE, raising=False)
    assert loading.locate("mnist") is None
    cache, own = tmp_path / "cache" / "mnist", tmp_path / "own"
    for folder in (cache, own):
        folder.mkdir(parents=True)
        write_mnist(folder)
    assert loading.locate("mnist") == cache
    monkeypatch.setenv(loading.DATA_VARIABLE, str(own))
    assert loading.locate("mnist") == own
    with pytest.raises(DataError, match=r"no file 'train-images-idx3-ubyte\.gz' in"):
        load_dataset("mnist", folder=tmp_path)


def test_offline_says_which_file_to_put_where(tmp_path, monkeypatch):
    pytest.importorskip("pooch")
    monkeypatch.setattr(loading, "cache_folder", lambda key: tmp_path / key)
    monkeypatch.delenv(loading.DATA_VARIABLE, raising=False)
    file = RemoteFile("train.gz", "http://127.0.0.1:9/train.gz", "md5:" + "0" * 32)
    monkeypatch.setitem(CATALOGUE, "mnist", replace(CATALOGUE["mnist"], files=(file,)))
    with pytest.raises(DataError) as error:
        load_dataset("mnist")
    assert f"put train.gz from {file.url} into {tmp_path / 'mnist'}" in str(error.value)
    assert "no connection" in str(error.value)
    assert not list(tmp_path.rglob("*.gz"))


def test_download_verifies_reports_progress_and_keeps_nothing_wrong(tmp_path, monkeypatch):
    pytest.importorskip("pooch")
    import hashlib
    import http.server
    import threading

    served = tmp_path / "served"
    served.mkdir()
    (served / "a.bin").write_bytes(b"x" * 3_000_000)
    handler = lambda *a: http.server.SimpleHTTPRequestHandler(*a, directory=served)  # noqa: E731
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *a: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setattr(loading, "cache_folder", lambda key: tmp_path / "cache")
        url = f"http://127.0.0.1:{server.server_address[1]}/a.bin"

        class Bar:
            total, seen = 0, 0

            def update(self, count):
                self.seen += count

            def reset(self):
                self.seen = 0

            def close(self):
                pass

        bar = Bar()
        for checksum, right in (("0" * 32, False), (hashlib.md5(b"x" * 3_000_000).hexdigest(), True)):
            source = replace(CATALOGUE["mnist"], files=(RemoteFile("a.bin", url, f"md5:{checksum}"),))
            monkeypatch.setitem(CATALOGUE, "mnist", source)
            if right:
                assert (loading.fetch("mnist", progress=lambda name: bar) / "a.bin").stat().st_size == 3_000_000
                assert bar.total == bar.seen == 3_000_000
            else:
                with pytest.raises(DataError, match="its checksum is wrong"):
                    loading.fetch("mnist")
                assert not (tmp_path / "cache" / "a.bin").exists()
    finally:
        server.shutdown()
        server.server_close()


def npz(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_npz_with_and_without_a_test_split(tmp_path):
    x, y = RNG.random((50, 4)), np.arange(50) % 3
    data = load_dataset(npz(tmp_path / "a.npz", x=x, y=y))
    assert (data.train.rows, data.test.rows, data.classes) == (40, 10, 3)
    given = {"x_train": x, "y_train": y, "x_test": x[:7], "y_test": y[:7], "x_validation": x[:5], "y_validation": y[:5]}
    data = load_dataset(npz(tmp_path / "b.npz", **given))
    assert (data.train.rows, data.test.rows) == (50, 7)
    assert data.hold_out()[1].rows == 5


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"x_test": np.ones((3, 2))}, "expected the keys x_train and y_train.*found x_test"),
        ({"x_train": np.ones((3, 2)), "y_train": np.ones(2)}, r"'y_train' must have shape \(3,\)"),
        ({"x": np.ones(3), "y": np.ones(3)}, "'x' must be numbers of shape"),
        ({"x": np.ones((0, 3)), "y": np.ones(0)}, "'x' has no rows"),
        ({"x": np.array([[1.0, 2], [3, np.nan]]), "y": np.arange(2)}, "'x' holds nan in row 1, column 1"),
    ],
)
def test_npz_that_cannot_be_used(arrays, reason, tmp_path):
    path = npz(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=reason) as error:
        load_dataset(path)
    assert path in str(error.value)


def test_npz_with_a_pickle_inside_is_refused(tmp_path):
    path = npz(tmp_path / "bad.npz", x=np.array([[object()]]), y=np.zeros(1, int))
    with pytest.raises(DataError, match="allow_pickle=False"):
        load_dataset(path)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(DataError, match=r"not a readable \.npz file"):
        load_dataset(str(tmp_path / "text.npz"))
    with pytest.raises(DataError, match="no such file"):
        load_dataset(str(tmp_path / "none.npz"))


def test_stratified_takes_every_class_in_proportion_and_always_the_same():
    labels = np.repeat([0, 1, 2], [500, 300, 40])
    held, rest = stratified(labels, 0.1, "x")
    assert np.bincount(labels[held]).tolist() == [50, 30, 4]
    assert sorted([*held, *rest]) == list(range(840))
    np.testing.assert_array_equal(held, stratified(labels, 0.1, "x")[0])
    with pytest.raises(DataError, match="1 row is too few"):
        stratified(labels[:1], 0.1, "x")


COLOUR = Dataset("colour", Split(images(6, (4, 5, 3)), np.arange(6) % 2), Split(images(2, (4, 5, 3)), np.arange(2)), 2)
FLAT = COLOUR.train.inputs.reshape(6, -1) / np.float32(255)


def test_flat_inputs_are_in_hwc_order_unless_asked_otherwise():
    net = create((60, 2))
    np.testing.assert_allclose(prepare(net, COLOUR, COLOUR.train).features[0], FLAT, rtol=1e-6)
    chw = COLOUR.train.inputs.transpose(0, 3, 1, 2).reshape(6, -1) / np.float32(255)
    np.testing.assert_allclose(prepare(net, COLOUR, COLOUR.train, InputOptions("chw")).features[0], chw, rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 5, 3), (3, 4, 5)])
def test_images_are_matched_by_their_channel_axis(shape):
    net = create((60, 2), input_shape=shape)
    wanted = COLOUR.train.inputs if shape[-1] == 3 else COLOUR.train.inputs.transpose(0, 3, 1, 2)
    expected = wanted.reshape(6, -1) / np.float32(255)
    np.testing.assert_allclose(prepare(net, COLOUR, COLOUR.train).features[0], expected, rtol=1e-6)


def test_rows_that_fit_as_they_are_are_not_turned():
    cube = Dataset("cube", Split(images(6, (3, 3, 3)), np.arange(6) % 2), Split(images(2, (3, 3, 3)), np.arange(2)), 2)
    rows = images(6, (3, 4, 5))
    first = Dataset("first", Split(rows, np.arange(6) % 2), Split(rows[:2], np.arange(2)), 2)
    for data, shape in ((cube, (3, 3, 3)), (first, (3, 4, 5))):
        net = create((int(np.prod(shape)), 2), input_shape=shape)
        expected = data.train.inputs.reshape(6, -1) / np.float32(255)
        np.testing.assert_allclose(prepare(net, data, data.train).features[0], expected, rtol=1e-6)
    mean = (1.0, 2.0, 3.0)
    features = prepare(net, first, first.train, InputOptions(scale=1.0, mean=mean)).features[0]
    np.testing.assert_allclose(features, (rows - np.reshape(mean, (3, 1, 1))).reshape(6, -1), rtol=1e-6)


def test_grey_images_fit_with_and_without_a_channel_axis(digits):
    expected = digits.test.inputs.reshape(360, -1) / np.float32(16)
    for shape in ((64,), (8, 8), (8, 8, 1), (1, 8, 8)):
        features = prepare(create((64, 10), input_shape=shape), digits, digits.test).features[0]
        np.testing.assert_allclose(features, expected, rtol=1e-6)


def test_scale_mean_and_std_by_channel():
    options = InputOptions(scale=0.5, mean=(1.0, 2.0, 3.0), std=(2.0,))
    expected = (COLOUR.train.inputs * 0.5 - np.array([1.0, 2.0, 3.0])) / 2
    for shape in ((4, 5, 3), (60,)):
        features = prepare(create((60, 2), input_shape=shape), COLOUR, COLOUR.train, options).features[0]
        np.testing.assert_allclose(features, expected.reshape(6, -1), rtol=1e-6)
    first = prepare(create((60, 2), input_shape=(3, 4, 5)), COLOUR, COLOUR.train, options).features[0]
    np.testing.assert_allclose(first, expected.transpose(0, 3, 1, 2).reshape(6, -1), rtol=1e-6)
    with pytest.raises(DataError, match="2 values of mean or std fit no channel axis"):
        prepare(create((60, 2)), COLOUR, COLOUR.train, InputOptions(mean=(1.0, 2.0)))
    with pytest.raises(DataError, match="unknown layout 'nchw'"):
        InputOptions("nchw")
    with pytest.raises(DataError, match="a scale of 0 leaves nothing"):
        InputOptions(scale=0.0)
    with pytest.raises(DataError, match="standard deviation of 0"):
        InputOptions(std=(0.0,))


def test_floats_are_taken_as_they_are(tmp_path):
    x = RNG.standard_normal((20, 4)).astype("f")
    data = load_dataset(
        npz(tmp_path / "a.npz", x_train=x, y_train=np.arange(20) % 2, x_test=x, y_test=np.arange(20) % 2)
    )
    np.testing.assert_array_equal(prepare(create((4, 2)), data, data.train).features[0], x)


def test_rows_and_labels_that_do_not_fit(digits):
    with pytest.raises(DataError, match=r"rows of shape \(8, 8\) do not fit the input of 'model', which takes \(784\)"):
        prepare(create((784, 10)), digits, digits.train)
    with pytest.raises(DataError, match=r"label \d in row \d+ is outside the 5 classes of 'model' \(0 to 4\)"):
        prepare(create((64, 5)), digits, digits.train)


def test_a_prefix_with_a_fixed_batch_is_evaluated_in_pieces():
    scale = numpy_helper.from_array(np.float32(2), "two")
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["m"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Gemm", ["f", "W"], ["y"]),
    ]
    weight = numpy_helper.from_array(np.ones((60, 2), "f"), "W")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 4, 5, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 2])],
        [scale, weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    features = prepare(from_model(model), COLOUR, COLOUR.train).features[0]  # 6 rows in batches of 4
    np.testing.assert_allclose(features, 2 * FLAT, rtol=1e-6)


def test_every_export_reaches_its_accuracy_through_its_prefix(digits):
    from onnxsurgeon import make_engine

    for path in MODELS.glob("export-*.onnx"):
        net = load(path)
        metrics = make_engine("loop").evaluate(net, prepare(net, digits, digits.test))
        assert metrics.accuracy > 0.97, path  # trained on these digits, with the test rows among them


def test_an_input_that_nothing_trained_reads_is_left_alone(digits):
    model = to_model(create((64, 10)))
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
    onnx.checker.check_model(model)
    assert prepare(from_model(model), digits, digits.test).features[0].shape == (360, 64)


def test_rows_without_names_do_not_fit_a_model_with_two_inputs(digits):
    model = to_model(create((64, 10)))
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["batch", 64]))
    model.graph.node.insert(0, helper.make_node("Add", ["input", "other"], ["sum"]))
    model.graph.node[1].input[0] = "sum"
    onnx.checker.check_model(model)
    with pytest.raises(DataError, match="has 2 inputs, 'input', 'other': expected columns or arrays of these names"):
        prepare(from_model(model), digits, digits.test)


@pytest.mark.parametrize(
    ("rows", "deciding"), [(40, 10), (240, 60), (500, 100), (1000, 100), (1437, 144), (60_000, 6000)]
)
def test_of_few_rows_more_decide(rows, deciding):
    split = Split(np.zeros((rows, 2), np.float32), np.arange(rows) % 2)
    train, validation = Dataset("rows", split, split, 2).hold_out()
    assert (train.rows, validation.rows) == (rows - deciding, deciding)
    assert Dataset("rows", split, split, 2, validation_fraction=0.5).hold_out()[1].rows == -(-rows // 2)


def test_an_idx_file_of_very_many_axes_is_told_in_a_line():
    with pytest.raises(DataError, match="would take more than 8,796,093,022,208 MB of memory"):
        read_idx(gzip.compress(b"\0\0\x08\xff" + b"\0\0\x01\0" * 255), "file")
