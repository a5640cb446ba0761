"""Recommendation: eq. 13 by hand, scores and amounts of section 5, order of eq. 14-15."""

from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import Thresholds, calibrate, create, operate, propose, pruning_errors
from onnxsurgeon.calibration import calibrate as calibration
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.graph.activations import prelu
from onnxsurgeon.recommend import (
    best_of_each,
    inspect_layers,
    inspect_pruning,
    random_walk,
    ranked,
    removable_neurons,
    select,
    top_n,
)
from onnxsurgeon.recommend.pruning import MOST_LOST
from tests.conftest import randomised, with_bias_removed

PAPER = Thresholds(0.005, 0.3, rank_bound=False)


def with_first_weight(net, weight):
    layers = list(net.layers)
    layers[0] = replace(layers[0], weight=weight.astype(np.float32))
    return net.with_layers(layers)


@pytest.mark.parametrize(
    ("diagonal", "thresholds", "expected"),
    [
        ((4.0, 3.0, 0.2), PAPER, 1),  # 0.2 < ε2 = 0.3
        ((100.0, 0.4, 0.35), PAPER, 2),  # both below ε1 · 100 = 0.5, though not below ε2
        ((100.0, 0.5, 0.6), PAPER, 0),  # strictly below only
        ((0.1, 0.1, 0.1), PAPER, 3),
        ((4.0, 3.0, 0.2), Thresholds(0.0, 0.0), 0),
    ],
)
def test_equation_13_by_hand(diagonal, thresholds, expected):
    assert removable_neurons(np.diag(diagonal), thresholds) == expected


def test_equation_13_of_a_matrix_that_is_not_diagonal():
    # W = [[3, 3], [3, 3]] has singular values 6 and 0; W = [[2, 1], [1, 2]] has 3 and 1.
    assert removable_neurons(np.array([[3.0, 3.0], [3.0, 3.0]]), PAPER) == 1
    assert removable_neurons(np.array([[2.0, 1.0], [1.0, 2.0]]), PAPER) == 0
    assert removable_neurons(np.array([[2.0, 1.0], [1.0, 2.0]]), replace(PAPER, absolute=1.5)) == 1


def test_units_beyond_the_rank_bound_count_outside_the_paper():
    weight = 9 * np.eye(3, 5)
    assert removable_neurons(weight, PAPER) == 0
    assert removable_neurons(weight, Thresholds()) == 2


def test_the_rank_bound_counts_in_linear_layers_alone():
    """φ(x W + b) of 9 units behind 4 inputs spans up to 9 dimensions, x W + b no more than 4."""
    weight = np.random.default_rng(0).standard_normal((4, 9))
    assert removable_neurons(weight, Thresholds(absolute=0), is_linear=False) == 0
    assert removable_neurons(weight, Thresholds(absolute=0), is_linear=True) == 5
    # Where no direction counts, the units are constants whatever stands behind them.
    for is_linear in (False, True):
        assert removable_neurons(0.01 * weight, Thresholds(), is_linear=is_linear) == 9
        assert removable_neurons(0.01 * weight, PAPER, is_linear=is_linear) == 4
    rows = np.random.default_rng(1).standard_normal((100, 4)) @ weight
    assert np.linalg.matrix_rank(rows) == 4
    assert np.linalg.matrix_rank(np.maximum(rows, 0)) == 9


@pytest.mark.parametrize("activation", ["Relu", "Tanh", "LeakyRelu", "Sigmoid", "HardSwish", None])
def test_what_a_layer_with_more_units_than_inputs_is_recommended(activation):
    net = randomised(create((4, 9, 3), activation=activation or "Relu"), scale=9)
    if activation is None:
        net = net.with_layers([replace(net.layers[0], activation=None), *net.layers[1:]])
    (report,), (paper,) = inspect_layers(net, Thresholds()), inspect_layers(net, PAPER)
    assert (report.small, paper.removable) == (0, 0)
    found = {str(candidate): candidate for candidate in propose(net, Thresholds())}
    if activation is None:
        assert (report.removable, report.beyond) == (5, 5)
        assert found["narrow:1:4"].score == 5 / 9
        assert operate(net, found["narrow:1:4"].surgery).record.exact
    else:
        assert (report.removable, report.beyond) == (0, 0)
        assert "narrow" not in {candidate.operation for candidate in found.values()}
        assert found["merge:1"].score == 0.0
        assert found["insert_identity:1"].score == 1.0
    # The paper's candidates are as they were, whatever the activation.
    assert {str(c): c.score for c in propose(net, PAPER)} == {
        "identity": 0.0,
        "widen:1:2": 1.0,
        "widen:1:20": 1.0,
        "insert_identity:1": 1.0,
        "narrow:1:4": 0.0,
        "factorize:1:4": 0.0,
        "merge:1": 0.0,
    }


def test_a_prelu_of_slope_1_is_linear():
    net = randomised(create((4, 9, 3)), scale=9)
    for slope, removable in ((1.0, 5), (0.25, 0)):
        layer = replace(net.layers[0], activation=prelu(np.full(9, slope, np.float32)))
        assert inspect_layers(net.with_layers([layer, *net.layers[1:]]), Thresholds())[0].removable == removable


def test_the_rank_bound_limits_a_factorization_behind_any_activation():
    # σ = 9 (10 times) and 0.1 (2 times): rank 10 is what counts of 12, though none of the 90 units is called removable
    # but those two.
    net = with_first_weight(create((12, 90, 4)), np.eye(12, 90) * np.array([9.0] * 10 + [0.1] * 80))
    (report,) = inspect_layers(net, Thresholds())
    assert (report.small, report.removable) == (2, 2)
    assert [str(c) for c in by_operation(net, Thresholds())["factorize", 1]] == ["factorize:1:10"]


def by_operation(net, thresholds=PAPER):
    found = {}
    for candidate in propose(net, thresholds):
        found.setdefault((candidate.operation, candidate.surgery and candidate.surgery.layer), []).append(candidate)
    return found


def test_scores_and_amounts_of_section_5():
    # Layer 1: 10 units, σ = 5 (7 times) and 0.1 (3 times), so n_r = 3; layer 2 of 2: all of them count.
    net = create((12, 10, 8, 4))
    net = with_first_weight(net, np.eye(12, 10) * np.array([5.0] * 7 + [0.1] * 3))
    layers = list(net.layers)
    layers[1] = replace(layers[1], weight=(2 * np.eye(10, 8)).astype(np.float32))
    found = by_operation(net.with_layers(layers))
    assert [(str(c), c.score) for c in found["widen", 1]] == [("widen:1:2", 0.7), ("widen:1:20", 0.7)]
    assert [(str(c), c.score) for c in found["insert_identity", 1]] == [("insert_identity:1", pytest.approx(0.35))]
    assert [(str(c), c.score) for c in found["narrow", 1]] == [("narrow:1:7", pytest.approx(0.3))]
    assert [(str(c), c.score) for c in found["factorize", 1]] == [("factorize:1:7", pytest.approx(0.3))]
    assert [(str(c), c.score) for c in found["merge", 1]] == [("merge:1", pytest.approx(0.15))]
    assert [(str(c), c.score) for c in found["widen", 2]] == [("widen:2:2", 1.0), ("widen:2:20", 1.0)]
    assert [(str(c), c.score) for c in found["insert_identity", 2]] == [("insert_identity:2", 1.0)]
    assert [(str(c), c.score) for c in found["narrow", 2]] == [("narrow:2:7", 0.0)]
    assert [(str(c), c.score) for c in found["merge", 2]] == [("merge:2", 0.0)]


def test_a_layer_of_which_nothing_counts_is_to_be_merged():
    net = with_first_weight(create((6, 4, 3)), 0.01 * np.eye(6, 4))
    found = by_operation(net)
    assert found["merge", 1][0].score == 1.0
    assert str(found["narrow", 1][0]) == "narrow:1:1"  # at most n − 1 are removed
    assert ("factorize", 1) not in found  # rank 0


def test_wide_layers_get_a_tenth_and_a_whole():
    found = by_operation(create((50, 40, 3)))
    assert [str(c) for c in found["widen", 1]] == ["widen:1:4", "widen:1:40"]


def test_factorize_is_proposed_only_where_it_saves_outside_the_paper():
    net = randomised(create((12, 10, 4)), scale=5)
    assert ("factorize", 1) in by_operation(net, PAPER)  # rank 9: 9 · 22 > 120
    assert ("factorize", 1) not in by_operation(net, Thresholds())


def test_what_is_proposed_can_be_done_narrowing_within_the_rank_bound():
    """An operation that cannot be done raises."""
    for thresholds in (PAPER, Thresholds()):
        net = randomised(create((4, 9, 3)), scale=9)
        for candidate in propose(net, thresholds):
            if candidate.surgery is not None:
                operate(net, candidate.surgery)


def test_a_single_unit_is_not_narrowed():
    assert ("narrow", 1) not in by_operation(create((4, 1, 3)))


def test_identity_is_the_only_candidate_without_hidden_layers():
    assert [str(c) for c in propose(create((4, 3)), PAPER)] == ["identity"]


@pytest.mark.parametrize("op", ["Relu", "Tanh"])
@pytest.mark.parametrize("bias", [None, 0, 1, 2])
def test_parameter_counts_are_exact_and_every_candidate_has_a_reason(op, bias):
    net = randomised(create((9, 7, 12, 5), activation=op), scale=1)
    if bias is not None:
        net = with_bias_removed(net, bias)
    candidates = propose(net, PAPER)
    assert len(candidates) > 10
    for candidate in candidates:
        assert len(candidate.reason.split()) >= 5
        if candidate.surgery is not None:
            assert operate(net, candidate.surgery).network.parameter_count == candidate.parameters


def test_layer_reports():
    net = create((6, 4, 3))
    (report,) = inspect_layers(net, PAPER)
    assert (report.layer, report.inputs, report.units, report.parameters) == (1, 6, 4, 28)
    np.testing.assert_allclose(report.singular_values, np.linalg.svd(net.layers[0].weight.astype(float))[1], rtol=1e-6)


def test_rank_by_score_then_parameters():
    candidates = ranked(propose(randomised(create((20, 10, 8, 4)), scale=2), PAPER))
    keys = [(-c.score, c.parameters) for c in candidates]
    assert keys == sorted(keys)
    assert len({c.score for c in candidates}) < len(candidates)  # so that the second key matters


def test_selections():
    one, two = create((20, 10, 4), seed=1), create((20, 10, 8, 4), seed=2)
    pool = [*propose(one, PAPER, branch=1), *propose(two, PAPER, branch=2)]
    rng = np.random.default_rng(0)
    chosen = best_of_each(pool, rng, random_draw=False)
    assert [c.operation for c in chosen].count("identity") == 2  # of every branch
    for operation in ("widen", "insert_identity", "narrow", "factorize", "merge"):
        best = ranked([c for c in pool if c.operation == operation])[0]
        assert [c for c in chosen if c.operation == operation] == [best]
    drawn = best_of_each(pool, rng, random_draw=True)
    assert drawn[:-1] == chosen
    assert drawn[-1] not in chosen
    assert top_n(pool, 4) == ranked(pool)[:4]
    assert len(random_walk(pool, rng)) == 1
    assert random_walk([], rng) == []
    with pytest.raises(SettingsError, match="'best' is unknown"):
        select("best", pool, rng, n=1, random_draw=False)


def test_what_prune_would_lose(digit_examples):
    train, _ = digit_examples
    net = randomised(create((64, 30, 20, 10), input_shape=(8, 8)), scale=0.2)
    layers = list(net.layers)
    # Half of layer 1 is there twice: 15 of its units foretell all.
    layers[0] = replace(layers[0], weight=np.tile(layers[0].weight[:, :15], 2), bias=np.tile(layers[0].bias[:15], 2))
    net = net.with_layers(layers)
    moments = calibrate(net, train)
    first, second = inspect_pruning(net, moments)
    assert first.candidate.surgery.units <= 15
    for report in (first, second):
        left, errors = report.candidate.surgery.units, pruning_errors(net, report.layer, moments)
        assert errors[left - 1] <= MOST_LOST < errors[left - 2]
        assert report.error_at(0.5) == errors[len(errors) // 2 - 1]
        assert f"{errors[left - 1]:.3g}" in report.reason
        assert report.candidate.score == 1 - left / len(errors)
        operated = operate(net, report.candidate.surgery, moments=moments)
        assert operated.network.parameter_count == report.candidate.parameters
        assert operated.record.predicted == pytest.approx(errors[left - 1], rel=0.2)  # the ridge is prune's own


def test_where_no_unit_can_go_nothing_is_recommended(digit_examples, monkeypatch):
    train, _ = digit_examples
    net = randomised(create((64, 3, 1, 10), input_shape=(8, 8)), scale=0.2)
    moments = calibrate(net, train)
    for report in inspect_pruning(net, moments):
        assert report.candidate is None
        assert report.reason.startswith(f"none of layer {report.layer}'s")
    monkeypatch.setattr(calibration, "WIDEST", 2)
    first, second = inspect_pruning(net, calibrate(net, train))
    assert (first.errors, first.error_at(0.5), first.candidate) == (None, None, None)
    assert "more than the 2 that covariances are made of" in first.reason
    assert second.errors is not None
