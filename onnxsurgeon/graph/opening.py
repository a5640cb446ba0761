"""Opens a model in any form that a caller has: a path, bytes, a ModelProto or a Network; with layers frozen."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.check import check_model, check_opsets
from onnxsurgeon.graph.damage import why_unreadable
from onnxsurgeon.graph.external import is_external, size_on_disk
from onnxsurgeon.graph.files import Parts, join, read_parts, sha256_of, split
from onnxsurgeon.graph.freezing import frozen_network
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.structure import tensors
from onnxsurgeon.graph.writer import to_parts
from onnxsurgeon.typed import kind_of

ModelSource = str | os.PathLike[str] | bytes | onnx.ModelProto | Network
KINDS = "a path, bytes, an onnx.ModelProto or a Network"


@dataclass(frozen=True, eq=False)
class OpenedModel:
    """A model that a caller gave.

    Attributes:
        network: the network that was read.
        source: its name in messages: the path, or the network's name.
        path: its file; None for a model in memory.
    """

    network: Network
    source: str
    path: Path | None = None

    def record(self) -> dict[str, object]:
        """Its name, digest and size, as a run's settings hold them.

        Raises:
            OSError: its file cannot be read.
        """
        if self.path is not None:
            return {"file": self.source, "sha256": sha256_of(self.path), "size": size_on_disk(self.path)}
        content = bytes(join(to_parts(self.network)).SerializeToString(deterministic=True))
        return {"file": self.source, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}


def open_model(
    given: ModelSource, *, freeze: Sequence[str] = (), train_only: Sequence[str] = (), name: str = "model"
) -> OpenedModel:
    """Read a model in whatever form it is given.

    See ``frozen_network`` for the meaning of ``freeze`` and ``train_only``. ``name`` is the name of a model in memory
    that has none of its own.

    Raises:
        ModelError: it is of another type, or cannot be used.
        SettingsError: no layer bears a name that is to be frozen, or to be trained.
    """
    if isinstance(given, Network):
        if not freeze and not train_only:
            return OpenedModel(given, given.name)
        name = given.name
        network = frozen_network(to_parts(given), freeze, train_only, name=name, source=name)
        return OpenedModel(network, name)
    parts, source, path = parts_of(given, name)
    stem = name if path is None else path.stem
    return OpenedModel(frozen_network(parts, freeze, train_only, name=stem, source=source), source, path)


def parts_of(given: ModelSource, name: str = "model") -> tuple[Parts, str, Path | None]:
    """The model taken apart, its name in messages, and its file.

    Raises:
        ModelError: it is of another type, or cannot be used.
    """
    if isinstance(given, str | os.PathLike):
        return read_parts(given), str(given), Path(given)
    if isinstance(given, Network):
        return to_parts(given), given.name, None
    if isinstance(given, bytes | bytearray | memoryview):
        model, content = onnx.ModelProto(), bytes(given)
        try:
            model.ParseFromString(content)
        except (DecodeError, RuntimeError, ValueError) as error:
            raise ModelError(f"{name}: not an ONNX model ({why_unreadable(content)})", "not-a-model") from error
    elif isinstance(given, onnx.ModelProto):
        model = given
    else:
        raise ModelError(f"model: expected {KINDS}; found {kind_of(given)}", "wrong-type")
    check_opsets(model, name)
    for tensor, where in tensors(model, name):
        if is_external(tensor):
            raise ModelError(f"{where}: its data is in another file: give the model's path instead", "external-data")
    check_model(model, name)
    return split(model, name), name, None
