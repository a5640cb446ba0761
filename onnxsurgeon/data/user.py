"""The user's own data set: chooses the reader for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from onnxsurgeon.data.arrays import read_npy, read_npz, require_file
from onnxsurgeon.data.dataset import Dataset
from onnxsurgeon.data.images import read_images
from onnxsurgeon.data.tables import READERS, read_tables
from onnxsurgeon.errors import DataError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.printable import shown

FORMS = "an .npz, .npy, .csv or .parquet file, or a folder of images"
_SUFFIXES = (".npz", ".npy", *READERS)
_PARTS = {"train": "train", "test": "test", "validation": "validation", "val": "validation", "valid": "validation"}


def is_users(name: str) -> bool:
    """Whether ``name`` is a folder, or a file of a kind that users bring."""
    return Path(name).suffix.lower() in _SUFFIXES or Path(name).is_dir()


def read_user(
    name: str,
    target: Sequence[str] = (),
    impute: str | None = None,
    validation_fraction: float | None = None,
    networks: Sequence[Network] = (),
) -> Dataset:
    """Read the user's data set at the path ``name``: an archive, a pair of arrays, a table, a folder.

    Args:
        name: an .npz; an .npy, with another as target or alone, without labels; a .csv, .tsv or .parquet; a folder with
            such tables called train, test and validation; or a folder of images.
        target: the columns to predict, or the .npy of labels; where there are none, the rows are without labels.
        impute: what fills missing values of a table; see ``tables.read_tables``.
        validation_fraction: see ``Dataset``.
        networks: the networks whose inputs the rows are to fit; rows that do not are refused before they are decoded.

    Raises:
        DataError: the file is not usable; says what is wrong with it.
    """
    try:
        return _read(name, target, impute, validation_fraction, networks)
    except DataError as error:
        text = str(error)
        if text.isprintable():
            raise
        # A cell or a column's name may hold line ends; an error is one line.
        raise DataError("".join(c if c.isprintable() else repr(c)[1:-1] for c in text), error.kind) from error


def _read(
    name: str,
    target: Sequence[str],
    impute: str | None,
    validation_fraction: float | None,
    networks: Sequence[Network],
) -> Dataset:
    path = Path(name)
    tables = _tables(path)
    if tables:
        dataset = read_tables(name, tables, target, impute, validation_fraction, networks)
        return replace(dataset, remarks=(*dataset.remarks, *_left_out(path, tables)))
    if impute is not None:
        raise DataError(f"{name}: --impute fills missing values of tables; this is none", "tables-only")
    if path.suffix.lower() == ".npy" and not path.is_dir():
        if len(target) > 1 or (target and not target[0].lower().endswith(".npy")):
            raise DataError(
                f"{name}: expected --target with the .npy file of its labels; found {_spelled(target)}", "target-column"
            )
        dataset = read_npy(path, Path(target[0]) if target else None, networks)
    elif target:
        where = "folders are its classes" if path.is_dir() else "labels are in the file"
        raise DataError(f"{name}: takes no --target, its {where}; found {_spelled(target)}", "target-column")
    else:
        dataset = read_images(path, networks) if path.is_dir() else read_npz(path, networks)
    return replace(dataset, name=name, validation_fraction=validation_fraction)


def _tables(path: Path) -> dict[str, Path]:
    """The table of every split; none where the path is neither a table nor a folder of tables."""
    if not path.is_dir():
        if path.suffix.lower() not in READERS:
            return {}
        require_file(path)
        return {"train": path}
    found: dict[str, Path] = {}
    for file in _entries(path):
        part = _PARTS.get(file.stem.casefold())
        if part is None or file.suffix.lower() not in READERS:
            continue
        if part in found:
            raise DataError(
                f"{path}: expected one table for the {part} split; found {found[part].name}, {file.name}",
                "folder-form",
            )
        require_file(file)
        found[part] = file
    if found and "train" not in found:
        raise DataError(
            f"{path}: holds {next(iter(found.values())).name}, but no training table beside it", "folder-form"
        )
    return {part: found[part] for part in dict.fromkeys(_PARTS.values()) if part in found}


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}", "cannot-read") from error


def _left_out(path: Path, tables: dict[str, Path]) -> Iterator[str]:
    """A sentence on what else lies in a folder of tables."""
    others = [entry for entry in _entries(path) if entry not in tables.values()] if path.is_dir() else []
    if others:
        read = " and ".join(each.name for each in tables.values())
        yield f"left out of {shown(str(path))}: {len(others):,} beside {read}, such as {shown(others[0].name)}"


def _spelled(target: Sequence[str]) -> str:
    return " and ".join(f"'{text}'" for text in target) or "none"
