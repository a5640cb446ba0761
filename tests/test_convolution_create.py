"""New convolutional networks, and what inspect tells of convolutions."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxsurgeon import ModelError, create_convolutional, load
from onnxsurgeon.data.inputs import model_inputs
from onnxsurgeon.data.load import load_dataset
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.graph.create_convolutional import Convolve, Dense, Plan, Pool, is_convolutional, parse_plan
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.report.layers import _hidden, _widths
from onnxsurgeon.runtime import run

PLANS = {
    "28x28x1-c16-p-c32-p-10": Plan(1, (28, 28), (Convolve(16), Pool(2), Convolve(32), Pool(2), Dense(10))),
    "32x24x3-c8k5-c16k2s2-p3-g-20-5": Plan(
        3, (32, 24), (Convolve(8, 5), Convolve(16, 2, 2), Pool(3), Pool(0), Dense(20), Dense(5))
    ),
    "100x2-c4s3-3": Plan(2, (100,), (Convolve(4, 3, 3), Dense(3))),
    "6x7x8x1-c4-2": Plan(1, (6, 7, 8), (Convolve(4), Dense(2))),
    "8x8x1-10": Plan(1, (8, 8), (Dense(10),)),
}


def nodes(network):
    return [node.op_type for node in to_model(network).graph.node]


@pytest.mark.parametrize("text", PLANS)
def test_a_plan(text):
    assert is_convolutional(text)
    assert parse_plan(text) == PLANS[text]


def test_a_perceptron_is_none():
    assert not is_convolutional("784-10-10")
    assert not is_convolutional("784x10")


WRONG = {
    "28x28x1": "ends in no number of outputs: expected such as 28x28x1-c16-p-c32-p-10",
    "28x28x1-c16": "ends in no number of outputs",
    "28x28x1-c16-p": "ends in no number of outputs",
    "28x-c16-10": "'28x' is no shape of a row such as 28x28x1",
    "0x28x1-c16-10": "'0x28x1' is no shape of a row",
    "2x2x2x2x2-10": "'2x2x2x2x2' is no shape of a row",
    "28x28x1-c0-10": "'c0' is none of c16",
    "28x28x1-q-10": "'q' is none of c16",
    "28x28x1-c16k3k3-10": "'c16k3k3' is none of c16",
    "28x28x1--10": "'' is none of c16",
    "28x28x1-c16-10-c16-10": "'c16' stands behind '10', where there are no places any more",
    "28x28x1-g-p-10": "'p' stands behind 'g', where there are no places any more",
    "28x28x1-c9999999999-10": "'c9999999999' is too large",
    "28x28x1-p-p-p-p-p-10": "nothing is left to pool by 2 of a map of 1x1",
    "28x28x1-c100000-c100000-10": "has more than 500000000 parameters: they do not fit one file",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_with_a_plan(text):
    with pytest.raises(ModelError) as error:
        create_convolutional(text)
    assert text in str(error.value)
    assert WRONG[text] in str(error.value)


@pytest.mark.parametrize("text", PLANS)
def test_the_sizes_are_those_that_the_file_computes(text):
    """Maps shrink by steps and pooling alone: c pads so that ⌈size / stride⌉ positions are left."""
    plan, network = PLANS[text], create_convolutional(text, softmax=False)
    model = to_model(network)
    x = np.random.default_rng(0).random((3, plan.channels, *plan.space), dtype=np.float32)
    (logits,) = run(model, {"input": x})
    assert logits.shape == (3, plan.parts[-1].units)
    assert np.isfinite(logits).all()
    assert np.abs(logits).max() > 1e-3
    space = np.array(plan.space)
    for part in plan.parts:
        if isinstance(part, Convolve):
            space = -(-space // part.stride)
        elif isinstance(part, Pool):
            space = space // part.window if part.window else np.ones(len(space), int)
    dense = [numpy_helper.to_array(t).shape for t in model.graph.initializer if t.name.endswith(".weight")]
    channels = [part.units for part in plan.parts if isinstance(part, Convolve)][-1:] or [plan.channels]
    first = next(shape for shape in dense if len(shape) == 2)
    assert first[0] == channels[0] * space.prod()


def test_nodes_weights_and_interface():
    network = create_convolutional("28x28x1-c16-p-c32k5s2-p-10", seed=3)
    model = to_model(network)
    assert nodes(network) == ["Conv", "Relu", "MaxPool", "Conv", "Relu", "MaxPool", "Flatten", "Gemm", "Softmax"]
    assert [value.name for value in model.graph.input] == ["input"]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 1, 28, 28]
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert {name: array.shape for name, array in held.items()} == {
        "layer1.weight": (16, 1, 3, 3),
        "layer1.bias": (16,),
        "layer2.weight": (32, 16, 5, 5),
        "layer2.bias": (32,),
        "layer3.weight": (288, 10),
        "layer3.bias": (10,),
    }
    for name, fan in (("layer1", 9 * (1 + 16)), ("layer2", 25 * (16 + 32)), ("layer3", 288 + 10)):
        limit = np.sqrt(6 / fan)
        weight = held[f"{name}.weight"]
        assert 0.9 * limit < np.abs(weight).max() <= limit
        assert not held[f"{name}.bias"].any()
    same = to_model(create_convolutional("28x28x1-c16-p-c32k5s2-p-10", seed=3))
    other = to_model(create_convolutional("28x28x1-c16-p-c32k5s2-p-10", seed=4))
    assert same.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert other.SerializeToString(deterministic=True) != model.SerializeToString(deterministic=True)


def test_another_activation_and_no_softmax():
    network = create_convolutional("8x8x1-c4s2-5-3", activation="Tanh", softmax=False)
    assert network.topology == "c1-c4+64-5-3"
    assert nodes(network) == ["Conv", "Tanh", "Flatten", "Gemm", "Tanh", "Gemm"]
    with pytest.raises(ModelError, match="unknown activation 'PRelu'"):
        create_convolutional("8x8x1-c4-3", activation="PRelu")


def test_images_of_a_data_set_are_turned_to_what_it_takes():
    network = create_convolutional("8x8x1-c4s2-10")
    dataset = load_dataset("digits")
    (rows,) = model_inputs(network, dataset, dataset.train, InputOptions()).values()
    assert rows.shape[1:] == (1, 8, 8)
    given = np.asarray(dataset.train.inputs[:5], np.float32).reshape(5, 8, 8)
    np.testing.assert_allclose(
        rows.take(slice(0, 5))[:, 0], given / given.max() * rows.take(slice(0, 5)).max(), atol=1e-6
    )


def test_new_and_inspect_on_the_command_line(cli, tmp_path):
    code, out, _ = cli("new", "9x9x2-c4k3-c6s2-7-3", "-o", "a.onnx")
    assert code == 0
    assert " ".join(out.split()) == "a.onnx: c2-c4-c6+150-7-3, 1,379 parameters, 12,303 MACs a row"
    onnx.checker.check_model(onnx.load("a.onnx"), full_check=True)
    code, out, _ = cli("inspect", "a.onnx")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["part", "layer", "node", "shape", "kernel", "activation", "params", "MACs", "removable"] in rows
    assert "5,832" in out
    assert "3x3," in out
    record = json.loads(cli("inspect", "a.onnx", "--json")[1])
    layers = record["layers"]
    assert [(each["kind"], each["channels"], each["units"], each["multiplications"]) for each in layers] == [
        ("convolution", 2, 4, 5832),
        ("convolution", 4, 6, 5400),
        ("dense", 150, 7, 1050),
        ("dense", 7, 3, 21),
    ]
    assert layers[1]["strides"] == [2, 2]
    assert layers[1]["kernel"] == [3, 3]
    assert "kernel" not in layers[2]
    assert record["multiplications"] == sum(each["multiplications"] for each in layers)
    assert not any(each["surgery"].startswith("merge:1") for each in record["candidates"])
    code, _, err = cli("new", "9x9x2-c4-3", "-o", "b.onnx", "--input-shape", "9x9x2")
    assert code == 2
    assert "'9x9x2-c4-3' begins with the shape of an input row already" in " ".join(err.split())
    code, _, err = cli("new", "9x9x2-c4", "-o", "b.onnx")
    assert code == 2
    assert "ends in no number of outputs" in " ".join(err.split())


def test_a_dense_network_is_inspected_as_before(cli):
    cli("new", "6-5-3", "-o", "a.onnx")
    out = cli("inspect", "a.onnx")[1]
    assert "MACs" not in out
    assert "kernel" not in out
    assert load("a.onnx").multiplications == 45


def test_a_report_reads_widths_of_convolutions():
    assert _widths("c1-c8-c12+c12-c16+256-10") == (1, 8, 12, 12, 16, 256, 10)
    assert _hidden("c1-c8-c12+c12-c16+256-20-10") == [8, 20]
    assert _widths("c1-cx-10") is None
