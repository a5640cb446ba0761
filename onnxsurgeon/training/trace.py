"""The tensors of a forward pass, for the backward pass and for calibration to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Space = tuple[int, ...] | None  # sizes of the axes of space; None: not known, or there are none


class LayerTrace(NamedTuple):
    """Names of one layer's tensors: its input x, z = x W + b, y = φ(z), its parameters and its mask ("" if absent).

    ``x_columns`` and ``columns`` say whether x, and z and y, hold an example in a column: (units, rows). ``alpha`` is
    the factor by which x is still to be multiplied. ``parameter`` is the tensor whose transpose the weight is, if it is
    one. ``space`` has the sizes of the axes of space of a convolution's x.
    """

    x: str
    z: str
    y: str
    weight: str
    bias: str
    slope: str
    x_columns: bool = False
    columns: bool = False
    alpha: float = 1.0
    mask: str = ""
    parameter: str = ""
    space: Space = None


@dataclass(frozen=True)
class Trace:
    """The tensors of a forward pass.

    Attributes:
        tensors: the trunk's tensors, as the file names them → names in the graph under construction; without those that
            ``steps.steps_of`` avoids.
        layers: for each segment its layers.
        masks: by the number of a segment, the mask by which its input is multiplied, where there is one.
    """

    tensors: Mapping[str, str]
    layers: Mapping[int, list[LayerTrace]]
    masks: Mapping[int, str] = field(default_factory=dict)
