"""Every surgery × activation × shape: exactness, contracts, counts, names."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsurgeon import (
    Factorize,
    InsertIdentity,
    Merge,
    Narrow,
    SurgeryError,
    Widen,
    create,
    load,
    operate,
    parse,
    save,
)
from onnxsurgeon.data.load import load_dataset, locate
from onnxsurgeon.data.prepare import prepare
from onnxsurgeon.graph.activations import ACTIVATIONS, Activation, prelu
from onnxsurgeon.graph.equivalence import compare_chains, compare_models, random_inputs
from onnxsurgeon.graph.reader import from_model
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.linear_algebra import svd
from onnxsurgeon.surgery import EXACT_TOLERANCE, SURGERIES, spell
from tests.conftest import MODEL_FILES, MODELS, as_float64, randomised, with_bias_removed

SHAPES = [(6, 4, 3), (5, 8, 6, 4), (3, 12, 2, 7), (4, 1, 3)]
OPS = list(ACTIVATIONS)


def network(shape, op="Relu", seed=0):
    net = create(shape, seed=seed)
    if op == "PRelu":
        layers = [replace(layer, activation=prelu(np.ones(layer.units, np.float32))) for layer in net.layers[:-1]]
        return randomised(net.with_layers([*layers, net.layers[-1]]), seed)
    attributes = {"min": 0.0, "max": 6.0} if op == "Clip" else {}
    layers = [replace(layer, activation=Activation(op, attributes)) for layer in net.layers[:-1]]
    return randomised(net.with_layers([*layers, net.layers[-1]]), seed)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("mode", ["split", "equal", "fresh"])
def test_widen_preserves_the_function_and_adds_exactly_the_units(shape, op, mode):
    net = network(shape, op)
    for layer in range(1, net.hidden_count + 1):
        for units in (1, 2 * shape[layer] + 1):
            wide, record = operate(net, Widen(layer, units, mode), np.random.default_rng(1))
            assert record.exact
            assert record.deviation <= EXACT_TOLERANCE
            assert wide.widths[layer] == net.widths[layer] + units
            assert wide.widths[:layer] + wide.widths[layer + 1 :] == net.widths[:layer] + net.widths[layer + 1 :]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_inserted_identity_is_exact_and_nonlinear_where_it_can_be(shape, op):
    net = network(shape, op)
    for layer in range(1, net.hidden_count + 1):
        deeper, record = operate(net, InsertIdentity(layer))
        assert record.exact
        assert record.deviation <= EXACT_TOLERANCE
        assert deeper.hidden_count == net.hidden_count + 1
        inserted = deeper.layers[layer]
        np.testing.assert_array_equal(inserted.weight, np.eye(net.widths[layer]))
        assert inserted.activation.op_type == (op if op in ("Relu", "Clip") else "PRelu")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_factorize_is_exact_at_full_rank_and_reports_its_error_below(shape, op):
    net = network(shape, op)
    for layer in range(1, net.hidden_count + 1):
        full = min(net.layers[layer - 1].weight.shape)
        thin, record = operate(net, Factorize(layer, full))
        assert record.exact
        assert record.deviation <= EXACT_TOLERANCE
        assert thin.layers[layer - 1].activation is None
        assert thin.layers[layer - 1].bias is None
        if full > 1:
            _, record = operate(net, Factorize(layer, full - 1))
            assert not record.exact
            assert record.deviation > EXACT_TOLERANCE


def linear_hidden(shape, seed=0):
    net = network(shape, "PRelu", seed)
    layers = [
        replace(layer, activation=layer.activation and layer.activation.with_slope(np.ones(layer.units, np.float32)))
        for layer in net.layers
    ]
    return net.with_layers(layers)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_narrow_and_merge_are_exact_on_linear_layers(shape):
    net = linear_hidden(shape)
    for layer in range(1, net.hidden_count + 1):
        full = min(net.layers[layer - 1].weight.shape)
        narrow, record = operate(net, Narrow(layer, full), require_exact=True)
        assert record.deviation <= EXACT_TOLERANCE
        assert narrow.widths[layer] == full
        assert narrow.layers[layer - 1].is_linear
        merged, record = operate(net, Merge(layer), require_exact=True)
        assert record.deviation <= EXACT_TOLERANCE
        assert merged.hidden_count == net.hidden_count - 1


def test_narrow_keeps_what_the_bias_adds_outside_the_kept_directions():
    net = linear_hidden((3, 6, 4))
    _, record = operate(net, Narrow(1, 3))
    assert record.exact  # rank 3: without the correction of the next bias this fails, since b has 6 free directions
    assert record.deviation <= EXACT_TOLERANCE


@pytest.mark.parametrize("op", ["Relu", "Tanh"])
def test_narrow_and_merge_say_that_they_are_approximate(op):
    net = network((6, 5, 4, 3), op)
    for surgery in (Narrow(1, 3), Merge(2)):
        _, record = operate(net, surgery)
        assert not record.exact
        assert record.deviation > EXACT_TOLERANCE
        with pytest.raises(SurgeryError, match="is not exact on this layer"):
            operate(net, surgery, require_exact=True)


@pytest.mark.parametrize("index", [0, 1])
def test_layers_without_a_bias(index):
    net = with_bias_removed(network((5, 4, 3)), index)
    for surgery in (Widen(1, 3), InsertIdentity(1), Factorize(1, 4), Narrow(1, 2), Merge(1)):
        after, record = operate(net, surgery)
        assert after.parameter_count == record.parameters
        onnx.checker.check_model(to_model(after))


def test_split_shares_add_up_and_differ_between_copies():
    net = network((5, 4, 3))
    wide, _ = operate(net, Widen(1, 6), np.random.default_rng(3))
    origin = np.array([0, 1, 2, 3, 0, 1, 2, 3, 0, 1])
    rows = wide.layers[1].weight
    for unit in range(4):
        np.testing.assert_allclose(rows[origin == unit].sum(0), net.layers[1].weight[unit], rtol=1e-6)
    shares = rows[origin == 0] / net.layers[1].weight[0]
    assert len(np.unique(shares.round(6))) == shares.size  # drawn for each outgoing weight alone
    equal, _ = operate(net, Widen(1, 6, "equal"))
    np.testing.assert_allclose(equal.layers[1].weight[origin == 0], np.tile(net.layers[1].weight[0] / 3, (3, 1)))


def test_equal_copies_stay_equal_while_split_copies_become_different_units(digit_examples):
    from onnxsurgeon import TrainingSpec, make_engine

    train, _ = digit_examples
    net = randomised(create((64, 6, 10)), scale=0.1)
    batches = np.arange(1024).reshape(-1, 16)
    for mode, different in (("equal", False), ("split", True)):
        wide, _ = operate(net, Widen(1, 6, mode), np.random.default_rng(0))
        trained = make_engine("loop").train(wide, train, [batches], TrainingSpec(0.1)).network
        gap = np.abs(trained.layers[0].weight[:, :6] - trained.layers[0].weight[:, 6:]).max()
        assert (gap > 1e-3) == different


def test_the_parent_is_untouched_and_what_stays_is_shared():
    net = network((6, 5, 4, 3))
    before = [values.copy() for _, values in net.chain.parameters()]
    for text in ("widen:2:3", "insert_identity:2", "narrow:2:2", "factorize:2:2", "merge:2"):
        after = operate(net, parse(text)).network
        assert after.layers[0].weight is net.layers[0].weight
        assert after.frame is net.frame
    for old, (_, values) in zip(before, net.chain.parameters(), strict=True):
        np.testing.assert_array_equal(old, values)


def test_singular_vectors_have_a_fixed_sign():
    weight = np.random.default_rng(0).standard_normal((7, 5))
    u, s, vt = svd(weight)
    assert (vt.sum(axis=1) >= 0).all()
    np.testing.assert_allclose(u * s @ vt, weight, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 9), min_size=3, max_size=5),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_any_sequence_of_exact_surgeries_preserves_the_function(shape, seed, data):
    start = net = as_float64(network(shape, data.draw(st.sampled_from(["Relu", "Tanh", "PRelu"])), seed))
    for _ in range(3):
        layer = data.draw(st.integers(1, net.hidden_count))
        full = min(net.layers[layer - 1].weight.shape)
        surgery = data.draw(st.sampled_from([Widen(layer, 2), InsertIdentity(layer), Factorize(layer, full)]))
        net, record = operate(net, surgery, np.random.default_rng(seed))
        assert record.parameters == net.parameter_count
    features = np.random.default_rng(seed).standard_normal((9, shape[0]))
    assert compare_chains(start.chain, net.chain, features).relative < 1e-11


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("widen:3:1", "has no hidden layer 3: it has 1 to 2"),
        ("widen:0:1", "has no hidden layer 0"),
        ("widen:1:0", "number of units to add must be at least 1"),
        ("narrow:1:0", "number of units that stay must be 1 to 5"),
        ("narrow:1:6", "number of units that stay must be 1 to 5"),
        ("factorize:2:9", "the rank must be 1 to 4"),
        ("merge:-1", "has no hidden layer -1"),
        ("merge:1:2", "expected merge:LAYER"),
        ("widen:1", "expected widen:LAYER:UNITS"),
        ("widen:one:2", "expected widen:LAYER:UNITS"),
        (
            "transplant:1",
            "unknown surgery 'transplant': expected one of factorize, factorize_data, grow, insert_behind_pool,",
        ),
    ],
)
def test_refusals_say_why(text, reason):
    with pytest.raises(SurgeryError) as error:
        operate(network((6, 5, 4, 3)), parse(text))
    assert reason in str(error.value)


@pytest.mark.parametrize(("units", "kept"), [(4, 4), (64, 64), (128, 128), (200, 128)])
def test_narrow_beyond_the_rank_points_to_prune(units, kept):
    with pytest.raises(SurgeryError) as error:
        operate(network((3, 128, 2)), Narrow(1, units))
    assert str(error.value) == (
        f"narrow:1:{units}: narrow goes by the rank of the weight, 3 × 128: "
        f"the number of units that stay must be 1 to 3; prune:1:{kept} with --data keeps any number"
    )


def test_unknown_widening_mode():
    with pytest.raises(SurgeryError, match="unknown mode 'twice'"):
        operate(network((3, 2, 2)), Widen(1, 1, "twice"))


def test_a_network_without_hidden_layers_refuses_every_surgery():
    net = create((4, 3))
    for surgery in (Widen(1, 1), InsertIdentity(1), Narrow(1, 1), Factorize(1, 1), Merge(1)):
        with pytest.raises(SurgeryError, match="it has none"):
            operate(net, surgery)


def test_merging_the_last_hidden_layer_leaves_a_linear_model():
    net = operate(network((4, 3, 2)), Merge(1)).network
    assert net.topology == "4-2"
    np.testing.assert_allclose(
        net.layers[0].weight, network((4, 3, 2)).layers[0].weight @ network((4, 3, 2)).layers[1].weight, rtol=1e-5
    )


def test_surgeries_are_spelled_as_they_are_parsed():
    weights = ("widen:1:8", "insert_identity:2", "narrow:1:5", "factorize:1:6", "merge:2", "merge_duplicates:1")
    data = ("factorize_data:1:6", "prune:2:3", "merge_data:1", "grow:1:8")
    every = (
        *weights,
        *data,
        "join:4",
        "insert_block:1",
        "insert_behind_pool:1",
        "remove_block:1",
        "remove_block_data:2",
    )
    assert set(SURGERIES) == {text.partition(":")[0] for text in every}
    for text in every:
        assert spell(parse(text)) == text


def real_inputs(path, net):
    """Inputs that the model was made for, where they are here; else random ones in [0, 1)."""
    name = "digits" if path.stem.startswith(("digits", "export")) else path.stem.rpartition("-")[0]
    if name == "digits" or locate(name):
        data = load_dataset(name)
        return prepare(net, data, data.test).features[0][:500]
    return np.random.default_rng(0).random((100, net.widths[0])).astype(np.float32)


@pytest.mark.parametrize("path", MODEL_FILES, ids=lambda path: path.stem)
def test_every_surgery_on_every_model_in_the_repository(path):
    net = load(path)
    features = real_inputs(path, net)
    feeds = random_inputs(onnx.load(path))
    full = min(net.layers[0].weight.shape)
    for surgery in (
        *(Widen(1, 3, mode) for mode in ("split", "equal", "fresh")),
        InsertIdentity(1),
        Factorize(1, full),
        Factorize(1, max(1, full // 2)),
        Narrow(1, max(1, full // 2)),
        Merge(1),
    ):
        after, record = operate(net, surgery, np.random.default_rng(0))
        difference = compare_chains(net.chain, after.chain, features)
        whole = compare_models(to_model(net), to_model(after), feeds)
        if record.exact:
            assert difference.relative <= EXACT_TOLERANCE
            assert whole.relative <= EXACT_TOLERANCE
        else:
            assert record.deviation > 0
        again = from_model(to_model(after))
        assert again.widths == after.widths
        assert to_model(again) == to_model(after)


def test_there_are_models_to_test_on():
    assert len(MODEL_FILES) >= 20
    assert sum(path.stat().st_size for path in MODELS.iterdir()) < 15_000_000


def test_new_values_that_overflow_are_refused():
    net = create((8, 6, 3))
    layers = [replace(net.layers[0], weight=np.full((8, 6), 3e38, np.float32)), net.layers[1]]
    with pytest.raises(SurgeryError, match=r"factorize:1:6: the new values of '.*' are too large for their type"):
        operate(net.with_layers(layers), Factorize(1, 6))


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_network_from_memory_and_one_from_its_file_give_the_same_bits(size, tmp_path, monkeypatch):
    """Weights read with transB = 1 are stored column by column, those of a file of ours row by row."""
    if size == "large":
        monkeypatch.setattr("onnxsurgeon.linear_algebra.LARGE", 1000)
        monkeypatch.setattr("onnxsurgeon.linear_algebra.GRAM_SIDE", 30)
    by_column = network((90, 70, 60, 40), "PRelu")
    by_column = by_column.with_parameters(np.asfortranarray(values) for _, values in by_column.parameters())
    save(by_column, tmp_path / "net.onnx")
    moments = [3 * values for _, values in by_column.parameters()]

    def results(net, surgery, stored):
        monkeypatch.setattr("onnxsurgeon.linear_algebra._spectra", {})
        operated = operate(net, parse(surgery))
        moved = operated.carry(net.with_parameters(map(stored, moments)), 2)
        parameters = (*operated.network.parameters(), *moved.parameters())
        return operated.record, [values.tobytes() for _, values in parameters]

    for surgery in ("widen:1:9", "insert_identity:2", "narrow:1:50", "narrow:2:60", "factorize:1:20", "merge:1"):
        from_memory = results(by_column, surgery, np.asfortranarray)
        assert results(load(tmp_path / "net.onnx"), surgery, np.ascontiguousarray) == from_memory
