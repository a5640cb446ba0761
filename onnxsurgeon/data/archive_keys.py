"""What the arrays of an .npz archive are by their keys: of which split, and inputs, by which name, or labels."""

from __future__ import annotations

import re
from pathlib import Path

from onnxsurgeon.errors import DataError
from onnxsurgeon.linear_algebra import Array

NPZ_KEYS = (
    "x_train and y_train, and if you have them x_test, y_test, x_validation, y_validation; or x and y; "
    "or a model's inputs by their names in place of x; or any of these without labels"
)
PARTS = ("train", "test", "validation")


def keys_of(path: Path, arrays: dict[str, Array]) -> dict[str, tuple[dict[str, str], str]]:
    """For each split its inputs' keys by name, and its labels' key, "" for none; an input alone has the name ""."""
    if len(arrays) > 1 and any(re.fullmatch(r"arr_\d+", key) for key in arrays):
        raise _unexpected(path, arrays)  # the names that numpy gives where none are given
    if not arrays.keys() & {"y", *(f"y_{part}" for part in PARTS)}:
        return _unlabelled_keys(path, arrays)
    whole = "x" in arrays and "y" in arrays
    known = {f"{kind}{part}" for kind in "xy" for part in ("", *(f"_{part}" for part in PARTS))}
    alone = not arrays.keys() - known  # a model of several inputs may call one of them x
    if alone and (whole or {"x_train", "y_train"} <= arrays.keys()):
        found = {part: ({"": f"x_{part}"}, f"y_{part}") for part in PARTS if f"x_{part}" in arrays}
        return {**found, "train": ({"": "x"}, "y")} if whole else found
    found = {part: ({}, f"y_{part}") for part in PARTS if f"y_{part}" in arrays}
    if "y" in arrays:
        found["train"] = ({}, "y")
    labels = {key for _, key in found.values()}
    for key in arrays.keys() - labels - {"y"}:
        name, _, part = key.rpartition("_")
        if name and part in found and found[part][1] != "y":
            found[part][0][name] = key
        elif "y" in arrays:
            found["train"][0][key] = key
    mixed = "y" in arrays and {f"x_{part}" for part in PARTS} & arrays.keys()
    if mixed or not found.get("train", ({}, ""))[0]:
        raise _unexpected(path, arrays)
    return _one_input(arrays, _same_names(path, found))


def _unlabelled_keys(path: Path, arrays: dict[str, Array]) -> dict[str, tuple[dict[str, str], str]]:
    """The keys of an archive without labels: NAME_train and so on, or every key is an input's name."""
    found: dict[str, tuple[dict[str, str], str]] = {}
    if any(key.endswith("_train") for key in arrays):
        for key in sorted(arrays, key=lambda key: [not key.endswith(f"_{part}") for part in PARTS]):
            name, _, part = key.rpartition("_")
            if not name or part not in PARTS:
                raise _unexpected(path, arrays)
            found.setdefault(part, ({}, ""))[0][name] = key
    elif arrays and not {f"x_{part}" for part in PARTS} & arrays.keys():
        found = {"train": ({name: name for name in arrays}, "")}
    else:
        raise _unexpected(path, arrays)
    return _one_input(arrays, _same_names(path, found))


def _one_input(
    arrays: dict[str, Array], found: dict[str, tuple[dict[str, str], str]]
) -> dict[str, tuple[dict[str, str], str]]:
    """The same keys; a single array of rows is the input of a model that has one, whatever either is called."""
    keys = [key for names, _ in found.values() for key in names.values()]
    if len(keys) == len(found) and all(arrays[key].ndim > 1 and arrays[key].dtype.kind in "fiub" for key in keys):
        return {part: ({"": key}, label) for key, (part, (_, label)) in zip(keys, found.items(), strict=True)}
    return found


def _unexpected(path: Path, arrays: dict[str, Array]) -> DataError:
    return DataError(f"{path}: expected the keys {NPZ_KEYS}; found {', '.join(sorted(arrays)) or 'none'}", "npz-keys")


def _same_names(path: Path, found: dict[str, tuple[dict[str, str], str]]) -> dict[str, tuple[dict[str, str], str]]:
    names = sorted({name for keys, _ in found.values() for name in keys})
    for part, (keys, label) in found.items():
        for name in names:
            if name not in keys:
                expected = name if label == "y" else f"{name}_{part}"
                raise DataError(
                    f"{path}: '{label or next(iter(keys.values()))}' has no '{expected}' beside it", "npz-keys"
                )
    return {part: ({name: keys[name] for name in names}, label) for part, (keys, label) in found.items()}
