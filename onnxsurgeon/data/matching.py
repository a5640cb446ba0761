"""Matches a teacher's outputs with the heads of a student, and turns them into the heads' targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from onnxsurgeon.data.agreement import as_table
from onnxsurgeon.data.features import Piece
from onnxsurgeon.data.heads import imitated_loss
from onnxsurgeon.data.soft import sigmoid
from onnxsurgeon.errors import DataError
from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.frame import Head
from onnxsurgeon.graph.network import Network
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.task import BINARY, CROSS_ENTROPY

_LEAST, _MOST = 1e-12, 1 - 2**-24  # probabilities are kept within these before their logarithm is taken
_ROUNDED = 0.02  # a distribution of 8-bit values adds up to 1 within this


class Output(NamedTuple):
    """A float output of the teacher.

    Its values for the first rows, and the tensor that it squashes, where that is known.
    """

    position: int
    name: str
    values: Array
    squash: str = ""
    before: int = -1  # position among all computed tensors of the tensor that it squashes


class Source(NamedTuple):
    """The source of a head's targets: the position among all computed tensors, and what is done to it."""

    position: int
    change: Callable[[Array], Array]
    squash: str


def float_outputs(
    piece: Piece, declared: Sequence[str], squashed: Mapping[str, tuple[str, str]], names: Sequence[str]
) -> list[Output]:
    """The outputs of the first rows that hold floats, and what each squashes.

    Args:
        piece: the first rows.
        declared: names of the teacher's outputs.
        squashed: the outputs that end in a squash, as far as the nodes tell: its op type and its input.
        names: names of all computed tensors.
    """
    found = []
    for position, name in enumerate(declared):
        values = _floats(piece, position)
        if values is None:
            continue
        squash, tensor = squashed.get(name, ("", ""))
        before = names.index(tensor) if tensor else -1
        if squash and not _squashes_to(squash, _floats(piece, before), values):
            squash, before = "", -1
        if squash == "LogSoftmax":  # its output is as good as its input
            squash, before = "Softmax", position
        found.append(Output(position, name, values, squash, before))
    return found


def sources(name: str, network: Network, outputs: Sequence[Output], count: int, losses: Sequence[str]) -> list[Source]:
    """For each head the output that fits it, of ``count``: by name, else by order and width.

    Raises:
        DataError: none fits a head of the student; the text names the teacher as ``name``.
    """
    reached = _outputs_of_heads(network)
    declared = [value.name for value in network.frame.model.graph.output]
    taken: dict[int, Source] = {}
    left = list(outputs)
    order = sorted(range(len(network.heads)), key=lambda head: (reached[head][:1] or [len(declared)], head))
    places = reached if len(declared) == count else [[] for _ in reached]
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
            f"{name}: no output fits the head '{missing[0].tensor}' of '{network.name}', "
            f"{missing[0].width} wide; of floats a row it has {listed or 'none'}",
            "unlike-teacher",
        )
    return [taken[number] for number in range(len(network.heads))]


def _unlikeness(output: Output, name: str, places: Sequence[int]) -> int:
    """A rank of an output for a head: best by its name, then by one of these places among as many outputs."""
    return 0 if output.name == name else 1 if output.position in places else 2


def _floats(piece: Piece, position: int) -> Array | None:
    """An output as floats (rows, …); None for labels, and for an output without a row for each row."""
    values = piece.outputs[position]
    if isinstance(values, list):
        values = as_table(values)
    if not isinstance(values, np.ndarray) or not piece.has_rows(values):
        return None
    if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
        return None
    return piece.cut(values).astype(np.float32, copy=False)


def _squashes_to(squash: str, before: Array | None, after: Array) -> bool:
    """Whether ``after`` is the squash of ``before`` over its last axis, since nodes in between may change more."""
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
    """For each head the positions of the student's outputs that depend on it, with no other head in between."""
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


def _fitted(head: Head, output: Output, loss: str) -> Source | None:
    """How this output becomes the head's targets; None where its shape does not fit."""
    if loss == "auto":
        loss = imitated_loss(head, output.squash)
    shaped = _shaped(head, output.values)
    if shaped is None:
        is_of_two = loss == BINARY and head.width == 1 and output.values.shape[1:] == (2,)
        return Source(output.position, _log_odds, "Sigmoid") if is_of_two and _are_shares(output.values) else None
    if output.squash and (loss in (CROSS_ENTROPY, BINARY) or head.squash == output.squash):
        return Source(output.before, _as_it_is, output.squash)
    if loss == CROSS_ENTROPY and _are_shares(shaped):
        return Source(output.position, _logarithm, "Softmax")
    if head.squash == "Sigmoid" and _are_probabilities(shaped):
        return Source(output.position, _logit, "Sigmoid")
    return Source(output.position, _as_it_is, "")


def _shaped(head: Head, values: Array) -> Array | None:
    """Values as (rows, …, width) with the head's axes; None where they do not fit."""
    rows = len(values)
    if head.rank == 2:
        return values.reshape(rows, head.width) if values.size == rows * head.width else None
    if head.width == 1 and values.ndim == head.rank - 1:
        return values[..., None]
    return values if values.ndim == head.rank and values.shape[-1] == head.width else None


def changed(piece: Piece, source: Source, head: Head) -> Array:
    """The targets (rows, …, width) of a head, from the teacher's outputs for some rows."""
    values = _floats(piece, source.position)
    shaped = None if values is None else _shaped(head, source.change(values))
    assert shaped is not None  # the first rows have shown that it fits
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
