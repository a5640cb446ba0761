"""A teacher from a file: what it puts out before its squash, for every row and each head of a student.

It is run by ONNX Runtime as it stands, and so may be any model with the same inputs: quantised, or of layers that
nothing here operates on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from onnxsurgeon.data.agreement import as_table
from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.features import Piece, run_in_chunks
from onnxsurgeon.data.heads import imitated_loss
from onnxsurgeon.data.inputs import fitted_inputs, with_rows
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.soft import sigmoid, space
from onnxsurgeon.errors import DataError, ModelError
from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.files import join, read_parts
from onnxsurgeon.graph.frame import Head
from onnxsurgeon.graph.inference import inferred
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.one_row import takes_one_row
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import BINARY, CROSS_ENTROPY

_SQUASHES = ("Softmax", "LogSoftmax", "Sigmoid")
# A squash is seen through these: they leave its values, or round them.
_TRANSPARENT = frozenset(("Identity", "Cast", "DequantizeLinear", "QuantizeLinear", "Reshape", "Flatten", "Squeeze"))
_LEAST, _MOST = 1e-12, 1 - 2**-24  # probabilities that logarithms are taken of
_ROUNDED = 0.02  # a distribution of 8-bit values adds up to 1 within this


class Taught(NamedTuple):
    """What a teacher puts out for some rows.

    Attributes:
        outputs: for each head of the student (rows, …, width) float32, before the squash.
        squashes: what the teacher itself applies to each: "Softmax", "Sigmoid" or "".
    """

    outputs: tuple[Array, ...]
    squashes: tuple[str, ...]


class _Output(NamedTuple):
    """A float output of the teacher: its values for the first rows, and what it squashes if that could be told."""

    position: int
    name: str
    values: Array
    squash: str = ""
    before: int = -1  # position of the tensor that it squashes among all that is computed


class _Source(NamedTuple):
    """Where a head's targets come from: the position among all that is computed, and what is made of it."""

    position: int
    change: Callable[[Array], Array]
    squash: str


@dataclass(frozen=True, eq=False)
class TeacherModel:
    """A model whose outputs are to be imitated.

    Attributes:
        path: its file.
        model: read and checked, external data included.
        sha256: of its file, or with external data of all of it.
    """

    path: Path
    model: onnx.ModelProto
    sha256: str

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> TeacherModel:
        """Read the ONNX model at ``path``.

        Raises:
            ModelError: it is none, or larger than 2 GB.
        """
        path = Path(path)
        parts = read_parts(path)
        try:
            model = join(parts)
        except ModelError as error:
            raise ModelError(f"{path}: {error}", error.kind) from error
        content = model.SerializeToString(deterministic=True) if parts.external else path.read_bytes()
        return cls(path, model, hashlib.sha256(content).hexdigest())

    def outputs(
        self,
        network: Network,
        dataset: Dataset,
        split: Split,
        options: InputOptions | None = None,
        losses: Sequence[str] = (),
    ) -> Taught:
        """What this model puts out for the rows of ``split``, matched to the heads of the student ``network``.

        An output belongs to the head that leads to the student's output of the same name, else to that of the same
        place among as many, else to the next head of its width. Behind a Softmax or a Sigmoid at its end, what enters
        that is taken; of other outputs that hold probabilities where the head wants logits, the logarithm or the logit.

        Args:
            network: the student.
            dataset: what the rows are of.
            split: the rows.
            options: how rows become a model's input.
            losses: what each head is trained for; none where that follows from heads and outputs.

        Raises:
            DataError: the rows do not fit the teacher's inputs, it fails on them, its outputs do not fit the heads, or
                one is not finite.
            ModelError: it computes a tensor that is too large.
        """
        options = options or InputOptions()
        name = str(self.path)
        constants = {tensor.name for tensor in self.model.graph.initializer}
        declared = [value for value in self.model.graph.input if value.name not in constants]
        shapes = [value.type.tensor_type.shape.dim for value in declared]
        fixed = all(size.dim_value > 0 for shape in shapes for size in shape)
        if (fixed or any(len(shape) == 1 for shape in shapes)) and takes_one_row(inferred(self.model)):
            declared = [with_rows(value) for value in declared]
        inputs = fitted_inputs(name, declared, dataset, split, options)
        names, model = self._exposed()
        pieces = run_in_chunks(model, names, inputs, split.rows, name=name, what="it")
        first = next(pieces)
        heads = network.heads
        sources = self._sources(network, first, names, losses or [options.loss] * len(heads))
        found: list[Array] = []
        for piece in chain([first], pieces):
            rows = slice(piece.start, piece.start + piece.rows)
            values = [_changed(piece, source, head) for source, head in zip(sources, heads, strict=True)]
            found = found or [space((split.rows, *each.shape[1:]), each.dtype) for each in values]
            for head, whole, each in zip(heads, found, values, strict=True):
                finite = np.isfinite(each).reshape(len(each), -1).all(axis=1)
                if not finite.all():
                    row = piece.start + int(np.argmin(finite))
                    raise DataError(
                        f"{name}: what it puts out for the head '{head.tensor}' is not finite in row {row}",
                        "outputs-not-finite",
                    )
                whole[rows] = each
        return Taught(tuple(found), tuple(source.squash for source in sources))

    def _exposed(self) -> tuple[list[str], onnx.ModelProto]:
        """All tensors that are wanted, outputs first, and a model with these as outputs."""
        names = [value.name for value in self.model.graph.output]
        before = [tensor for _, tensor in self._squashed.values()]
        wanted = list(dict.fromkeys([*names, *before]))
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        model.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in wanted[len(names) :])
        return wanted, model

    @property
    def _squashed(self) -> dict[str, tuple[str, str]]:
        """Outputs that end in a squash, as far as the nodes tell: its op type, and what enters it."""
        made = {name: node for node in self.model.graph.node for name in node.output if name}
        found = {}
        for value in self.model.graph.output:
            node = made.get(value.name)
            while node is not None and node.op_type in _TRANSPARENT and node.input:
                node = made.get(node.input[0])
            if node is not None and node.op_type in _SQUASHES and not node.domain and node.input[0] in made:
                found[value.name] = node.op_type, node.input[0]
        return found

    def _sources(self, network: Network, piece: Piece, names: list[str], losses: Sequence[str]) -> list[_Source]:
        """For each head the output that fits it: by name, else by order and width."""
        outputs = self._float_outputs(piece, names)
        reached = _outputs_of_heads(network)
        taken: dict[int, _Source] = {}
        left = list(outputs)
        order = sorted(range(len(network.heads)), key=lambda head: (reached[head][:1] or [len(names)], head))
        declared = [value.name for value in network.frame.model.graph.output]
        places = reached if len(declared) == len(self.model.graph.output) else [[] for _ in reached]
        for by_name in (True, False):
            for number in order:
                head, called = network.heads[number], {declared[position] for position in reached[number]}
                likely = sorted(left, key=lambda output: _unlikeness(output, head.tensor, places[number]))
                for output in likely if number not in taken else ():
                    if by_name and output.name not in {*called, head.tensor}:
                        continue
                    source = _fitted(head, output, losses[number])
                    if source is not None:
                        taken[number] = source
                        left.remove(output)
                        break
        missing = [head for number, head in enumerate(network.heads) if number not in taken]
        if missing:
            listed = ", ".join(f"'{each.name}' ({', '.join(map(str, each.values.shape[1:]))})" for each in outputs)
            raise DataError(
                f"{self.path}: no output fits the head '{missing[0].tensor}' of '{network.name}', "
                f"{missing[0].width} wide; of floats a row it has {listed or 'none'}",
                "unlike-teacher",
            )
        return [taken[number] for number in range(len(network.heads))]

    def _float_outputs(self, piece: Piece, names: list[str]) -> list[_Output]:
        found = []
        for position, value in enumerate(self.model.graph.output):
            values = _floats(piece, position)
            if values is None:
                continue
            squash, tensor = self._squashed.get(value.name, ("", ""))
            before = names.index(tensor) if tensor else -1
            if squash and not _squashes_to(squash, _floats(piece, before), values):
                squash, before = "", -1
            if squash == "LogSoftmax":  # its output is as good as what enters it
                squash, before = "Softmax", position
            found.append(_Output(position, value.name, values, squash, before))
        return found


def _unlikeness(output: _Output, name: str, places: Sequence[int]) -> int:
    """How little speaks for an output being that of a name, or else in one of these places among as many outputs."""
    return 0 if output.name == name else 1 if output.position in places else 2


def _floats(piece: Piece, position: int) -> Array | None:
    """An output as floats (rows, …); None for labels, and for what has no row for each row."""
    values = piece.outputs[position]
    if isinstance(values, list):
        values = as_table(values)
    if not isinstance(values, np.ndarray) or not piece.has_rows(values):
        return None
    if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
        return None
    return piece.cut(values).astype(np.float32, copy=False)


def _squashes_to(squash: str, before: Array | None, after: Array) -> bool:
    """Whether ``after`` is the squash of ``before`` over its last axis: nodes between may change more than they say."""
    if before is None or before.size != after.size or not np.isfinite(before).all():
        return False
    t = before.astype(np.float64)
    if squash == "Sigmoid":
        told = sigmoid(t)
    else:
        t -= t.max(axis=-1, keepdims=True)
        told = t - np.log(np.exp(t).sum(axis=-1, keepdims=True))
        told = np.exp(told) if squash == "Softmax" else told
    return bool(np.abs(told.reshape(after.shape) - after).max(initial=0) <= _ROUNDED * max(1, np.abs(told).max()))


def _outputs_of_heads(network: Network) -> list[list[int]]:
    """For each head the positions of the student's outputs that depend on it, and on no other head in between."""
    outputs = [value.name for value in network.frame.model.graph.output]
    heads = {head.tensor for head in network.heads}
    found = []
    for head in network.heads:
        known = {head.tensor}
        for node in network.frame.model.graph.node:
            if known & set(inputs_of(node)):
                known |= set(node.output) - heads
        found.append([position for position, name in enumerate(outputs) if name in known])
    return found


def _fitted(head: Head, output: _Output, loss: str) -> _Source | None:
    """How this output becomes the head's targets; None where its shape does not fit."""
    if loss == "auto":
        loss = imitated_loss(head, output.squash)
    shaped = _shaped(head, output.values)
    if shaped is None:
        is_of_two = loss == BINARY and head.width == 1 and output.values.shape[1:] == (2,)
        return _Source(output.position, _log_odds, "Sigmoid") if is_of_two and _are_shares(output.values) else None
    if output.squash and (loss in (CROSS_ENTROPY, BINARY) or head.squash == output.squash):
        return _Source(output.before, _as_it_is, output.squash)
    if loss == CROSS_ENTROPY and _are_shares(shaped):
        return _Source(output.position, _logarithm, "Softmax")
    if head.squash == "Sigmoid" and _are_probabilities(shaped):
        return _Source(output.position, _logit, "Sigmoid")
    return _Source(output.position, _as_it_is, "")


def _shaped(head: Head, values: Array) -> Array | None:
    """Values as (rows, …, width) with the head's axes; None where they do not fit."""
    rows = len(values)
    if head.rank == 2:
        return values.reshape(rows, head.width) if values.size == rows * head.width else None
    if head.width == 1 and values.ndim == head.rank - 1:
        return values[..., None]
    return values if values.ndim == head.rank and values.shape[-1] == head.width else None


def _changed(piece: Piece, source: _Source, head: Head) -> Array:
    values = _floats(piece, source.position)
    shaped = None if values is None else _shaped(head, source.change(values))
    assert shaped is not None  # it was told from the first rows
    return shaped.astype(np.float32, copy=False)


def _are_shares(values: Array) -> bool:
    sums = values.sum(axis=-1)
    return values.shape[-1] > 1 and bool((values >= 0).all() and (np.abs(sums - 1) <= _ROUNDED).all())


def _are_probabilities(values: Array) -> bool:
    return bool(((values >= 0) & (values <= 1)).all())


def _as_it_is(values: Array) -> Array:
    return values


def _logarithm(values: Array) -> Array:
    return np.log(np.maximum(values, _LEAST))


def _logit(values: Array) -> Array:
    p = np.clip(values.astype(np.float64), _LEAST, _MOST)
    return np.log(p) - np.log1p(-p)


def _log_odds(values: Array) -> Array:
    logs = _logarithm(values.astype(np.float64))
    odds: Array = logs[..., 1:] - logs[..., :1]
    return odds
