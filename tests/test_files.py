"""Files in parts: what is bulky stays outside the graph, what is bad is refused in one line, writes are atomic."""

import os
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import pytest
from fuzzing.corpus import CHAIN, _model, _weights
from ml_dtypes import bfloat16
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import ModelError
from onnxsurgeon.graph.external import SMALL_ALIGNMENT
from onnxsurgeon.graph.files import check_parts, join, read_model, read_parts, split, write, write_model, write_parts

RNG = np.random.default_rng(0)
BULK = {"W1": RNG.standard_normal((4, 100)).astype("f"), "W2": RNG.standard_normal((100, 3)).astype("f")}
SMALL = {"b1": np.ones(100, "f"), "b2": np.ones(3, "f")}


def bulky():
    model = _model(CHAIN, {"b1": SMALL["b1"], **BULK, "b2": SMALL["b2"]})
    model.graph.initializer[1].doc_string = "the first weight"
    return model


def chain(**constants):
    return _model(CHAIN, {**_weights(4, 5, 3), **constants})


def value(name, kind=TensorProto.FLOAT, shape=("batch", 4)):
    return helper.make_tensor_value_info(name, kind, shape)


def written(model, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def in_external_file(path, overwrite=False):
    write_parts(replace(split(bulky()), external=True), path, overwrite=overwrite)
    return path


def data_files(folder):
    return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".data"))


def test_parts_and_the_whole():
    model = bulky()
    parts = split(model)
    assert list(parts.arrays) == ["W1", "W2"]
    assert [tensor.name for tensor in parts.skeleton.graph.initializer] == ["b1", "b2"]
    assert not parts.external
    assert not parts.arrays["W1"].flags.writeable
    assert join(parts) == model
    check_parts(parts, "model")


def test_reading_one_file(tmp_path):
    parts = read_parts(written(bulky(), tmp_path))
    np.testing.assert_array_equal(parts.arrays["W2"], BULK["W2"])
    assert read_model(tmp_path / "m.onnx") == bulky()
    write_parts(parts, tmp_path / "again.onnx")
    assert onnx.load(tmp_path / "again.onnx") == bulky()
    assert data_files(tmp_path) == []


def test_external_data_is_mapped_aligned_and_read_by_onnx(tmp_path):
    path = in_external_file(tmp_path / "m.onnx")
    parts = read_parts(path)
    assert parts.external
    assert isinstance(parts.arrays["W1"], np.memmap)
    for name, values in BULK.items():
        np.testing.assert_array_equal(parts.arrays[name], values)
    loaded = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    np.testing.assert_equal(loaded, {**BULK, **SMALL})
    assert read_model(path) == bulky()
    bare = onnx.load(path, load_external_data=False).graph.initializer[1]
    entries = {entry.key: entry.value for entry in bare.external_data}
    assert data_files(tmp_path) == [entries["location"]]
    assert entries["location"] == "m.onnx.data"
    assert int(entries["offset"]) % SMALL_ALIGNMENT == 0


def test_the_same_path_in_and_out(tmp_path):
    path = in_external_file(tmp_path / "m.onnx")
    parts = read_parts(path)
    changed = replace(parts, arrays={**parts.arrays, "W2": parts.arrays["W2"] * 2})
    for _ in range(2):
        write_parts(changed, path, overwrite=True)
        again = read_parts(path)
        np.testing.assert_array_equal(again.arrays["W1"], BULK["W1"])
        np.testing.assert_array_equal(again.arrays["W2"], BULK["W2"] * 2)
        assert len(data_files(tmp_path)) == 1
    write_parts(replace(again, external=False), path, overwrite=True)
    assert data_files(tmp_path) == []
    assert len(read_parts(path).arrays) == 2


def test_the_same_parts_give_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        in_external_file(tmp_path / folder / "m.onnx")
    assert data_files(tmp_path / "a") == data_files(tmp_path / "b")
    for name in ("m.onnx", *data_files(tmp_path / "a")):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_data_file_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "m.onnx.data").write_bytes(b"mine")
    in_external_file(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx.data").read_bytes() == b"mine"
    np.testing.assert_array_equal(read_parts(tmp_path / "m.onnx").arrays["W1"], BULK["W1"])
    with pytest.raises(ModelError, match="exists already"):
        in_external_file(tmp_path / "m.onnx")


@pytest.mark.parametrize("failing", range(3))
def test_a_stop_at_any_moment_leaves_a_usable_model(failing, tmp_path, monkeypatch):
    path = in_external_file(tmp_path / "m.onnx")
    parts = read_parts(path)
    changed = replace(parts, arrays={**parts.arrays, "W2": parts.arrays["W2"] * 2})
    calls = [0]

    def counted(function):
        def call(*arguments, **options):
            if calls[0] == failing:
                raise OSError(28, "No space left on device")
            calls[0] += 1
            return function(*arguments, **options)

        return call

    # The data flushed; the model flushed; the folder flushed after the data bears its name.
    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    with pytest.raises(ModelError, match="No space left on device"):
        write_parts(changed, path, overwrite=True)
    monkeypatch.undo()
    np.testing.assert_array_equal(read_parts(path).arrays["W2"], BULK["W2"])
    assert not [entry for entry in tmp_path.iterdir() if entry.name.endswith(".tmp")]
    write_parts(changed, path, overwrite=True)
    np.testing.assert_array_equal(read_parts(path).arrays["W2"], BULK["W2"] * 2)
    assert len(data_files(tmp_path)) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, bfloat16, np.int8, np.int64, np.complex64, bool])
def test_types_survive(dtype, tmp_path):
    values = np.arange(3000).reshape(1000, 3).astype(dtype)
    model = chain(extra=np.zeros(1, "f"))
    parts = split(model)
    for name, array in (("C", values), ("T", values.T), ("E", np.zeros((3, 0), dtype))):
        parts.arrays[name] = array
    for external in (False, True):
        write_parts(replace(parts, external=external), tmp_path / "m.onnx", overwrite=True)
        again = read_parts(tmp_path / "m.onnx")
        assert again.arrays["C"].dtype == np.dtype(dtype)
        np.testing.assert_array_equal(again.arrays["C"], values)
        np.testing.assert_array_equal(again.arrays["T"], values.T)
        assert again.external == external


def test_typed_fields_become_arrays():
    model = bulky()
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.float_data.extend(BULK["W1"].reshape(-1).tolist())
    np.testing.assert_array_equal(split(model).arrays["W1"], BULK["W1"])
    assert tensor.float_data  # the model itself is not changed


def test_more_than_protobuf_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxsurgeon.graph.parts.LARGEST_FILE", 2000)
    monkeypatch.setattr(write, "LARGEST_INLINE", 2000)
    with pytest.raises(ModelError, match="does not fit into one protobuf"):
        join(split(bulky()))
    write_parts(split(bulky()), tmp_path / "m.onnx")
    assert len(data_files(tmp_path)) == 1
    with pytest.raises(ModelError, match=r"m\.onnx: a model of .* does not fit"):
        read_model(tmp_path / "m.onnx")


def test_a_constant_with_external_data_is_loaded(tmp_path):
    values = np.arange(1024, dtype="f")
    values.tofile(tmp_path / "c.bin")
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1024], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="c.bin")
    model = _model([helper.make_node("Constant", [], ["c"], value=tensor), *CHAIN], _weights(4, 5, 3))
    parts = read_parts(written(model, tmp_path))
    assert parts.external
    np.testing.assert_array_equal(numpy_helper.to_array(parts.skeleton.graph.node[0].attribute[0].t), values)


def test_what_exporters_write_and_the_checker_refuses(tmp_path):
    model = chain()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    custom = helper.make_node("Mystery", ["x"], ["m"], domain="com.example")
    model.graph.node.append(custom)
    model.opset_import.add(domain="com.example", version=1)
    assert read_parts(written(model, tmp_path)).skeleton.graph.output[0].name == "y"


def edited(edit):
    model = chain()
    edit(model)
    return model


def tensor_with(**fields):
    def edit(model):
        tensor = model.graph.initializer[0]
        for name, content in fields.items():
            tensor.ClearField(name)
            if isinstance(content, list):
                getattr(tensor, name).extend(content)
            else:
                setattr(tensor, name, content)

    return edit


def nested(depth):
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["o"])], "b", [], [value("o")])
    for _ in range(depth):
        node = helper.make_node("If", ["c"], ["o"], name="If", then_branch=body, else_branch=body)
        del node.attribute[1]
        body = helper.make_graph([node], "b", [], [value("o")])
    return _model(list(body.node), {"c": np.bool_(True)}, outputs=(value("o"),))


def functions(bodies):
    made = [
        helper.make_function(
            "l",
            name,
            ["a"],
            ["b"],
            [
                helper.make_node(
                    op, ["a" if i == 0 else f"t{i - 1}"], ["b" if i == len(ops) - 1 else f"t{i}"], domain=d
                )
                for i, (op, d) in enumerate(ops)
            ],
            [helper.make_opsetid("", 17), helper.make_opsetid("l", 1)],
        )
        for name, ops in bodies.items()
    ]
    call = helper.make_node(next(iter(bodies)), ["x"], ["y"], domain="l")
    return _model([call], {}, outputs=(value("y"),), domains=(("l", 1),), functions=tuple(made))


def computed(op, shape, inputs=None):
    node = helper.make_node(op, inputs or ["shape"], ["big"], name="large")
    return _model([node, *CHAIN], {**_weights(4, 5, 3), "shape": np.array(shape)})


def swap(model):
    nodes = list(model.graph.node)
    copies = onnx.GraphProto(node=[nodes[2], nodes[0], nodes[1]])
    del model.graph.node[:]
    model.graph.node.extend(copies.node)


BAD = {
    "empty": (b"", "holds no graph"),
    "text": (b"version https://git-lfs.github.com/spec/v1\n", "it is a text file that begins with 'version"),
    "cut off": (chain().SerializeToString()[:-40], "it is cut off or damaged: at byte"),
    "no graph": (onnx.ModelProto(ir_version=8), "holds no graph"),
    "no opset": (edited(lambda m: m.ClearField("opset_import")), "holds no graph or no opset"),
    "only a custom opset": (
        edited(lambda m: setattr(m.opset_import[0], "domain", "x")),
        "no version of ONNX's own operator set",
    ),
    "opset 99": (edited(lambda m: setattr(m.opset_import[0], "version", 99)), "opset 99 is not supported"),
    "opset 6": (edited(lambda m: setattr(m.opset_import[0], "version", 6)), "opset 6 is not supported"),
    "a cycle": (edited(lambda m: m.graph.node[0].input.__setitem__(0, "h")), "the graph has a cycle"),
    "out of order": (edited(swap), "reads 'h' before node 'Relu_h' .Relu. writes it: the nodes are out of order"),
    "nothing produces": (edited(lambda m: m.graph.node[1].input.__setitem__(0, "q")), "'q', which nothing produces"),
    "missing initializer": (edited(lambda m: m.graph.initializer.pop(0)), "reads 'W1', which nothing produces"),
    "missing output": (edited(lambda m: m.graph.node.pop()), "nothing produces output 'y'"),
    "initializers of one name": (
        edited(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
        "two initializers are called 'W1'",
    ),
    "an initializer without a name": (edited(lambda m: setattr(m.graph.initializer[0], "name", "")), "has no name"),
    "outputs of one name": (
        edited(lambda m: m.graph.node.append(helper.make_node("Relu", ["a"], ["h"], name="again"))),
        "node 'again' .Relu. writes 'h', which exists already",
    ),
    "zero-sized input": (
        edited(lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 0)),
        r"input 'x' has a dimension of size zero: \(batch, 0\)",
    ),
    "raw_data too short": (edited(tensor_with(raw_data=b"1234")), r"'W1' of shape \(4, 5\) needs 80 bytes but holds 4"),
    "float_data too short": (
        edited(tensor_with(raw_data=b"", float_data=[1.0])),
        "holds its values twice",
    ),
    "negative dims": (edited(tensor_with(dims=[-4, -5])), r"'W1' has a negative dimension: \(-4, -5\)"),
    "dims that overflow": (edited(tensor_with(dims=[2**40, 2**40])), "declares more elements than 64 bits can count"),
    "2^40 elements": (edited(tensor_with(dims=[2**40])), "needs 4398046511104 bytes but holds 80"),
    "strings": (edited(tensor_with(data_type=8)), "is of a type that cannot be read: string"),
    "unknown type": (edited(tensor_with(data_type=99)), "is of a type that cannot be read: number 99"),
    "external, not there": (edited(tensor_with(data_location=1)), "invalid entry: location is ''"),
    "sparse": (edited(lambda m: m.graph.sparse_initializer.add()), "has a sparse tensor"),
    "not UTF-8": (chain().SerializeToString().replace(b"Relu", b"Re\xff\xfe"), "is not valid UTF-8"),
    "too deep": (nested(17), "subgraphs are nested more than 16 deep"),
    "recursion": (functions({"F": [("F", "l")]}), "local function 'F' calls itself"),
    "recursion of two": (functions({"F": [("G", "l")], "G": [("F", "l")]}), "calls itself"),
    "calls that multiply": (
        functions({f"F{i}": [(f"F{i + 1}", "l")] * 10 if i < 9 else [("Relu", "")] for i in range(10)}),
        "it has over 200000 nodes",
    ),
    "a large constant": (
        computed("ConstantOfShape", [2**20, 2**20]),
        r"'big' is too large: shape \(1048576, 1048576\)",
    ),
    "a large expansion": (computed("Expand", [2**40], ["b1", "shape"]), "invalid model|'big' is too large"),
    "a large tile": (computed("Tile", [2**40], ["b1", "shape"]), "'big' is too large"),
    "unknown operator": (
        edited(lambda m: setattr(m.graph.node[1], "op_type", "Zig")),
        "node .Relu_h. .Zig.: opset 17 has no such operator",
    ),
    "domain without opset": (
        edited(lambda m: setattr(m.graph.node[1], "domain", "zag")),
        "No opset import for domain 'zag'",
    ),
    "attribute of the wrong type": (
        edited(lambda m: m.graph.node[0].attribute.append(helper.make_attribute("alpha", "one"))),
        "alpha",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_models_end_in_one_line(case, tmp_path):
    model, reason = BAD[case]
    path = written(model, tmp_path)
    with pytest.raises(ModelError, match=reason) as error:
        read_parts(path)
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).isprintable()


def test_a_name_of_several_lines_gives_one(tmp_path):
    model = chain()
    model.graph.node[1].input[0] = "two\nlines" + "x" * 5000
    with pytest.raises(ModelError, match=r"two\\nlines") as error:
        read_parts(written(model, tmp_path))
    assert len(str(error.value)) < 700


@pytest.mark.parametrize("what", ["pipe", "device", "folder", "nothing", "a long name", "NUL"])
def test_what_is_no_file(what, tmp_path):
    paths = {"device": "/dev/zero", "folder": tmp_path, "a long name": tmp_path / ("n" * 300), "NUL": "a\0b"}
    path = paths.get(what, tmp_path / "m.onnx")
    if what == "pipe":
        os.mkfifo(path)
    with pytest.raises(ModelError, match=r"is a directory|no regular file|no such file|cannot be read") as error:
        read_parts(path)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"location": ""}, "invalid entry: location is ''"),
        ({"location": "a\0b"}, "invalid entry: location"),
        ({"location": "n" * 300}, "cannot be found"),
        ({"location": "loop"}, "cannot be found|is missing"),
        ({"location": "../secret.bin"}, "leads out"),
        ({"location": "sub/../../secret.bin"}, "leads out"),
        ({"location": "/etc/passwd"}, "leads out"),
        ({"location": "C:\\secret.bin"}, "leads out"),
        ({"location": "link.bin"}, "leads out"),
        ({"location": "linked/secret.bin"}, "leads out"),
        ({"location": "."}, "no regular file"),
        ({"location": "pipe"}, "no regular file"),
        ({"offset": "+4"}, "invalid entry: offset"),
        ({"offset": " 4"}, "invalid entry: offset"),
        ({"offset": "٤"}, "invalid entry: offset"),
        ({"offset": "9" * 5000}, "invalid entry: offset"),
        ({"offset": "9" * 19}, "ends beyond the file"),
        ({"offset": "1"}, "ends beyond the file 'w.bin': 1 . 1600 of 1600 bytes"),
        ({"length": "1596"}, "is 1596 bytes long, but shape .4, 100. needs 1600"),
        ({"length": "-1"}, "invalid entry: length"),
        ({"length": None, "dims": [2**20, 2**20]}, "ends beyond the file"),
        ({"dims": [-1, -1600]}, "has a negative dimension"),
        ({"data_type": 8}, "strings|cannot be read"),
    ],
)
def test_external_data_that_is_refused(entries, reason, tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(bytes(1600))
    (folder / "w.bin").write_bytes(BULK["W1"].tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    model = bulky()
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    fields = {"location": "w.bin", "offset": "0", "length": "1600", **entries}
    if "dims" in fields:
        del tensor.dims[:]
        tensor.dims.extend(fields.pop("dims"))
    tensor.data_type = fields.pop("data_type", tensor.data_type)
    for key, text in fields.items():
        if text is not None:
            tensor.external_data.add(key=key, value=text)
    path = written(model, folder)
    with pytest.raises(ModelError, match=reason) as error:
        read_parts(path)
    assert str(error.value).startswith(f"{path}: initializer 'W1'")
    assert str(error.value).isprintable()


def test_many_nodes_are_read(tmp_path):
    count = 20_000
    names = ["x", *(f"t{i}" for i in range(count - 1)), "y"]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    model = _model(nodes, {}, outputs=(value("y"),))
    assert len(read_parts(written(model, tmp_path)).skeleton.graph.node) == count


def test_write_model_says_why_not(tmp_path):
    with pytest.raises(ModelError, match="cannot be written"):
        write_model(bulky(), tmp_path / "none" / "m.onnx")
    with pytest.raises(ModelError, match="cannot be written"):
        in_external_file(tmp_path / "none" / "m.onnx")
