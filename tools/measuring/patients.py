"""Thirty trained networks with their data: fifteen exports of the test suite, and fifteen trained here in seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from fixtures.catalogue import EXPORTS, ROOT, read_index

from onnxsurgeon import Dataset, Examples, InputOptions, Network, load_dataset, prepare

# Exports whose free widths allow a tenth of the parameters, one or two of each exporter and task.
SUITE = (
    "jax2onnx-smooth",
    "keras-torch-activations",
    "keras-torch-rank3",
    "ort-fused-gemm",
    "sklearn-binary-arrays",
    "sklearn-column-inputs",
    "sklearn-float64",
    "sklearn-gaps-arrays",
    "sklearn-regression-several",
    "tf2onnx-normalised",
    "torch-dynamo-float16",
    "torch-legacy-regression-several",
    "torch-legacy-saturating",
    "torch-legacy-two-heads",
    "torch-legacy-two-inputs",
)
# Those of measuring.own_networks, and what is said of each in the table.
OWN = {
    "fashion": "classes, images, Relu, PyTorch",
    "digits-fit": "classes, Relu, onnxsurgeon's own training",
    "digits-labels": "three labels, Swish, PyTorch",
    "digits-prelu": "classes, PRelu, PyTorch",
    "digits-steps": "classes, layers on each of eight steps, Relu, PyTorch",
    "breast-cancer": "two classes, scikit-learn's defaults",
    "pima": "two classes, 240 rows, Tanh, PyTorch",
    "diabetes": "regression, 354 rows, scikit-learn's defaults",
    "computers": "regression, Elu, normaliser in front, PyTorch",
    "insurance": "binary, one probability, Relu, normaliser in front, PyTorch",
    "diamonds-cut": "classes, Swish, normaliser in front, PyTorch",
    "diamonds-price": "regression, 20,000 rows, Gelu, normaliser in front, PyTorch",
    "flights-late": "two classes, 15,000 rows, Relu, normaliser in front, PyTorch",
    "policy": "eight actions, Swish, Tanh at the end, normaliser in front, PyTorch",
    "actor-critic": "two heads, actions and value, Elu, normaliser in front, PyTorch",
}
NAMES = (*SUITE, *OWN)


@dataclass(frozen=True)
class Patient:
    """A trained network, and the data to make it smaller with.

    Attributes:
        name: of the network.
        what: in a few words.
        model: its file.
        data: as ``--data`` takes it.
        target: columns of a table to predict.
        scale: factor for the raw values; None: the data set's default.
    """

    name: str
    what: str
    model: Path
    data: str
    target: tuple[str, ...] = ()
    scale: float | None = None

    @property
    def options(self) -> InputOptions:
        """How rows become the model's input."""
        return InputOptions(scale=self.scale)

    def dataset(self) -> Dataset:
        """Its rows."""
        return load_dataset(self.data, target=self.target)

    def deciding(self, network: Network, dataset: Dataset) -> Examples:
        """The rows that decide, as evolve holds them out."""
        return prepare(network, dataset, dataset.hold_out()[1], self.options)

    def training(self, network: Network, dataset: Dataset) -> Examples:
        """The rows that evolve trains on."""
        return prepare(network, dataset, dataset.hold_out()[0], self.options)

    def test(self, network: Network, dataset: Dataset) -> Examples:
        """The rows that nothing is chosen by."""
        return prepare(network, dataset, dataset.test, self.options)


def patient(name: str, folder: Path) -> Patient:
    """The network of that name; one of our own is trained into ``folder`` where it has not been."""
    return _of_the_suite(name) if name in SUITE else _own(name, folder)


def _of_the_suite(name: str) -> Patient:
    fixture = next(each for each in read_index() if each.file == f"{name}.onnx")
    path = ROOT / fixture.data
    data = str(path) if path.exists() else fixture.data
    target = (fixture.target,) if isinstance(fixture.target, str) else tuple(fixture.target or ())
    return Patient(name, f"{fixture.task}, {fixture.exporter}", EXPORTS / fixture.file, data, target, fixture.scale)


def _own(name: str, folder: Path) -> Patient:
    model, data = folder / f"{name}.onnx", folder / f"{name}.npz"
    if not model.exists():
        folder.mkdir(parents=True, exist_ok=True)
        makers: dict[str, Callable[[Path, Path], Any]] = import_module("measuring.own_networks").MAKERS
        part = model.with_suffix(".part.onnx")
        part.unlink(missing_ok=True)
        makers[name](part, data)
        part.replace(model)
    return Patient(name, OWN[name], model, str(data))
