"""A model of a run, with its measurements and the ways to load it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxsurgeon.graph.files import join, read_parts
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.reader import load
from onnxsurgeon.runtime import session_of_file


@dataclass(frozen=True)
class RunModel:
    """A model of a run; whatever takes the path of a file takes it as well.

    Attributes:
        run: the run directory.
        file: its file in the run directory.
        branch: its number.
        topology: widths of its layers.
        parameters: number of its parameters.
        accuracy: on the rows that decide.
        loss: mean loss on these rows; None where it is not known.
        size: bytes of its file; None where it was not asked for.
        latency: milliseconds for a row; None where it was not asked for.
        digest: SHA-256 of its file; "" where it is not known.
        multiplications: with weights, for a row (MACs); None where it was not asked for.
        memory: bytes of the tensors that are in memory at once for a row; None where it was not asked for.
    """

    run: Path
    file: str
    branch: int
    topology: str
    parameters: int
    accuracy: float
    loss: float | None = None
    size: int | None = None
    latency: float | None = None
    digest: str = ""
    multiplications: int | None = None
    memory: int | None = None

    @property
    def path(self) -> Path:
        """Its file."""
        return self.run / self.file

    def __fspath__(self) -> str:
        return str(self.path)

    def load(self) -> Network:
        """The model as a network.

        Raises:
            ModelError: its file is gone or damaged.
        """
        return load(self.path)

    def to_bytes(self) -> bytes:
        """The model as one ONNX file, external data included.

        Raises:
            ModelError: its file is gone or damaged, or the model is larger than 2 GB.
        """
        return bytes(join(read_parts(self.path)).SerializeToString(deterministic=True))

    def session(self, device: str = "cpu") -> Any:
        """An ``onnxruntime.InferenceSession`` of the model.

        Raises:
            ModelError: its file is gone or damaged.
            EngineError: ONNX Runtime is missing, lacks the device, or refuses the model.
        """
        parts = read_parts(self.path)  # ONNX Runtime's own message would be no one line
        return session_of_file(str(self.path), parts.skeleton, parts.arrays.values(), device=device)
