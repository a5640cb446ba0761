"""Trained convolutional networks made smaller: trials beside what is foretold, blocks of channels, limits met."""

from itertools import pairwise
from pathlib import Path

import convolution_table
import numpy as np
import onnx
import pytest

from onnxsurgeon import (
    Dataset,
    Split,
    SurgeonSettings,
    calibrate,
    create,
    create_convolutional,
    evolve,
    load,
    load_dataset,
    operate,
    prepare,
    save,
)
from onnxsurgeon.calibration.sensitivity import with_sensitivities
from onnxsurgeon.data.sampling import sample_rows
from onnxsurgeon.recommend.ranks import ranks_for
from onnxsurgeon.recommend.reduction import BOTH, LAYERS, RANKS, UNITS, by_units, kind_of, reductions
from onnxsurgeon.recommend.resources import Bounds
from onnxsurgeon.recommend.shrinking import count_of, least_count, widths_for
from onnxsurgeon.recommend.trials import corrected, with_trials
from onnxsurgeon.surgeon.fast_enough import Latencies
from onnxsurgeon.surgery import Factorize, FactorizeData, Prune
from onnxsurgeon.surgery.prune import pruning_costs
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, SQUARED, Task
from onnxsurgeon.training.fit import fit
from onnxsurgeon.training.loop import LoopEngine
from onnxsurgeon.training.settings import TrainingSettings
from onnxsurgeon.training.teaching import head_outputs

ENGINE = LoopEngine()
FOLDER = Path(__file__).parent / "convolutions"


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    """The path of a trained network whose last convolution is averaged over all positions."""
    network = create_convolutional("8x8x1-c8-c8-p-c16-g-10", seed=3)
    settings = TrainingSettings(learning_rate=0.01, optimizer="adamw", schedule="cosine")
    done, test = fit(network, digits, ENGINE, epochs=12, settings=settings)
    assert test.accuracy > 0.85
    path = tmp_path_factory.mktemp("trained") / "trained.onnx"
    save(done.network, path)
    return path


@pytest.fixture(scope="module")
def known(trained, digits):
    network = load(trained)
    examples = prepare(network, digits, digits.train)
    rows = sample_rows(examples)
    moments = with_sensitivities(calibrate(network, examples, rows), network, examples, rows)
    return network, examples, rows, moments


def outputs(network, examples):
    return head_outputs(network, examples, ENGINE)


def found_cost(network, examples, surgery, moments):
    """Mean of eᵀ (diag p − p pᵀ) e over all rows, at temperature 2."""
    (before,), (after,) = (
        outputs(each, examples) for each in (network, operate(network, surgery, moments=moments).network)
    )
    error, p = after.astype(float) - before, np.exp(before.astype(float) / 2)
    p /= p.sum(axis=1, keepdims=True)
    return float(((p * error**2).sum(axis=1) - (p * error).sum(axis=1) ** 2).mean())


def test_what_was_tried_is_nearer_to_what_is_found_than_what_was_foretold(known):
    network, examples, rows, moments = known
    tried = with_trials(moments, network, examples, rows, outputs)
    foretold_off, tried_off = [], []
    for i in range(1, network.group_count + 1):
        costs = pruning_costs(network, i, moments)
        better = corrected(tried, Prune.operation, i, costs)
        units = network.group(i).units
        for kept in {units - 1, units // 2 + 1, units // 3}:
            found = found_cost(network, examples, Prune(i, kept), moments)
            if not costs[kept - 1]:  # units that are dead go without a loss
                assert found < 1e-9
                continue
            foretold_off.append(abs(np.log(costs[kept - 1] / found)))
            tried_off.append(abs(np.log(better[kept - 1] / found)))
    assert np.mean(tried_off) < 0.5 * np.mean(foretold_off)


def test_what_is_foretold_behind_the_mean_of_all_positions_is_too_little(known):
    """Errors at all positions are alike there, and add up."""
    network, examples, rows, moments = known
    tried = with_trials(moments, network, examples, rows, outputs)
    last = network.group_count - 1  # the widths that the last convolution reads
    assert tried.corrections[Prune.operation, last].min() > 1.5


def test_less_that_is_kept_costs_no_less(known):
    network, examples, rows, moments = known
    tried = with_trials(moments, network, examples, rows, outputs)
    for i in range(1, network.group_count + 1):
        better = corrected(tried, Prune.operation, i, pruning_costs(network, i, moments))
        assert all(fewer >= more for fewer, more in pairwise(better))
        assert better[-1] == 0
    assert any(operation == FactorizeData.operation for operation, _ in tried.corrections)


def test_without_trials_nothing_is_corrected(known):
    network, _, _, moments = known
    costs = pruning_costs(network, 1, moments)
    assert corrected(moments, Prune.operation, 1, costs) is costs


@pytest.mark.parametrize(
    ("task", "before", "after", "expected"),
    [
        (Task(SQUARED, 2), [[0.0, 0.0]], [[1.0, 3.0]], 5.0),
        (Task(SQUARED, 2, scale=(2.0, 0.5)), [[0.0, 0.0]], [[1.0, 3.0]], 18.125),
        (Task(SQUARED, 1, squash="Sigmoid"), [[0.0]], [[2.0]], 0.25),
        (Task(BINARY, 1), [[0.0], [0.0]], [[2.0], [0.0]], 0.5),
        (Task(CROSS_ENTROPY, 2), [[1.0, 1.0]], [[2.0, 1.0]], 0.25),
    ],
)
def test_what_errors_of_the_outputs_cost(task, before, after, expected):
    from onnxsurgeon.recommend.trials import _cost

    assert _cost(task, np.array(before), np.array(after, np.float32)) == pytest.approx(expected)


def test_dense_networks_are_not_tried(tmp_path, monkeypatch):
    save(create((64, 20, 10), seed=1, input_shape=(8, 8)), tmp_path / "start.onnx")
    monkeypatch.setattr("onnxsurgeon.surgeon.pruning_search.with_trials", None)
    settings = SurgeonSettings.from_preset("default", epochs=1, seed=1, shrink=2, start="trained")
    done = evolve(tmp_path / "start.onnx", "digits", settings=settings, run_dir=tmp_path / "run")
    assert done.shortfall == ""


@pytest.mark.parametrize("block", [4, 8])
def test_units_go_in_blocks(block):
    network = create((20, 24, 22, 5), seed=0)
    losses = {1: np.linspace(1, 0, 24), 2: np.linspace(2, 0, 22)}
    for share in (2, 4, 9):
        most = network.parameter_count // share
        widths = widths_for(network, losses, most, block=block)
        assert count_of(network, widths) <= most
        assert all(units % block == 0 or units < block for i, units in widths.items() if units != (24, 22)[i - 1])


def test_convolutions_one_behind_the_other_are_not_merged(known):
    """What cannot be merged by data is no plan, and no error."""
    _, examples, rows, _ = known
    deep = create_convolutional("8x8x1-c8-c8-c8-10", seed=1)
    assert deep.depth(1)[1] > 1
    plans = reductions(deep, lambda each: calibrate(each, examples, rows), deep.parameter_count // 3)
    assert LAYERS not in {kind_of(str(plan)) for plan in plans}
    assert UNITS in {kind_of(str(plan)) for plan in plans}


def test_ranks_go_where_the_macs_are():
    """A dense layer has most of the parameters here, an early convolution most of the MACs."""
    network = create_convolutional("12x12x1-c8-c24s4-64-10", seed=1)
    costs = {i: np.linspace(1, 0, min(network.hidden(i).weight.shape)) for i in range(1, network.hidden_count + 1)}
    macs = network.multiplications
    limit = int(0.7 * macs)
    by_macs = ranks_for(network, costs, None, Bounds(limit))
    by_parameters = ranks_for(network, costs, int(0.7 * network.parameter_count), Bounds())

    def factorized(ranks):
        made = network
        for i, rank in sorted(ranks.items(), reverse=True):
            if rank < len(costs[i]):
                made = operate(made, Factorize(i, rank)).network
        return made

    assert 0.6 * macs < factorized(by_macs).multiplications <= limit < factorized(by_parameters).multiplications
    assert factorized(by_parameters).parameter_count <= 0.7 * network.parameter_count


def test_ranks_that_cannot_save_enough_are_no_plan(known):
    network, examples, rows, _ = known
    bounds = Bounds(network.multiplications // 20)
    plans = reductions(network, lambda each: calibrate(each, examples, rows), None, kinds=[RANKS], bounds=bounds)
    assert plans == []


def test_plans_for_macs_alone_end_where_these_are_few_enough(known):
    """Each kind leaves as many parameters as it can: another number of them for each."""
    network, examples, rows, moments = known
    assert network.multiplications is not None
    bounds = Bounds(network.multiplications // 2)
    counts = {}
    for kind in (UNITS, RANKS, BOTH):
        (plan,) = reductions(network, lambda each: calibrate(each, examples, rows), None, kinds=[kind], bounds=bounds)
        made = network
        for surgery in plan.surgeries:
            made = operate(made, surgery, moments=calibrate(made, examples, rows)).network
        assert made.parameter_count == plan.parameters
        assert 0.85 * bounds.multiplications < made.multiplications <= bounds.multiplications
        counts[kind_of(str(plan))] = plan.parameters
    assert counts.keys() == {UNITS, RANKS, BOTH}
    assert len(set(counts.values())) > 1
    assert reductions(network, lambda each: moments, None, bounds=Bounds(network.multiplications)) == []


def test_a_trained_convolutional_network_is_shrunk(trained, tmp_path):
    given = load(trained)
    settings = SurgeonSettings.from_preset("default", epochs=4, seed=1, shrink=3)
    done = evolve(trained, "digits", settings=settings, run_dir=tmp_path / "run")
    assert done.network.parameter_count <= given.parameter_count // 3
    assert done.test.accuracy > 0.7


def test_a_limit_on_latency_is_met_in_blocks_where_these_are_faster(trained, tmp_path, monkeypatch):
    """Each channel takes what those up to the next multiple of eight take."""

    def latency_of(network):
        return sum(-(-layer.units // 8) * layer.weight.shape[0] for layer in network.layers) / 100

    monkeypatch.setattr("onnxsurgeon.surgeon.fast_enough.Yardstick.latency_of", lambda _, path: latency_of(load(path)))
    monkeypatch.setattr("onnxsurgeon.surgeon.start.latency_of", lambda _: 0.0)
    limit = 0.6 * latency_of(load(trained))
    settings = SurgeonSettings.from_preset("default", epochs=1, seed=1, max_latency=limit)
    done = evolve(trained, "digits", settings=settings, run_dir=tmp_path / "run")
    assert latency_of(done.network) <= limit
    moments = calibrate(load(trained), prepare(load(trained), load_dataset("digits"), load_dataset("digits").train))
    plan = by_units(load(trained), moments, load(trained).parameter_count // 2, block=8)
    assert all(surgery.units in (1, 2, 4, 8) for surgery in plan.surgeries)


@pytest.mark.parametrize("name", ["resnet-torch-legacy", "densenet-torch-legacy"])
def test_a_limit_on_latency_finds_the_size_of_a_network_whose_layers_share_widths(name, monkeypatch):
    """Pruning one width changes what writes and reads the others: what is known of them follows."""
    path = FOLDER / f"{name}.onnx"
    network, (inputs, labels) = load(path), convolution_table.rows_for(onnx.load(path))
    dataset = Dataset(name, Split(inputs, labels), Split(inputs, labels), int(labels.max()) + 1)
    examples = prepare(network, dataset, dataset.train)
    rows = np.arange(64)
    moments = with_sensitivities(calibrate(network, examples, rows), network, examples, rows)
    latencies = Latencies(path)
    monkeypatch.setattr(latencies, "of", lambda found, path=None: found.parameter_count / 1000)
    limit = 0.5 * network.parameter_count / 1000
    least = least_count(network)
    found = latencies.within(limit, network, moments, lambda most: by_units(network, moments, most), least)
    assert least <= found <= 1000 * limit
    assert found > 800 * limit
