"""The operators that a file uses, and the builds of ONNX Runtime that lack some of them.

The lists were taken from ONNX Runtime's own documents, and are for a first look; the whole builds (Python, Node, the
browser's WebAssembly, onnxruntime-android, -c and -objc) have every operator.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import onnx

from onnxsurgeon.graph.declared import subgraphs


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


WEBGPU = "the browser's WebGPU"
MOBILE = "the reduced mobile package (until 1.18)"

# Kernels of onnxruntime-web 1.30 for WebGPU, from docs/webgpu-operators.md in its package. An operator without a kernel
# there is computed on the processor, and tensors are copied to and fro.
_WEBGPU = _words(
    """
    Abs Acos Acosh Add ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Clip Concat Conv
    ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Erf Exp Expand Flatten Floor
    Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample
    HardSigmoid HardSwish If InstanceNormalization LayerNormalization LeakyRelu Less LessOrEqual Log MatMul MaxPool
    Mul Neg Not Pad Pow Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ScatterND Shape Sigmoid Sin Sinh Slice
    Softmax Split Sqrt Squeeze Sub Tan Tanh ThresholdedRelu Tile Transpose Unsqueeze Where
    """
)
# Operators of onnxruntime-mobile, from tools/ci_build/github/android/mobile_package.required_operators.config; it is
# for opsets 12 and 13, and loads newer ones as far as their operators did not change.
_MOBILE = _words(
    """
    Abs Add And ArgMax ArgMin AveragePool Cast Ceil Clip Concat ConstantOfShape Conv ConvTranspose Cos CumSum
    DepthToSpace DequantizeLinear Div DynamicQuantizeLinear Elu Equal Erf Exp Expand Flatten Floor Gather GatherND
    Gemm GlobalAveragePool Greater GreaterOrEqual Identity If InstanceNormalization LRN LeakyRelu Less LessOrEqual
    Log LogSoftmax Loop MatMul MatMulInteger Max MaxPool Mean Min Mul Neg NonMaxSuppression NonZero Not Or PRelu Pad
    Pow QLinearConv QLinearMatMul QuantizeLinear Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum Relu Reshape Resize ReverseSequence Round Scan ScatterND Shape Sigmoid Sin Size Slice Softmax
    SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh ThresholdedRelu Tile TopK Transpose Unique Unsqueeze Where
    LayerNormalization
    """
)
_FREE = frozenset({"Identity", "Constant"})  # nothing is left of them in a session


class Operators(NamedTuple):
    """The demands of a file on a runtime.

    Attributes:
        opset: version of ONNX's own operators.
        ir: version of the file's format.
        names: the operators, those of other domains as "domain::name".
        lacking: by build, the operators that it lacks.
    """

    opset: int
    ir: int
    names: tuple[str, ...]
    lacking: dict[str, tuple[str, ...]]


def operators_of(model: onnx.ModelProto) -> Operators:
    """The operators in ``model``, bodies included."""
    found = sorted({_name(node) for node in _nodes(model.graph)})
    opset = next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    lacking = {
        build: tuple(name for name in found if name not in have | _FREE)
        for build, have in ((WEBGPU, _WEBGPU), (MOBILE, _MOBILE))
    }
    return Operators(opset, int(model.ir_version), tuple(found), lacking)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in subgraphs(attribute):
                yield from _nodes(body)


def _name(node: onnx.NodeProto) -> str:
    return str(node.op_type) if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
