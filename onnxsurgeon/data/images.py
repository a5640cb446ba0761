"""The user's own data set as a folder of images: one folder for each class, or images alone."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxsurgeon.bounds import ADVICE, are_lifted
from onnxsurgeon.data.arrays import assemble
from onnxsurgeon.data.dataset import Dataset, Split, unlabelled
from onnxsurgeon.data.foreseen import hollow, require_fit, require_room, size_of
from onnxsurgeon.data.image_files import ImageFolder
from onnxsurgeon.errors import DataError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.printable import shown

# The formats of the endings of ``image_files``; for some other formats, Pillow would run another program.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SILENT = logging.NullHandler()
_CHANNELS = {"L": (), "RGB": (3,)}
_ORIENTATION = 0x0112  # the tag of EXIF that says how a camera was held; 1 is upright


def read_images(root: Path, networks: Sequence[Network] = ()) -> Dataset:
    """Read FOLDER/CLASS/*, or FOLDER/train/CLASS/*, FOLDER/test/CLASS/*, FOLDER/validation/CLASS/* (or val).

    Images in folders inside that of a class are of this class. Images that lie in FOLDER itself, or in FOLDER/train and
    FOLDER/test or FOLDER/validation themselves, have no labels. Classes are numbered in the order of their folders'
    names; images are greyscale (rows, h, w) or RGB (rows, h, w, 3), all of one size, uint8. Files whose names begin
    with a point or lack an image's ending are left out; the set's remarks tell of them. An image is not decoded if its
    size does not fit the inputs of ``networks``, or is not the first image's.

    Raises:
        DataError: there is no class or no image, a file cannot be read or is of another size or mode, a link leads out
            of the folder, a pipe or a device lies in it, or Pillow is not installed.
    """
    folder = ImageFolder(root)
    files = {part: folder.images(part) for part in folder.splits}
    paths = [path for found in files.values() for path, _ in found]
    with _opened(paths[0]) as image:
        shape = _shape(paths[0], image)
    every = (len(paths), *shape)
    require_fit(networks, str(root), hollow(every, np.dtype(np.uint8)))
    require_room(str(root), size_of(every, np.dtype(np.uint8)), sum(path.stat().st_size for path in paths))
    splits, frames, turned = {}, list[Path](), list[Path]()
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
                frames += [path] if _has_more(image) else []
                turned += [path] if _is_turned(image) else []
        labels = np.array([name for _, name in found]) if folder.is_labelled else unlabelled(len(found))
        splits[part] = Split(inputs, labels)
    remarks = list(folder.remarks())
    for some, what in (
        (frames, "images of several frames or pages, of which the first is read"),
        (turned, "images whose EXIF data say that a viewer turns them, which are read as they are stored"),
    ):
        if some:
            remarks.append(f"{what}: {len(some):,}, such as {shown(str(some[0].relative_to(root)))}")
    return replace(assemble(str(root), splits), remarks=tuple(remarks))


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


def _has_more(image: Any) -> bool:
    """Whether there are frames or pages behind the first, which is read."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # what is behind the first frame may be damaged, and is not asked for
        return False


def _is_turned(image: Any) -> bool:
    """Whether viewers turn or mirror the image, as a camera has noted."""
    try:
        return bool(image.getexif().get(_ORIENTATION, 1) != 1)
    except Exception:  # likewise
        return False


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
