"""Teachers from files: what they put out before their squash, and which output belongs to which head."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import DataError, ModelError, create, from_model, load, make_engine, prepare, save
from onnxsurgeon.data import features
from onnxsurgeon.data.dataset import Dataset, Split, unlabelled
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.teacher import TeacherModel
from onnxsurgeon.training.teaching import head_outputs, imitating, prepare_rows
from tests.conftest import randomised
from tests.several_heads import heads_model

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 5)).astype("f")


def rows(x=X):
    split = Split(x, unlabelled(len(x)))
    return Dataset("mine", split, split, 0)


def teacher_of(model, folder):
    path = folder / "teacher.onnx"
    onnx.save(model, path)
    return TeacherModel.read(path)


def heads_of(model, x=X):
    """What the heads of a model that can be read put out."""
    network, data = from_model(model), rows(x)
    return head_outputs(network, prepare_rows(network, data, data.train))


def with_nodes(model, nodes, outputs, constants=None):
    """A model with nodes behind it, and other outputs: name → width."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.node.extend(nodes)
    del changed.graph.output[:]
    for name, width in outputs.items():
        changed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]))
    changed.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in (constants or {}).items())
    return changed


ROUNDING = {"scale": np.array(1 / 255, "f"), "zero": np.array(0, np.uint8)}


def rounded(name, to):
    """Probabilities as 8-bit values and back, as a quantised model ends."""
    return [
        helper.make_node("QuantizeLinear", [name, "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], [to]),
    ]


@pytest.mark.parametrize("squash", ["Softmax", "Sigmoid"])
@pytest.mark.parametrize("form", ["plain", "cast", "rounded"])
def test_what_enters_the_squash_is_taken(squash, form, tmp_path):
    model = heads_model([(4, squash)])
    expected = heads_of(model)
    if form == "cast":
        nodes = [helper.make_node("Identity", ["y0"], ["i"]), helper.make_node("Cast", ["i"], ["out"], to=1)]
        model = with_nodes(model, nodes, {"out": 4})
    elif form == "rounded":
        model = with_nodes(model, rounded("y0", "out"), {"out": 4}, ROUNDING)
    student = randomised(create((5, 3, 4), input_shape=(5,), softmax=squash == "Softmax"))
    if squash == "Sigmoid":
        student = from_model(heads_model([(4, "Sigmoid")]))
    data = rows()
    found = teacher_of(model, tmp_path).outputs(student, data, data.train)
    assert found.squashes == (squash,)
    np.testing.assert_allclose(found.outputs[0], expected[0], rtol=1e-5, atol=1e-5)


def test_of_log_softmax_the_output_is_as_good(tmp_path):
    model, student, data = heads_model([(4, "LogSoftmax")]), create((5, 4)), rows()
    (found,) = teacher_of(model, tmp_path).outputs(student, data, data.train).outputs
    (logits,) = heads_of(heads_model([(4, "")]))
    exponentials = np.exp(logits)
    np.testing.assert_allclose(np.exp(found), exponentials / exponentials.sum(1, keepdims=True), rtol=1e-5)


def test_a_squash_over_another_axis_is_none(tmp_path):
    """The nodes say Softmax, the values do not add up: they are taken as they are."""
    model = heads_model([(4, "")])
    turned = [helper.make_node("Softmax", ["z0"], ["out"], axis=0)]
    teacher = teacher_of(with_nodes(model, turned, {"out": 4}), tmp_path)
    data, student = rows(), from_model(model)
    found = teacher.outputs(student, data, data.train)
    (logits,) = heads_of(model)
    exponentials = np.exp(logits - logits.max(0))
    assert found.squashes == ("",)
    np.testing.assert_allclose(found.outputs[0], exponentials / exponentials.sum(0), rtol=1e-5)


def test_probabilities_without_a_visible_squash_become_logits(tmp_path):
    model, data = heads_model([(4, "")]), rows()
    own = [
        helper.make_node("Exp", ["z0"], ["e"]),
        helper.make_node("ReduceSum", ["e", "last"], ["s"], keepdims=1),
        helper.make_node("Div", ["e", "s"], ["out"]),
    ]
    teacher = teacher_of(with_nodes(model, own, {"out": 4}, {"last": np.array([1])}), tmp_path)
    (logits,) = heads_of(model)
    found = teacher.outputs(create((5, 4)), data, data.train)
    np.testing.assert_allclose(found.outputs[0] - found.outputs[0][:, :1], logits - logits[:, :1], atol=1e-4)
    as_values = teacher.outputs(from_model(model), data, data.train)  # a student that squashes nothing
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), as_values.outputs[0], rtol=1e-5)
    model = heads_model([(3, "")])
    own = [
        helper.make_node("Neg", ["z0"], ["n"]),
        helper.make_node("Exp", ["n"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["d"]),
        helper.make_node("Reciprocal", ["d"], ["out"]),
    ]
    teacher = teacher_of(with_nodes(model, own, {"out": 3}, {"one": np.array(1, "f")}), tmp_path)
    found = teacher.outputs(from_model(heads_model([(3, "Sigmoid")])), data, data.train)
    np.testing.assert_allclose(found.outputs[0], heads_of(model)[0], atol=1e-3)


def test_two_probabilities_teach_one_logit(tmp_path):
    data, model = rows(), heads_model([(2, "Softmax")])
    found = teacher_of(model, tmp_path).outputs(from_model(heads_model([(1, "Sigmoid")])), data, data.train)
    logits = heads_of(model)[0]
    np.testing.assert_allclose(found.outputs[0][:, 0], logits[:, 1] - logits[:, 0], atol=1e-3)


def test_heads_are_matched_by_name_then_by_order_and_width(tmp_path):
    model = heads_model([(3, ""), (2, ""), (3, "")])
    expected = heads_of(model)
    data, student = rows(), from_model(model)
    turned = onnx.ModelProto()
    turned.CopyFrom(model)
    outputs = list(turned.graph.output)
    del turned.graph.output[:]
    turned.graph.output.extend(reversed(outputs))
    found = teacher_of(turned, tmp_path).outputs(student, data, data.train)
    for own, other in zip(found.outputs, expected, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-6)
    renamed = [helper.make_node("Identity", [f"z{i}"], [f"other{i}"]) for i in range(3)]
    by_order = with_nodes(model, renamed, {"other1": 2, "other2": 3, "other0": 3})
    found = teacher_of(by_order, tmp_path).outputs(student, data, data.train)
    for own, number in zip(found.outputs, (2, 1, 0), strict=True):
        np.testing.assert_allclose(own, expected[number], rtol=1e-5, atol=1e-6)


def test_outputs_that_fit_no_head(tmp_path):
    data, student = rows(), from_model(heads_model([(3, ""), (2, "")]))
    nodes = [helper.make_node("ArgMax", ["z0"], ["label"], axis=1)]
    model = with_nodes(heads_model([(3, ""), (4, "")]), nodes, {"z0": 3, "z1": 4})
    model.graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["batch", 1]))
    teacher = teacher_of(model, tmp_path)
    with pytest.raises(DataError) as error:
        teacher.outputs(student, data, data.train)
    assert str(error.value) == (
        f"{tmp_path / 'teacher.onnx'}: no output fits the head 'z1' of 'model', 2 wide; of floats a row it has "
        "'z0' (3), 'z1' (4)"
    )


def test_a_teacher_with_other_inputs_or_without_finite_outputs(tmp_path):
    data, student = rows(), create((5, 4))
    save(create((6, 4)), tmp_path / "teacher.onnx")
    teacher = TeacherModel.read(tmp_path / "teacher.onnx")
    with pytest.raises(DataError, match=r"rows of shape \(5,\) do not fit the input of '.*teacher\.onnx', which takes"):
        teacher.outputs(student, data, data.train)
    log = [helper.make_node("Log", ["z0"], ["out"])]
    teacher = teacher_of(with_nodes(heads_model([(4, "")]), log, {"out": 4}), tmp_path)
    with pytest.raises(DataError, match=r"what it puts out for the head '.*' is not finite in row 0"):
        teacher.outputs(student, data, data.train)
    with pytest.raises(ModelError, match="no such file"):
        TeacherModel.read(tmp_path / "no.onnx")


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_a_fixed_batch_is_respected(batch, tmp_path):
    model = heads_model([(4, "Softmax")])
    expected = heads_of(model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    data = rows()
    found = teacher_of(model, tmp_path).outputs(create((5, 4)), data, data.train)
    np.testing.assert_allclose(found.outputs[0], expected[0], rtol=1e-5, atol=1e-6)


def test_memory_is_bounded(tmp_path, monkeypatch):
    """Fewer rows at a time where a tensor would become too large; refused where a single row has one."""
    model, data = heads_model([(4, "")]), rows()
    expected, seen = heads_of(model), []
    check = features.largest_tensor

    def bounded(*given, **named):
        return check(*given, **named, most=6 * 8)

    run = features.evaluator

    def watched(model):
        inner = run(model)

        def call(names, feeds):
            seen.append(len(feeds["x"]))
            return inner(names, feeds)

        return call

    monkeypatch.setattr(features, "largest_tensor", bounded)
    monkeypatch.setattr(features, "evaluator", watched)
    found = teacher_of(model, tmp_path).outputs(create((5, 4), softmax=False), data, data.train)
    np.testing.assert_allclose(found.outputs[0], expected[0], rtol=1e-5, atol=1e-6)
    assert seen == [5] * 8
    tile = [helper.make_node("Tile", ["z0", "times"], ["out"])]
    huge = with_nodes(model, tile, {"out": 400}, {"times": np.array([1, 100])})
    with pytest.raises(ModelError, match="too large"):
        teacher_of(huge, tmp_path).outputs(create((5, 400), softmax=False), data, data.train)


def test_a_teacher_that_our_reader_refuses(tmp_path):
    """No dense layer, quantised activations: it is run as it stands."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])
    graph = helper.make_graph([helper.make_node("Sin", ["x"], ["y"], name="sin")], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError):
        load(tmp_path / "m.onnx")
    data, student = rows(), create((5, 8, 5), softmax=False)
    found = TeacherModel.read(tmp_path / "m.onnx").outputs(student, data, data.train)
    np.testing.assert_allclose(found.outputs[0], np.sin(X), rtol=1e-6)


def quantised(network, path):
    """The network with 8-bit weights and activations, as onnxruntime.quantization writes it."""
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        left = iter([{"x": X}])

        def get_next(self):
            return next(self.left, None)

    plain = path.with_name("plain.onnx")
    save(network, plain, overwrite=True)
    reader = Reader()
    reader.left = iter([{onnx.load(plain).graph.input[0].name: X}])
    quantization.quantize_static(str(plain), str(path), reader)


def test_an_8_bit_teacher(tmp_path):
    network = randomised(create((5, 16, 4), seed=1, input_shape=(5,)), scale=0.6)
    quantised(network, tmp_path / "q.onnx")
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(tmp_path / "q.onnx").graph.node)
    data = rows()
    teacher = TeacherModel.read(tmp_path / "q.onnx")
    found = teacher.outputs(network, data, data.train)
    expected = head_outputs(network, prepare_rows(network, data, data.train))[0]
    assert found.squashes == ("Softmax",)
    difference = np.abs(found.outputs[0] - expected).max()
    assert 0 < difference < 0.1 * np.abs(expected).max()
    examples = imitating(network, data, data.train, teacher=teacher)
    measured = make_engine("loop").evaluate(network, examples)
    assert (measured.metric, measured.accuracy >= 0.9) == ("agreement", True)


def test_the_outputs_lie_in_a_file_where_they_are_large(tmp_path, monkeypatch):
    from onnxsurgeon.data import soft

    monkeypatch.setattr(soft, "MAPPED_BYTES", 100)
    data, model = rows(), heads_model([(4, "Softmax")])
    found = teacher_of(model, tmp_path).outputs(create((5, 4)), data, data.train)
    assert isinstance(found.outputs[0], np.memmap)
    np.testing.assert_allclose(found.outputs[0], heads_of(model)[0], rtol=1e-5, atol=1e-6)


def test_a_student_whose_outputs_do_not_follow_its_head_is_refused(tmp_path):
    """Its own outputs it may imitate whatever stands behind the head; another's are at the outputs."""
    nodes = [helper.make_node("Sin", ["z0"], ["out"], name="turn")]
    student, data = from_model(with_nodes(heads_model([(4, "")]), nodes, {"out": 4})), rows()
    engine = make_engine("loop")
    assert engine.evaluate(student, imitating(student, data, data.train)).accuracy == 1
    teacher = teacher_of(heads_model([(4, "")]), tmp_path)
    with pytest.raises(ModelError, match=r"no output follows tensor 'z0' \(Sin behind it\)"):
        imitating(student, data, data.train, teacher=teacher)


def test_a_teacher_of_labelled_rows(tmp_path):
    """Measured against the teacher, whatever the labels say."""
    split = Split(X, np.arange(40) % 4)
    data, student = Dataset("mine", split, split, 4), create((5, 4), seed=1)
    teacher = teacher_of(heads_model([(4, "Softmax")]), tmp_path)
    measured = make_engine("loop").evaluate(student, imitating(student, data, split, teacher=teacher))
    logits = heads_of(heads_model([(4, "")]))[0]
    labels = Split(X, logits.argmax(1))
    expected = make_engine("loop").evaluate(student, prepare(student, Dataset("t", labels, labels, 4), labels))
    assert measured.accuracy == expected.accuracy
    loss = InputOptions(loss="squared-error")
    with pytest.raises(DataError, match="ends in a Softmax, which has no squared-error"):
        imitating(student, data, split, loss, teacher=teacher)
