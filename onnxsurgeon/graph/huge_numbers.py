"""Nodes that may ask for tensors of any size, and numbers that are refused at once."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, numpy_helper

from onnxsurgeon.bounds import ADVICE
from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.scope import Scope

# Outputs of these can be far larger than their inputs: where the size stays unknown, the node is refused.
ALLOCATING = frozenset(
    """AffineGrid BlackmanWindow CenterCropPad Col2Im ConstantOfShape DFT Expand EyeLike GridSample HammingWindow
    HannWindow ImageDecoder Loop MaxRoiPool MaxUnpool MelWeightMatrix Multinomial OneHot Pad RandomNormal RandomUniform
    Range Resize RoiAlign STFT Scan SequenceMap Tile Upsample""".split()  # noqa: SIM905
)
# Attributes from which sizes are computed; beyond 2^31, onnx's own arithmetic overflows.
_SIZES = frozenset(
    """pads kernel_shape strides dilations output_shape output_padding repeats scales blocksize hidden_size
    shape""".split()  # noqa: SIM905
)
_LARGEST_NUMBER = 2**31


def refuse_huge_numbers(node: NodeProto, scope: Scope, where: str) -> None:
    """Refuse attributes and inputs with which onnx's own arithmetic overflows.

    Raises:
        ModelError: the node has one.
    """
    for attribute in node.attribute:
        if attribute.name in _SIZES and any(abs(number) > _LARGEST_NUMBER for number in (*attribute.ints, attribute.i)):
            raise ModelError(
                f"{where}: its attribute '{attribute.name}' asks for too large a tensor; {ADVICE}", "too-large"
            )
    if node.op_type not in ALLOCATING or node.op_type == "Loop":
        return
    for name in node.input[0 if node.op_type in ("ConstantOfShape", "Range", "HannWindow") else 1 :]:
        value = scope.value(name)
        if value is not None:
            try:
                numbers = numpy_helper.to_array(value)
                huge = numbers.dtype.kind in "iuf" and bool(
                    (np.abs(numbers.astype(np.float64)) > _LARGEST_NUMBER).any()
                )
            except Exception:  # a type that numpy lacks
                continue
            if huge and node.op_type != "Pad":  # a Pad's third input is the value to fill with
                raise ModelError(f"{where}: its input '{name}' asks for too large a tensor; {ADVICE}", "too-large")
