"""The images in a user's folder, found without being opened, and what else lies in it, which is told and not read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from onnxsurgeon.errors import DataError
from onnxsurgeon.printable import shown

SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
_SPLITS = {
    name: part
    for part, names in {
        "train": ("train", "training"),
        "test": ("test", "testing"),
        "validation": ("validation", "val", "valid"),
    }.items()
    for name in names
}
_LONGEST = 80  # characters of a path that is named in a remark
# Why something is left out, by one and by several.
_HIDDEN = ("hidden one", "hidden ones")
_NO_IMAGE = ("without an image's ending", "without an image's ending")
_NOWHERE = ("link that leads nowhere", "links that lead nowhere")
_AGAIN = ("folder that was read under another name", "folders that were read under other names")
_OUTSIDE = ("image outside of the classes' folders", "images outside of the classes' folders")


class ImageFolder:
    """A folder of images as it lies on the disk.

    Attributes:
        root: the folder.
        is_labelled: whether each class has a folder; else images lie in the root, or in the folders of splits.
        splits: the folder of every split; only the root where it holds the classes, or images without classes.
    """

    def __init__(self, root: Path) -> None:
        """Look at the folder and at those in it.

        Raises:
            DataError: a folder cannot be read, or its splits are not of the form that is expected.
        """
        self.root = root
        self._inside = os.path.realpath(root)
        self._listed: dict[Path, list[Path]] = {}
        self._left: dict[tuple[str, str], set[Path]] = {}
        self._below: list[Path] = []
        self.is_labelled = self._has_classes()
        self.splits = self._split_folders()

    def images(self, part: str) -> list[tuple[Path, str]]:
        """Every image of a split with its class, "" where there are none, in the order of classes and names.

        Images in folders inside that of a class are of this class.

        Raises:
            DataError: there is no class or no image, a link leads out of the root, a pipe or a device lies in a folder.
        """
        folder = self.splits[part]
        if not self.is_labelled:
            return [(file, "") for file in _some(folder, self._files(folder))]
        classes = self._folders(folder)
        if not classes:
            raise DataError(f"{folder}: expected a folder of images for each class; found none", "folder-form")
        found = [(file, each.name) for each in classes for file in _some(each, self._files_below(each))]
        if len(classes) == 1 and len(self._folders(classes[0])) > 1 and not self._files(classes[0]):
            raise DataError(
                f"{folder}: expected a folder of images for each class; found one, which holds folders itself: name "
                f"{classes[0]} where its folders are the classes",
                "folder-form",
            )
        return found

    def remarks(self) -> Iterator[str]:
        """Sentences on what was left out, and on images that do not lie where the class's folder ends."""
        if self._below:
            yield (
                f"images in folders inside of a class's folder are of that class: {len(self._below):,}, such as "
                f"{self._named(self._below)}"
            )
        if self.is_labelled or self.splits["train"] != self.root:
            for folder in {self.root, *(self.splits.values() if self.is_labelled else ())}:
                self._leave(_OUTSIDE, self._files(folder))
        told = [
            f"{len(paths):,} {reason[len(paths) > 1]}, such as {self._named(paths)}"
            for reason, paths in self._left.items()
            if paths
        ]
        if told:
            yield f"left out of {shown(str(self.root))}: {'; '.join(told)}"

    def _named(self, paths: Iterable[Path]) -> str:
        text = shown(str(min(paths).relative_to(self.root)))
        return text if len(text) <= _LONGEST else f"…{text[-_LONGEST:]}"

    def _leave(self, reason: tuple[str, str], paths: Iterable[Path]) -> None:
        self._left.setdefault(reason, set()).update(paths)

    def _has_classes(self) -> bool:
        folders = self._folders(self.root)
        if not folders:
            return not self._files(self.root)  # a folder without images is reported as one without classes
        names = {_SPLITS.get(folder.name.casefold()) for folder in folders}
        are_splits = "train" in names and len(names) > 1 and None not in names
        return not are_splits or any(self._folders(folder) for folder in folders)

    def _split_folders(self) -> dict[str, Path]:
        folders = self._folders(self.root)
        train = next((each for each in folders if _SPLITS.get(each.name.casefold()) == "train"), None)
        if train is None:
            return {"train": self.root}
        # A class may be called "train" as well: its folder then holds images.
        if self.is_labelled and (not self._folders(train) or self._files(train)):
            return {"train": self.root}
        found: dict[str, Path] = {}
        for folder in folders:
            part = _SPLITS.get(folder.name.casefold())
            if part is None or part in found:
                raise DataError(
                    f"{folder}: expected the folders train, test and validation (or val) beside one another",
                    "folder-form",
                )
            found[part] = folder
        return {"train": found.pop("train"), **found}

    def _files_below(self, folder: Path) -> list[Path]:
        """The images in a class's folder and in all folders inside of it; each folder once, whatever links lead to."""
        found, waiting, seen = list[Path](), [folder], set[str]()
        while waiting:
            place = waiting.pop()
            real = os.path.realpath(place)
            if real in seen:
                self._leave(_AGAIN, [place])
                continue
            seen.add(real)
            files = self._files(place)
            found += files
            if place is not folder:
                self._below += files
            waiting += reversed(self._folders(place))
        return found

    def _folders(self, folder: Path) -> list[Path]:
        return [entry for entry in self._entries(folder) if entry.is_dir()]

    def _files(self, folder: Path) -> list[Path]:
        files = []
        for entry in self._entries(folder):
            if entry.is_dir():
                continue
            if entry.suffix.lower() not in SUFFIXES:
                is_link = entry.is_symlink() and not entry.exists()
                self._leave(_NOWHERE if is_link else _NO_IMAGE, [entry])
            elif not entry.is_file():  # opening a pipe would wait
                raise DataError(f"{entry}: is no regular file; expected an image", "no-such-file")
            else:
                files.append(entry)
        return files

    def _entries(self, folder: Path) -> list[Path]:
        """The visible entries of a folder, in the order of names; a link may only lead to another place inside."""
        if folder in self._listed:
            return self._listed[folder]
        try:
            entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{folder}: cannot be read: {error.strerror}", "cannot-read") from error
        visible = [entry for entry in entries if not entry.name.startswith(".")]
        self._leave(_HIDDEN, set(entries) - set(visible))
        for entry in visible:
            # Not Path.resolve, which raises at links that lead to one another.
            if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(self._inside):
                raise DataError(
                    f"{entry}: is a link that leads out of {self.root}; put the file itself there", "leads-out"
                )
        self._listed[folder] = visible
        return visible


def _some(folder: Path, files: Sequence[Path]) -> Sequence[Path]:
    if not files:
        raise DataError(f"{folder}: holds no images; expected files such as .png or .jpg", "no-rows")
    return files
