"""A trainer's state as safetensors, a format that holds only arrays and texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import load, save

from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.files import open_regular
from onnxsurgeon.linear_algebra import Array


def to_bytes(state: Mapping[str, Array], notes: Mapping[str, str] | None = None) -> bytes:
    """The file's bytes, which depend only on the arrays and the notes, not on their order."""
    arrays = {name: np.asarray(values, order="C") for name, values in state.items()}
    return bytes(save(arrays, dict(notes) if notes else None))


def read(path: Path) -> dict[str, Array]:
    """Read the arrays of a file, which may come from a stranger: sizes are checked against its length first.

    Raises:
        ModelError: it cannot be read, or is damaged, or holds a type that numpy lacks.
    """
    try:
        with open_regular(path) as file:
            return dict(load(file.read()))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}", "cannot-read") from error
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: holds no tensors that can be read: {error}", "unlike-state") from error
