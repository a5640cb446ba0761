"""Readers of the official file formats. None of them unpickles anything."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import numpy as np

from onnxsurgeon.data.dataset import Dataset, Split, with_test_split
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array

_CIFAR_PIXELS = (3, 32, 32)  # channel-first in the binary files
_EMNIST_CLASSES = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26, "digits": 10, "mnist": 10}


def read_digits(folder: Path, variant: str) -> Dataset:
    """The digits that ship with the package: 1,797 images of 8 × 8 pixels from 0 to 16."""
    content = resources.files("onnxsurgeon.data").joinpath("digits.npz").read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        whole = Split(arrays["images"], arrays["labels"].astype(np.int64))
    return with_test_split("digits", whole, 10, maximum=16.0)


def read_mnist(folder: Path, variant: str) -> Dataset:
    """MNIST and Fashion-MNIST: four IDX files, gzipped."""
    splits = []
    for part in ("train", "t10k"):
        images, labels = (folder / f"{part}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        with _reading(images):
            inputs = parse_idx(gzip.decompress(images.read_bytes()), images.name)
        with _reading(labels):
            splits.append(_split(inputs, parse_idx(gzip.decompress(labels.read_bytes()), labels.name), labels))
    return Dataset(folder.name, splits[0], splits[1], 10)


def read_emnist(folder: Path, variant: str) -> Dataset:
    """EMNIST: NIST's gzip.zip with IDX files whose images are transposed."""
    archive = folder / "gzip.zip"
    splits = []
    with _reading(archive), zipfile.ZipFile(archive) as files:
        for part in ("train", "test"):
            arrays = []
            for kind in ("images-idx3", "labels-idx1"):
                name = f"gzip/emnist-{variant}-{part}-{kind}-ubyte.gz"
                arrays.append(parse_idx(gzip.decompress(files.read(name)), name))
            labels = arrays[1] - (1 if variant == "letters" else 0)  # letters are numbered from 1
            splits.append(_split(np.ascontiguousarray(arrays[0].transpose(0, 2, 1)), labels, archive))
    return Dataset(f"emnist:{variant}", splits[0], splits[1], _EMNIST_CLASSES[variant])


def parse_idx(content: bytes, name: str) -> Array:
    """An array of unsigned bytes in IDX format: magic 0 0 8 ndim, big-endian sizes, values.

    Raises:
        DataError: the content is no such array, or shorter or longer than its sizes say.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{name}: not an IDX file of unsigned bytes")
    dimensions = content[3]
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{name}: its IDX header is cut off")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
    expected = header + int(np.prod([int(size) for size in shape], dtype=object))
    if len(content) != expected:
        raise DataError(f"{name}: expected {expected} bytes for shape {shape}, found {len(content)}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_cifar10(folder: Path, variant: str) -> Dataset:
    """CIFAR-10, binary version: records of 1 label byte and 3072 pixel bytes."""
    archive = folder / "cifar-10-binary.tar.gz"
    with _reading(archive), tarfile.open(archive) as files:
        names = [f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)]
        train = b"".join(_member(files, name) for name in names)
        test = _member(files, "cifar-10-batches-bin/test_batch.bin")
    return Dataset("cifar10", _cifar(train, 1, archive), _cifar(test, 1, archive), 10)


def read_cifar100(folder: Path, variant: str) -> Dataset:
    """CIFAR-100, binary version: records of a coarse and a fine label byte and 3072 pixel bytes."""
    archive = folder / "cifar-100-binary.tar.gz"
    with _reading(archive), tarfile.open(archive) as files:
        train, test = (_member(files, f"cifar-100-binary/{part}.bin") for part in ("train", "test"))
    return Dataset("cifar100", _cifar(train, 2, archive), _cifar(test, 2, archive), 100)


def _cifar(content: bytes, label_bytes: int, archive: Path) -> Split:
    record = label_bytes + int(np.prod(_CIFAR_PIXELS))
    if not content or len(content) % record:
        raise DataError(f"{archive}: {len(content)} bytes are no whole number of {record}-byte records")
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    pixels = records[:, label_bytes:].reshape(-1, *_CIFAR_PIXELS).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(pixels), records[:, label_bytes - 1].astype(np.int64))


def _member(files: tarfile.TarFile, name: str) -> bytes:
    member = files.extractfile(name)
    if member is None:
        raise KeyError(name)
    return member.read()


def read_svhn(folder: Path, variant: str) -> Dataset:
    """SVHN, cropped: MATLAB files with X (32, 32, 3, rows) and y (rows, 1), where 10 stands for the digit 0."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DataError("svhn: its MATLAB files need scipy: pip install 'onnxsurgeon[data]'") from error
    splits = []
    for part in ("train", "test"):
        path = folder / f"{part}_32x32.mat"
        with _reading(path):
            arrays = loadmat(path)
            inputs = np.ascontiguousarray(arrays["X"].transpose(3, 0, 1, 2))
            splits.append(_split(inputs, arrays["y"].reshape(-1) % 10, path))
    return Dataset("svhn", splits[0], splits[1], 10)


def read_eurosat(folder: Path, variant: str) -> Dataset:
    """EuroSAT in RGB: a zip of JPEG files in one folder a class; classes in alphabetical order."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("eurosat: its JPEG files need pillow: pip install 'onnxsurgeon[data]'") from error
    archive = folder / "EuroSAT_RGB.zip"
    with _reading(archive), zipfile.ZipFile(archive) as files:
        names = sorted(name for name in files.namelist() if name.endswith(".jpg"))
        classes = sorted({name.split("/")[-2] for name in names})
        images = []
        for name in names:
            with Image.open(io.BytesIO(files.read(name))) as image:
                images.append(np.asarray(image.convert("RGB")))
        labels = np.array([classes.index(name.split("/")[-2]) for name in names], np.int64)
        whole = _split(np.stack(images), labels, archive)
    return with_test_split("eurosat", whole, len(classes))


def _split(inputs: Array, labels: Array, source: Path) -> Split:
    if len(inputs) != len(labels):
        raise DataError(f"{source}: {len(inputs)} images, but {len(labels)} labels")
    return Split(inputs, labels.astype(np.int64))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the archive libraries raise into a DataError that names the file."""
    try:
        yield
    except (OSError, EOFError, KeyError, IndexError, ValueError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as e:
        raise DataError(f"{path}: cannot be read: {str(e).splitlines()[0] if str(e) else type(e).__name__}") from e
