"""Normalisations that are one operator of ONNX Runtime or of a new opset: layers before them are trained."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import load, load_dataset, make_engine, operate
from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.data.prepare import prepare
from onnxsurgeon.errors import EngineError, ModelError
from onnxsurgeon.graph.reader import from_model
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.runtime import run
from onnxsurgeon.surgery import Prune
from onnxsurgeon.training.fit import fit
from tests.forward_model import forward_model

MS = "com.microsoft"
N = helper.make_node
SKIP, SKIP_SIMPLE = "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"
FORMS = {
    "RMSNormalization": (N("RMSNormalization", ["h", "g"], ["n"], "norm", epsilon=0.01), 23),
    "RMSNormalization, axis counted": (N("RMSNormalization", ["h", "g"], ["n"], "norm", axis=2), 23),
    SKIP: (N(SKIP, ["h", "k", "g", "o"], ["n"], "norm", domain=MS), 17),
    "with a bias": (N(SKIP, ["h", "k", "g", "o", "c"], ["n"], "norm", domain=MS, epsilon=0.01), 17),
    "with a bias and no offset": (N(SKIP, ["h", "k", "g", "", "c"], ["n"], "norm", domain=MS), 17),
    "whose sum is read": (N(SKIP, ["h", "k", "g", "o"], ["n", "", "", "sum"], "norm", domain=MS), 17),
    # Without a bias, which ONNX Runtime 1.19 leaves out of this one.
    SKIP_SIMPLE: (N(SKIP_SIMPLE, ["h", "k", "g"], ["n", "", "", "sum"], "norm", domain=MS), 17),
}


def normalised(form):
    """Two layers of 6 units side by side, the normalisation, and three more."""
    node, opset = FORMS[form]
    rng = np.random.default_rng(0)
    shapes = {"W": (4, 6), "K": (4, 6), "V": (6, 7), "U": (7, 3), "g": (6,), "o": (6,), "c": (6,)}
    values = {
        name: (rng.standard_normal(shape) / 2 + (name == "g")).astype(np.float32) for name, shape in shapes.items()
    }
    nodes = [N("MatMul", ["x", "W"], ["h0"], "first"), N("Tanh", ["h0"], ["h"], "tanh")]
    nodes += [N("MatMul", ["x", "K"], ["k"], "beside")] if "k" in node.input else []
    nodes.append(node)
    if "sum" in node.output:
        nodes.append(N("Add", ["n", "sum"], ["m"], "behind"))
    last = "m" if "sum" in node.output else "n"
    nodes += [
        N("MatMul", [last, "V"], ["z"], "second"),
        N("Relu", ["z"], ["r"]),
        N("MatMul", ["r", "U"], ["y"], "third"),
    ]
    read = {name for each in nodes for name in each.input}
    graph = helper.make_graph(
        nodes,
        "normalised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 5, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 5, 3])],
        [numpy_helper.from_array(array, name) for name, array in values.items() if name in read],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def has_rms_normalization():
    try:
        run(normalised("RMSNormalization"), {"x": np.zeros((1, 5, 4), np.float32)})
    except EngineError:
        return False
    return True


def same(network, model, x):
    """The network's own forward pass and the file say the same."""
    trained = forward_model(network)
    names = [value.name for value in trained.graph.input]
    feeds = dict(zip(names, [x, *(values for _, values in network.parameters())], strict=True))
    np.testing.assert_allclose(run(trained, feeds)[0], run(model, {"x": x})[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_layers_before_a_normalisation_are_trained(form, tmp_path):
    if "RMSNormalization" in form and not has_rms_normalization():
        pytest.skip("this ONNX Runtime has no RMSNormalization")
    model = normalised(form)
    network = from_model(model)
    assert not [note for note in network.frame.notes if "cannot be trained" in note]
    assert sum(len(segment.layers) for segment in network.segments) == (4 if "k" in FORMS[form][0].input else 3)
    x = np.random.default_rng(1).standard_normal((200, 5, 4)).astype(np.float32)
    same(network, model, x)
    np.savez(tmp_path / "data.npz", x=x, y=run(model, {"x": x})[0])
    data, engine = load_dataset(str(tmp_path / "data.npz")), make_engine("loop")
    moved = network.with_parameters(values + np.float32(0.2) for _, values in network.parameters())
    before = engine.evaluate(moved, prepare(moved, data, data.train)).loss
    trained, _ = fit(moved, data, engine, epochs=15)
    assert engine.evaluate(trained.network, prepare(moved, data, data.train)).loss < before / 4
    for (name, start), (_, end) in zip(moved.parameters(), trained.network.parameters(), strict=True):
        assert (start != end).any(), name
    same(trained.network, to_model(trained.network), x)


@pytest.mark.parametrize("form", [SKIP, "with a bias", "with a bias and no offset"])
def test_units_before_a_layer_normalisation_of_onnx_runtime_are_pruned(form, tmp_path):
    """Its gain, offset and bias follow."""
    network = from_model(normalised(form))
    x = np.random.default_rng(1).standard_normal((60, 5, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=run(to_model(network), {"x": x})[0])
    data = load_dataset(str(tmp_path / "data.npz"))
    moments = calibrate(network, prepare(network, data, data.train))
    smaller = operate(network, Prune(2, 4), moments=moments).network
    same(smaller, to_model(smaller), x)
    kept = {tensor.name: list(tensor.dims) for tensor in to_model(smaller).graph.initializer}
    assert [kept[name] for name in ("g", "o", "c") if name in kept] == [[4]] * len(kept.keys() & {"g", "o", "c"})


@pytest.mark.parametrize("op", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_what_onnx_runtime_writes_into_the_domain_of_onnx_is_told(op, tmp_path):
    model = normalised(SKIP)
    model.opset_import[0].version = 16
    model.graph.node[3].CopyFrom(N(op, ["h", "g"], ["n"], "norm"))
    onnx.save(model, tmp_path / "m.onnx")
    told = rf"node 'norm' \({op}\): opset 16 has no such operator: ONNX Runtime writes it when it optimises"
    with pytest.raises(ModelError, match=told):
        load(tmp_path / "m.onnx")
