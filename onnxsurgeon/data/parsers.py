"""Readers of the official file formats. None of them unpickles anything."""

from __future__ import annotations

import gzip
import io
import math
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import numpy as np

from onnxsurgeon.bounds import ADVICE
from onnxsurgeon.buffers import CHUNK
from onnxsurgeon.data.dataset import Dataset, Split, with_test_split
from onnxsurgeon.data.foreseen import most_bytes, require_room
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array

_CIFAR_PIXELS = (3, 32, 32)  # channel-first in the binary files
_EUROSAT_PIXELS = (64, 64, 3)
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
            inputs = read_idx(images.read_bytes(), images.name)
        with _reading(labels):
            splits.append(_split(inputs, read_idx(labels.read_bytes(), labels.name), labels))
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
                arrays.append(read_idx(_entry(files, name), name))
            labels = arrays[1] - (1 if variant == "letters" else 0)  # letters are numbered from 1
            splits.append(_split(np.ascontiguousarray(arrays[0].transpose(0, 2, 1)), labels, archive))
    return Dataset(f"emnist:{variant}", splits[0], splits[1], _EMNIST_CLASSES[variant])


def read_idx(stored: bytes, name: str) -> Array:
    """Read the array in a gzipped IDX file; its sizes are bounded first, and no more is decompressed than they say.

    Raises:
        DataError: it is no such file, is far larger than what was compressed, or is cut off.
    """
    with gzip.open(io.BytesIO(stored)) as file:
        start = file.read(4)
        sizes = file.read(4 * start[3]) if len(start) == 4 else b""
        shape = [int(size) for size in np.frombuffer(sizes[: len(sizes) // 4 * 4], ">u4")]
        if len(start) == 4 and len(shape) == start[3]:
            require_room(name, math.prod(shape), len(stored))
        content = bytearray(start + sizes)
        # One byte more shows that a file is longer than it says. Reading in pieces takes no room for bytes that never
        # come.
        left = math.prod(shape) + 1
        while left > 0 and (piece := file.read(min(left, CHUNK))):
            content += piece
            left -= len(piece)
    return parse_idx(content, name)


def parse_idx(content: bytes | bytearray, name: str) -> Array:
    """Read an array of unsigned bytes in IDX format: magic 0 0 8 ndim, big-endian sizes, values.

    Raises:
        DataError: the content is no such array, or shorter or longer than its sizes say.
    """
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise DataError(f"{name}: not an IDX file of unsigned bytes", "unreadable-data")
    dimensions = content[3]
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{name}: its IDX header is cut off", "unreadable-data")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", dimensions, 4))
    expected = header + int(np.prod([int(size) for size in shape], dtype=object))
    if len(content) != expected:
        raise DataError(f"{name}: expected {expected} bytes for shape {shape}, found {len(content)}", "unreadable-data")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_cifar10(folder: Path, variant: str) -> Dataset:
    """CIFAR-10, binary version: records of 1 label byte and 3072 pixel bytes."""
    archive = folder / "cifar-10-binary.tar.gz"
    with _reading(archive), _tar(archive) as files:
        names = [f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)]
        train = b"".join(_member(files, name) for name in names)
        test = _member(files, "cifar-10-batches-bin/test_batch.bin")
    return Dataset("cifar10", _cifar(train, 1, archive), _cifar(test, 1, archive), 10)


def read_cifar100(folder: Path, variant: str) -> Dataset:
    """CIFAR-100, binary version: records of a coarse and a fine label byte and 3072 pixel bytes."""
    archive = folder / "cifar-100-binary.tar.gz"
    with _reading(archive), _tar(archive) as files:
        train, test = (_member(files, f"cifar-100-binary/{part}.bin") for part in ("train", "test"))
    return Dataset("cifar100", _cifar(train, 2, archive), _cifar(test, 2, archive), 100)


def _cifar(content: bytes, label_bytes: int, archive: Path) -> Split:
    record = label_bytes + int(np.prod(_CIFAR_PIXELS))
    if not content or len(content) % record:
        raise DataError(
            f"{archive}: {len(content)} bytes are no whole number of {record}-byte records", "unreadable-data"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    pixels = records[:, label_bytes:].reshape(-1, *_CIFAR_PIXELS).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(pixels), records[:, label_bytes - 1].astype(np.int64))


class _Bounded(io.RawIOBase):
    """A gzipped file that is read up to a number of bytes and no further."""

    def __init__(self, path: Path) -> None:
        self._file = gzip.open(path)  # noqa: SIM115  closed by close
        self._name, self._most = str(path), most_bytes(path.stat().st_size)

    def read(self, size: int = -1) -> bytes:
        """``size`` bytes, or ValueError beyond the bound, since an archive's header may ask for any number."""
        if size < 0 or self._file.tell() + size > self._most:
            raise ValueError(f"it holds more than {self._most / 2**20:,.0f} MB ({ADVICE})")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As a file does."""
        if whence == 0 and offset > self._most:
            raise ValueError(f"it holds more than {self._most / 2**20:,.0f} MB ({ADVICE})")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As a file does."""
        return self._file.tell()

    def close(self) -> None:
        """As a file does."""
        self._file.close()
        super().close()


@contextmanager
def _tar(archive: Path) -> Iterator[tarfile.TarFile]:
    with _Bounded(archive) as content, tarfile.open(fileobj=content, mode="r:") as files:
        yield files


def _entry(files: zipfile.ZipFile, name: str) -> bytes:
    """The content of a file in an archive, up to the bytes that the archive may become."""
    archive = Path(str(files.filename))
    require_room(f"{archive}: '{name}'", files.getinfo(name).file_size, archive.stat().st_size)
    return files.read(name)


def _member(files: tarfile.TarFile, name: str) -> bytes:
    member = files.extractfile(name)
    if member is None:
        raise KeyError(name)
    return member.read()


def read_svhn(folder: Path, variant: str) -> Dataset:
    """SVHN, cropped: MATLAB files with X (32, 32, 3, rows) and y (rows, 1), where 10 stands for the digit 0."""
    try:
        from scipy.io import loadmat, whosmat
    except ImportError as error:
        raise DataError("svhn: its MATLAB files need scipy: pip install 'onnxsurgeon[data]'", "no-package") from error
    splits = []
    for part in ("train", "test"):
        path = folder / f"{part}_32x32.mat"
        with _reading(path):
            wanted = sum(math.prod(shape) for _, shape, _ in whosmat(path))
            require_room(str(path), wanted, path.stat().st_size)
            arrays = loadmat(path, variable_names=["X", "y"])
            inputs = np.ascontiguousarray(arrays["X"].transpose(3, 0, 1, 2))
            splits.append(_split(inputs, arrays["y"].reshape(-1) % 10, path))
    return Dataset("svhn", splits[0], splits[1], 10)


def read_eurosat(folder: Path, variant: str) -> Dataset:
    """EuroSAT in RGB: a zip of JPEG files with one folder for each class; classes are in alphabetical order."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError("eurosat: its JPEG files need pillow: pip install 'onnxsurgeon[data]'", "no-package") from error
    archive = folder / "EuroSAT_RGB.zip"
    with _reading(archive), zipfile.ZipFile(archive) as files:
        names = sorted(name for name in files.namelist() if name.endswith(".jpg"))
        classes = sorted({name.split("/")[-2] for name in names})
        images = []
        require_room(str(archive), math.prod((len(names), *_EUROSAT_PIXELS)), archive.stat().st_size)
        for name in names:
            with Image.open(io.BytesIO(_entry(files, name)), formats=("JPEG",)) as image:
                if (image.height, image.width, 3) != _EUROSAT_PIXELS:
                    raise ValueError(f"'{name}' has {image.width} × {image.height} pixels, not 64 × 64")
                images.append(np.asarray(image.convert("RGB")))
        labels = np.array([classes.index(name.split("/")[-2]) for name in names], np.int64)
        whole = _split(np.stack(images), labels, archive)
    return with_test_split("eurosat", whole, len(classes))


def _split(inputs: Array, labels: Array, source: Path) -> Split:
    if len(inputs) != len(labels):
        raise DataError(f"{source}: {len(inputs)} images, but {len(labels)} labels", "unreadable-data")
    return Split(inputs, labels.astype(np.int64))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of the archive libraries into a DataError that names the file."""
    try:
        yield
    except (OSError, EOFError, KeyError, IndexError, ValueError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as e:
        raise DataError(
            f"{path}: cannot be read: {str(e).splitlines()[0] if str(e) else type(e).__name__}", "unreadable-data"
        ) from e
