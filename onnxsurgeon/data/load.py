"""Find, download and load a data set by the name a user gives."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs

from onnxsurgeon.data.catalogue import CATALOGUE, RemoteFile, Source
from onnxsurgeon.data.dataset import Dataset
from onnxsurgeon.data.foreseen import hollow, require_fit
from onnxsurgeon.data.user import FORMS, is_users, read_user
from onnxsurgeon.errors import DataError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.suggestions import did_you_mean

DATA_VARIABLE = "ONNXSURGEON_DATA"
# Takes a file's name; returns an object with tqdm's interface (total, update, reset, close), as pooch wants it.
ProgressBar = Callable[[str], Any]


def load_dataset(
    name: str | os.PathLike[str],
    *,
    target: Sequence[str] = (),
    impute: str | None = None,
    validation_fraction: float | None = None,
    folder: Path | None = None,
    progress: ProgressBar | None = None,
    networks: Sequence[Network] = (),
) -> Dataset:
    """Load the data set ``name``: one of the catalogue, such as "cifar10" or "emnist:digits", or the user's own.

    Args:
        name: as on the command line, or a path; see ``user.read_user`` for what users may bring.
        target: columns of the user's table to predict, or the .npy file of labels.
        impute: what fills a table's missing values: "mean", "median" or "most-frequent".
        validation_fraction: share of the training rows held out to choose by; by default a tenth, or more of few rows.
        folder: where the files of a set of the catalogue lie; by default $ONNXSURGEON_DATA, a system package's folder,
            or the cache.
        progress: makes a progress bar for each file that is downloaded.
        networks: the networks whose inputs the rows are to fit; rows that do not are refused before they are decoded.

    Raises:
        DataError: no such set, files that are missing and cannot be downloaded, or that are damaged.
    """
    name, fraction = os.fspath(name), validation_fraction
    if fraction is not None and not 0 < fraction < 1:
        raise DataError(f"validation-fraction: {fraction:g} does not lie between 0 and 1", "senseless-value")
    if name.partition(":")[0] not in CATALOGUE and is_users(name):
        dataset = read_user(name, target, impute, fraction, networks)
    else:
        lookup(name)
        for option, given in (("target", target), ("impute", impute)):
            if given:
                raise DataError(
                    f"{name}: --{option} is for tables and arrays of your own; this set has its labels", "tables-only"
                )
        dataset = _load_named(name, folder, progress, networks)
    if validation_fraction is not None and dataset.validation is not None:
        raise DataError(
            f"{name}: brings validation rows of its own; --validation-fraction has nothing to hold out",
            "own-validation",
        )
    return replace(dataset, name=name, validation_fraction=fraction)


def _load_named(name: str, folder: Path | None, progress: ProgressBar | None, networks: Sequence[Network]) -> Dataset:
    key, source, variant = lookup(name)
    found = locate(key, folder)
    if found is None and folder is not None:
        missing = next(file.name for file in source.files if not (folder / file.name).is_file())
        raise DataError(f"{key}: no file '{missing}' in {folder}", "no-download")
    require_fit(networks, name, hollow((1, *source.shape), np.dtype(np.uint8)))
    if found is None:
        found = fetch(key, progress=progress)
    dataset = source.read(found, variant)
    _check(dataset, key, source)
    return dataset


def lookup(name: str) -> tuple[str, Source, str]:
    """Catalogue key, entry and variant for a name such as "emnist" or "emnist:digits".

    Raises:
        DataError: there is no such set or variant.
    """
    key, _, variant = name.partition(":")
    source = CATALOGUE.get(key)
    if source is None:
        known = ", ".join(CATALOGUE)
        text = f"unknown data set '{name}': expected one of {known}, or the path of {FORMS}"
        raise DataError(f"{text}{did_you_mean(name, _candidates(name))}", "unknown-data")
    if variant and variant not in source.variants:
        choices = ", ".join(source.variants) or "none"
        hint = did_you_mean(variant, source.variants)
        raise DataError(f"{key}: unknown split '{variant}': expected one of {choices}{hint}", "unknown-data")
    return key, source, variant or (source.variants[0] if source.variants else "")


def _candidates(name: str) -> Iterator[str]:
    """Names that may have been meant by an unknown one: named data sets, and paths beside the missing one."""
    yield from CATALOGUE
    folder = Path(name).parent
    try:
        yield from (str(folder / each.name) for each in folder.iterdir() if is_users(str(each)))
    except (OSError, ValueError):
        return


def cache_folder(key: str) -> Path:
    """Where downloads of the data set are kept."""
    return Path(platformdirs.user_cache_dir("onnxsurgeon")) / key


def locate(key: str, folder: Path | None = None) -> Path | None:
    """The folder that holds every file of the data set, or None.

    The search looks in ``folder`` alone where it is given. Otherwise it looks in $ONNXSURGEON_DATA/NAME and
    $ONNXSURGEON_DATA, the system package's folder, and the cache, in this order.
    """
    source = CATALOGUE[key]
    places = [folder] if folder is not None else []
    if folder is None:
        if os.environ.get(DATA_VARIABLE):
            base = Path(os.environ[DATA_VARIABLE])
            places += [base / key, base]
        if source.system:
            places.append(Path(source.system[0]))
        places.append(cache_folder(key))
    for place in places:
        if all((place / file.name).is_file() for file in source.files):
            return place
    return None


def fetch(key: str, *, progress: ProgressBar | None = None) -> Path:
    """Download the data set's files from their official source into the cache, and verify their checksums.

    Raises:
        DataError: pooch is not installed, the source cannot be reached, or a checksum is wrong; says which file to put
            where.
    """
    source, folder = CATALOGUE[key], cache_folder(key)
    for file in source.files:
        if not (folder / file.name).is_file():
            _download(key, source, file, folder, progress)
    return folder


def describe(name: str) -> dict[str, Any]:
    """Describe a data set by plain values.

    Raises:
        DataError: there is no such set.
    """
    key, source, _ = lookup(name)
    found = locate(key)
    return {
        "name": key,
        "title": source.title,
        "homepage": source.homepage,
        "rows": {"train": source.rows[0], "test": source.rows[1]},
        "shape": list(source.shape),
        "classes": source.classes,
        "splits": list(source.variants),
        "files": [file.url for file in source.files],
        "found": ("in the package" if not source.files else str(found)) if found else None,
        "cache": str(cache_folder(key)),
    }


def _download(key: str, source: Source, file: RemoteFile, folder: Path, progress: ProgressBar | None) -> None:
    manual = f"put {file.name} from {file.url} into {folder}"
    if source.system:
        manual += f", or install the system package {source.system[1]}"
    try:
        import pooch
    except ImportError as error:
        raise DataError(
            f"{key}: downloading needs pip install 'onnxsurgeon[data]'; or {manual}", "no-package"
        ) from error
    pooch.get_logger().setLevel(logging.WARNING)
    downloader = pooch.HTTPDownloader(progressbar=progress(file.name) if progress else False, timeout=30)
    try:
        # pooch downloads to a temporary name, verifies, and moves: no half-written file is ever found here.
        pooch.retrieve(file.url, file.checksum, fname=file.name, path=folder, downloader=downloader)
    except Exception as error:  # requests' and pooch's exceptions share no narrower base
        reason = "its checksum is wrong" if "hash" in str(error) else f"no connection ({type(error).__name__})"
        raise DataError(f"{key}: {file.name} cannot be downloaded: {reason}; {manual}", "no-download") from error


def _check(dataset: Dataset, key: str, source: Source) -> None:
    for part, split in (("training", dataset.train), ("test", dataset.test)):
        if split.rows == 0:
            raise DataError(f"{key}: its {part} split is empty", "no-rows")
        shape = next(split.blocks())[1][1:]
        if shape != source.shape:
            raise DataError(f"{key}: its {part} rows have shape {shape}, expected {source.shape}", "unlike-rows")
        if split.labels.min() < 0 or split.labels.max() >= dataset.classes:
            raise DataError(f"{key}: its {part} labels are not all within 0 to {dataset.classes - 1}", "label-form")
