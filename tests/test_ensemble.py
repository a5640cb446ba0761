"""Several networks as one: the join itself, and the search that settles them side by side."""

from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import SettingsError, SurgeonSettings, SurgeryError, create, evolve, load, save
from onnxsurgeon.data.examples import Examples, together
from onnxsurgeon.data.prepare import prepare
from onnxsurgeon.graph.activations import Activation
from onnxsurgeon.graph.equivalence import chain_outputs, random_features
from onnxsurgeon.runs.journal import RunDirectory, file_digest
from onnxsurgeon.surgery.join import join, reason_against
from onnxsurgeon.training.choose import make_engine
from onnxsurgeon.training.schedule import BatchSchedule
from tests.conftest import MODELS, branch_digests, killed_and_resumed, randomised, start_model, with_bias_removed

SETTINGS = SurgeonSettings.from_preset("default", seed=6, epochs=12, growth=0.25, batch_size=32, ensemble=3)


def members(*sizes, change=lambda network: network):
    """Random networks of one input and output, the hidden layers as given."""
    return [change(randomised(create((7, *hidden, 3), seed=1), seed)) for seed, hidden in enumerate(sizes)]


def with_slopes(network):
    rng = np.random.default_rng(network.parameter_count)
    layers = [
        replace(layer, activation=Activation("PRelu", slope=rng.standard_normal(layer.units).astype(np.float32)))
        for layer in network.layers[:-1]
    ]
    return network.with_layers([*layers, network.layers[-1]])


def without_biases(network):
    for index in range(len(network.layers)):
        network = with_bias_removed(network, index)
    return network


@pytest.mark.parametrize("sizes", [[(4,), (4,)], [(4, 5), (6, 2), (1, 1)], [(4, 5, 6)] * 4, [(5,)]])
@pytest.mark.parametrize("change", [lambda network: network, with_slopes, without_biases])
def test_the_outputs_are_the_mean(sizes, change):
    networks = members(*sizes, change=change)
    joined = join(networks)
    x = random_features(joined.chain)
    expected = np.mean([chain_outputs(network.chain, x) for network in networks], axis=0)
    np.testing.assert_allclose(chain_outputs(joined.chain, x), expected, rtol=1e-5, atol=1e-5)
    assert joined.widths[1:-1] == tuple(map(sum, zip(*sizes, strict=True)))


def test_what_cannot_be_joined_says_why():
    one, other = members((4, 5), (4,))
    assert reason_against([one, other]) == "they have other layers"
    assert reason_against([one, with_slopes(one)]) == "they have other layers"
    assert reason_against([one, create((8, 4, 5, 3))]) == "they have other surroundings"
    assert reason_against([create((7, 3))]) == "no hidden layer"
    two = replace(one, segments=one.segments * 2)
    assert reason_against([two, two]) == "2 segments"
    with pytest.raises(SurgeryError, match="cannot be joined with the others: they have other layers"):
        join([one, other])


def test_members_see_batches_of_their_own():
    schedule = BatchSchedule(100, 10, 3)
    first, second, again = (np.concatenate(list(schedule.window(5, 25, member))) for member in (0, 1, 1))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(second, again)
    whole = np.concatenate(list(schedule.window(10, 20, 1)))
    assert sorted(whole.reshape(-1)) == list(range(100))
    np.testing.assert_array_equal(np.concatenate(list(schedule.window(5, 25))), first)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    return evolve(start_model(folder), "digits", settings=SETTINGS, run_dir=folder / "run", workers=1)


def of(done, kind):
    return [event for event in RunDirectory.open(done.run).read_journal() if event["event"] == kind]


def test_members_settle_apart_and_become_one(undisturbed):
    done = undisturbed
    last, before = of(done, "decided")[-1], of(done, "decided")[-2]
    assert len(before["branches"]) == 3
    assert len(set(before["losses"])) == 3
    assert len(last["branches"]) == 1
    assert [event["surgery"] for event in of(done, "proposed")][-2:] == ["join:3", "join:3"]
    ends = [event for event in of(done, "trained") if event["epoch"] == SETTINGS.epochs]
    *singles, joined = ends[:4]
    assert [event["parent"] for event in singles] == before["branches"]
    assert joined["parent"] in {event["branch"] for event in singles}
    assert joined["loss"] < np.mean([event["loss"] for event in singles])  # cross-entropy is convex
    is_the_mean_of(done, joined, singles)


def is_the_mean_of(done, joined, members):
    network = load(file_of(done, joined))
    assert network.parameter_count == joined["parameters"]
    expected = join([load(file_of(done, event)) for event in members])
    for (name, values), (_, wanted) in zip(network.parameters(), expected.parameters(), strict=True):
        np.testing.assert_array_equal(values, wanted, err_msg=name)


def file_of(done, event):
    (path,) = (done.run / "branches").glob(f"{event['branch']:04d}-*.onnx")
    return path


def test_the_result_is_settled_once_more_on_all_rows(undisturbed, digits):
    """From the branch that settled, on as many epochs of more batches; with the figures of before."""
    done = undisturbed
    *_, settled, first, second, third, joined = (e for e in of(done, "trained") if e["epoch"] == SETTINGS.epochs)
    again = [first, second, third]
    assert [event["surgery"] for event in again] == ["refit"] * 3
    assert {event["parent"] for event in again} == {settled["branch"]}
    assert {(e["accuracy"], e["loss"]) for e in [*again, joined]} == {(settled["accuracy"], settled["loss"])}
    is_the_mean_of(done, joined, again)
    assert done.is_refitted
    assert done.branch.number == joined["branch"] == of(done, "decided")[-1]["best"]
    assert done.validation_accuracy == settled["accuracy"]
    assert done.record()["is_refitted"]
    _, validation = digits.hold_out()
    held = prepare(done.network, digits, validation)
    engine = make_engine("loop")
    loss = {e["branch"]: engine.evaluate(load(file_of(done, e)), held).loss for e in (settled, joined)}
    assert loss[joined["branch"]] < loss[settled["branch"]]  # it has seen these rows


@pytest.mark.parametrize(
    "changes",
    [{"refit": False}, {"time_limit": 1000.0}, {"max_parameters": 3000}, {"target_accuracy": 0.2}],
)
def test_what_is_not_settled_once_more(changes, tmp_path):
    settings = replace(SETTINGS, epochs=6, growth=0.17, shrink_step=1, **changes)
    done = evolve(start_model(tmp_path), "digits", settings=settings, run_dir=tmp_path / "run", workers=2)
    assert not done.is_refitted
    assert "is_refitted" not in done.record()
    assert not [event for event in of(done, "trained") if event["surgery"] == "refit"]


@pytest.mark.parametrize("changes", [{"refit": False}, {"time_limit": 1000.0}])
def test_several_that_did_not_grow_become_one(changes, tmp_path):
    """All that was in the front had the topology of the members, whose places their mean takes."""
    settings = replace(SETTINGS, epochs=6, growth=0.0, **changes)
    done = evolve(start_model(tmp_path), "digits", settings=settings, run_dir=tmp_path / "run", workers=2)
    (joined,) = [event for event in of(done, "trained") if event["surgery"].startswith("join")]
    assert done.branch.number == joined["branch"]


def test_a_validation_split_of_ones_own_is_not_trained_on(tmp_path, digits):
    x, y = digits.train.inputs.reshape(-1, 64).astype(np.float32) / 16, digits.train.labels
    parts = {"train": slice(0, 1000), "validation": slice(1000, 1200), "test": slice(1200, 1400)}
    np.savez(
        tmp_path / "d.npz",
        **{f"{k}_{part}": v[rows] for part, rows in parts.items() for k, v in zip("xy", (x, y), strict=True)},
    )
    save(create((64, 10, 10), seed=1), tmp_path / "m.onnx")
    settings = replace(SETTINGS, epochs=4)
    done = evolve(tmp_path / "m.onnx", str(tmp_path / "d.npz"), settings=settings, run_dir=tmp_path / "run", workers=2)
    assert not done.is_refitted
    assert of(done, "proposed")[-1]["surgery"] == "join:3"


def test_a_single_network_is_settled_once_more_too(tmp_path):
    settings = replace(SETTINGS, epochs=4, ensemble=1)
    done = evolve(start_model(tmp_path), "digits", settings=settings, run_dir=tmp_path / "run", workers=2)
    assert done.is_refitted
    assert done.branch.surgery == "refit"
    assert [e["surgery"] for e in of(done, "trained") if e["epoch"] == 4] == ["identity", "refit"]


def test_the_number_of_workers_does_not_matter(undisturbed, tmp_path):
    other = evolve(start_model(tmp_path), "digits", settings=SETTINGS, run_dir=tmp_path / "run", workers=3)
    assert branch_digests(other.run) == branch_digests(undisturbed.run)
    assert file_digest(other.run / "best.onnx") == file_digest(undisturbed.run / "best.onnx")


@pytest.mark.parametrize(("moment", "count"), [("training", 20), ("training", 60), ("writing", 18), ("writing", 22)])
def test_a_killed_run_ends_alike(undisturbed, moment, count, tmp_path):
    resumed = killed_and_resumed(moment, count, tmp_path / "run", SETTINGS)
    assert branch_digests(resumed.run) == branch_digests(undisturbed.run)
    assert file_digest(resumed.run / "best.onnx") == file_digest(undisturbed.run / "best.onnx")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 1),
        ({"ensemble": 4}, 4),
        ({"max_parameters": 3000}, 1),
        ({"max_size": 30_000}, 1),
        ({"tolerance": 0.01}, 1),
        ({"min_accuracy": 0.5}, 1),
        ({"objective": "pareto"}, 1),
        ({"ensemble": 1}, 1),
        ({"ensemble": 2, "max_parameters": 3000}, 2),
    ],
)
def test_where_nothing_limits_the_result_there_are_several(changes, expected, tmp_path):
    settings = replace(
        SETTINGS, **{"ensemble": None, "refit": False, "epochs": 6, "growth": 0.17, "shrink_step": 1, **changes}
    )
    done = evolve(start_model(tmp_path), "digits", settings=settings, run_dir=tmp_path / "run", workers=2)
    (grown,) = next(event["branches"] for event in of(done, "decided") if event["epoch"] == 1)
    settled = [event for event in of(done, "trained") if event["parent"] == grown]
    assert len(settled) == expected
    assert [e["surgery"] for e in of(done, "proposed") if "join" in e["surgery"]] == [f"join:{expected}"] * (
        expected > 1
    )
    assert done.network.parameter_count <= changes.get("max_parameters", np.inf)


def test_an_ensemble_that_cannot_be_is_refused_at_once(tmp_path):
    model = MODELS / "exports" / "torch-dynamo-residual.onnx"
    with pytest.raises(SettingsError, match=r"ensemble: '.*' cannot be one of several: it has [2-9] segments"):
        evolve(model, "digits", settings=SETTINGS, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_all_rows_are_the_training_rows_as_they_lay(digits):
    """A selection of the same arrays, nothing copied, in their order; of other arrays the one after the other."""
    network = create((64, 10, 10), input_shape=(8, 8))
    whole = prepare(network, digits, digits.train)
    train, validation = (prepare(network, digits, split) for split in digits.hold_out())
    found = together(train, validation)
    assert found.stored[0].memory == train.stored[0].memory
    np.testing.assert_array_equal(found.features[0], whole.features[0])
    np.testing.assert_array_equal(found.labels[0], whole.labels[0])
    apart = together(Examples(train.features, train.labels, train.tasks), validation)
    np.testing.assert_array_equal(apart.features[0], np.concatenate([train.features[0], validation.features[0]]))
    np.testing.assert_array_equal(apart.labels[0], np.concatenate([train.labels[0], validation.labels[0]]))


@pytest.mark.parametrize("changes", [{"epochs": 40}, {"shrinkage": 0.0}])
def test_members_stay_where_the_joined_network_is_too_large(changes, tmp_path):
    settings = replace(SETTINGS, **{"epochs": 8, "max_parameters": 2000, **changes})
    done = evolve(start_model(tmp_path), "digits", settings=settings, run_dir=tmp_path / "run", workers=2)
    assert done.branch.number > 0
    assert done.network.parameter_count <= 2000
    assert done.validation_accuracy > 0.9


def test_what_gets_worse_while_it_settles_is_settled_anew_for_as_long_as_was_best(tmp_path):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((200, 10)).astype(np.float32)
    np.savez(tmp_path / "noisy.npz", x=x, y=(x[:, 0] + 1.5 * rng.standard_normal(200) > 0).astype(np.int64))
    save(create((10, 32, 2), seed=1), tmp_path / "start.onnx")
    wishes = {"epochs": 40, "growth": 0.0, "ensemble": 1, "learning_rate": 0.02, "start": "untrained"}
    settings = SurgeonSettings.from_preset(seed=1, **wishes)
    done = evolve(
        tmp_path / "start.onnx", str(tmp_path / "noisy.npz"), settings=settings, run_dir=tmp_path / "run", workers=1
    )
    *settled, refit = of(done, "trained")
    best = max(settled, key=lambda event: (event["accuracy"], -event["loss"]))
    assert best["epoch"] < settled[-1]["epoch"] == 40
    assert (refit["surgery"], refit["epoch"], refit["accuracy"]) == ("refit", best["epoch"], best["accuracy"])
    assert done.is_refitted
    assert done.branch.number == refit["branch"]
