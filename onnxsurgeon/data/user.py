"""The user's own data set in an .npz file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from onnxsurgeon.data.dataset import Dataset, Split, with_test_split
from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array

NPZ_KEYS = "x_train and y_train, and if you have them x_test, y_test, x_validation, y_validation; or x and y"


def read_npz(path: Path) -> Dataset:
    """Read a data set from an .npz file of plain arrays.

    Keys as in Keras' files: x_train (rows, …), y_train (rows,), x_test, y_test; x_validation, y_validation where
    there are any; or x and y alone. Without a test split, a stratified fifth becomes one. Integer inputs of type
    uint8 are taken as pixels, full intensity 255; others are used as they are.

    Raises:
        DataError: no such file, not an .npz, pickled objects inside, missing keys, NaN, or labels that are no classes.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("a single array, not an archive of arrays")
        with loaded as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, MemoryError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a readable .npz file: {reason}") from error

    whole = "x" in arrays and "y" in arrays
    if not whole and not {"x_train", "y_train"} <= arrays.keys():
        raise DataError(f"{path}: expected the keys {NPZ_KEYS}; found {', '.join(sorted(arrays)) or 'none'}")
    train = _split(path, arrays, *(("x", "y") if whole else ("x_train", "y_train")))
    test = _optional(path, arrays, "test")
    validation = _optional(path, arrays, "validation")
    splits = [split for split in (train, test, validation) if split is not None]
    for split in splits:
        if split.inputs.shape[1:] != train.inputs.shape[1:]:
            raise DataError(f"{path}: rows of shape {split.inputs.shape[1:]} and {train.inputs.shape[1:]} in one set")
    classes = 1 + max(int(split.labels.max()) for split in splits)
    if test is None:
        parts = with_test_split(str(path), train, classes)
        return Dataset(str(path), parts.train, parts.test, classes, validation=validation)
    return Dataset(str(path), train, test, classes, validation=validation)


def _optional(path: Path, arrays: dict[str, Array], part: str) -> Split | None:
    return _split(path, arrays, f"x_{part}", f"y_{part}") if f"x_{part}" in arrays else None


def _split(path: Path, arrays: dict[str, Array], x_key: str, y_key: str) -> Split:
    if y_key not in arrays:
        raise DataError(f"{path}: '{x_key}' has no '{y_key}' beside it")
    inputs, labels = arrays[x_key], arrays[y_key]
    if inputs.ndim < 2 or inputs.dtype.kind not in "fiub":
        raise DataError(f"{path}: '{x_key}' must be numbers of shape (rows, …); it is {inputs.dtype} {inputs.shape}")
    if len(inputs) == 0:
        raise DataError(f"{path}: '{x_key}' has no rows")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (len(inputs),):
        raise DataError(f"{path}: '{y_key}' must have shape ({len(inputs)},), one label a row; it has {labels.shape}")
    return Split(_finite(path, x_key, inputs), _classes(path, y_key, labels))


def _finite(path: Path, key: str, inputs: Array) -> Array:
    if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
        row, column = (int(i) for i in np.argwhere(~np.isfinite(inputs.reshape(len(inputs), -1)))[0])
        raise DataError(
            f"{path}: '{key}' holds {inputs.reshape(len(inputs), -1)[row, column]} in row {row}, column {column}"
        )
    return inputs


def _classes(path: Path, key: str, labels: Array) -> Array:
    if labels.dtype.kind not in "iub" and not (labels.dtype.kind == "f" and np.array_equal(labels, labels.round())):
        raise DataError(f"{path}: '{key}' must hold whole numbers, the classes; it is {labels.dtype}")
    integers = labels.astype(np.int64)
    if integers.min() < 0:
        row = int(integers.argmin())
        raise DataError(f"{path}: '{key}' holds label {integers[row]} in row {row}; classes are counted from 0")
    return integers
