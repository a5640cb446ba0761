"""How networks with convolutions grow: shapes that compete, all within the limit and the same function."""

import numpy as np
import pytest

from onnxsurgeon import SurgeonSettings, create_convolutional, evolve, load, operate, save
from onnxsurgeon.choices import BY_GRADIENTS
from onnxsurgeon.comparison.lineage import kinship
from onnxsurgeon.graph.equivalence import compare_models, random_inputs
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.recommend.channels import deeper_convolutions, profiles_of_channels
from onnxsurgeon.recommend.growth import growths
from onnxsurgeon.runs.branch import Branch
from onnxsurgeon.surgery import Factorize, InsertBehindPool, InsertIdentity, Widen

START = create_convolutional("28x28x1-c8-p-c16-p-10", seed=1)


@pytest.mark.parametrize("most", [20_000, 36_000])
def test_shapes_are_deeper_nearly_as_large_as_they_may_be_and_compute_the_same(most):
    found = growths(START, most, mode=BY_GRADIENTS)
    assert len({each.surgeries for each in found}) == len(found) >= 4
    given, costs = to_model(START), []
    for candidate in found:
        grown = START
        for surgery in candidate.surgeries:
            grown = operate(grown, surgery, np.random.default_rng(0), require_exact=True).network
        assert 0.9 * most < grown.parameter_count == candidate.parameters <= most
        assert grown.hidden_count > START.hidden_count
        assert {surgery.mode for surgery in candidate.surgeries if isinstance(surgery, Widen)} == {"fresh"}
        assert compare_models(given, to_model(grown), random_inputs(given, rows=2)).relative < 1e-5
        costs.append(grown.multiplications)
    assert max(costs) <= 2 * min(costs)


def test_what_takes_too_many_multiplications_does_not_compete():
    """One more on maps four times as large is there with few channels, and not with as many as behind the pool."""
    for most, names in ((36_000, {"even", "rising"}), (200_000, {"rising"})):
        found = growths(START, most, mode=BY_GRADIENTS)
        assert {candidate.reason.partition(" ")[0] for candidate in found} == names
        on_large_maps = [candidate for candidate in found if InsertIdentity(1) in candidate.surgeries]
        assert {candidate.reason.partition(" ")[0] for candidate in on_large_maps} == (
            {"rising"} if most < 1e5 else set()
        )


def behind_the_last_pool(candidate):
    return any(isinstance(surgery, InsertBehindPool) for surgery in candidate.surgeries)


def test_convolutions_come_behind_the_last_pool_only_where_others_are_dear():
    """Below fifteen million multiplications the shapes that compete are those that have most of them."""
    assert not any(behind_the_last_pool(each) for each in growths(START, 36_000, mode=BY_GRADIENTS))
    grown = create_convolutional("28x28x1-c19-c19-p-c38-c19-p-10", seed=1)
    assert not any(behind_the_last_pool(each) for each in growths(grown, 60_000, mode=BY_GRADIENTS))
    found = growths(grown, 145_000, mode=BY_GRADIENTS)
    assert len(found) > 1
    assert all(behind_the_last_pool(each) for each in found)
    for candidate in found:
        network = grown
        for surgery in candidate.surgeries:
            network = operate(network, surgery, np.random.default_rng(0), require_exact=True).network
        assert 130_000 < network.parameter_count == candidate.parameters <= 145_000
        assert (
            compare_models(to_model(grown), to_model(network), random_inputs(to_model(grown), rows=2)).relative < 1e-5
        )
        behind = network.segments[-2].layers[-1]
        assert behind.geometry is not None
        assert network.segments[-1].layers[0].inputs == 49 * behind.units


def test_nothing_comes_behind_a_pool_that_leaves_one_position_or_behind_means_of_whole_maps():
    for topology in ("4x4x1-c4-p-c8-p-3", "8x8x1-c4-p-c8-g-3"):
        found = list(deeper_convolutions(create_convolutional(topology)))
        pools = [each for surgeries, _ in found for each in surgeries if isinstance(each, InsertBehindPool)]
        assert not pools


def test_the_limit_is_reached_however_few_epochs_there_are_to_grow(tmp_path):
    """Two growths of at most four times the parameters would end at sixteen times."""
    save(create_convolutional("8x8x1-c1-p-10", seed=1), tmp_path / "start.onnx")
    settings = SurgeonSettings.from_preset(epochs=3, growth=0.67, max_parameters=6_000, batch_size=64)
    done = evolve(tmp_path / "start.onnx", "digits", settings=settings, run_dir=tmp_path / "run")
    assert (
        load(tmp_path / "start.onnx").parameter_count * 16 < 0.9 * 6_000 < done.branch.network.parameter_count <= 6_000
    )


def test_dropout_counts_parameters_of_convolutions_several_times():
    settings = SurgeonSettings.from_preset()
    found = [settings.dropout_of(parameters, 54_000, has_maps=True) for parameters in (5_000, 20_000, 60_000, 200_000)]
    assert found == [0.0, 0.1, 0.15, 0.25]
    assert settings.dropout_of(20_000, 54_000) == 0


def test_a_search_grows_convolutions_to_the_limit_and_no_further(tmp_path):
    save(create_convolutional("8x8x1-c2-p-10", seed=1), tmp_path / "start.onnx")
    settings = SurgeonSettings.from_preset(epochs=10, growth=0.2, max_parameters=1200, batch_size=64)
    events = []
    evolve(tmp_path / "start.onnx", "digits", settings=settings, run_dir=tmp_path / "run", callbacks=events.append)
    counts = [count for event in events if event["event"] == "decided" for count in event["parameters"]]
    assert 1000 < max(counts) <= 1200
    last = load(tmp_path / "run" / "best.onnx")
    assert last.parameter_count == max(counts)
    assert last.hidden_count > 0


def test_convolutions_come_where_there_are_fewest_positions_or_everywhere():
    found = [deeper.topology for _, deeper in deeper_convolutions(START)]
    assert found == [
        "c1-c8+c8-c16-c16+784-10",
        "c1-c8+c8-c16-c16-c16+784-10",
        "c1-c8-c8+c8-c16-c16+784-10",
        "c1-c8+c8-c16+784-10",
        "c1-c8+c8-c16+c16-c16+784-10",
        "c1-c8+c8-c16+c16-c16-c16+784-10",
        "c1-c8-c8+c8-c16-c16+c16-c16-c16+784-10",
    ]


def test_channels_that_a_dense_layer_reads_at_many_positions_are_fewer():
    _, deeper = next(deeper_convolutions(START))
    profiles = profiles_of_channels(deeper)
    assert profiles["even"] == {1: 1.0, 2: 1.0, 3: 0.5}  # c16 behind c8, what is pooled first, and what is pooled last
    assert profiles["rising"] == {1: 2.0, 2: 1.0, 3: 1.0}
    averaged = create_convolutional("28x28x1-c8-p-c16-g-10", seed=1)
    assert profiles_of_channels(averaged)["even"] == {1: 1.0, 2: 1.0}


def test_no_convolution_is_put_behind_the_fourth_of_a_segment():
    network = START
    for _ in range(3):
        network = operate(network, InsertIdentity(network.group_count)).network
    assert network.topology == "c1-c8+c8-c16-c16-c16-c16+784-10"
    proposed = {
        each
        for surgeries, _ in deeper_convolutions(network)
        if InsertBehindPool(5) not in surgeries
        for each in surgeries
    }
    assert proposed == {InsertIdentity(4), InsertIdentity(5)}  # both behind the first of all


def test_a_lineage_knows_a_convolution_before_a_pool(tmp_path):
    surgeries = (InsertIdentity(2), Widen(1, 3), InsertIdentity(2))
    network = START
    for surgery in surgeries:
        network = operate(network, surgery, np.random.default_rng(0)).network
    assert network.topology == "c1-c8-c8+c8-c19-c16+784-10"
    lineage = ("insert_identity:2", "widen:1:3", "insert_identity:2")
    save(Branch(1, 0, "start", network, lineage).stamped(), tmp_path / "grown.onnx")
    grown = load(tmp_path / "grown.onnx")
    there, back = kinship(START, grown), kinship(grown, START)
    assert there.done == back.undone == lineage
    assert [(group.before, group.after) for group in there.groups] == [
        ((0,), (0,)),
        ((), (1,)),
        ((1,), (2,)),
        ((), (3,)),
        ((2,), (4,)),
    ]
    assert [(group.after, group.before) for group in back.groups] == [
        (group.before, group.after) for group in there.groups
    ]


def test_a_lineage_knows_the_factors_of_a_convolution_before_a_pool(tmp_path):
    surgeries = (Factorize(2, 5), Widen(1, 3), Factorize(2, 4))
    network = START
    for surgery in surgeries:
        network = operate(network, surgery, np.random.default_rng(0)).network
    assert network.topology == "c1-c4-c8+c8-c8-c16+784-10"
    lineage = ("factorize:2:5", "widen:1:3", "factorize:2:4")
    save(Branch(1, 0, "start", network, lineage).stamped(), tmp_path / "thin.onnx")
    thin = load(tmp_path / "thin.onnx")
    there, back = kinship(START, thin), kinship(thin, START)
    assert there.done == back.undone == lineage
    assert [(group.before, group.after) for group in there.groups] == [((0,), (0, 1)), ((1,), (2, 3)), ((2,), (4,))]
    assert [(group.after, group.before) for group in back.groups] == [
        (group.before, group.after) for group in there.groups
    ]
