"""New heads: on real exports of every exporter, on hand-made backbones, in several opsets; and what is refused."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import (
    ModelError,
    SettingsError,
    create,
    evolve,
    from_model,
    load,
    load_dataset,
    make_engine,
    prepare,
    save,
)
from onnxsurgeon.graph.attach import attach_head, read_classes
from onnxsurgeon.graph.files import check_model
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import evaluator, run
from onnxsurgeon.surgeon.settings import SurgeonSettings
from tests.conftest import MODELS, NEWEST_OPSET

EXPORTS = sorted((MODELS / "exports").glob("*.onnx"))
SEVERAL_OUTPUTS = ("hidden-output", "two-heads")
NAMES = ("cat", "dog", "owl")


def backbone(nodes, inputs, outputs, constants=(), opset=17, ir=8, domains=()):
    """A model of nodes as (op, inputs, outputs, attributes), of inputs and outputs as {name: (type, shape)}."""
    made = [
        helper.make_node(op, x.split(), y.split(), name=f"node_{y.split()[0]}", **attributes)
        for op, x, y, attributes in nodes
    ]
    values = [
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in given.items()]
        for given in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in dict(constants).items()]
    if ir < 4:
        values[0] += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    graph = helper.make_graph(made, "g", *values, tensors)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(*domain) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir)


def convolution(opset=17, ir=8, batch="n", size=6):
    """One Conv and a Relu: maps (n, 4, 4, 4) of images (n, 2, 6, 6)."""
    kernel = np.random.default_rng(3).standard_normal((4, 2, 3, 3)).astype("f")
    return backbone(
        [("Conv", "image K", "z", {}), ("Relu", "z", "maps", {})],
        {"image": (TensorProto.FLOAT, [batch, 2, size, size])},
        {"maps": (TensorProto.FLOAT, [batch, 4, size - 2, size - 2])},
        {"K": kernel},
        opset,
        ir,
    )


def encoder(shape=("n", "t", 6), opset=17, mask=True):
    """Embeddings of tokens, as the last hidden state of an encoder."""
    table = np.random.default_rng(4).standard_normal((9, 6)).astype("f")
    inputs = {"input_ids": (TensorProto.INT64, list(shape[:2]))}
    if mask:
        inputs["attention_mask"] = (TensorProto.INT64, list(shape[:2]))
    return backbone(
        [("Gather", "table input_ids", "hidden", {"axis": 0})],
        inputs,
        {"hidden": (TensorProto.FLOAT, list(shape))},
        {"table": table},
        opset,
    )


def attached(model, classes=3, **options):
    """The head's model, checked, and its notes."""
    made = attach_head(model, classes, **{"hidden": (5,), **options})
    whole = to_model(made.network)
    check_model(whole, "m")
    onnx.checker.check_model(whole, full_check=True)
    return whole, made


def with_output(model, name):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(onnx.ValueInfoProto(name=name))
    return copy


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def by_numpy(model, features):
    """Probabilities that the head's weights give for these features."""
    w = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name.startswith("head")}
    hidden = np.maximum(features @ w["head/dense_1/weight"] + w["head/dense_1/bias"], 0)
    return softmax(hidden @ w["head/logits/weight"] + w["head/logits/bias"])


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: path.stem)
def test_a_head_on_every_export(path):
    if any(name in path.stem for name in SEVERAL_OUTPUTS):
        with pytest.raises(ModelError, match=r"which of its outputs the head reads has to be told, with --at: 'log"):
            attach_head(path, 3)
        return
    made = attach_head(path, NAMES, hidden=(4,))
    model = to_model(made.network)
    check_model(model, path.name)
    assert made.network.topology.endswith("-4-3")
    assert made.network.heads[0].labels == NAMES
    taken = path.stem.startswith("ort-quantised")  # whose output of that name the head reads
    assert [value.name for value in model.graph.output] == ["label", "probabilities_2" if taken else "probabilities"]
    old = onnx.load(path)
    before = {t.name: numpy_helper.to_array(t).tobytes() for t in old.graph.initializer}
    kept = [t for t in model.graph.initializer if not t.name.startswith("head/") and t.name in before]
    assert all(before[t.name] == numpy_helper.to_array(t).tobytes() for t in kept)
    assert kept or not any(node.op_type in ("Gemm", "MatMul") for node in made.network.frame.prefix_nodes)
    # Netron shows what is declared and the weights; what is not declared can be inferred.
    typed = onnx.shape_inference.infer_shapes(model)
    listed = {value.name for value in (*typed.graph.value_info, *typed.graph.output)}
    assert {name for node in model.graph.node if node.name.startswith("head/") for name in node.output} <= listed


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 17, 18, 21])
def test_maps_are_averaged_in_every_opset(opset):
    if opset > NEWEST_OPSET:
        pytest.skip("too new for this ONNX Runtime")
    model, made = attached(convolution(opset, ir=3 if opset < 9 else 8), NAMES)
    x = np.random.default_rng(0).standard_normal((5, 2, 6, 6)).astype("f")
    maps = run(convolution(opset), {"image": x})[0] if opset >= 11 else run(with_output(model, "maps"), {"image": x})[0]
    label, probabilities = run(model, {"image": x})
    np.testing.assert_allclose(probabilities, by_numpy(model, maps.mean(axis=(2, 3))), rtol=1e-4)
    assert label.tolist() == [NAMES[k] for k in probabilities.argmax(axis=1)]
    assert made.notes[1] == "its n × 4 × 4 × 4 are averaged over all positions, channels being axis 1"
    assert [entry.version for entry in model.opset_import] == [opset, 2]


def test_channels_that_come_last():
    """As tf2onnx writes them: a Transpose behind the convolutions."""
    model = convolution()
    model.graph.node.append(helper.make_node("Transpose", ["maps"], ["last"], perm=[0, 2, 3, 1]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("last", TensorProto.FLOAT, None))
    kernel = np.random.default_rng(3).standard_normal((7, 2, 3, 3)).astype("f")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "K"))
    del model.graph.value_info[:]
    whole, made = attached(model)
    assert made.network.topology == "7-5-3"
    x = np.random.default_rng(0).standard_normal((5, 2, 6, 6)).astype("f")
    last = run(with_output(whole, "last"), {"image": x})[0]
    np.testing.assert_allclose(run(whole, {"image": x})[0], by_numpy(whole, last.mean(axis=(1, 2))), rtol=1e-4)


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_tokens_are_averaged_as_far_as_the_mask_has_them(opset):
    model, made = attached(encoder(opset=opset))
    rng = np.random.default_rng(0)
    ids, mask = rng.integers(0, 9, (4, 7)), (np.arange(7) < np.array([[7], [1], [4], [6]])).astype(np.int64)
    hidden = run(with_output(model, "hidden"), {"input_ids": ids, "attention_mask": mask})[0]
    mean = (hidden * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    found = run(model, {"input_ids": ids, "attention_mask": mask})[0]
    np.testing.assert_allclose(found, by_numpy(model, mean), rtol=1e-4)
    assert "its n × t × 6 are averaged over the tokens that 'attention_mask' has" in made.notes


@pytest.mark.parametrize(
    ("pool", "expected"), [("mean", lambda h: h.mean(axis=1)), ("first", lambda h: h[:, 0]), ("flatten", None)]
)
def test_other_ways_to_pool_tokens(pool, expected):
    model, _ = attached(encoder(("n", 3, 6), mask=False), pool=pool)
    ids = np.random.default_rng(0).integers(0, 9, (4, 3))
    hidden = run(with_output(model, "hidden"), {"input_ids": ids})[0]
    features = hidden.reshape(4, -1) if expected is None else expected(hidden)
    np.testing.assert_allclose(run(model, {"input_ids": ids})[0], by_numpy(model, features), rtol=1e-4)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_features_of_other_types_are_cast(kind):
    model = backbone([("Relu", "x", "y", {})], {"x": (kind, ["n", 4])}, {"y": (kind, ["n", 4])})
    whole, made = attached(model)
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(helper.tensor_dtype_to_np_dtype(kind))
    np.testing.assert_allclose(run(whole, {"x": x})[0], by_numpy(whole, np.maximum(x, 0).astype("f")), rtol=1e-4)
    assert any("computes in float32" in note for note in made.notes)


def test_a_backbone_of_unknown_shapes_is_measured():
    """FusedConv is ONNX Runtime's own: onnx infers nothing behind it, and the file declares nothing."""
    model = convolution()
    del model.graph.node[:]
    model.graph.node.append(
        helper.make_node("FusedConv", ["image", "K"], ["maps"], name="fused", domain="com.microsoft", activation="Relu")
    )
    model.opset_import.add(domain="com.microsoft", version=1)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("maps", TensorProto.FLOAT, None))
    whole, made = attached(model)
    assert made.network.topology == "4-5-3"
    declared = next(value for value in whole.graph.value_info if value.name == "maps").type.tensor_type
    assert [dim.dim_value or dim.dim_param for dim in declared.shape.dim] == ["batch", 4, 4, 4]
    x = np.random.default_rng(0).standard_normal((5, 2, 6, 6)).astype("f")
    expected = by_numpy(whole, run(convolution(), {"image": x})[0].mean(axis=(2, 3)))
    np.testing.assert_allclose(run(whole, {"image": x})[0], expected, rtol=1e-4)


def test_a_fixed_batch_is_opened_where_the_rows_stay_apart():
    """With a Reshape to one row, as exporters write it: that is opened as well."""
    model = convolution(batch=1)
    model.graph.node.append(helper.make_node("Reshape", ["maps", "shape"], ["flat"], name="flatten"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 64]), "shape"))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("flat", TensorProto.FLOAT, [1, 64]))
    whole, made = attached(model)
    assert "it takes any number of rows at once; the backbone was declared for 1" in made.notes
    x = np.random.default_rng(0).standard_normal((5, 2, 6, 6)).astype("f")
    found = run(whole, {"image": x})[0]
    flat = np.concatenate([run(model, {"image": x[i : i + 1]})[0] for i in range(5)])
    np.testing.assert_allclose(found, by_numpy(whole, flat), rtol=1e-4)


def test_a_fixed_batch_whose_rows_mix_stays():
    model = convolution(batch=1)
    model.graph.node.append(helper.make_node("ReduceMean", ["maps"], ["mean"], axes=[0], keepdims=1))
    model.graph.node.append(helper.make_node("Sub", ["maps", "mean"], ["centred"]))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("centred", TensorProto.FLOAT, [1, 4, 4, 4]))
    whole, made = attached(model)
    told = "it takes 1 row at a time, as the backbone does: rows of one batch change one another"
    assert told in made.notes
    assert whole.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_another_number_of_classes(tmp_path):
    """The old last layer goes, with its Softmax; the body is frozen, and the same to the byte after evolving."""
    save(create((64, 20, 10, 7), seed=1, input_shape=(8, 8)), tmp_path / "old.onnx")
    made = attach_head(tmp_path / "old.onnx", 10, hidden=())
    note = "all that 'layer2/output' is computed from stays as it is: the file marks it as frozen"
    assert (made.network.topology, made.network.frame.notes) == ("10-10", (note,))
    assert [node.op_type for node in made.network.frame.prefix_nodes] == ["Flatten", "Gemm", "Relu", "Gemm", "Relu"]
    save(made.network, tmp_path / "start.onnx")
    again = load(tmp_path / "start.onnx")
    assert again.topology == "10-10"
    settings = SurgeonSettings.from_preset(epochs=3, seed=1)
    evolved = evolve(tmp_path / "start.onnx", "digits", settings=settings, run_dir=tmp_path / "run", workers=1)
    assert evolved.test.accuracy > evolved.start.accuracy + 0.2
    old = {t.name: t.SerializeToString() for t in onnx.load(tmp_path / "old.onnx").graph.initializer}
    for file in (tmp_path / "start.onnx", evolved.run / "best.onnx"):
        new = {t.name: t.SerializeToString() for t in onnx.load(file).graph.initializer}
        body = [name for name in old if name.startswith(("layer1", "layer2"))]
        assert body
        assert all(new[name] == old[name] for name in body)
    # The best model is frozen before its head as well.
    assert load(evolved.run / "best.onnx").frame.frozen.before == ("layer2/output",)


def test_without_freezing_the_body_is_trained_too(tmp_path):
    save(create((64, 20, 10, 7), seed=1, input_shape=(8, 8)), tmp_path / "old.onnx")
    made = attach_head(tmp_path / "old.onnx", 10, hidden=(), freeze=False)
    assert made.network.topology == "64-20-10-10"


def test_a_head_is_trained_on_rows_with_the_names_it_has(tmp_path):
    made = attach_head(convolution(size=8), NAMES, hidden=(8,))
    rng = np.random.default_rng(0)
    names = np.array(NAMES)[rng.integers(0, 3, 90)]
    x = (rng.standard_normal((90, 2, 8, 8)) + 2 * (names == "dog")[:, None, None, None]).astype("f")
    np.savez(tmp_path / "rows.npz", x_train=x[:60], y_train=names[:60], x_test=x[60:], y_test=names[60:])
    data = load_dataset(str(tmp_path / "rows.npz"))
    engine = make_engine("loop", "cpu", made.network)
    metrics = engine.evaluate(made.network, prepare(made.network, data, data.test))
    label = evaluator(to_model(made.network))(["label"], {"image": x[60:]})[0]
    assert metrics.accuracy == pytest.approx((label == names[60:]).mean())


def test_names_that_the_file_has_already_are_not_used_twice():
    model = convolution()
    for old, new in (("z", "probabilities"), ("maps", "head/logits")):
        for node in model.graph.node:
            for field in (node.input, node.output):
                for i, name in enumerate(field):
                    field[i] = new if name == old else name
    model.graph.output[0].name = "head/logits"
    whole, _ = attached(model)
    assert whole.graph.output[0].name == "probabilities_2"
    names = [name for node in whole.graph.node for name in node.output]
    assert len(set(names)) == len(names)
    assert "head_2/logits" in names


def test_external_data_stays_external(tmp_path, cli):
    path = MODELS / "exports" / "torch-dynamo-external.onnx"
    code, _, _ = cli("head", path, "--classes", 4, "-o", "start.onnx")
    assert code == 0
    assert (tmp_path / "start.onnx.data").exists()
    assert load(tmp_path / "start.onnx").topology == "16-128-4"


def test_the_frozen_part_may_be_quantised():
    made = attach_head(
        MODELS / "exports" / "ort-quantised-static.onnx", 3, at="probabilities_QuantizeLinear_Input", hidden=()
    )
    assert made.network.topology == "10-3"


def test_the_command(cli, tmp_path):
    onnx.save(convolution(), tmp_path / "backbone.onnx")
    arguments = ("head", "backbone.onnx", "--classes", "cat,dog", "-o", "start.onnx", "--hidden", "6-4")
    code, out, _ = cli(*arguments)
    assert (code, out.splitlines()) == (
        0,
        [
            "the head reads 'maps', its output",
            "its n × 4 × 4 × 4 are averaged over all positions, channels being axis 1",
            "start.onnx: 4-6-4-2, 68 parameters",
        ],
    )
    first = (tmp_path / "start.onnx").read_bytes()
    assert cli(*arguments)[::2] == (2, "onnxsurgeon: start.onnx: exists already; --force overwrites it\n")
    assert cli(*arguments, "--force")[0] == 0
    assert (tmp_path / "start.onnx").read_bytes() == first
    assert cli(*arguments, "--force", "--seed", 1)[0] == 0
    assert (tmp_path / "start.onnx").read_bytes() != first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--at", "map"), "b.onnx: has no tensor and no node called 'map': did you mean 'maps'?"),
        (("--at", "K"), "b.onnx: 'K' is a constant, not a tensor that depends on the model's input"),
        (("--at", "kind"), "b.onnx: tensor 'kind' is of type int64, not floating point: choose another with --at"),
        (
            ("--at", "total"),
            "b.onnx: tensor 'total' has no axes, and no batch axis beside it; choose another with --at",
        ),
        (
            ("--at", "mean"),
            "b.onnx: tensor 'mean' has no batch axis: 1 rows, whatever is given; choose another with --at",
        ),
        (("--classes", "1"), "classes: 1 is too few: a head tells two classes apart at least"),
        (("--classes", "cat"), "classes: 'cat' is one name; expected a number, or names such as cat,dog"),
        (("--classes", "cat,cat"), "classes: 'cat,cat' has a name that is empty or there twice"),
        (("--hidden", "many"), "hidden: 'many' is no number of units, such as 128, or 256-64 for two layers"),
        (("--hidden", "-3"), "hidden: '-3' is no number of units, such as 128, or 256-64 for two layers"),
        (("--pool", "max"), "pool: 'max' is unknown: expected one of auto, mean, first, flatten"),
        (("--pool", "first"), "b.onnx: tensor 'maps' of shape n × 4 × 4 × 4 has no tokens to take the first of"),
        (
            ("--hidden", "100000000"),
            "b.onnx: a head 4-100000000-3 has 800,000,003 parameters: pool, or less hidden",
        ),
    ],
)
def test_what_is_refused(arguments, message, cli, tmp_path):
    model = convolution()
    nodes = [
        ("ArgMax", ["maps"], ["kind"], {"axis": 1}),
        ("ReduceSum", ["maps"], ["total"], {"keepdims": 0}),
        ("ReduceMean", ["maps"], ["mean"], {"axes": [0], "keepdims": 1}),
    ]
    model.graph.node.extend(helper.make_node(op, x, y, **attributes) for op, x, y, attributes in nodes)
    onnx.save(model, tmp_path / "b.onnx")
    given = () if "--classes" in arguments else ("--classes", "3")
    code, out, err = cli("head", "b.onnx", *given, *arguments, "-o", "start.onnx")
    assert (code, out, err) == (2, "", f"onnxsurgeon: {message}\n")
    assert not (tmp_path / "start.onnx").exists()


def test_no_dense_layers_points_to_the_command(cli, tmp_path):
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "b.onnx")
    _, _, err = cli("inspect", "b.onnx")
    assert "no dense layers found" in err
    assert err.endswith("'onnxsurgeon head' puts new ones on it\n")


@pytest.mark.parametrize("text", ["[1]", '{"layers": 3}', '{"before": [1]}', "x", "[" * 5000])
def test_a_damaged_mark_is_told(text):
    made = attach_head(convolution(), 3)
    model = to_model(made.network)
    entry = next(entry for entry in model.metadata_props if entry.key == "onnxsurgeon.frozen")
    assert json.loads(entry.value) == {"layers": [], "before": ["maps"]}
    entry.value = text
    with pytest.raises(ModelError, match=r"m: its metadata 'onnxsurgeon.frozen' is damaged"):
        from_model(model, source="m")


def test_classes_as_numbers_that_are_names():
    whole, made = attached(convolution(), ("3", "5", "8"))
    assert made.network.heads[0].labels == (3, 5, 8)
    x = np.zeros((2, 2, 6, 6), "f")
    assert run(whole, {"image": x})[0].dtype == np.int64
    assert attached(convolution(), "3,5,8")[1].network.heads == attached(convolution(), [3, 5, 8])[1].network.heads
    assert attached(convolution(), "3,5,8")[1].network.heads == made.network.heads
    assert attached(convolution(), 2, hidden=0)[1].network.topology == "4-2"
    assert attached(convolution(), [0, 1])[1].network.topology == attached(convolution(), 2)[1].network.topology
    for wrong in (
        {"classes": [2.5, 3]},
        {"classes": None},
        {"classes": 3, "hidden": "many"},
        {"classes": 3, "hidden": [0]},
    ):
        with pytest.raises(SettingsError, match=r"(classes|hidden): .*(expected|is no number of units)"):
            attach_head(convolution(), **wrong)
    assert read_classes("7") == 7
    assert read_classes("a, b") == ("a", "b")
    with pytest.raises(SettingsError, match="too few"):
        attach_head(convolution(), 0)


def test_a_file_that_asks_for_very_much_is_not_run(cli, tmp_path):
    """Its shape can only be measured, and the tensor before it would have 2^40 values."""
    model = backbone(
        [
            ("ConstantOfShape", "large", "ones", {}),
            ("ReduceSum", "ones", "total", {"keepdims": 0}),
            ("Mul", "x total", "y", {}),
            ("Reshape", "y shape", "z", {}),
        ],
        {"x": (TensorProto.FLOAT, ["n", "m"]), "shape": (TensorProto.INT64, ["k"])},
        {"z": (TensorProto.FLOAT, ["n", "j"])},
        {"large": np.array([2**20, 2**20])},
    )
    onnx.save(model, tmp_path / "large.onnx")
    code, out, err = cli("head", "large.onnx", "--classes", 3, "-o", "start.onnx")
    assert (code, out) == (2, "")
    assert err.startswith("onnxsurgeon: large.onnx: ")
    assert len(err.splitlines()) == 1


def test_the_file_is_not_changed(tmp_path):
    onnx.save(convolution(), tmp_path / "b.onnx")
    model, content = onnx.load(tmp_path / "b.onnx"), (tmp_path / "b.onnx").read_bytes()
    before = model.SerializeToString(deterministic=True)
    attach_head(model, 3)
    attach_head(tmp_path / "b.onnx", 3)
    assert model.SerializeToString(deterministic=True) == before
    assert (tmp_path / "b.onnx").read_bytes() == content
