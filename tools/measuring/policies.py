"""Rows for a robot policy, drawn by the make_rows.py that lies beside it, and what the policy does with them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from measuring.models import Array, input_name, outputs

SCRIPT = "make_rows.py"
FRESH = 1000  # added to the seed for the rows that are measured on


@dataclass(frozen=True)
class Drawn:
    """Which rows.

    Attributes:
        policies: the folder with the policy and make_rows.py.
        folder: where the rows are kept.
        policy: the file's name without .onnx.
        kind: "white" or "structured".
        seed: of the rows to train on.
        rows: how many of them.
        fresh: how many rows of another seed to measure on.
    """

    policies: Path
    folder: Path
    policy: str
    kind: str
    seed: int
    rows: int
    fresh: int

    @property
    def model(self) -> Path:
        """The policy."""
        return self.policies / f"{self.policy}.onnx"

    @property
    def file(self) -> Path:
        """The rows, under the policy's input name with _train and _test; without outputs."""
        return self.folder / f"{self.policy}-{self.kind}-{self.seed}-{self.rows}-{self.fresh}.npz"


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows (rows, inputs) and the policy's outputs for them, (rows, outputs)."""

    train: Array
    fresh: Array
    train_outputs: Array
    fresh_outputs: Array


def read_rows(drawn: Drawn) -> Rows:
    """The rows; drawn where they have not been."""
    name = input_name(drawn.model)
    if not drawn.file.exists():
        parts = {
            f"{name}_train": _draw(drawn, drawn.seed, drawn.rows),
            f"{name}_test": _draw(drawn, drawn.seed + FRESH, drawn.fresh),
        }
        part = drawn.file.with_suffix(".part.npz")
        np.savez(part, **parts)  # type: ignore[arg-type]
        part.replace(drawn.file)
    with np.load(drawn.file) as arrays:
        train, fresh = arrays[f"{name}_train"], arrays[f"{name}_test"]
    return Rows(train, fresh, *(outputs(drawn.model, {name: rows})[0] for rows in (train, fresh)))


def _draw(drawn: Drawn, seed: int, rows: int) -> Array:
    out = drawn.folder / "drawn.npz"
    options = ["--kind", drawn.kind, "--rows", str(rows), "--seed", str(seed)]
    command = [sys.executable, str(drawn.policies / SCRIPT), str(drawn.model), str(out), *options]
    subprocess.run(command, check=True)
    with np.load(out) as arrays:
        made: Array = arrays[arrays.files[0]]
    out.unlink()
    return made
