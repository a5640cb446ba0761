"""What every fuzzed input goes through, and how it ends."""

from __future__ import annotations

import math
import random
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from fuzzing.byte_mutations import mutate_bytes
from fuzzing.corpus import EXTERNAL_BYTES
from fuzzing.graph_mutations import mutate_graph
from onnxsurgeon import OnnxSurgeonError, Thresholds, inspect_layers, load, operate, propose
from onnxsurgeon.graph.equivalence import random_inputs
from onnxsurgeon.graph.files import read_model, read_parts, write_model, write_parts
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.sizes import largest_tensor
from onnxsurgeon.graph.writer import to_model, to_parts
from onnxsurgeon.runtime import run
from onnxsurgeon.surgery import Factorize, InsertIdentity, Merge, Narrow, Surgery, Widen

KINDS = ("bytes", "structure")
ROWS = 3
MOST_FED = 2**20
LARGEST_TENSOR = 2**22
LARGEST_WEIGHT = 1e4
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
FED = (*FLOATS, TensorProto.INT64, TensorProto.INT32)


@dataclass(frozen=True)
class Ending:
    """How an input ended.

    Attributes:
        kind: "result", "error" (a named one), or "BUG".
        what: for an error, its text; for a bug, the exception and the line of ours, or of others, that raised it.
    """

    kind: str
    what: str = ""


# Operators that read values as places.
INDEXING = ("ArrayFeatureExtractor", "Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "OneHot")


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
    except Exception as error:
        return judged(error)
    return Ending("result")


def judged(error: Exception) -> Ending:
    """How something ended that raised an error: a named one of one line, or a bug."""
    return _judge_error(str(error)) if isinstance(error, OnnxSurgeonError) else Ending("BUG", _signature(error))


def _pipeline(path: Path, folder: Path) -> None:
    parts = read_parts(path)
    write_parts(parts, folder / "parts.onnx", overwrite=True)
    read_parts(folder / "parts.onnx")
    network = load(path)
    write_parts(to_parts(network), folder / "parts.onnx", overwrite=True)
    write_model(to_model(network), folder / "out.onnx", overwrite=True)
    load(folder / "out.onnx")
    thresholds = Thresholds()
    inspect_layers(network, thresholds)
    propose(network, thresholds)
    rng = np.random.default_rng(path.stat().st_size)
    exact = True
    if network.hidden_count:
        network, record = operate(network, _any_surgery(network, rng), rng)
        exact = record.exact
    model = to_model(network)
    write_model(model, folder / "out.onnx", overwrite=True)
    # Beside weights that only damage makes so large, rounding is all that is left of the others. Behind such a frozen
    # layer, the product with the first of two factors may overflow where that with both does not.
    given = read_model(path)
    _run(given, model, exact and max(_largest(given), _largest(model)) < LARGEST_WEIGHT)


def _largest(model: onnx.ModelProto) -> float:
    """The largest magnitude among the numbers of a model's initializers."""
    values = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.data_type in FLOATS]
    return max((float(np.abs(each.astype(np.float64)).max(initial=0.0)) for each in values), default=0.0)


def _any_surgery(network: Network, rng: np.random.Generator) -> Surgery:
    """One of the five, on a random hidden layer; it may be one that is refused."""
    layer = int(rng.integers(network.hidden_count)) + 1
    amount = int(rng.integers(1, max(2, min(9, network.hidden(layer).units))))
    surgeries = (
        Widen(layer, amount, ("split", "equal", "fresh")[amount % 3]),
        InsertIdentity(layer),
        Narrow(layer, amount),
        Factorize(layer, amount),
        Merge(layer),
    )
    return surgeries[int(rng.integers(len(surgeries)))]


def _run(given: onnx.ModelProto, model: onnx.ModelProto, exact: bool) -> None:
    """Run both models on random rows: where the given one runs, so does the other; exact ones agree."""
    initializers = {tensor.name for tensor in given.graph.initializer}
    fed = [value for value in given.graph.input if value.name not in initializers]
    shapes = {value.name: tuple(dim.dim_value or ROWS for dim in value.type.tensor_type.shape.dim) for value in fed}
    if any(value.type.tensor_type.elem_type not in FED for value in fed):
        return
    if sum(math.prod(shape) for shape in shapes.values()) > MOST_FED:
        return
    for each in (given, model):
        largest_tensor(each, shapes, most=LARGEST_TENSOR)
    feeds = random_inputs(given, ROWS)
    before, again = run(given, feeds), run(given, feeds)
    try:
        after = run(model, feeds)
    except OnnxSurgeonError as error:
        if not exact and any(f"running {op} node" in str(error) for op in INDEXING):
            return  # other outputs may be places that are not there
        raise AssertionError(f"the given model runs, its rewritten form does not: {error}") from error
    if not exact:
        return
    for x, repeated, y in zip(before, again, after, strict=True):
        if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
            continue
        if not np.isfinite(x).all() or not np.array_equal(x, repeated):  # it overflows, or draws random numbers
            return
        if x.shape != y.shape:
            raise AssertionError(f"the given model's output of shape {x.shape} has become one of {y.shape}")
        scale, tolerance = float(np.abs(x).max(initial=0.0)), 1e-3 if x.dtype.itemsize > 2 else 5e-2
        moved = float(np.abs(x.astype(np.float64) - y).max(initial=0.0))
        if not moved <= tolerance * max(scale, 1e-6):
            raise AssertionError("an exact rewrite changes the outputs")


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
