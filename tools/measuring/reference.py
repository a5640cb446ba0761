"""Models run by onnx.reference, which has every operator in float64; ONNX Runtime has no convolution of float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, np.dtype[Any]]


class ConvTranspose(OpRun):
    """By its definition, tap by tap: what onnx.reference has fails on groups of several units."""

    op_domain = ""

    def _run(self, x: Array, w: Array, bias: Array | None = None, **given: Any) -> tuple[Array]:
        dilations, strides, pads, group = (given[name] for name in ("dilations", "strides", "pads", "group"))
        space, kernel, rank = x.shape[2:], w.shape[2:], x.ndim - 2
        strides, dilations = strides or [1] * rank, dilations or [1] * rank
        pads, rest, group = pads or [0] * 2 * rank, given["output_padding"] or [0] * rank, group or 1
        per, units = x.shape[1] // group, w.shape[1]
        whole = [
            (n - 1) * s + d * (k - 1) + 1 + r
            for n, s, d, k, r in zip(space, strides, dilations, kernel, rest, strict=True)
        ]
        y = np.zeros((len(x), group * units, *whole), x.dtype)
        for number in range(group):
            part = x[:, number * per : (number + 1) * per]
            for tap in np.ndindex(*kernel):
                weight = w[(slice(number * per, (number + 1) * per), slice(None), *tap)]
                at = [
                    slice(d * t, d * t + (n - 1) * s + 1, s)
                    for d, t, n, s in zip(dilations, tap, space, strides, strict=True)
                ]
                added = np.einsum("nc...,cu->nu...", part, weight)
                y[(slice(None), slice(number * units, (number + 1) * units), *at)] += added
        inner = [slice(pads[i], whole[i] - pads[rank + i]) for i in range(rank)]
        y = y[(slice(None), slice(None), *inner)]
        return (y if bias is None else y + bias.reshape(-1, *[1] * rank),)


def evaluate(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Any]:
    """All outputs of a model for ``feeds``."""
    return list(ReferenceEvaluator(model, new_ops=[ConvTranspose]).run(None, dict(feeds)))
