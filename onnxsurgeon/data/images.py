"""The user's own data set as a folder of images: one folder for each class, or images alone."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from onnxsurgeon.bounds import ADVICE, are_lifted
from onnxsurgeon.data.arrays import assemble
from onnxsurgeon.data.dataset import Dataset, Split, unlabelled
from onnxsurgeon.data.foreseen import hollow, require_fit, require_room, size_of
from onnxsurgeon.errors import DataError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
# The formats of those endings; for some other formats, Pillow would run another program.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SILENT = logging.NullHandler()
_CHANNELS = {"L": (), "RGB": (3,)}
_SPLITS = {"train": "train", "test": "test", "validation": "validation", "val": "validation"}


def read_images(root: Path, networks: Sequence[Network] = ()) -> Dataset:
    """Read FOLDER/CLASS/*, or FOLDER/train/CLASS/*, FOLDER/test/CLASS/*, FOLDER/validation/CLASS/* (or val).

    Images that lie in FOLDER itself, or in FOLDER/train and FOLDER/test or FOLDER/validation themselves, have no
    labels. Classes are numbered in the order of their folders' names; images are greyscale (rows, h, w) or RGB (rows,
    h, w, 3), all of one size, uint8. Files whose names begin with a point or lack an image's ending are left out. An
    image is not decoded if its size does not fit the inputs of ``networks``, or is not the first image's.

    Raises:
        DataError: there is no class or no image, a file cannot be read or is of another size or mode, a link leads out
            of the folder, a pipe or a device lies in it, or Pillow is not installed.
    """
    is_labelled = _has_classes(root)
    folders = _split_folders(root, is_labelled=is_labelled)
    find = _images if is_labelled else _images_alone
    files = {part: list(find(root, folder)) for part, folder in folders.items()}
    paths = [path for found in files.values() for path, _ in found]
    with _opened(paths[0]) as image:
        shape = _shape(paths[0], image)
    every = (len(paths), *shape)
    require_fit(networks, str(root), hollow(every, np.dtype(np.uint8)))
    require_room(str(root), size_of(every, np.dtype(np.uint8)), sum(path.stat().st_size for path in paths))
    splits = {}
    for part, found in files.items():
        inputs = _empty(root, (len(found), *shape))
        for row, (path, _) in enumerate(found):
            with _opened(path) as image:
                own = _shape(path, image)
                if own != shape:
                    raise DataError(
                        f"{path}: expected {_spelled(shape)} as {paths[0]} is; found {_spelled(own)}", "unlike-rows"
                    )
                inputs[row] = np.asarray(image)
        labels = np.array([name for _, name in found]) if is_labelled else unlabelled(len(found))
        splits[part] = Split(inputs, labels)
    return assemble(str(root), splits)


def _has_classes(root: Path) -> bool:
    """Whether images lie in a folder for each class; else the root holds them, or its folders are those of splits."""
    folders = list(_folders(root, root))
    if not folders:
        return not any(_files(root, root))  # a folder without images is reported as one without classes
    names = {_SPLITS.get(folder.name) for folder in folders}
    are_splits = "train" in names and len(names) > 1 and None not in names
    return not are_splits or any(any(_folders(root, folder)) for folder in folders)


def _split_folders(root: Path, *, is_labelled: bool) -> dict[str, Path]:
    """The folder of every split; only the root where it holds the classes itself, or images without classes."""
    train = root / "train"
    if not train.is_dir():
        return {"train": root}
    # A class may be called "train" as well: its folder then holds images.
    if is_labelled and (not any(_folders(root, train)) or any(_files(root, train))):
        return {"train": root}
    found: dict[str, Path] = {}
    for folder in _folders(root, root):
        part = _SPLITS.get(folder.name)
        if part is None or part in found:
            raise DataError(
                f"{folder}: expected the folders train, test and validation (or val) beside one another", "folder-form"
            )
        found[part] = folder
    return {"train": found.pop("train"), **found}


def _images(root: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """Every image below ``folder`` with its class, in the order of their names."""
    classes = list(_folders(root, folder))
    if not classes:
        raise DataError(f"{folder}: expected a folder of images for each class; found none", "folder-form")
    for name in classes:
        files = list(_files(root, name))
        if not files:
            raise DataError(f"{name}: holds no images; expected files such as .png or .jpg", "no-rows")
        for file in files:
            yield file, name.name


def _images_alone(root: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """Every image in ``folder``, in the order of their names."""
    files = list(_files(root, folder))
    if not files:
        raise DataError(f"{folder}: holds no images; expected files such as .png or .jpg", "no-rows")
    for file in files:
        yield file, ""


def _folders(root: Path, folder: Path) -> Iterator[Path]:
    return (entry for entry in _entries(root, folder) if entry.is_dir())


def _files(root: Path, folder: Path) -> Iterator[Path]:
    for entry in _entries(root, folder):
        if entry.suffix.lower() not in SUFFIXES or entry.is_dir():
            continue
        if not entry.is_file():  # opening a pipe would wait
            raise DataError(f"{entry}: is no regular file; expected an image", "no-such-file")
        yield entry


def _entries(root: Path, folder: Path) -> Iterator[Path]:
    """The visible entries of a folder, in the order of names; a link may only lead to another place inside the root."""
    inside = os.path.realpath(root)
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}", "cannot-read") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        # Not Path.resolve, which raises at links that lead to one another.
        if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(inside):
            raise DataError(f"{entry}: is a link that leads out of {root}; put the file itself there", "leads-out")
        yield entry


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open the image in a file; only its header is read until its pixels are asked for."""
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(f"{path}: reading images needs pip install 'onnxsurgeon[data]'", "no-package") from error
    # Without a handler, Pillow's log of damaged files would reach standard error beside our own line.
    logging.getLogger("PIL").addHandler(_SILENT)
    most = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings on odd metadata; only the pixels matter
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            if are_lifted():
                Image.MAX_IMAGE_PIXELS = None
            with Image.open(path, formats=_FORMATS) as image:
                yield image
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: has more than {most:,} pixels; refused ({ADVICE})", "too-much-data") from error
        except DataError:
            raise
        except Exception as error:  # for damaged files, Pillow's readers raise errors without a common base
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{path}: not a readable image: {reason}", "unreadable-data") from error
        finally:
            Image.MAX_IMAGE_PIXELS = most


def _shape(path: Path, image: Any) -> tuple[int, ...]:
    """The shape that an image's values will have, (h, w) or (h, w, 3)."""
    _require_mode(path, image)
    return image.height, image.width, *_CHANNELS[image.mode]


def _require_mode(path: Path, image: Any) -> None:
    if image.mode not in _CHANNELS:
        raise DataError(
            f"{path}: expected a greyscale (L) or RGB image; found mode {image.mode}: save it anew, with Pillow "
            "image.convert('L') or image.convert('RGB')",
            "unreadable-data",
        )


def _empty(root: Path, shape: tuple[int, ...]) -> Array:
    try:
        return np.empty(shape, np.uint8)
    except MemoryError as error:
        raise DataError(
            f"{root}: {shape[0]} images of {_spelled(shape[1:])} do not fit into memory", "too-much-data"
        ) from error


def _spelled(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} × {shape[0]} pixels, {'RGB' if len(shape) == 3 else 'greyscale'}"
