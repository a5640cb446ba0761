"""A result in use: the same few lines in three languages, for the inputs of the model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxsurgeon.errors import OnnxSurgeonError
from onnxsurgeon.graph.files import read_model

# By ONNX's element type: numpy's name, JavaScript's array and its name in a tensor, C++'s type.
_TYPES: Mapping[int, tuple[str, str, str, str]] = {
    onnx.TensorProto.FLOAT: ("float32", "Float32Array", "float32", "float"),
    onnx.TensorProto.DOUBLE: ("float64", "Float64Array", "float64", "double"),
    onnx.TensorProto.UINT8: ("uint8", "Uint8Array", "uint8", "uint8_t"),
    onnx.TensorProto.INT8: ("int8", "Int8Array", "int8", "int8_t"),
    onnx.TensorProto.INT32: ("int32", "Int32Array", "int32", "int32_t"),
    onnx.TensorProto.INT64: ("int64", "BigInt64Array", "int64", "int64_t"),
}
_FEW = 4  # inputs: nobody would read code for more


@dataclass(frozen=True)
class Port:
    """An input of a model: its name, element type, and shape with one row."""

    name: str
    element: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Snippet:
    """A piece of code that runs a model, and what it needs."""

    language: str
    needs: str
    code: str


def snippets(path: Path) -> list[Snippet]:
    """Code that runs the model in ``path``, named by its file's name; none where it cannot be read, or is too odd."""
    try:
        graph = read_model(path).graph
    except (OnnxSurgeonError, OSError):
        return []
    ports = [_port(value) for value in graph.input]
    known = [port for port in ports if port is not None]
    if not known or len(known) < len(ports) or len(known) > _FEW or not graph.output:
        return []
    outputs = [value.name for value in graph.output]
    return [
        Snippet("Python", "pip install onnxruntime", _python(path.name, known, outputs)),
        Snippet("JavaScript", "npm install onnxruntime-web", _javascript(path.name, known, outputs)),
        Snippet("C++", "link with onnxruntime", _cpp(path.name, known, outputs)),
    ]


def _port(value: onnx.ValueInfoProto) -> Port | None:
    """An input; None where no code can be written for its type or shape."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in _TYPES or not tensor.HasField("shape"):
        return None
    sizes = [each.dim_value if each.HasField("dim_value") else 0 for each in tensor.shape.dim]
    if not all(0 <= size < 2**31 for size in sizes):
        return None
    return Port(value.name, tensor.elem_type, tuple(size or 1 for size in sizes))


def _text(name: str) -> str:
    """A text as a literal that Python, JavaScript and C++ read alike."""
    return json.dumps(name, ensure_ascii=False)


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _python(file: str, ports: list[Port], outputs: list[str]) -> str:
    rows = [f"    {_text(p.name)}: np.zeros({p.shape}, np.{_TYPES[p.element][0]})," for p in ports]
    lines = [
        "import numpy as np",
        "import onnxruntime",
        "",
        f"session = onnxruntime.InferenceSession({_text(file)})",
        "rows = {",
        *rows,
        "}",
        f"result = session.run([{_text(outputs[0])}], rows)[0]",
    ]
    return "\n".join(lines)


def _javascript(file: str, ports: list[Port], outputs: list[str]) -> str:
    rows = []
    for port in ports:
        _, array, name, _ = _TYPES[port.element]
        values = f"new {array}({_count(port.shape)})"
        rows.append(f'  {_text(port.name)}: new ort.Tensor("{name}", {values}, {list(port.shape)}),')
    lines = [
        'import * as ort from "onnxruntime-web";',
        "",
        f"const session = await ort.InferenceSession.create({_text(file)});",
        "const rows = {",
        *rows,
        "};",
        f"const result = (await session.run(rows))[{_text(outputs[0])}].data;",
    ]
    return "\n".join(lines)


def _cpp(file: str, ports: list[Port], outputs: list[str]) -> str:
    values, tensors = [], []
    for number, port in enumerate(ports):
        kind = _TYPES[port.element][3]
        shape = ", ".join(map(str, port.shape))
        values.append(f"  std::vector<{kind}> values{number}({_count(port.shape)});")
        values.append(f"  std::vector<int64_t> shape{number}{{{shape}}};")
        own, its = f"values{number}", f"shape{number}"
        tensors.append(f"  rows.push_back(Ort::Value::CreateTensor<{kind}>(")
        tensors.append(f"      memory, {own}.data(), {own}.size(), {its}.data(), {its}.size()));")
    lines = [
        "#include <onnxruntime_cxx_api.h>",
        "#include <vector>",
        "",
        "int main() {",
        "  Ort::Env env;",
        f"  Ort::Session session(env, ORT_TSTR({_text(file)}), Ort::SessionOptions{{}});",
        *values,
        "  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);",
        "  std::vector<Ort::Value> rows;",
        *tensors,
        f"  const char* in[] = {{{', '.join(_text(port.name) for port in ports)}}};",
        f"  const char* out[] = {{{_text(outputs[0])}}};",
        "  auto result = session.Run(Ort::RunOptions{}, in, rows.data(), rows.size(), out, 1);",
        "  // result[0].GetTensorData<float>()",
        "}",
    ]
    return "\n".join(lines)
