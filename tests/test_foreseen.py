"""Data of a stranger: their sizes are compared with the model, and bounded, before anything is decoded."""

import gzip
import io
import os
import struct
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from onnxsurgeon import create, load_dataset
from onnxsurgeon.bounds import MAX_DATA_BYTES, MAX_DATA_EXPANSION, lifted
from onnxsurgeon.cli import main
from onnxsurgeon.data import foreseen
from tests.conftest import MODELS
from tests.foreseen import MB, little_memory, refused

SMALL = str(MODELS / "digits-small.onnx")


def header(shape, descr="<f4", version=(1, 0)):
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (63 - len(text) % 64) + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text


def entry(archive, name, start, zeros=0):
    """A member that begins with ``start`` and goes on with zeros, which are never in memory together."""
    with archive.open(name, "w", force_zip64=True) as file:
        file.write(start)
        for _ in range(zeros // MB):
            file.write(bytes(MB))
        file.write(bytes(zeros % MB))


def bomb(path, shape, *, itemsize=4, descr="<f4", labels=None):
    """An archive of zeros, a thousandth of its size on the disk."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        entry(archive, "x.npy", header(shape, descr), itemsize * int(np.prod(shape)))
        labels = np.zeros(shape[0], np.int64) if labels is None else labels
        buffer = io.BytesIO()
        np.save(buffer, labels)
        archive.writestr("y.npy", buffer.getvalue())
    return path


def test_rows_of_another_size_are_refused_before_they_are_decoded(tmp_path):
    path = bomb(tmp_path / "d.npz", (30, 5_000_000))
    assert path.stat().st_size < 4 * MB
    refused(path, r"d\.npz: rows of shape \(5000000,\) do not fit the input of .*, which takes \(64\)")


def test_rows_that_fit_are_bounded_as_a_whole(tmp_path):
    path = bomb(tmp_path / "d.npz", (2_200_000, 64), labels=np.zeros(2_200_000, np.uint8))
    refused(path, r"d\.npz: [\d.]+ MB on the disk would take 539 MB of memory; at most 512 MB are allowed.*--trust")


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (((300 * MB, 1), "|u1"), ((300 * MB,), "|b1"), "would take 600 MB of memory"),
        (((1, 1), "|u1"), ((1,), "<U150000000"), r"'y\.npy' holds values of 600000000 bytes each"),
        (((10**12, 1), "|V0"), ((10**12,), "<U0"), "'x' must be numbers"),
        (((30, 1), "|u1"), ((30, 20 * MB), "|b1"), "would take 600 MB of memory"),
    ],
)
def test_labels_are_bounded_as_well(x, y, reason, tmp_path):
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, (shape, descr) in {"x.npy": x, "y.npy": y}.items():
            entry(archive, name, header(shape, descr), np.dtype(descr).itemsize * int(np.prod(shape)))
    refused(path, reason, create((1, 2)))


@pytest.mark.parametrize(
    ("start", "zeros", "reason"),
    [
        (header((4, 64)), 0, r"'x\.npy' of shape \(4, 64\) needs 1024 bytes, and has 0"),
        (header((4, 64)), 2000, "needs 1024 bytes, and has 2000"),
        (header((2**40, 64)), 1024, "needs .* bytes, and has 1024"),
        (header((2**60, 2**60)), 1024, "not a readable"),
        (header((-4, -64)), 1024, "not a readable"),
        (header((4, 64), "|O"), 1024, "holds pickled objects"),
        (b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31), 60 * MB, "not a readable"),
        (b"\x93NUMPY\x03\x00" + struct.pack("<I", 2**31), 60 * MB, r"'x\.npy' is no array of numbers or texts"),
        (b"what", 60 * MB, r"'x\.npy' is no array of numbers or texts"),
        (b"", 0, r"'x\.npy' is no array of numbers or texts"),
    ],
)
def test_headers_that_lie(start, zeros, reason, tmp_path):
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        entry(archive, "x.npy", start, zeros)
        entry(archive, "y.npy", header((4,), "<i8"), 32)
    refused(path, reason)


def test_entries_that_nothing_reads_are_not_decoded(tmp_path):
    path = tmp_path / "d.npz"
    x = np.random.default_rng(0).standard_normal((40, 64)).astype("f")
    np.savez(path, x_train=x, y_train=np.arange(40) % 10)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        entry(archive, "y.npy", header((600 * MB // 4,)), 600 * MB)
    with little_memory():
        np.testing.assert_array_equal(load_dataset(str(path)).train.stored.source, x)


def test_other_compressions_are_refused(tmp_path):
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        entry(archive, "x.npy", header((4, 64)), 1024)
    refused(path, "is compressed in a way that numpy does not write")


def test_trust_lifts_the_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(foreseen, "MAX_DATA_BYTES", 1000)
    path = bomb(tmp_path / "d.npz", (4000, 64), labels=np.arange(4000) % 10)
    refused(path, "would take", create((64, 10)))
    with lifted():
        assert load_dataset(str(path)).train.rows == 3200


def test_the_bound_grows_with_the_file():
    assert foreseen.most_bytes(0) == MAX_DATA_BYTES
    assert foreseen.most_bytes(MAX_DATA_BYTES) == MAX_DATA_EXPANSION * MAX_DATA_BYTES


def test_arrays_in_files_of_their_own(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        file.write(header((2**20, 2**20)))
        file.truncate(file.tell() + 2**42)  # which takes no room on the disk
    refused(tmp_path / "x.npy", r"rows of shape \(1048576,\) do not fit")
    np.save(tmp_path / "x.npy", np.zeros((40, 64), "f"))
    with (tmp_path / "y.npy").open("wb") as file:
        file.write(header((2**38,), "<i8"))
        file.truncate(file.tell() + 2**41)
    refused(tmp_path / "x.npy", r"must have shape \(40,\), one label a row", target=(str(tmp_path / "y.npy"),))


def images(folder, size, count, **options):
    image = pytest.importorskip("PIL.Image")
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image.new("L", size).save(folder / name / f"{i}.png", **options)
    return folder


def test_images_of_another_size_are_not_decoded(tmp_path):
    folder = images(tmp_path / "p", (9000, 9000), 2, compress_level=1)
    refused(folder, r"p: rows of shape \(9000, 9000\) do not fit the input of .*, which takes \(64\)")


def test_images_that_fit_are_bounded_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(foreseen, "MAX_DATA_BYTES", 10 * MB)
    folder = images(tmp_path / "p", (2000, 2000), 3)
    refused(folder, "would take 22.9 MB of memory; at most 10.0 MB", create((4_000_000, 2)))


def test_only_formats_of_these_endings_are_read(tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder = images(tmp_path / "p", (8, 8), 5)
    image.new("L", (8, 8)).save(folder / "a" / "0.png", "EPS")
    refused(folder, r"a/0\.png: not a readable image")


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
@pytest.mark.parametrize("labelled", [True, False])
def test_what_would_have_to_be_waited_for_is_refused(kind, labelled, tmp_path):
    import socket
    import stat

    folder = images(tmp_path / "p", (8, 8), 5)
    place = folder / "a" / "x.png"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind(os.path.relpath(place))
        server.close()
    else:
        try:
            os.mknod(place, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
        except PermissionError:
            pytest.skip("devices can be made by root only")
    refused(folder if labelled else folder / "a", r"x\.png: is no regular file; expected an image")


@pytest.mark.parametrize("suffix", ["npz", "npy", "csv", "parquet"])
def test_a_pipe_in_place_of_a_file_is_refused(suffix, tmp_path):
    os.mkfifo(tmp_path / f"d.{suffix}")
    refused(tmp_path / f"d.{suffix}", rf"d\.{suffix}: is no regular file")
    os.mkfifo(tmp_path / "train.csv")
    refused(tmp_path, r"train\.csv: is no regular file")


def idx_bomb(path, shape, zeros):
    with gzip.open(path, "wb", 1) as file:
        file.write(struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape))
        for _ in range(zeros // MB):
            file.write(bytes(MB))


@pytest.mark.parametrize(
    ("shape", "zeros", "reason"),
    [
        ((1_000_000, 28, 28), 700 * MB, "would take 748 MB of memory"),
        ((2**32 - 1, 2**32 - 1, 2**32 - 1), 100 * MB, "would take"),
        ((10, 28, 28), 600 * MB, "expected 7856 bytes for shape"),
        ((600_000, 28, 28), 1 * MB, "expected 470400016 bytes for shape"),
    ],
)
def test_gzipped_arrays_are_bounded(shape, zeros, reason, tmp_path):
    for part in ("train", "t10k"):
        idx_bomb(tmp_path / f"{part}-images-idx3-ubyte.gz", shape, zeros)
        idx_bomb(tmp_path / f"{part}-labels-idx1-ubyte.gz", (10,), 0)
    refused("mnist", reason, create((784, 10)), folder=tmp_path)


def test_gzipped_archives_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(foreseen, "MAX_DATA_BYTES", 10 * MB)
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for number in range(1, 6):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/data_batch_{number}.bin")
            member.size = 3073 * 10_000
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    network = create((3072, 10))
    refused("cifar10", r"cifar-10-binary\.tar\.gz: cannot be read: it holds more than", network, folder=tmp_path)
    with gzip.open(path, "wb") as file:  # a header that is said to be of 4 GB
        member = tarfile.TarInfo("pax")
        member.type, member.size = tarfile.XHDTYPE, 2**32
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.write(bytes(20 * MB))
    refused("cifar10", "it holds more than", network, folder=tmp_path)


def test_archives_in_archives_are_bounded(tmp_path):
    with zipfile.ZipFile(tmp_path / "gzip.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        entry(archive, "gzip/emnist-byclass-train-images-idx3-ubyte.gz", b"\x1f\x8b", 600 * MB)
    refused("emnist", "would take 600 MB of memory", create((784, 62)), folder=tmp_path)


def test_a_named_set_is_compared_with_the_model_before_it_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("ONNXSURGEON_DATA", raising=False)
    monkeypatch.setattr("onnxsurgeon.data.load.fetch", None)
    refused("cifar100", r"cifar100: rows of shape \(32, 32, 3\) do not fit the input", create((64, 10)))


@pytest.mark.parametrize("command", ["evaluate", "train", "evolve", "operate", "inspect", "diff"])
def test_every_command_says_so_in_one_line(command, tmp_path, monkeypatch, capsys):
    bomb(tmp_path / "d.npz", (30, 3_000_000))
    arguments = {
        "operate": [SMALL, "prune:1:4", "-o", "o.onnx"],
        "train": [SMALL, "-o", "o.onnx"],
        "diff": [SMALL, SMALL],
    }.get(command, [SMALL])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["onnxsurgeon", command, *arguments, "--data", "d.npz"])
    with little_memory(), pytest.raises(SystemExit) as stopped:
        main()
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert captured.err.count("\n") == 1
    assert "rows of shape (3000000,) do not fit the input of 'digits-small'" in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) in (["d.npz"], ["d.npz", "runs"])


def test_a_pipe_in_a_folder_does_not_hang(tmp_path):
    folder = images(tmp_path / "p", (8, 8), 5)
    os.mkfifo(folder / "a" / "x.png")
    command = [sys.executable, "-m", "onnxsurgeon", "evaluate", SMALL, "--data", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is no regular file" in done.stderr
