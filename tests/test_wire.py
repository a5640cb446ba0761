"""Large weights in a model file: read and written apart from the rest, and with the same result as by protobuf."""

import tracemalloc

import numpy as np
import onnx
import pytest
from fuzzing.corpus import CHAIN, _model, _weights, corpus
from fuzzing.pipeline import make_input
from ml_dtypes import bfloat16
from onnx import numpy_helper

from onnxsurgeon import ModelError
from onnxsurgeon.graph import parts as bulk
from onnxsurgeon.graph import wire
from onnxsurgeon.graph.files import join, read, read_parts, split, write_parts

RNG = np.random.default_rng(0)


@pytest.fixture
def all_apart(monkeypatch):
    """Every file is read field by field, and all but the smallest tensors apart."""
    monkeypatch.setattr(wire, "LARGE_FILE", 0)
    monkeypatch.setattr(wire, "LARGE_TENSOR", 64)
    monkeypatch.setattr("onnxsurgeon.graph.parts.BULKY", 64)


def model_of(**tensors):
    weights = {name: RNG.standard_normal(values.shape).astype("f") for name, values in _weights(40, 30, 20).items()}
    return _model(CHAIN, {**weights, **tensors}, inputs=(onnx.helper.make_tensor_value_info("x", 1, ["n", 40]),))


def outcome(path):
    """What reading a file gives: all that the model consists of, or the error's text."""
    try:
        parts = read_parts(path)
    except ModelError as error:
        return str(error)
    arrays = [(name, array.dtype, array.shape, array.tobytes()) for name, array in parts.arrays.items()]
    headers = [(name, header.SerializeToString(deterministic=True)) for name, header in parts.headers.items()]
    return arrays, headers, parts.external, parts.skeleton.SerializeToString(deterministic=True)


def same_outcome(content, path):
    """That of reading apart, after checking that it is protobuf's."""
    path.write_bytes(content)
    apart = outcome(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "LARGE_FILE", 2**40)
        assert apart == outcome(path)
    return apart


def test_the_corpus(all_apart, tmp_path):
    read = [not isinstance(same_outcome(content, tmp_path / "m.onnx"), str) for content in corpus()]
    assert sum(read) > 100


@pytest.mark.parametrize("kind", ["bytes", "structure"])
def test_what_is_damaged(kind, all_apart, tmp_path):
    read = [not isinstance(same_outcome(make_input(kind, 11, i), tmp_path / "m.onnx"), str) for i in range(300)]
    assert any(read)
    assert not all(read)


def test_a_file_cut_short_or_changed_anywhere(all_apart, tmp_path):
    content = model_of().SerializeToString()
    where = content.index(b"W1", content.index(b"W2"))
    for position in (*range(0, len(content), 97), *range(where - 12, where + 12)):
        same_outcome(content[:position], tmp_path / "m.onnx")
        for value in (0, 0x7A, 0xFF):
            same_outcome(content[:position] + bytes([value]) + content[position + 1 :], tmp_path / "m.onnx")


def field(number, content, kind=2):
    return bytes([number << 3 | kind]) + (wire._encoded(len(content)) if kind == 2 else b"") + content


def weight(**changes):
    """The fields of a tensor W1 (40, 30), by name."""
    values = RNG.standard_normal((40, 30)).astype("f").tobytes()
    plain = {"dims": b"\x08\x28\x08\x1e", "type": b"\x10\x01", "name": field(8, b"W1"), "raw": field(9, values)}
    return {**plain, **changes}


PLAIN = {
    "as onnx writes it": weight(),
    "values first": dict(reversed(weight().items())),
    "a doc string behind the values": weight(doc=field(12, b"the first weight")),
    "a field onnx does not know": weight(new=b"\xfa\x01\x01a"),
    "packed dims": weight(dims=field(1, b"\x28\x1e")),
    "numbers longer than need be": weight(dims=b"\x08\xa8\x80\x00\x08\x9e\x00"),
    "its type twice": weight(again=b"\x10\x01"),
}
LEFT = {
    "declared inside the file": weight(location=b"\x70\x00"),
    "values twice": weight(again=field(9, RNG.standard_normal(1200).astype("f").tobytes())),
    "no values": weight(raw=b""),
    "values of another length": weight(raw=field(9, bytes(4796))),
    "values of another kind": weight(raw=b"\x49" + bytes(8)),
    "values in two fields": weight(more=field(4, bytes(8))),
    "another type": weight(type=b"\x10\x0b"),
    "no type": weight(type=b""),
    "a type of four bits": weight(type=b"\x10\x16"),
    "a negative dimension": weight(dims=b"\x08\x28\x08" + b"\xff" * 9 + b"\x01"),
    "dimensions beyond 64 bits": weight(dims=b"\x08" + b"\xff" * 8 + b"\x7f\x08\x1e"),
    "one segment": weight(segment=field(3, b"\x08\x00\x10\x02")),
    "external": weight(location=b"\x70\x01"),
    "a group": weight(group=b"\x7b\x7c"),
    "an end without a group": weight(group=b"\x7c"),
    "field number 0": weight(zero=b"\x02\x01a"),
    "a kind that there is not": weight(kind=b"\x7f"),
    "a number without end": weight(endless=b"\x10" + b"\xff" * 11),
    "a name that is no text": weight(name=field(8, b"W\xff")),
    "very many fields": weight(many=b"\x10\x01" * 70_000),
    "more beside the values than values": weight(doc=field(12, b"x" * 2000)),
}


@pytest.mark.parametrize("case", [*PLAIN, *LEFT])
def test_odd_tensors(case, all_apart, tmp_path, monkeypatch):
    taken = []
    array = wire._array
    monkeypatch.setattr(wire, "_array", lambda *arguments: taken.append(arguments) or array(*arguments))
    model = model_of()
    assert model.graph.initializer[0].name == "W1"
    del model.graph.initializer[0]
    tensor = b"".join((PLAIN | LEFT)[case].values())
    two_graphs = model.SerializeToString() + field(7, field(5, tensor))  # protobuf makes one of them
    same_outcome(two_graphs, tmp_path / "m.onnx")
    assert not taken
    graph = model.graph.SerializeToString() + field(5, tensor)
    model.ClearField("graph")
    apart = same_outcome(model.SerializeToString() + field(7, graph), tmp_path / "m.onnx")
    names = {tensor.name for _, _, tensor in taken}
    assert ("W1" in names) == (case in PLAIN)
    if case in PLAIN:
        assert not isinstance(apart, str)
        assert names == {"W1", "b1", "W2", "b2"}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, bfloat16, np.int8, np.int64, np.complex64, bool])
@pytest.mark.parametrize("order", ["C", "F", "strided"])
def test_what_is_written_is_what_protobuf_writes(dtype, order, all_apart, tmp_path, monkeypatch):
    values = RNG.integers(-100, 100, (60, 70, 3)).astype(dtype)
    stored = {"C": values, "F": np.asfortranarray(values), "strided": np.repeat(values, 2, axis=1)[:, ::2]}[order]
    parts = split(model_of(odd=values))
    parts.headers["odd"].doc_string = "odd"
    parts.arrays["odd"] = stored
    parts.arrays["new"] = np.zeros((3, 0), dtype)
    expected = join(parts).SerializeToString(deterministic=True)
    for module in (bulk, read):  # writing has no other way to it
        monkeypatch.setattr(module, "join", lambda parts: pytest.fail("a second copy was made"))
    monkeypatch.setattr("onnxsurgeon.buffers.CHUNK", 1000)
    write_parts(parts, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == expected
    again = read_parts(tmp_path / "m.onnx").arrays["odd"]
    assert (again.dtype, again.tobytes()) == (values.dtype, values.tobytes())
    assert again.flags.aligned
    assert not again.flags.writeable


def test_a_model_with_what_onnx_does_not_know_is_written_as_by_protobuf(tmp_path):
    content = model_of().SerializeToString()
    unknown = onnx.ModelProto.FromString(content + b"\xfa\x01\x01a" + b"\xfb\x01\xfc\x01")
    parts = split(unknown)
    write_parts(parts, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == join(parts).SerializeToString(deterministic=True)


def test_a_file_that_shrinks_while_it_is_read(all_apart, tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(model_of().SerializeToString())
    array = wire._array

    def shrunk(file, values, tensor):
        path.write_bytes(path.read_bytes()[: values.start + 5])
        return array(file, values, tensor)

    monkeypatch.setattr(wire, "_array", shrunk)
    with pytest.raises(ModelError, match=r"m\.onnx: cannot be read: it became shorter while it was read"):
        read_parts(path)


def test_large_weights_are_in_memory_once(tmp_path, monkeypatch):
    """At the sizes from which on it is done: 24 MB of weights."""
    values = RNG.standard_normal((2000, 3000), dtype=np.float32)
    model = model_of()
    model.graph.initializer.append(numpy_helper.from_array(values, "large"))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    del model
    tracemalloc.start()
    parts = read_parts(tmp_path / "m.onnx")
    _, reading = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    write_parts(parts, tmp_path / "again.onnx")
    _, writing = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(parts.arrays["large"], values)
    assert reading < 1.1 * values.nbytes
    assert writing - before < 0.1 * values.nbytes
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()
