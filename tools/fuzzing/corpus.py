"""Small valid models of many kinds, from which mutations start."""

from __future__ import annotations

import functools
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

MODELS = Path(__file__).resolve().parent.parent.parent / "models"
LARGEST = 16_000
LARGEST_EXPORT = 60_000
EXTERNAL_BYTES = 8192


def _node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"{op}_{outputs.split()[0]}", **attributes)


def _value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    nodes: list[NodeProto],
    constants: dict[str, Any],
    *,
    opset: int = 17,
    inputs: tuple[onnx.ValueInfoProto, ...] = (_value("x", "batch", 4),),
    outputs: tuple[onnx.ValueInfoProto, ...] = (_value("y", "batch", 3),),
    domains: tuple[tuple[str, int], ...] = (),
    functions: tuple[onnx.FunctionProto, ...] = (),
) -> ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(*pair) for pair in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=functions)


def _weights(*sizes: int, dtype: Any = np.float32) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    made = {}
    for number, (n_in, n_out) in enumerate(pairwise(sizes), start=1):
        made[f"W{number}"] = rng.standard_normal((n_in, n_out)).astype(dtype)
        made[f"b{number}"] = rng.standard_normal(n_out).astype(dtype)
    return made


CHAIN = [_node("Gemm", "x W1 b1", "a"), _node("Relu", "a", "h"), _node("Gemm", "h W2 b2", "y")]


def _chains() -> list[ModelProto]:
    made = [_model(CHAIN, _weights(4, 5, 3), opset=opset) for opset in (9, 13, 21)]
    deep = [
        _node("MatMul", "x W1", "m"),
        _node("Add", "m b1", "a"),
        _node("Clip", "a zero", "h"),
        _node("Dropout", "h", "d"),
        _node("Gemm", "d W2 b2", "e", alpha=0.5, transB=0),
        _node("Tanh", "e", "f"),
        _node("Gemm", "f W3 b3", "z"),
        _node("Softmax", "z", "y"),
    ]
    made.append(_model(deep, {**_weights(4, 6, 5, 3), "zero": np.float32(0)}))
    activations: list[tuple[str, dict[str, float]]] = [(op, {}) for op in ("Elu", "Sigmoid", "Selu", "HardSigmoid")]
    activations.append(("LeakyRelu", {"alpha": 0.1}))
    for op, attributes in activations:
        nodes = [CHAIN[0], _node(op, "a", "h", **attributes), CHAIN[2]]
        made.append(_model(nodes, _weights(4, 5, 3)))
    prelu = [CHAIN[0], _node("PRelu", "a slope", "h"), CHAIN[2]]
    made.append(_model(prelu, {**_weights(4, 5, 3), "slope": np.full(5, 0.5, "f")}))
    for dtype, kind in ((np.float64, TensorProto.DOUBLE), (np.float16, TensorProto.FLOAT16)):
        ends = (_value("x", "n", 4, kind=kind),), (_value("y", "n", 3, kind=kind),)
        made.append(_model(CHAIN, _weights(4, 5, 3, dtype=dtype), inputs=ends[0], outputs=ends[1]))
    typed = _model(CHAIN, _weights(4, 5, 3))
    for tensor in typed.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.ClearField("raw_data")
        tensor.float_data.extend(values.reshape(-1).tolist())
    return [*made, typed]


def _surroundings() -> list[ModelProto]:
    weights = _weights(4, 5, 3)
    shape = np.array([-1, 4])
    prefix = [
        _node("Shape", "i", "s"),
        _node("Gather", "s first", "n"),
        _node("Unsqueeze", "n axes", "u"),
        _node("Concat", "u four", "to", axis=0),
        _node("Reshape", "i to", "x"),
        *CHAIN,
    ]
    extra = {"first": np.int64(0), "axes": np.array([0]), "four": np.array([4])}
    image = (_value("i", "batch", 2, 2),)
    made = [_model(prefix, {**weights, **extra}, inputs=image)]
    made.append(_model([_node("Reshape", "i shape", "x"), *CHAIN], {**weights, "shape": shape}, inputs=image))
    conv = [_node("Conv", "i K", "c"), _node("GlobalAveragePool", "c", "p"), _node("Flatten", "p", "x"), *CHAIN]
    kernel = np.ones((4, 1, 2, 2), "f")
    made.append(_model(conv, {**weights, "K": kernel}, inputs=(_value("i", "batch", 1, 4, 4),)))
    sized = [_node("ConstantOfShape", "four", "ones"), _node("Expand", "ones four", "o"), _node("Add", "i o", "x")]
    made.append(_model([*sized, *CHAIN], {**weights, "four": np.array([4])}, inputs=(_value("i", "batch", 4),)))
    tiled = [_node("Tile", "i twice", "x"), _node("Range", "zero three one", "r"), *CHAIN]
    numbers = {"twice": np.array([1, 2]), "zero": np.int64(0), "three": np.int64(3), "one": np.int64(1)}
    made.append(_model(tiled, {**weights, **numbers}, inputs=(_value("i", "batch", 2),)))
    suffix = [
        *CHAIN[:2],
        _node("Gemm", "h W2 b2", "z"),
        _node("Softmax", "z", "y"),
        _node("ArgMax", "z", "label", axis=1),
        _node("Slice", "z one two axes", "part"),
    ]
    ends = (_value("y", "batch", 3), _value("label", "batch", 1, kind=TensorProto.INT64), _value("part", "batch", 1))
    cuts = {"one": np.array([1]), "two": np.array([2]), "axes": np.array([1])}
    made.append(_model(suffix, {**weights, **cuts}, outputs=ends))
    scaler = helper.make_node("Scaler", ["i"], ["x"], domain="ai.onnx.ml", offset=[0.0] * 4, scale=[1.0] * 4)
    made.append(
        _model([scaler, *CHAIN], weights, inputs=(_value("i", "batch", 4),), domains=(("ai.onnx.ml", 3),), opset=15)
    )
    custom = helper.make_node("Mystery", ["i"], ["x"], domain="com.example", strength=3)
    made.append(_model([custom, *CHAIN], weights, inputs=(_value("i", "batch", 4),), domains=(("com.example", 1),)))
    return made


def _convolutions() -> list[ModelProto]:
    rng = np.random.default_rng(1)

    def weight(*shape: int) -> np.ndarray:
        return np.asarray(rng.standard_normal(shape), np.float32)

    constants = {"K": weight(4, 2, 3, 3), "k": weight(4), "D": weight(4, 1, 3, 3), "L": weight(3, 4, 2, 2)}
    constants |= {name: np.abs(weight(4)) for name in ("g", "o", "m", "v")}
    constants |= {"slope": weight(4, 1, 1), "W": weight(3, 3), "shift": weight(3, 1, 1)}
    chain = [
        _node("Conv", "i K k", "a", pads=[1, 1, 1, 1], strides=[2, 1]),
        _node("BatchNormalization", "a g o m v", "n"),
        _node("PRelu", "n slope", "h"),
        _node("Conv", "h D", "d", group=4, auto_pad="SAME_UPPER"),
        _node("Relu", "d", "r"),
        _node("Conv", "r L", "c", dilations=[1, 2]),
        _node("Add", "c shift", "s"),
        _node("MaxPool", "s", "p", kernel_shape=[2, 2]),
        _node("GlobalAveragePool", "p", "q"),
        _node("Flatten", "q", "f"),
        _node("Gemm", "f W", "y"),
    ]
    image = (_value("i", "batch", 2, 8, 9),)
    ends = (_value("y", "batch", 3),)
    made = [_model(chain, constants, inputs=image, outputs=ends)]
    sound = [
        _node("Conv", "i K1", "a", pads=[2, 0]),
        _node("Sigmoid", "a", "t"),
        _node("Mul", "a t", "h"),
        _node("Conv", "h L1", "c", strides=[3]),
        _node("ReduceMean", "c", "x", axes=[2], keepdims=0),
        _node("Gemm", "x W", "y"),
    ]
    short = {"K1": weight(4, 2, 3), "L1": weight(3, 4, 1), "W": weight(3, 3)}
    return [*made, _model(sound, short, inputs=(_value("i", "batch", 2, "length"),), outputs=ends)]


def _control() -> list[ModelProto]:
    weights = _weights(4, 5, 3)
    branches = [
        helper.make_graph([helper.make_node(op, ["y0"], [f"{op}_out"])], op, [], [_value(f"{op}_out", "batch", 3)])
        for op in ("Abs", "Neg")
    ]
    nodes = [
        *CHAIN[:2],
        _node("Gemm", "h W2 b2", "y0"),
        helper.make_node("If", ["flag"], ["y"], name="If", then_branch=branches[0], else_branch=branches[1]),
    ]
    made = [_model(nodes, {**weights, "flag": np.bool_(True)})]
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Neg", ["v"], ["v2"])],
        "body",
        [_value("n", kind=TensorProto.INT64), _value("c", kind=TensorProto.BOOL), _value("v", "batch", 3)],
        [_value("c2", kind=TensorProto.BOOL), _value("v2", "batch", 3)],
    )
    loop = helper.make_node("Loop", ["trips", "flag", "y0"], ["y"], name="Loop", body=body)
    made.append(_model([*nodes[:3], loop], {**weights, "flag": np.bool_(True), "trips": np.int64(2)}))
    function = helper.make_function(
        "local",
        "Dense",
        ["a", "w", "b"],
        ["c"],
        [helper.make_node("MatMul", ["a", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )
    calls = [
        helper.make_node("Dense", ["x", "W1", "b1"], ["a"], domain="local"),
        CHAIN[1],
        helper.make_node("Dense", ["h", "W2", "b2"], ["y"], domain="local"),
    ]
    made.append(_model(calls, weights, domains=(("local", 1),), functions=(function,)))
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values, name))
        for name, values in weights.items()
    ]
    made.append(_model([*constants, *CHAIN], {}))
    return made


def _external() -> list[ModelProto]:
    """Models whose tensors are in weights.bin, a file of ``EXTERNAL_BYTES`` zeros beside them."""
    made = []
    for sizes in ((4, 5, 3), (16, 32, 3)):
        model = _model(
            CHAIN,
            _weights(*sizes),
            inputs=(_value("x", "batch", sizes[0]),),
        )
        offset = 0
        for tensor in model.graph.initializer:
            length = len(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "weights.bin"), ("offset", offset), ("length", length)):
                tensor.external_data.add(key=key, value=str(value))
            offset += length
        made.append(model)
    return made


def _hostile() -> list[ModelProto]:
    """Models that ask for ever more, a little of it: mutations make it more; and names that are no names."""
    weights, rows = _weights(4, 5, 3), (_value("i", "batch", 4),)
    zero, first = {"zero": np.float32(0)}, {"first": np.array([0])}
    back = [_node("ReduceSum", "big", "s", keepdims=0), _node("Mul", "s zero", "t"), _node("Add", "i t", "x"), *CHAIN]
    doubling = [_node("Concat", f"c{k} c{k}", f"c{k + 1}", axis=0) for k in range(12)]
    constants = [*doubling, _node("Gather", "c12 first", "big"), *back]
    made = [_model(constants, {**weights, **zero, **first, "c0": np.zeros(8, "f")}, inputs=rows)]
    wide = [_node("Expand", f"{'i' if k == 0 else f'e{k - 1}'} shape", f"e{k}") for k in range(6)]
    shape = {"shape": np.array([64, 1, 4])}
    made.append(_model([*wide, _node("Sum", "e0 e5", "big"), *back], {**weights, **zero, **shape}, inputs=rows))
    found = [_node("Exp", "i", "o"), _node("NonZero", "o", "z"), _node("Cast", "z", "z0", to=1)]
    joined = [_node("Concat", f"z{k} z{k}", f"z{k + 1}", axis=1) for k in range(8)]
    made.append(_model([*found, *joined, _node("Identity", "z8", "big"), *back], {**weights, **zero}, inputs=rows))
    body = helper.make_graph(
        [helper.make_node("Add", ["state", "slice"], ["next"])],
        "body",
        [_value("state"), _value("slice")],
        [_value("next")],
    )
    long = [_node("ReduceSum", "i", "sum", keepdims=0), _node("Expand", "sum many", "e")]
    scan = helper.make_node("Scan", ["zero", "e"], ["big"], name="Scan", body=body, num_scan_inputs=1)
    made.append(_model([*long, scan, *back], {**weights, **zero, "many": np.array([64])}, inputs=rows))
    evil = "\x1b]0;title\x07\x9b31m\u202e\nFAKE"
    named = [helper.make_node(n.op_type, n.input, n.output, name=n.name + evil) for n in CHAIN]
    for node, old, new in ((named[0], "a", "a" + evil), (named[1], "a", "a" + evil)):
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    made.append(_model(named, weights))
    return made


@functools.cache
def corpus() -> tuple[bytes, ...]:
    """The models as bytes, in a fixed order."""
    models = [*_chains(), *_surroundings(), *_control(), *_external(), *_hostile(), *_convolutions()]
    files = [path for path in sorted(MODELS.glob("*.onnx")) if path.stat().st_size <= LARGEST]
    files += [path for path in sorted((MODELS / "exports").glob("*.onnx")) if path.stat().st_size <= LARGEST_EXPORT]
    return (*(model.SerializeToString(deterministic=True) for model in models), *(path.read_bytes() for path in files))
