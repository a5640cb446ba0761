"""Mutations of a model's structure: what an exporter with a bug, or an enemy, would write."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from fuzzing.corpus import EXTERNAL_BYTES, corpus

T = TypeVar("T")
SIZES = (-(2**63), -(2**31), -1, 0, 1, 2, 3, 4, 5, 7, 64, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-40, 1e38, -1e38, float("inf"), float("-inf"), float("nan"))
NAMES = ("", "x", "y", "a", "h", "W1", "b1", "W2", "\0", "ä", "a/b:0", "../x", "n" * 5000, "nowhere", "\n", "'")
OPS = """
    Abs Add And ArgMax BatchNormalization Cast CastLike Clip Compress Concat ConcatFromSequence Constant
    ConstantOfShape Conv ConvTranspose CumSum DepthToSpace DequantizeLinear Det Dropout DynamicQuantizeLinear Einsum
    Equal Erf Expand EyeLike Flatten GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GridSample
    Hardmax HardSwish Identity If InstanceNormalization LSTM LayerNormalization Loop LogSoftmax MatMul MatMulInteger
    Max MaxPool MaxUnpool Mean Min Mish Mod Mul Neg NonZero OneHot Optional OptionalGetElement PRelu Pad Pow
    QuantizeLinear RandomNormal Range Reciprocal ReduceMax ReduceMean ReduceSum Relu Reshape Resize Scan
    ScatterElements ScatterND Selu SequenceAt SequenceConstruct SequenceEmpty SequenceMap Shape Shrink Sigmoid Size
    Slice Softmax SpaceToDepth Split SplitToSequence Sqrt Squeeze StringNormalizer Sub Sum Swish Tanh
    TfIdfVectorizer Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor Attention RMSNormalization
    RotaryEmbedding AffineGrid CenterCropPad Col2Im DFT STFT HannWindow MelWeightMatrix BitShift BlackmanWindow
    ImageDecoder
""".split()  # noqa: SIM905
ATTRIBUTES = """
    axis axes alpha beta transA transB to value value_float value_ints perm shape keepdims epsilon min max
    num_outputs equation kernel_shape pads strides dilations group mode body then_branch else_branch num_scan_inputs
    blocksize split sizes scales value_strings sparse_value dtype hidden_size direction training_mode
    select_last_index
""".split()  # noqa: SIM905


def mutate_graph(rng: Random) -> bytes:
    """A model of the corpus after one to five mutations of its structure."""
    model = ModelProto()
    model.ParseFromString(rng.choice(corpus()))
    try:
        for _ in range(rng.choice((0, 0, 1, 1, 2, 4))):
            rng.choice(_MILD)(rng, model)
        for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
            rng.choice(_MUTATIONS)(rng, model)
        return bytes(model.SerializeToString(deterministic=True))
    except (ValueError, DecodeError):  # nested too deeply to be copied or written
        return b""


def _one(rng: Random, items: Sequence[T]) -> T | None:
    return items[rng.randrange(len(items))] if len(items) else None


def _graphs(model: ModelProto) -> list[GraphProto]:
    found, todo = [], [model.graph]
    while todo:
        graph = todo.pop()
        found.append(graph)
        for node in graph.node:
            for attribute in node.attribute:
                todo += [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
    return found


def _graph(rng: Random, model: ModelProto) -> GraphProto:
    return rng.choice((model.graph, rng.choice(_graphs(model))))


def _tensor(rng: Random, model: ModelProto) -> TensorProto | None:
    found = [tensor for graph in _graphs(model) for tensor in graph.initializer]
    found += [a.t for graph in _graphs(model) for node in graph.node for a in node.attribute if a.HasField("t")]
    return _one(rng, found)


def _names(graph: GraphProto) -> list[str]:
    names = [value.name for value in (*graph.input, *graph.output)] + [tensor.name for tensor in graph.initializer]
    for node in graph.node:
        names += [*node.input, *node.output]
    return names


def _some_name(rng: Random, graph: GraphProto) -> str:
    return rng.choice((rng.choice(NAMES), rng.choice([*_names(graph), "x"]), rng.choice([*_names(graph), "x"])))


def _drop(rng: Random, model: ModelProto) -> None:
    graph = _graph(rng, model)
    field = _one(rng, [f for f in (graph.node, graph.initializer, graph.input, graph.output) if len(f)])
    if field is not None:
        del field[rng.randrange(len(field))]


def _duplicate(rng: Random, model: ModelProto) -> None:
    graph = _graph(rng, model)
    field: Any = _one(rng, [f for f in (graph.node, graph.initializer, graph.input, graph.output) if len(f)])
    if field is not None:
        field.add().CopyFrom(rng.choice(list(field)))


def _reorder(rng: Random, model: ModelProto) -> None:
    graph = _graph(rng, model)
    nodes = list(graph.node)
    rng.shuffle(nodes)
    copies = GraphProto(node=nodes)
    del graph.node[:]
    graph.node.extend(copies.node)


def _rename(rng: Random, model: ModelProto) -> None:
    graph = _graph(rng, model)
    node = _one(rng, graph.node)
    name = _some_name(rng, graph)
    choice = rng.randrange(6)
    if node is not None and choice == 0 and len(node.input):
        node.input[rng.randrange(len(node.input))] = name
    elif node is not None and choice == 1 and len(node.output):
        node.output[rng.randrange(len(node.output))] = name
    elif node is not None and choice == 2:
        node.name = name
    else:
        target: Any = _one(rng, [*graph.initializer, *graph.input, *graph.output])
        if target is not None:
            target.name = name


def _arity(rng: Random, model: ModelProto) -> None:
    graph = _graph(rng, model)
    node = _one(rng, graph.node)
    if node is not None:
        names: Any = rng.choice((node.input, node.output))
        if len(names) and rng.random() < 0.5:
            del names[rng.randrange(len(names))]
        else:
            names.append(_some_name(rng, graph))


def _dims(rng: Random, model: ModelProto) -> None:
    tensor = _tensor(rng, model)
    if tensor is not None:
        if len(tensor.dims) and rng.random() < 0.7:
            tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(SIZES)
        elif rng.random() < 0.5:
            tensor.dims.append(rng.choice(SIZES))
        else:
            del tensor.dims[:]


def _kind(rng: Random, model: ModelProto) -> None:
    tensor = _tensor(rng, model)
    if tensor is not None:
        tensor.data_type = rng.choice((*range(30), 99, -1, 2**31 - 1))


def _values(rng: Random, model: ModelProto) -> None:
    tensor = _tensor(rng, model)
    if tensor is None:
        return
    choice = rng.randrange(5)
    if choice == 0:
        tensor.raw_data = rng.randbytes(rng.choice((0, 1, 4, 8, len(tensor.raw_data))))
    elif choice == 1:
        tensor.float_data.extend([rng.choice(FLOATS)] * rng.choice((1, 5, 20)))
    elif choice == 2:
        tensor.string_data.append(rng.randbytes(5))
    elif choice == 3:
        tensor.int64_data.extend([rng.choice(SIZES)] * rng.choice((1, 2, 5)))
    elif tensor.raw_data:  # one value of the tensor becomes extreme
        content = bytearray(tensor.raw_data)
        width = 8 if tensor.data_type in (TensorProto.INT64, TensorProto.DOUBLE) else 4
        at = rng.randrange(max(1, len(content) // width)) * width
        number = rng.choice(SIZES).to_bytes(8, "little", signed=True)
        value = number if width == 8 else struct.pack("<f", rng.choice(FLOATS))
        content[at : at + width] = value
        tensor.raw_data = bytes(content)


def _value_shape(rng: Random, model: ModelProto) -> None:
    graph = _graph(rng, model)
    value = _one(rng, [*graph.input, *graph.output, *graph.value_info])
    if value is None:
        return
    kind = value.type.tensor_type
    choice = rng.randrange(5)
    if choice == 0:
        kind.elem_type = rng.choice((*range(30), 99))
    elif choice == 1 and len(kind.shape.dim):
        kind.shape.dim[rng.randrange(len(kind.shape.dim))].dim_value = rng.choice(SIZES)
    elif choice == 2:
        kind.shape.dim.add().dim_value = rng.choice(SIZES)
    elif choice == 3:
        kind.ClearField("shape")
    else:
        value.ClearField("type")
        if rng.random() < 0.5:
            value.type.sequence_type.elem_type.tensor_type.elem_type = 1


def _attribute(rng: Random, model: ModelProto) -> None:
    node = _one(rng, _graph(rng, model).node)
    if node is None:
        return
    if len(node.attribute) and rng.random() < 0.5:
        attribute = rng.choice(list(node.attribute))
        if rng.random() < 0.3:
            attribute.type = rng.choice(list(AttributeProto.AttributeType.values()))
            return
    else:
        attribute = node.attribute.add(name=rng.choice(ATTRIBUTES))
    name = attribute.name
    attribute.Clear()
    attribute.name = name
    value: Any = rng.choice(
        (
            rng.choice(SIZES),
            rng.choice(FLOATS),
            [rng.choice(SIZES) for _ in range(rng.randrange(4))] or [0],
            [rng.choice(FLOATS), 1.0],
            rng.choice(("ij,jk->ik", "i...j", "", "linear", "ab,bc,cd->" + "a" * 100, "\xff")),
            ["a", "b"],
            helper.make_tensor("t", TensorProto.INT64, [1], [rng.choice(SIZES)]),
        )
    )
    attribute.CopyFrom(helper.make_attribute(name or "n", value))


def _operator(rng: Random, model: ModelProto) -> None:
    node = _one(rng, _graph(rng, model).node)
    if node is not None:
        node.op_type = rng.choice((*OPS, "", "Nothing", "Gemm", "MatMul"))
        if rng.random() < 0.2:
            node.domain = rng.choice(("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "local", "unknown"))


def _insert(rng: Random, model: ModelProto) -> None:
    """Put a new node on an edge."""
    graph = _graph(rng, model)
    reader = _one(rng, [node for node in graph.node if len(node.input)])
    if reader is None:
        return
    at = rng.randrange(len(reader.input))
    nodes = list(graph.node)
    position = nodes.index(reader)
    name = f"new{rng.randrange(10**6)}"
    inputs = [reader.input[at], *(_some_name(rng, graph) for _ in range(rng.choice((0, 0, 1, 1, 2, 4))))]
    reader.input[at] = name
    made = helper.make_node(rng.choice(OPS), inputs, [name], name=name)
    copies = GraphProto(node=[*nodes[:position], made, *nodes[position:]])
    del graph.node[:]
    graph.node.extend(copies.node)


def _large(rng: Random, model: ModelProto) -> None:
    """Let the graph itself make something large."""
    graph = model.graph
    sizes = [rng.choice(SIZES) for _ in range(rng.choice((1, 2, 3)))]
    name = f"large{rng.randrange(10**6)}"
    shape = helper.make_tensor(f"{name}.shape", TensorProto.INT64, [len(sizes)], sizes)
    graph.initializer.append(shape)
    op = rng.choice(("ConstantOfShape", "Expand", "Tile", "Reshape", "Range", "Pad", "Resize", "OneHot"))
    x = _some_name(rng, graph)
    inputs = {
        "ConstantOfShape": [shape.name],
        "Range": [shape.name] * 3,
        "Resize": [x, "", "", shape.name],
        "OneHot": [x, shape.name, x],
    }.get(op, [x, shape.name])
    made = GraphProto(node=[helper.make_node(op, inputs, [name], name=name), *graph.node])
    del graph.node[:]
    graph.node.extend(made.node)
    reader = _one(rng, [node for node in list(graph.node)[1:] if len(node.input)])
    if reader is not None and rng.random() < 0.7:
        reader.input[rng.randrange(len(reader.input))] = name


def _opset(rng: Random, model: ModelProto) -> None:
    choice = rng.randrange(4)
    if choice == 0 and len(model.opset_import):
        model.opset_import[0].version = rng.choice((*range(30), 99, -1, 2**62))
    elif choice == 1:
        del model.opset_import[:]
    elif choice == 2:
        domain = rng.choice(("", "ai.onnx", "ai.onnx.ml", "local", "com.microsoft"))
        model.opset_import.add(domain=domain, version=rng.choice((0, 1, 3, 17, 99, -5)))
    else:
        model.ir_version = rng.choice((0, 1, 3, 4, 7, 11, 99, -1, 2**62))


def _nest(rng: Random, model: ModelProto) -> None:
    """Move the graph's nodes into the body of an If, a Loop or a Scan, some levels deep."""
    for _ in range(rng.choice((1, 1, 2, 5, 12, 17, 30))):
        graph = model.graph
        body = GraphProto(name="body", node=graph.node, output=graph.output)
        op = rng.choice(("If", "If", "Loop", "Scan"))
        outputs = [f"{value.name}" for value in graph.output]
        node = NodeProto(op_type=op, output=outputs, name=op)
        keys = ("then_branch", "else_branch") if op == "If" and rng.random() < 0.1 else ("then_branch",)
        if op != "If":
            keys = ("body",)
            node.attribute.append(helper.make_attribute("num_scan_inputs", rng.choice((0, 1, 2**40))))
        node.input.extend(["x"] * rng.choice((0, 1, 2, 3)))
        for key in keys:
            attribute = node.attribute.add(name=key, type=AttributeProto.GRAPH)
            attribute.g.CopyFrom(body)
        del graph.node[:]
        graph.node.append(node)


def _function(rng: Random, model: ModelProto) -> None:
    """Make a local function of some nodes, which may call itself or others."""
    function = model.functions.add(name=rng.choice(("F", "G", "Relu", "")), domain=rng.choice(("local", "", "f")))
    function.input.extend(rng.choice((["p"], ["p", "q"], [])))
    function.output.append("r")
    function.opset_import.add(domain="", version=rng.choice((17, 17, 5, 99)))
    function.opset_import.add(domain="local", version=1)
    op, domain = rng.choice((("F", "local"), ("G", "local"), ("Relu", ""), ("G", "f")))
    for _ in range(rng.choice((1, 2, 8))):
        function.node.append(helper.make_node(op, ["p"], ["r"], domain=domain))
    node = _one(rng, model.graph.node)
    if node is not None and rng.random() < 0.8:
        node.op_type, node.domain = function.name, function.domain
        model.opset_import.add(domain=function.domain, version=1)


def _outside(rng: Random, model: ModelProto) -> None:
    """Let a tensor's values be external, with entries that are more or less right."""
    tensor = _tensor(rng, model)
    if tensor is None:
        return
    if rng.random() < 0.8:
        tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    places = (
        "weights.bin",
        "weights.bin",
        "../weights.bin",
        "/etc/passwd",
        "link",
        "sub/link",
        ".",
        "",
        "no",
        "m.onnx",
    )
    numbers = ("0", "4", "100", str(EXTERNAL_BYTES), "-1", "1e3", str(2**40), str(2**63), "9" * 400, "", " 0", "٣")
    for key, values in (("location", places), ("offset", numbers), ("length", numbers)):
        if rng.random() < 0.8:
            tensor.external_data.add(key=key, value=rng.choice(values))
    if rng.random() < 0.1:
        tensor.external_data.add(key=rng.choice(("location", "checksum", "")), value="weights.bin")


def _link(rng: Random, model: ModelProto) -> None:
    """Make an output of a node, an initializer or an input an output of the graph, or an initializer an input."""
    graph = model.graph
    if rng.random() < 0.5:
        graph.output.append(helper.make_tensor_value_info(_some_name(rng, graph), TensorProto.FLOAT, None))
    else:
        graph.input.append(helper.make_tensor_value_info(_some_name(rng, graph), TensorProto.FLOAT, [4, 5]))


def _rarities(rng: Random, model: ModelProto) -> None:
    choice = rng.randrange(5)
    if choice == 0:
        model.metadata_props.add(key=rng.choice(("onnxsurgeon.x", "a", "")), value="v")
    elif choice == 1:
        sparse = model.graph.sparse_initializer.add()
        sparse.dims.extend([rng.choice(SIZES), 4])
        sparse.values.name = rng.choice(NAMES)
    elif choice == 2:
        model.training_info.add().algorithm.CopyFrom(model.graph)
    elif choice == 3:
        kind = model.graph.value_info.add(name=_some_name(rng, model.graph)).type
        for _ in range(rng.choice((1, 5, 40))):
            kind = kind.sequence_type.elem_type
        kind.tensor_type.elem_type = 1
    else:
        model.ClearField(rng.choice(("graph", "ir_version", "producer_name")))


def _weights(rng: Random, model: ModelProto) -> None:
    """Other values of the same length: zeros, equal ones, huge or tiny ones, random bits."""
    tensor = _one(rng, model.graph.initializer)
    if tensor is not None and tensor.data_type == TensorProto.FLOAT and tensor.raw_data:
        count = len(tensor.raw_data) // 4
        same = struct.pack("<f", rng.choice(FLOATS)) * count
        tensor.raw_data = rng.choice((same, struct.pack(f"<{count}f", *(rng.uniform(-10, 10) for _ in range(count)))))
        if rng.random() < 0.1:
            tensor.raw_data = rng.randbytes(4 * count)


def _rename_everywhere(rng: Random, model: ModelProto) -> None:
    """Another name for a tensor wherever the main graph reads or writes it."""
    graph = model.graph
    old, new = rng.choice([*_names(graph), "x"]), rng.choice(NAMES)
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        if value.name == old:
            value.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


def _elementwise(rng: Random, model: ModelProto) -> None:
    """Put an operator on an edge that leaves type and shape as they are."""
    graph = model.graph
    nodes = list(graph.node)
    readers = [(node, at) for node in nodes for at in range(len(node.input)) if node.input[at]]
    if readers:
        reader, at = rng.choice(readers)
        name = f"mild{rng.randrange(10**6)}"
        op = rng.choice(("Identity", "Relu", "Tanh", "Abs", "Neg", "Softmax", "Dropout", "Floor", "Flatten", "Sigmoid"))
        made = helper.make_node(op, [reader.input[at]], [name], name=rng.choice((name, "")))
        reader.input[at] = name
        position = nodes.index(reader)
        copies = GraphProto(node=[*nodes[:position], made, *nodes[position:]])
        del graph.node[:]
        graph.node.extend(copies.node)


def _branch_off(rng: Random, model: ModelProto) -> None:
    """Let something else read a tensor too, or make it an output."""
    graph = model.graph
    written = [name for node in graph.node for name in node.output if name] or ["x"]
    name = f"branch{rng.randrange(10**6)}"
    graph.node.append(helper.make_node(rng.choice(("Relu", "Identity", "Softmax")), [rng.choice(written)], [name]))
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, rng.choice((None, ["p", "q"]))))


_MILD: tuple[Callable[[Random, ModelProto], None], ...] = (
    _weights,
    _weights,
    _rename_everywhere,
    _elementwise,
    _elementwise,
    _branch_off,
)
_MUTATIONS: tuple[Callable[[Random, ModelProto], None], ...] = (
    _drop,
    _duplicate,
    _reorder,
    _rename,
    _rename,
    _arity,
    _dims,
    _kind,
    _values,
    _values,
    _value_shape,
    _value_shape,
    _attribute,
    _attribute,
    _operator,
    _operator,
    _insert,
    _insert,
    _large,
    _large,
    _opset,
    _nest,
    _function,
    _outside,
    _link,
    _rarities,
)
