"""Data-aware surgeries: exact where they can be, and the error they predict is the error that is found."""

from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import (
    Examples,
    Factorize,
    Merge,
    Narrow,
    SurgeryError,
    TrainingSpec,
    from_model,
    load,
    make_engine,
    operate,
    parse,
)
from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.calibration.regression import eliminate, smoother
from onnxsurgeon.data.sampling import sample_rows
from onnxsurgeon.graph.activations import prelu
from onnxsurgeon.graph.equivalence import compare_chains
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.operating.measure import found_error
from onnxsurgeon.surgery import (
    EXACT_TOLERANCE,
    FactorizeData,
    MergeData,
    MergeDuplicates,
    Prune,
    factorization_errors,
    pruning_errors,
    spell,
)
from onnxsurgeon.task import SQUARED, Task
from tests.calibrated import OPS, covariance, network
from tests.conftest import MODELS, with_bias_removed

SURGERIES = [
    FactorizeData(1, 5),
    FactorizeData(2, 9),
    Prune(1, 6),
    Prune(2, 1),
    Prune(2, 9),
    MergeData(1),
    MergeData(2),
]


@pytest.fixture(scope="module")
def train(digit_examples):
    return digit_examples[0]


@pytest.fixture(scope="module")
def trained(train):
    """64-30-20-10, three epochs."""
    batches = np.arange(1424).reshape(-1, 16)
    return make_engine("loop").train(network((64, 30, 20, 10)), train, [batches] * 3, TrainingSpec(0.02)).network


def random_examples(inputs=5, rows=500, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((rows, inputs)) @ rng.standard_normal((inputs, inputs)) + rng.standard_normal(inputs)
    return Examples.classification(mixed.astype(np.float32), np.zeros(rows, np.int64), classes)


@pytest.mark.parametrize("surgery", SURGERIES, ids=spell)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("bias", [True, False])
def test_the_error_predicted_is_the_error_found_on_the_sample(surgery, op, bias, train):
    net = network(op=op)
    if not bias:
        net = with_bias_removed(with_bias_removed(net, surgery.layer - 1), surgery.layer)
    rows = sample_rows(train, 900)
    done = operate(net, surgery, moments=calibrate(net, train, rows))
    assert done.record.predicted == pytest.approx(found_error(net, done, train, rows), rel=1e-3, abs=3e-6)
    if done.record.exact:
        assert done.record.predicted < 3e-6


@pytest.mark.parametrize("layer", [1, 2])
def test_factorization_loses_the_discarded_eigenvalues_of_the_centred_covariance(layer, trained, train):
    """No rank r has less error; without the bias taking the mean of what is cut off, it would be more."""
    rows = sample_rows(train, 900)
    moments = calibrate(trained, train, rows)
    moment, weight = moments.input_of(trained, layer), trained.hidden(layer).weight.astype(np.float64)
    second_moment = moment.covariance + np.outer(moment.mean, moment.mean)
    centred, uncentred = (np.linalg.eigvalsh(weight.T @ c @ weight) for c in (moment.covariance, second_moment))
    path = factorization_errors(trained, layer, moments)
    for rank in (1, 4, 10):
        done = operate(trained, FactorizeData(layer, rank), moments=moments)
        discarded = centred[: len(centred) - rank].sum()
        assert done.record.predicted == pytest.approx(np.sqrt(discarded / centred.sum()), rel=1e-5)
        assert done.record.predicted == pytest.approx(path[rank - 1], rel=1e-5)
        assert discarded < 0.99 * uncentred[: len(uncentred) - rank].sum()
        plain = found_error(trained, operate(trained, Factorize(layer, rank)), train, rows)
        assert found_error(trained, done, train, rows) < plain


def test_surgeries_that_see_data_lose_less_than_those_that_see_weights(trained, train):
    rows = sample_rows(train, 900)
    moments = calibrate(trained, train, rows)
    for layer in (1, 2):
        for seeing, blind in (
            (Prune(layer, 10), Narrow(layer, 10)),
            (Prune(layer, 15), Narrow(layer, 15)),
            (MergeData(layer), Merge(layer)),
        ):
            done = operate(trained, seeing, moments=moments)
            assert found_error(trained, done, train, rows) < found_error(trained, operate(trained, blind), train, rows)


def test_pruning_errors_are_what_pruning_predicts(trained, train):
    moments = calibrate(trained, train, sample_rows(train, 900))
    for layer in (1, 2):
        path = pruning_errors(trained, layer, moments)
        assert len(path) == trained.hidden(layer).units
        assert (np.diff(path) <= 0).all()
        assert path[-1] == 0
        for units in (3, 10, 18):
            predicted = operate(trained, Prune(layer, units), moments=moments).record.predicted
            # The path has no ridge, so the prediction is a little above it.
            assert path[units - 1] == pytest.approx(predicted, rel=0.03)
            assert path[units - 1] <= predicted * (1 + 1e-6)


def with_units(net, columns, outgoing):
    """The network with more units in its first layer, given as columns (n_in + 1, k) of weights and biases."""
    first, second, *rest = net.layers
    wide = np.concatenate([np.vstack([first.weight, first.bias]), columns], axis=1).astype(np.float32)
    activation = first.activation
    if activation.slope is not None:
        activation = activation.with_slope(np.resize(activation.slope, wide.shape[1]))
    outgoing = np.concatenate([second.weight, outgoing]).astype(np.float32)
    return net.with_layers(
        [
            replace(first, weight=wide[:-1].copy(), bias=wide[-1].copy(), activation=activation),
            replace(second, weight=outgoing),
            *rest,
        ]
    )


def redundant(net, seed=0):
    """The network with units added to its first layer: a duplicate, a multiple, a dead one, a constant one."""
    columns = np.vstack([net.layers[0].weight, net.layers[0].bias])
    dead, constant = np.zeros((2, len(columns)))
    dead[-1], constant[-1] = -2.0, 1.5
    added = np.stack([columns[:, 3], 2.5 * columns[:, 1], dead, constant], axis=1)
    outgoing = np.random.default_rng(seed).standard_normal((4, net.layers[1].units))
    return with_units(net, added, outgoing)


def test_units_that_are_dead_or_depend_on_others_go_without_a_loss(train, digit_examples):
    net = redundant(network(seed=2))  # whose own units are all alive
    rows = sample_rows(train, 900)
    moments = calibrate(net, train, rows)
    assert pruning_errors(net, 1, moments)[11] < 1e-4  # its ridge tells nothing smaller
    done = operate(net, Prune(1, 12), moments=moments)
    assert done.network.widths == (64, 12, 9, 10)
    assert done.record.predicted < 3e-6
    test = digit_examples[1]
    assert found_error(net, done, test, np.arange(test.rows)) < 3e-6
    assert not done.record.exact  # of other data, nothing is known
    assert operate(net, Prune(1, 11), moments=moments).record.predicted > 1e-3


def test_constant_inputs_do_no_harm():
    """Columns that never vary change nothing, and none of their weights in a refit is made up."""
    examples = random_examples(6)
    features = examples.features[0]
    features = np.insert(features, [2, 4], [0.0, 0.7], axis=1).astype(np.float32)
    wide = Examples.classification(features, examples.labels[0], 3)
    net = network((8, 7, 5, 3))
    moments = calibrate(net, wide, np.arange(500))
    for surgery in (FactorizeData(1, 3), MergeData(1), MergeData(2), Prune(1, 3)):
        done = operate(net, surgery, moments=moments)
        assert done.record.predicted == pytest.approx(found_error(net, done, wide, np.arange(500)), rel=1e-3)
        assert max(np.abs(values).max() for _, values in done.network.parameters()) < 100


def test_a_constant_sample_is_survived():
    net = network((5, 7, 4, 3))
    examples = Examples.classification(np.ones((40, 5), np.float32), np.zeros(40, np.int64), 3)
    moments = calibrate(net, examples, np.arange(40))
    for surgery in (FactorizeData(1, 2), Prune(1, 2), MergeData(1)):
        done = operate(net, surgery, moments=moments)
        assert found_error(net, done, examples, np.arange(40)) < 1e-5


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_fewer_rows_than_inputs_give_finite_weights_of_moderate_size(rows):
    net, examples = network((20, 15, 10, 3)), random_examples(20)
    moments = calibrate(net, examples, np.arange(rows))
    for surgery in (FactorizeData(1, 4), Prune(1, 6), MergeData(1)):
        done = operate(net, surgery, moments=moments)
        assert max(np.abs(values).max() for _, values in done.network.parameters()) < 100


def test_merging_a_linear_layer_is_exact_on_any_input(train):
    net = network(op="PRelu")
    layers = list(net.layers)
    layers[1] = replace(layers[1], activation=prelu(np.ones(9, np.float32)))
    net = net.with_layers(layers)
    moments = calibrate(net, train, sample_rows(train, 900))
    done = operate(net, MergeData(2), moments=moments, require_exact=True)
    assert done.record.deviation <= EXACT_TOLERANCE
    assert done.network.topology == "64-12-10"


@pytest.mark.parametrize("op", ["Relu", "Tanh", "PRelu"])
@pytest.mark.parametrize("bias", [True, False])
def test_duplicates_and_constant_units_are_merged_exactly(op, bias):
    net = redundant(network(op=op))
    first = net.layers[0]
    if op == "PRelu":
        slope = first.activation.slope.copy()
        slope[12] = slope[3]
        first = replace(first, activation=first.activation.with_slope(slope))
    net = net.with_layers([first, *net.layers[1:]])
    net = net if bias else with_bias_removed(with_bias_removed(net, 0), 1)
    done = operate(net, parse("merge_duplicates:1"), require_exact=True)
    assert done.network.widths[1] == 13  # the multiple stays: that it is one depends on the activation
    features = np.random.default_rng(4).standard_normal((50, 64)).astype(np.float32)
    assert compare_chains(net.chain, done.network.chain, features).relative < 1e-6


def test_the_state_of_duplicates_moves_on_as_the_function_does():
    """Equal velocities of the copies' incoming weights and any of their outgoing ones."""
    net = redundant(network())
    done = operate(net, MergeDuplicates(1))
    velocity = [np.random.default_rng(1).standard_normal(v.shape).astype(np.float32) for _, v in net.parameters()]
    velocity[0][:, 12], velocity[1][12] = velocity[0][:, 3], velocity[1][3]
    velocity[0][:, 14:], velocity[1][14:] = 0, 0
    carried = [v for _, v in done.carry(net.with_parameters(velocity), 1).parameters()]

    def moved(network, direction, step=1e-2):
        pairs = zip(network.parameters(), direction, strict=True)
        return network.with_parameters((v + step * d).astype(np.float32) for (_, v), d in pairs)

    features = np.random.default_rng(4).standard_normal((50, 64)).astype(np.float32)
    assert compare_chains(moved(net, velocity).chain, moved(done.network, carried).chain, features).relative < 1e-5


def test_the_state_moves_on_as_the_function_does_where_nothing_is_cut_off(train):
    net = network()
    done = operate(net, FactorizeData(2, 9), moments=calibrate(net, train))
    velocity = [np.random.default_rng(1).standard_normal(v.shape).astype(np.float32) for _, v in net.parameters()]
    carried = [v for _, v in done.carry(net.with_parameters(velocity), 1).parameters()]
    expected = net.with_parameters(velocity).layers[1]
    first, second = done.carry(net.with_parameters(velocity), 1).layers[1:3]
    np.testing.assert_allclose(first.weight @ done.network.layers[2].weight, expected.weight, atol=1e-5)
    np.testing.assert_allclose(second.bias, expected.bias, atol=1e-5)
    assert not second.weight.any()
    assert len(carried) == len(done.network.parameters())


@pytest.mark.parametrize(
    ("surgery", "reason"),
    [
        (Prune(1, 0), "prune:1:0: the number of units that stay must be 1 to 12"),
        (Prune(1, 13), "prune:1:13: the number of units that stay must be 1 to 12"),
        (FactorizeData(2, 10), "factorize_data:2:10: the rank must be 1 to 9"),
        (MergeData(3), "has no hidden layer 3"),
        (MergeDuplicates(1), "merge_duplicates:1: no unit is constant or the same as another"),
    ],
)
def test_refusals_say_why(surgery, reason, train):
    net = network()
    with pytest.raises(SurgeryError) as error:
        operate(net, surgery, moments=calibrate(net, train))
    assert reason in str(error.value)


def test_a_layer_of_constants_alone_is_refused():
    net = network((5, 4, 3))
    net = net.with_layers([replace(net.layers[0], weight=np.zeros((5, 4), np.float32)), net.layers[1]])
    with pytest.raises(SurgeryError, match="every unit is constant: none would stay"):
        operate(net, MergeDuplicates(1))


@pytest.mark.parametrize("surgery", SURGERIES, ids=spell)
def test_without_moments_the_reason_is_said(surgery):
    with pytest.raises(SurgeryError, match=f"{spell(surgery)}: needs moments of a calibration sample"):
        operate(network(), surgery)
    assert parse(spell(surgery)) == surgery


@pytest.mark.parametrize("name", ["torch-legacy-float16", "torch-dynamo-bfloat16", "torch-dynamo-regression"])
def test_files_in_two_bytes_and_regressions(name):
    net = load(MODELS / "exports" / f"{name}.onnx")
    head = net.heads[0]
    plain = random_examples(net.chain.widths[0])
    examples = Examples(plain.features, (np.zeros((plain.rows, head.width)),), (Task(SQUARED, head.width),))
    rows = np.arange(examples.rows)
    moments = calibrate(net, examples, rows)
    for surgery in (FactorizeData(1, 3), Prune(1, 5), MergeData(1)):
        done = operate(net, surgery, moments=moments)
        assert (done.record.rounding > 0) == ("16" in name)
        assert done.record.predicted == pytest.approx(found_error(net, done, examples, rows), rel=1e-3)


def test_the_same_sample_gives_the_same_weights(trained, train):
    for surgery in (FactorizeData(1, 5), Prune(1, 6), MergeData(1)):
        first, second = (operate(trained, surgery, moments=calibrate(trained, train)).network for _ in range(2))
        for (_, a), (_, b) in zip(first.parameters(), second.parameters(), strict=True):
            assert a.tobytes() == b.tobytes()


def test_the_result_is_written_and_read_again(trained, train):
    moments = calibrate(trained, train)
    for surgery in (FactorizeData(1, 5), Prune(1, 6), MergeData(1)):
        after = operate(trained, surgery, moments=moments).network
        again = from_model(to_model(after))
        assert again.topology == after.topology
        for (_, a), (_, b) in zip(again.parameters(), after.parameters(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_backward_elimination_drops_what_costs_least_each_time():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((200, 6)) @ rng.standard_normal((6, 6))
    weight = rng.standard_normal((6, 3))
    order, errors = eliminate(covariance(x, x), weight)
    centred, z, left = x - x.mean(0), (x - x.mean(0)) @ weight, list(range(6))
    for unit, error in zip(order, errors, strict=True):
        lost = {}
        for j in left:
            rest = centred[:, [k for k in left if k != j]]
            fit = rest @ np.linalg.lstsq(rest, z, rcond=None)[0]
            lost[j] = ((z - fit) ** 2).sum() / 200
        assert min(lost, key=lost.get) == unit
        assert error == pytest.approx(lost[unit], rel=1e-6)
        left.remove(unit)


def test_the_ridge_is_small_where_rows_abound_and_large_where_they_lack():
    rng = np.random.default_rng(5)
    true = rng.standard_normal((30, 2))
    fresh = rng.standard_normal((4000, 30))
    for rows, better in ((40, True), (4000, False)):
        x = rng.standard_normal((rows, 30))
        y = x @ true + 5 * rng.standard_normal((rows, 2))
        sigma, cross, variance = covariance(x, x), covariance(x, y), y.var(0).sum()
        ridge = smoother(sigma, cross, variance, rows, variance) @ cross
        plain = np.linalg.solve(sigma, cross)
        errors = [np.linalg.norm(fresh @ (each - true)) for each in (ridge, plain)]
        if better:
            assert errors[0] < 0.7 * errors[1]
        else:
            assert errors[0] == pytest.approx(errors[1], rel=0.05)
