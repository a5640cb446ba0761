"""The user's own data set as numpy arrays: an .npz archive, a pair of .npy files, or a single one without labels."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxsurgeon.data.archive_keys import keys_of
from onnxsurgeon.data.dataset import Dataset, Selection, Split, chunks, unlabelled, with_test_split
from onnxsurgeon.data.foreseen import hollow, require_fit, require_room, size_of
from onnxsurgeon.data.targets import from_arrays
from onnxsurgeon.errors import DataError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.printable import shown

_HEADER_BYTES = 2**16  # of an array in an archive; numpy's own headers take some hundred bytes
_VALUE_BYTES = 2**16  # of a single value: a text of 16,384 characters
_KEYS_SHOWN, _LONGEST_KEY = 8, 60  # of the arrays that are left out
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(path: Path, networks: Sequence[Network] = ()) -> Dataset:
    """Read a data set from an .npz file of plain arrays.

    Keys are as in Keras' files: x_train (rows, …), y_train (rows,), x_test, y_test, and x_validation, y_validation if
    there are any; or only x and y. For a model of several inputs, their names take the place of x. Without any y, the
    rows are without labels. Without a test split, a fifth becomes one. Integer inputs of type uint8 are taken as pixels
    with full intensity 255; others are used as they are. For the possible labels see ``targets.from_arrays``.

    Nothing is decompressed before the shapes in the archive have been compared with the inputs of ``networks``.

    Raises:
        DataError: no such file, not an .npz, pickled objects inside, missing keys, NaN, or labels that are no classes;
            rows that do not fit, or arrays that are far larger than the file.
    """
    require_file(path)
    told = _readable(path, ".npz file", _hollow_archive)
    keys = keys_of(path, told)
    splits = {part: _split(path, told, names, y_key) for part, (names, y_key) in keys.items()}
    _require_one_shape(path, splits)
    for split in splits.values():
        require_fit(networks, str(path), split.inputs)
    used = {key for names, y_key in keys.values() for key in (*names.values(), *filter(None, [y_key]))}
    require_room(str(path), sum(size_of(told[key].shape, told[key].dtype) for key in used), path.stat().st_size)
    arrays = _readable(path, ".npz file", lambda path: _load_archive(path, used))
    for key in arrays:
        _require_finite(path, f"'{key}'", arrays[key])
    whole = assemble(str(path), {part: _split(path, arrays, names, y_key) for part, (names, y_key) in keys.items()})
    return replace(whole, remarks=tuple(_left_out(told.keys() - used)))


def _left_out(keys: Set[str]) -> Iterator[str]:
    """A sentence on arrays whose names are none of a split's."""
    if keys:
        named = ", ".join(f"'{shown(key[:_LONGEST_KEY])}'" for key in sorted(keys)[:_KEYS_SHOWN])
        more = f" and {len(keys) - _KEYS_SHOWN} more" if len(keys) > _KEYS_SHOWN else ""
        yield f"left out of the archive: {named}{more}; rows to decide by are x_validation and y_validation"


def from_memory(arrays: dict[str, Array], name: str) -> Dataset:
    """Make a data set of arrays that have the keys of an .npz file; see ``read_npz``.

    Raises:
        DataError: missing keys, NaN, or labels that are no classes; the text begins with ``name``.
    """
    where = Path(name)  # no file, but the beginning of messages
    keys = keys_of(where, arrays)
    splits = {part: _split(where, arrays, names, y_key) for part, (names, y_key) in keys.items()}
    _require_one_shape(where, splits)
    for names, y_key in keys.values():
        for key in (*names.values(), *filter(None, [y_key])):
            _require_finite(where, f"'{key}'", arrays[key])
    used = {key for names, y_key in keys.values() for key in (*names.values(), y_key)}
    return replace(assemble(name, splits), remarks=tuple(_left_out(arrays.keys() - used)))


def _require_one_shape(path: Path, splits: dict[str, Split]) -> None:
    first = splits["train"]
    for split in splits.values():
        for (name, shape, *_), (_, expected, *_) in zip(split.blocks(), first.blocks(), strict=True):
            if shape[1:] != expected[1:]:
                of = f" of '{name}'" if name else ""
                raise DataError(f"{path}: rows{of} of shape {shape[1:]} and {expected[1:]} in one set", "unlike-rows")


def read_npy(path: Path, target: Path | None = None, networks: Sequence[Network] = ()) -> Dataset:
    """Read a data set from two .npy files: inputs (rows, …) and labels (rows,) or (rows, k), or none.

    The inputs stay in their file until rows of them are asked for. A fifth of the rows becomes the test split.

    Raises:
        DataError: a file is missing or no .npy, holds pickled objects or NaN, or the two have other numbers of rows.
    """
    files = [path] if target is None else [path, target]
    for file in files:
        require_file(file)
    inputs, *labels = (_readable(file, ".npy file", _load_mapped) for file in files)
    _check_inputs(path, "the array", inputs, least=2, texts=False)
    require_fit(networks, str(path), inputs)
    own = unlabelled(len(inputs))
    if target is not None:
        own = np.array(_check_labels(target, "the array", labels[0], len(inputs)))
        _require_finite(target, "the array", own)
    _require_finite(path, "the array", inputs)
    return assemble(str(files[-1]), {"train": Selection(inputs, np.arange(len(inputs)), own)}, name=str(path))


def assemble(where: str, splits: dict[str, Split], *, name: str = "") -> Dataset:
    """Make a Dataset of splits whose labels are still as in the file ``where``; without a test split it gets one."""
    targets, labels = from_arrays(where, [split.labels for split in splits.values()])
    parts = {part: split.with_labels(own) for (part, split), own in zip(splits.items(), labels, strict=True)}
    train, test = parts["train"], parts.get("test")
    if test is None:
        halves = with_test_split(name or where, train, targets.classes)
        train, test = halves.train, halves.test
    return Dataset(
        name or where,
        train,
        test,
        targets.classes,
        validation=parts.get("validation"),
        class_labels=targets.class_labels,
    )


def require_file(path: Path) -> None:
    """Raise DataError where there is no such file, or reading it would wait, as for a pipe."""
    if not path.is_file():
        raise DataError(f"{path}: {'is no regular file' if path.exists() else 'no such file'}", "no-such-file")


def _readable(path: Path, what: str, read: Callable[[Path], Any]) -> Any:
    try:
        return read(path)
    except Exception as error:  # for damaged files, zipfile, zlib, tokenize and numpy raise what shares no base
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: not a readable {what}: {reason}", "pickled-data" if "pickle" in reason else "unreadable-data"
        ) from error


def _load_archive(path: Path, keys: set[str]) -> dict[str, Array]:
    with path.open("rb") as file:  # numpy does not close the file that it opened itself where the archive is damaged
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise ValueError("a single array, not an archive of arrays")
        with loaded as archive:
            return {key: archive[key] for key in sorted(keys)}


def _hollow_archive(path: Path) -> dict[str, Array]:
    """The arrays of an archive without their values; only the header of each is decompressed."""
    with path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            raise ValueError("a single array, not an archive of arrays")
        with zipfile.ZipFile(file) as archive:
            return {entry.filename.removesuffix(".npy"): _hollow_entry(archive, entry) for entry in archive.infolist()}


def _hollow_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"'{entry.filename}' is compressed in a way that numpy does not write")
    with archive.open(entry) as file:
        start = io.BytesIO(file.read(_HEADER_BYTES))
    try:
        read_header = _HEADERS[np.lib.format.read_magic(start)]
    except (KeyError, ValueError) as error:
        raise ValueError(f"'{entry.filename}' is no array of numbers or texts") from error
    shape, _, dtype = read_header(start)
    if dtype.hasobject:
        raise ValueError(f"'{entry.filename}' holds pickled objects, which are never loaded (allow_pickle=False)")
    needed = size_of(shape, dtype) if dtype.itemsize else 0
    if dtype.itemsize > _VALUE_BYTES:
        raise ValueError(f"'{entry.filename}' holds values of {dtype.itemsize} bytes each")
    held = entry.file_size - start.tell()
    if needed != held:
        raise ValueError(f"'{entry.filename}' of shape {shape} needs {needed} bytes, and has {held}")
    return hollow(shape, dtype)


def _load_mapped(path: Path) -> Array:
    with np.errstate(over="ignore"):  # sizes are multiplied before they are refused
        return np.lib.format.open_memmap(path, mode="r")  # like np.load, but never an archive; refuses pickles


def _split(path: Path, arrays: dict[str, Array], keys: dict[str, str], y_key: str) -> Split:
    if y_key and y_key not in arrays:
        raise DataError(f"{path}: '{keys['']}' has no '{y_key}' beside it", "npz-keys")
    several = "" not in keys
    for key in keys.values():
        _check_inputs(path, f"'{key}'", arrays[key], least=1 if several else 2, texts=several)
    inputs = {name: arrays[key] for name, key in keys.items()}
    rows = {len(array) for array in inputs.values()}
    if len(rows) > 1:
        found = ", ".join(f"{len(array)} of '{keys[name]}'" for name, array in inputs.items())
        raise DataError(f"{path}: inputs of one split must have the same number of rows; found {found}", "unlike-rows")
    count = rows.pop()
    labels = _check_labels(path, f"'{y_key}'", arrays[y_key], count) if y_key else unlabelled(count)
    return Split(inputs if several else inputs[""], labels)


def _check_inputs(path: Path, key: str, inputs: Array, *, least: int, texts: bool) -> None:
    if inputs.ndim < least or inputs.dtype.kind not in ("fiubU" if texts else "fiub"):
        shape = "(rows, …)" if least == 2 else "(rows,) or (rows, …)"
        raise DataError(
            f"{path}: {key} must be numbers of shape {shape}; it is {inputs.dtype} {inputs.shape}", "not-numbers"
        )
    if len(inputs) == 0:
        raise DataError(f"{path}: {key} has no rows", "no-rows")


def _check_labels(path: Path, key: str, labels: Array, rows: int) -> Array:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim < 1 or len(labels) != rows or 0 in labels.shape:
        raise DataError(
            f"{path}: {key} must have shape ({rows},), one label a row, or ({rows}, …, k); it has {labels.shape}",
            "label-form",
        )
    if labels.dtype.kind not in "fiubU":
        raise DataError(f"{path}: {key} must hold numbers or texts; it is {labels.dtype}", "not-numbers")
    return labels


def _require_finite(path: Path, key: str, array: Array) -> None:
    """Raise DataError where a value is not finite; of a mapped file one chunk at a time is in memory."""
    if array.dtype.kind != "f":
        return
    for start, stop in chunks(array):
        bad = np.argwhere(~np.isfinite(array[start:stop].reshape(stop - start, -1)))
        if len(bad):
            row, column = (int(i) for i in bad[0])
            value = array[start + row].reshape(-1)[column]
            place = f"row {start + row}" + (f", column {column}" if array.ndim > 1 else "")
            raise DataError(f"{path}: {key} holds {value} in {place}", "missing-value")
