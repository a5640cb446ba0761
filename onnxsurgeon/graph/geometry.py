"""The geometry of a convolution: how its taps lie in space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Geometry:
    """How a layer is applied along the axes of space, in the terms of ONNX's Conv.

    Each attribute has one value per axis. A layer with a geometry reads (batch, channels, space…) and writes (batch,
    units, space…). Its weight is a matrix (channels / groups · taps, units), channel by channel and tap by tap in the
    order of the kernel's axes: Conv's own weight (units, channels / groups, kernel…) is its transpose, reshaped.

    Attributes:
        kernel: sizes of the kernel.
        strides: steps between its positions.
        dilations: steps between its taps.
        pads: rows of zeros before the first along each axis, then those behind the last along each.
        groups: the number of parts into which channels and units are split; each unit reads one part. A depthwise
            convolution has as many parts as channels and units.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    groups: int = 1

    @classmethod
    def pointwise(cls, rank: int) -> Geometry:
        """A kernel of one tap: a dense layer at each position."""
        ones = (1,) * rank
        return cls(ones, ones, ones, (0,) * (2 * rank))

    @classmethod
    def centred(cls, kernel: Sequence[int]) -> Geometry:
        """An odd kernel around each position, padded so that there are as many positions as before."""
        around = tuple(size // 2 for size in kernel)
        ones = (1,) * len(around)
        return cls(tuple(kernel), ones, ones, (*around, *around))

    def __str__(self) -> str:
        """Spell the geometry, such as "3x3, stride 2, pads 1".

        ONNX's defaults are left out, and equal numbers appear once.
        """
        parts = ["x".join(map(str, self.kernel))]
        for word, values, default in (
            ("stride", self.strides, 1),
            ("dilation", self.dilations, 1),
            ("pads", self.pads, 0),
        ):
            if set(values) != {default}:
                parts.append(f"{word} {values[0] if len(set(values)) == 1 else ','.join(map(str, values))}")
        return ", ".join(parts + [f"{self.groups} groups"] * self.is_grouped)

    @property
    def taps(self) -> int:
        """Number of the kernel's taps."""
        return math.prod(self.kernel)

    @property
    def rank(self) -> int:
        """Number of axes of space."""
        return len(self.kernel)

    @property
    def is_grouped(self) -> bool:
        """Whether a unit reads some of the channels only, so that units are tied to channels."""
        return self.groups > 1

    def sizes_behind(self, space: Sequence[Any]) -> list[int | None]:
        """Sizes of the output's axes of space for those of the input; None for those that are not known."""
        behind: list[int | None] = []
        for axis, size in enumerate(space):
            reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
            padded = size + self.pads[axis] + self.pads[axis + self.rank] if isinstance(size, int) else None
            behind.append(None if padded is None else max((padded - reach) // self.strides[axis] + 1, 0))
        return behind

    @property
    def is_padded(self) -> bool:
        """Whether zeros are read at the border, so that a mean cannot move into a bias."""
        return any(self.pads)

    @property
    def is_pointwise(self) -> bool:
        """Whether each position is a dense layer of its own: one tap, no steps, no zeros, all channels."""
        return self.taps == 1 and not self.is_padded and set(self.strides) == {1} and not self.is_grouped
