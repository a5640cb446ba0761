"""The arguments of a gradient rule of glue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.training.builder import GraphBuilder


class At(NamedTuple):
    """The place where a rule is applied.

    The glue, names of its inputs x, of y and of g, and which inputs are wanted.
    """

    glue: Glue
    x: Sequence[str]
    y: str
    g: str
    wanted: Sequence[bool]


Rule = Callable[[GraphBuilder, At], list[str]]
Forward = Callable[[GraphBuilder, Glue, Sequence[str]], str]
