"""What every fuzzed input goes through, and how it ends."""

from __future__ import annotations

import random
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuzzing.byte_mutations import mutate_bytes
from fuzzing.corpus import EXTERNAL_BYTES
from fuzzing.graph_mutations import mutate_graph
from onnxsurgeon import OnnxSurgeonError, Thresholds, inspect_layers, load, operate, propose
from onnxsurgeon.graph.files import read_parts, write_model, write_parts

KINDS = ("bytes", "structure")


@dataclass(frozen=True)
class Ending:
    """How an input ended.

    Attributes:
        kind: "result", "error" (a named one), or "BUG".
        what: for an error, its text; for a bug, the exception and the line of ours, or of others, that raised it.
    """

    kind: str
    what: str = ""


def make_input(kind: str, seed: int, index: int) -> bytes:
    """Input number ``index``: the same for the same arguments."""
    rng = random.Random(f"{kind} {seed} {index}")
    return mutate_bytes(rng) if kind == "bytes" else mutate_graph(rng)


def furnish(folder: Path) -> None:
    """Put what external data may point at into ``folder``."""
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "weights.bin").write_bytes(bytes(EXTERNAL_BYTES))
    for link in (folder / "link", folder / "sub" / "link"):
        if not link.is_symlink():
            link.symlink_to("/etc/passwd")


def run_input(content: bytes, folder: Path) -> Ending:
    """Read, load, write, inspect and operate on ``content``."""
    path = folder / "m.onnx"
    path.write_bytes(content)
    try:
        _pipeline(path, folder)
    except OnnxSurgeonError as error:
        return _judge_error(str(error))
    except Exception as error:
        return Ending("BUG", _signature(error))
    return Ending("result")


def _pipeline(path: Path, folder: Path) -> None:
    parts = read_parts(path)
    write_parts(parts, folder / "parts.onnx", overwrite=True)
    read_parts(folder / "parts.onnx")
    network = load(path)
    write_model(network.to_model(), folder / "out.onnx", overwrite=True)
    load(folder / "out.onnx")
    thresholds = Thresholds()
    inspect_layers(network, thresholds)
    surgeries = [candidate.surgery for candidate in propose(network, thresholds) if candidate.surgery is not None]
    rng = np.random.default_rng(len(path.read_bytes()))
    if surgeries:
        operated = operate(network, surgeries[int(rng.integers(len(surgeries)))], rng)
        write_model(operated.network.to_model(), folder / "out.onnx", overwrite=True)


def _judge_error(text: str) -> Ending:
    if "\n" in text or "\r" in text:
        return Ending("BUG", f"an error of several lines: {text!r}")
    if len(text) > 1000:
        return Ending("BUG", f"an error of {len(text)} letters: {text[:100]!r}")
    if any(word in text for word in ("bad_alloc", "Unable to allocate", "MemoryError", "length_error")):
        return Ending("BUG", f"memory: {text}")
    return Ending("error", text)


def _signature(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "onnxsurgeon" in Path(frame.filename).parts] or frames
    places = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
    if frames[-1] is not ours[-1]:
        places += f" → {Path(frames[-1].filename).name}:{frames[-1].lineno}"
    text = str(error).splitlines()
    return f"{type(error).__name__} at {places}: {text[0][:160] if text else ''}"
