"""Names that a classifier's suffix gives to its classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical import constant_values

Labels = tuple[int, ...] | tuple[str, ...]
_ATTRIBUTES = ("classlabels_strings", "classlabels_int64s", "classlabels_ints", "values_strings", "values_int64s")


def labels_behind(tensor: Any, readers: Mapping[int, Sequence[gs.Node]], width: int) -> Labels:
    """The class labels that nodes behind ``tensor`` map it to, in the order of its columns; () where there are none.

    ZipMap and LabelEncoder list them as attributes, ArrayFeatureExtractor picks them from a constant. A single
    column stands for two classes.
    """
    wanted = max(2, width)
    todo, seen = [tensor], set()
    while todo:
        for node in readers.get(id(todo.pop()), ()):
            if id(node) in seen:
                continue
            seen.add(id(node))
            labels = _labels_of(node)
            if len(labels) == wanted and len(set(labels)) == wanted:
                return () if labels == tuple(range(wanted)) else labels
            todo.extend(node.outputs)
    return ()


def _labels_of(node: gs.Node) -> Labels:
    op = node.op.rpartition("::")[2]  # the canonical graph writes other domains in front
    keys = node.attrs.get("keys_int64s")
    if op == "ZipMap" or (op == "LabelEncoder" and keys is not None and list(keys) == list(range(len(keys)))):
        for name in _ATTRIBUTES:
            values = node.attrs.get(name)
            if values is not None and len(values):
                return _plain(values)
    if op == "ArrayFeatureExtractor":
        values = constant_values(node.inputs[0])
        if values is not None:
            return _plain(values.reshape(-1).tolist())
    return ()


def _plain(values: Sequence[Any]) -> Labels:
    """Keep texts, decode bytes, and turn all else into integers."""
    if all(isinstance(value, str | bytes) for value in values):
        return tuple(v.decode() if isinstance(v, bytes) else str(v) for v in values)
    return tuple(int(value) for value in values)
