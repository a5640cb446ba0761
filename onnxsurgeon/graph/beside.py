"""Files of external data beside a model: the name of the next one, and the old ones that nothing refers to any more."""

from __future__ import annotations

import filecmp
import mmap
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph import external
from onnxsurgeon.graph.structure import tensors

# What follows a model's name in that of its external data: nothing, or a digest where the plain name was taken.
_DATA_SUFFIX = re.compile(r"(\.[0-9a-f]{8}|\.[0-9a-f]{64})?\.data")
# Endings of external data as exporters write it. Exporters that name a file after its tensor use none of these.
_ENDINGS = ("", ".bin", ".data", ".onnx_data", ".raw", ".weight", ".weights", ".bias")
# Fields of a ModelProto are written in order, and the first is the version of the format.
_FIRST_BYTE = b"\x08"


def data_name(model: str, digest: str = "") -> str:
    """The name of the external data of a model file called ``model``; with ``digest`` where the plain name is taken."""
    return f"{model}.{digest}.data" if digest else f"{model}.data"


def refers_out(path: Path) -> bool:
    """Whether the model file at ``path`` has external data; False where it is no model."""
    return bool(_external_tensors(path))


def referred_files(path: Path) -> dict[str, Path]:
    """Files of external data of the model at ``path`` by their names in it, without those that may not be read."""
    found = {}
    for tensor in _external_tensors(path):
        try:
            place = external.locate(tensor, path.parent, path.name)
        except ModelError:
            continue
        found[next(entry.value for entry in tensor.external_data if entry.key == "location")] = place.path
    return found


def speaks_of(path: Path, name: str) -> bool:
    """Whether the model file at ``path`` may refer to a file called ``name``; False where there is none."""
    return _mentions(path, [os.fsencode(name)])


def _external_tensors(path: Path) -> list[onnx.TensorProto]:
    if not _mentions(path, [b"location"]):  # the key that every reference has: most models need not be parsed
        return []
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
        return [tensor for tensor, _ in tensors(model, path.name) if external.is_external(tensor)]
    except Exception:  # neither onnx nor protobuf promises a type; what cannot be read refers to nothing
        return []


def _mentions(path: Path, texts: Collection[bytes]) -> bool:
    """Whether any of ``texts`` is a text, or the last part of a path, in the messages that a regular file holds."""
    try:
        if not path.is_file() or path.stat().st_size == 0:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(_holds(content, text) for text in texts)
    except (OSError, ValueError):
        return False


def _holds(content: mmap.mmap, text: bytes) -> bool:
    at = content.find(text)
    while at >= 0:
        # Protobuf puts its length before a text; without this check, 'other.data' would match 'er.data'.
        if at == 0 or content[at - 1] in b"/\\" or content[at - 1] == len(text) or len(text) > 127:
            return True
        at = content.find(text, at + 1)
    return False


def _plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


@dataclass(frozen=True)
class Surroundings:
    """The files beside a model file before it is written.

    Attributes:
        path: the model file.
        replaced: whether a model file of that name is to be replaced.
        covered: names of files beside it whose bytes are all tensors of the model to be replaced.
        named: names of all files beside it that the model to be replaced refers to.
    """

    path: Path
    replaced: bool = False
    covered: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()

    @classmethod
    def of(cls, path: Path, *, overwrite: bool) -> Surroundings:
        """Look at the model at ``path``, which may be replaced if ``overwrite`` is true."""
        if not overwrite or not path.is_file():
            return cls(path)
        taken: dict[Path, list[tuple[int, int]]] = defaultdict(list)
        for tensor in _external_tensors(path):
            try:
                place = external.locate(tensor, path.parent, path.name)
            except ModelError:
                continue
            taken[place.path].append((place.offset, place.length))
        folder = path.parent.resolve()
        here = {file: places for file, places in taken.items() if file.parent == folder}
        covered = (file.name for file, places in here.items() if _covers(places, file.stat().st_size))
        return cls(path, True, frozenset(covered), frozenset(file.name for file in here))

    def choose(self, content: Path, digest: str) -> tuple[str, str, str]:
        """Choose the name of external data at first, its name in the end, and say why the latter is not the plain name.

        The two names differ where the model to be replaced uses the plain name: until that model is replaced, it has to
        find its own data. ``content`` is the file with what is to be written, ``digest`` its SHA-256.
        """
        plain = data_name(self.path.name)
        if self._is_free(plain, content):
            return plain, plain, ""
        own = data_name(self.path.name, digest[:8])
        if not self._is_free(own, content):
            own = data_name(self.path.name, digest)
        if not self.replaced or not _plain(self.path.with_name(plain)):
            return own, own, f"'{plain}' exists already and is not this model's"
        for user in self.users([plain]):
            return own, own, f"'{user}' refers to '{plain}'"
        return own if plain in self.named else plain, plain, ""

    def _is_free(self, name: str, content: Path) -> bool:
        file = self.path.with_name(name)
        return not os.path.lexists(file) or (_plain(file) and filecmp.cmp(file, content, shallow=False))

    def users(self, names: Collection[str]) -> Iterator[str]:
        """Names of other files in the folder that are models and may refer to one of ``names``."""
        texts = [os.fsencode(name) for name in names]
        with os.scandir(self.path.parent) as entries:
            others = sorted(entry.name for entry in entries if entry.name != self.path.name and entry.name not in names)
        for name in others:
            file = self.path.with_name(name)
            if _is_model(file) and _mentions(file, texts):
                yield name

    def remove_old(self, keep: str | None) -> tuple[str, ...]:
        """Remove data files that only the replaced model referred to, and what interrupted writes of this one left.

        A file is removed if it bears this model's name or held nothing but the replaced model's tensors. A file that
        another model in the folder may refer to stays.

        Returns:
            A sentence about each file of another name that was removed or left.
        """
        own = self.path.name
        with os.scandir(self.path.parent) as entries:
            ours = {
                entry.name
                for entry in entries
                if entry.name.startswith(own)
                and (suffix := _DATA_SUFFIX.fullmatch(entry.name, len(own)))
                and (suffix.group(1) or self.replaced)
            }
        told = []
        for name in sorted((ours | self.named) - {keep}):
            file = self.path.with_name(name)
            if not _plain(file) or next(self.users([name]), None) is not None:
                continue
            foreign = name not in ours
            if foreign and not (name in self.covered and _is_data_name(name)):
                told.append(f"'{name}' is left: the model that '{own}' was referred to it, but it may hold more")
                continue
            try:
                file.unlink(missing_ok=True)
            except OSError as error:
                told.append(f"'{name}', which nothing refers to any more, cannot be removed: {error.strerror or error}")
                continue
            if foreign:
                told.append(f"'{name}' is removed: only the model that '{own}' was referred to it")
        return tuple(told)


def _covers(places: list[tuple[int, int]], size: int) -> bool:
    """Whether tensors at these offsets, of these lengths, fill a file except for padding between them."""
    end = 0
    for offset, length in sorted(places):
        if offset - end >= external.ALIGNMENT:
            return False
        end = max(end, offset + length)
    return size - end < external.ALIGNMENT


def _is_data_name(name: str) -> bool:
    return Path(name).suffix.lower() in _ENDINGS


def _is_model(path: Path) -> bool:
    """Whether a file may be a model, by its name or its first byte."""
    try:
        if not path.is_file():  # opening a pipe would wait
            return False
        if ".onnx" in path.name.lower() and not path.name.endswith(".data"):
            return True
        with path.open("rb") as file:
            return file.read(1) == _FIRST_BYTE
    except OSError:
        return False
