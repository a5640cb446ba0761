"""The named data sets: the official source of each, its files and their checksums."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from onnxsurgeon.data import parsers
from onnxsurgeon.data.dataset import Dataset


@dataclass(frozen=True)
class RemoteFile:
    """One file of a data set.

    Attributes:
        name: file name on disk.
        url: the official source.
        checksum: as pooch takes it, such as "md5:…"; what the publishers or torchvision state.
    """

    name: str
    url: str
    checksum: str


@dataclass(frozen=True)
class Source:
    """A named data set.

    Attributes:
        title: full name.
        rows: training and test rows; 0 test rows where none are published (a fifth is held out then).
        shape: shape of one row.
        classes: number of classes.
        homepage: where its terms and its paper are found.
        files: the files that have to be there; none for a set that is part of the package.
        read: from a folder with these files to a Dataset.
        system: folder of a system package with the same files, and that package's name.
        variants: names of the splits to choose from, the default first ("name:variant" on the command line).
        extra: the optional dependencies that reading it needs, such as "data".
    """

    title: str
    rows: tuple[int, int]
    shape: tuple[int, ...]
    classes: int
    homepage: str
    read: Callable[[Path, str], Dataset]
    files: tuple[RemoteFile, ...] = ()
    system: tuple[str, str] | None = None
    variants: tuple[str, ...] = field(default=())
    extra: str = ""


def _files(base: str, *names_and_checksums: tuple[str, str]) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(name, f"{base}/{name}", checksum) for name, checksum in names_and_checksums)


CATALOGUE: dict[str, Source] = {
    "digits": Source(
        "UCI optical recognition of handwritten digits (test set, as in scikit-learn)",
        (1437, 360),
        (8, 8),
        10,
        "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        parsers.read_digits,
    ),
    "mnist": Source(
        "MNIST handwritten digits",
        (60_000, 10_000),
        (28, 28),
        10,
        "http://yann.lecun.com/exdb/mnist/",
        parsers.read_mnist,
        _files(
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            ("train-images-idx3-ubyte.gz", "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            ("train-labels-idx1-ubyte.gz", "md5:d53e105ee54ea40749a09fcbcd1e9432"),
            ("t10k-images-idx3-ubyte.gz", "md5:9fb629c4189551a2d022fa330f9573f3"),
            ("t10k-labels-idx1-ubyte.gz", "md5:ec29112dd5afa0611ce80d1b7f02629c"),
        ),
    ),
    "fashion-mnist": Source(
        "Fashion-MNIST, Zalando's article images",
        (60_000, 10_000),
        (28, 28),
        10,
        "https://github.com/zalandoresearch/fashion-mnist",
        parsers.read_mnist,
        _files(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            ("train-images-idx3-ubyte.gz", "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            ("train-labels-idx1-ubyte.gz", "md5:25c81989df183df01b3e8a0aad5dffbe"),
            ("t10k-images-idx3-ubyte.gz", "md5:bef4ecab320f06d8554ea6380940ec79"),
            ("t10k-labels-idx1-ubyte.gz", "md5:bb300cfdad3c16e7a12a480ee83cd310"),
        ),
        system=("/usr/share/datasets/fashion-mnist", "dataset-fashion-mnist"),
    ),
    "emnist": Source(
        "EMNIST, NIST's handwritten letters and digits",
        (697_932, 116_323),
        (28, 28),
        62,
        "https://www.nist.gov/itl/products-and-services/emnist-dataset",
        parsers.read_emnist,
        (
            RemoteFile(
                "gzip.zip",
                "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
                "md5:58c8d27c78d21e728a6bc7b3cc06412e",
            ),
        ),
        variants=("byclass", "bymerge", "balanced", "letters", "digits", "mnist"),
    ),
    "cifar10": Source(
        "CIFAR-10 (binary version)",
        (50_000, 10_000),
        (32, 32, 3),
        10,
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        parsers.read_cifar10,
        _files(
            "https://www.cs.toronto.edu/~kriz",
            ("cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530"),
        ),
    ),
    "cifar100": Source(
        "CIFAR-100 (binary version), fine labels",
        (50_000, 10_000),
        (32, 32, 3),
        100,
        "https://www.cs.toronto.edu/~kriz/cifar.html",
        parsers.read_cifar100,
        _files(
            "https://www.cs.toronto.edu/~kriz",
            ("cifar-100-binary.tar.gz", "md5:03b5dce01913d631647c71ecec9e9cb8"),
        ),
    ),
    "svhn": Source(
        "Street View House Numbers, cropped digits",
        (73_257, 26_032),
        (32, 32, 3),
        10,
        "http://ufldl.stanford.edu/housenumbers/",
        parsers.read_svhn,
        _files(
            "http://ufldl.stanford.edu/housenumbers",
            ("train_32x32.mat", "md5:e26dedcc434d2e4c54c9b2d4a06d8373"),
            ("test_32x32.mat", "md5:eb5a983be6a315427106f1b164d9cef3"),
        ),
        extra="data",
    ),
    "eurosat": Source(
        "EuroSAT, Sentinel-2 land use in RGB",
        (21_600, 5_400),
        (64, 64, 3),
        10,
        "https://zenodo.org/records/7711810",
        parsers.read_eurosat,
        (
            RemoteFile(
                "EuroSAT_RGB.zip",
                "https://zenodo.org/records/7711810/files/EuroSAT_RGB.zip",
                "md5:f46e308c4d50d4bf32fedad2d3d62f3b",
            ),
        ),
        extra="data",
    ),
}
