"""The end of the trunk: the nodes behind the last layers that are trained through, and heads of a single number."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import onnx_graphsurgeon as gs

from onnxsurgeon.graph.canonical.queries import dtype_of
from onnxsurgeon.graph.glue import SHAPE_ONLY, Glue, NotGlue, glue_shape
from onnxsurgeon.graph.normal_form import operator

_TELL_CLASSES = frozenset(
    ("ArgMax", "TopK", "ZipMap", "LabelEncoder", "ArrayFeatureExtractor", "Normalizer", "Binarizer")
)
COLUMN = "/number"  # follows a head's name in that of the tensor without its second axis


def require_width(node: gs.Node) -> None:
    """Raise NotGlue where the node writes a tensor whose last axis is of unknown size, which could be no head."""
    for tensor in node.outputs:
        shape = glue_shape(tensor) if tensor.shape is not None else ()
        if len(shape) != 1 and (not shape or shape[-1] is None):
            raise NotGlue(f"the size of the last axis of '{tensor.name}', which it writes, is not known")


def is_obstacle(node: gs.Node) -> bool:
    """Whether a node behind the last layers that cannot be trained through does more than choose or name a class."""
    kinds = [dtype_of(tensor) for tensor in node.outputs]
    floats = any(kind is None or kind.kind in "fV" for kind in kinds)
    return floats and operator(node).rpartition("::")[2] not in _TELL_CLASSES


def is_mere_shape(node: gs.Node) -> bool:
    """Whether a last node only changes the layout of its input.

    It does more where it takes away axes of size 1 that targets lack, or moves another axis to the last place, that of
    the classes, as for a map with channels last.
    """
    if node.op not in SHAPE_ONLY:
        return False
    have, made = glue_shape(node.inputs[0]), glue_shape(node.outputs[0])
    if node.op == "Transpose":
        order = node.attrs.get("perm")
        return order is not None and order[-1] == len(have) - 1
    if len(have) == len(made) > 2 and have[-1] != made[-1]:
        return False  # a Transpose of an axis of size 1
    return not (len(have) > 2 >= len(made) and sum(size != 1 for size in have[1:]) <= 1)


def with_columns(steps: Sequence[int | Glue], heads: Collection[str]) -> list[int | Glue]:
    """The steps, in which heads that are numbers (rows,) become (rows, 1); other nodes still read the numbers."""
    if not heads:
        return list(steps)
    found: list[int | Glue] = []
    for step in steps:
        if not isinstance(step, int):
            names = tuple(f"{name}{COLUMN}" if name in heads else name for name in step.inputs)
            step = replace(step, inputs=names)
            if step.output in heads:
                plain = replace(step, output=f"{step.output}{COLUMN}")
                made = Glue("Reshape", (plain.output,), step.output, (plain.shape,), (None, 1), {}, step.node)
                found += [plain, made]
                continue
        found.append(step)
    return found
