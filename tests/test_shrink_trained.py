"""The search for trained starts: no harm done, limits met however short the run, the same bytes after a kill."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from onnxsurgeon import SettingsError, SurgeonSettings, create, evolve, load, load_dataset, prepare, save
from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.calibration.sensitivity import with_sensitivities
from onnxsurgeon.data.sampling import sample_rows
from onnxsurgeon.recommend.reduction import (
    BOTH,
    LAYERS,
    RANKS,
    UNITS,
    by_units,
    kind_of,
    reductions,
    without_duplicates,
)
from onnxsurgeon.recommend.shrinking import shrinkage
from onnxsurgeon.runs.journal import RunDirectory, file_digest
from onnxsurgeon.surgeon.cycles import Pace
from onnxsurgeon.surgeon.pruning_search import without_steps
from onnxsurgeon.surgeon.race import Race
from onnxsurgeon.surgeon.shrink_trained import ShrinkTrained
from onnxsurgeon.surgeon.start import grows, start_of
from onnxsurgeon.surgery import Prune, Widen, operate
from onnxsurgeon.training.fit import fit
from onnxsurgeon.training.loop import LoopEngine
from onnxsurgeon.training.settings import TrainingSettings
from tests.conftest import MODELS, branch_digests, killed_and_resumed, start_model

ENGINE = LoopEngine()
COUNT = 64 * 48 + 48 + 48 * 32 + 32 + 32 * 10 + 10


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits):
    """The path of a trained network, 64-48-32-10."""
    network = create((64, 48, 32, 10), seed=3, input_shape=(8, 8))
    settings = TrainingSettings(learning_rate=0.003, optimizer="adamw", schedule="cosine")
    done, test = fit(network, digits, ENGINE, epochs=15, settings=settings)
    assert test.accuracy > 0.9
    path = tmp_path_factory.mktemp("trained") / "trained.onnx"
    save(done.network, path)
    return path


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory, digits):
    """The digits as rows without labels."""
    path = tmp_path_factory.mktemp("rows") / "rows.npz"
    np.savez(path, x_train=digits.train.inputs, x_test=digits.test.inputs)
    return path


def settings(**changes):
    return SurgeonSettings.from_preset(**{"epochs": 8, "seed": 5, "batch_size": 32, **changes})


def run(model, folder, data="digits", workers=1, **changes):
    return evolve(model, str(data), settings=settings(**changes), run_dir=folder, workers=workers)


def events_of(done, *kinds):
    return [event for event in RunDirectory.open(done.run).read_journal() if event["event"] in kinds]


@pytest.fixture(scope="module")
def undisturbed(trained, tmp_path_factory):
    """A run that made the network eight times smaller."""
    return run(trained, tmp_path_factory.mktemp("undisturbed") / "run", shrink=8, epochs=12)


def test_whether_a_network_is_trained_is_found(trained, digits, tmp_path):
    examples = [prepare(load(trained), digits, split) for split in digits.hold_out()]
    assert start_of(load(trained), settings(), ENGINE, *examples).is_trained
    assert not start_of(load(trained), settings(start="untrained"), ENGINE, *examples).is_trained
    for seed in range(5):
        fresh = create((64, 48, 32, 10), seed=seed, input_shape=(8, 8))
        found = start_of(fresh, settings(), ENGINE, *examples)
        assert not found.is_trained
        assert "not better than chance" in found.reason
        assert start_of(fresh, settings(start="trained"), ENGINE, *examples).is_trained


@pytest.mark.parametrize("name", ["diabetes", "breast"])
def test_an_untrained_network_of_few_rows_counts_as_such(name, tmp_path):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((240, 7)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(np.int64) if name == "breast" else x[:, :1].astype(np.float64)
    np.savez(tmp_path / "data.npz", x=x, y=y)
    data = load_dataset(str(tmp_path / "data.npz"))
    counted = 0
    for seed in range(12):
        network = create((7, 10, 2 if name == "breast" else 1), seed=seed, softmax=name == "breast")
        examples = [prepare(network, data, split) for split in data.hold_out()]
        counted += start_of(network, settings(), ENGINE, *examples).is_trained
    assert counted <= (4 if name == "breast" else 0)  # two classes: random weights can be right


def test_what_is_allowed_to_grow(trained):
    network = load(trained)
    assert not grows(network, settings(), 0.9, 20_000)
    assert not grows(network, settings(max_parameters=network.parameter_count), 0.9, 20_000)
    assert grows(network, settings(max_parameters=2 * network.parameter_count), 0.9, 20_000)
    assert grows(network, settings(max_size=40_000), 0.9, 20_000)
    assert grows(network, settings(ensemble=2), 0.9, 20_000)
    assert grows(network, settings(min_accuracy=0.95), 0.9, 20_000)
    assert not grows(network, settings(min_accuracy=0.85), 0.9, 20_000)
    assert not grows(network, settings(min_accuracy=0.95, shrink=2), 0.9, 20_000)
    twice = 2 * network.parameter_count
    assert not grows(network, settings(max_parameters=twice, max_size=10_000), 0.9, 20_000)
    assert not grows(network, settings(max_parameters=twice, max_latency=1.0), 0.9, 20_000)
    assert grows(network, settings(max_parameters=twice, max_size=40_000), 0.9, 20_000)
    with pytest.raises(SettingsError, match="ensemble: several networks become a larger one"):
        grows(network, settings(ensemble=2, shrink=2), 0.9, 20_000)


def test_straight_pruning_is_in_the_race(undisturbed):
    """By steps of a fifth down to the limit, each measured; the result is no worse than any within the limit."""
    tried = [event for event in events_of(undisturbed, "recuperated") if event["epoch"] == 0]
    path = [COUNT]
    for event in tried:
        if kind_of(event["surgery"]) == UNITS and event["parameters"] < path[-1]:
            path.append(event["parameters"])
    limit = COUNT // 8
    assert path[-1] <= limit < path[-2]
    assert all(after >= 0.75 * before for before, after in pairwise(path))
    within = [event["accuracy"] for event in tried if event["parameters"] <= limit]
    assert len(within) >= 3
    assert undisturbed.validation_accuracy >= max(within)
    assert {kind_of(event["surgery"]) for event in tried} >= {UNITS, LAYERS}


def test_a_trained_start_is_not_grown(undisturbed):
    assert all(event["parameters"] <= COUNT for event in events_of(undisturbed, "recuperated", "trained"))
    operations = {
        name.partition(":")[0] for e in events_of(undisturbed, "proposed") for name in e["surgery"].split("+")
    }
    assert operations <= {"prune", "factorize_data", "merge_data", "merge_duplicates"}


def test_the_rate_that_won_is_told(undisturbed):
    (chosen,) = events_of(undisturbed, "chosen")
    full = settings().rate_of(undisturbed.network.parameter_count)
    assert chosen["learning_rate"] in (full, full / 4)
    assert "the least loss of" in chosen["reason"]
    last = events_of(undisturbed, "decided")[-1]["search"]
    assert last["rate"] in [chosen["learning_rate"] / full / slower for slower in (1, 4, 16)]


def test_nothing_is_dropped_out_unasked(trained, tmp_path, monkeypatch):
    seen = []
    train = LoopEngine.train
    monkeypatch.setattr(LoopEngine, "train", lambda *args: seen.append(args[4]) or train(*args))
    run(trained, tmp_path / "run", shrink=2)
    assert {(spec.dropout, spec.input_dropout) for spec in seen} == {(0.0, 0.0)}
    seen.clear()
    evolve(
        start_model(tmp_path), "digits", settings=settings(max_parameters=900), run_dir=tmp_path / "other", workers=1
    )
    assert max(spec.input_dropout for spec in seen) > 0


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("wish", [{"shrink": 10}, {"max_parameters": 700}, {"max_size": 6000}])
def test_limits_are_met_however_short_the_run(trained, tmp_path, epochs, wish):
    done = run(trained, tmp_path / "run", epochs=epochs, **wish)
    assert done.shortfall == ""
    assert done.network.parameter_count <= wish.get("max_parameters", COUNT / wish.get("shrink", 1))
    assert (done.run / "best.onnx").stat().st_size <= wish.get("max_size", 10**9)
    assert events_of(done, "decided")[-1]["epoch"] <= epochs


@pytest.mark.parametrize("epochs", [1, 3, 4, 8])
@pytest.mark.parametrize("wish", [{"shrink": 2}, {"max_parameters": 300}, {"max_size": 4000}])
def test_untrained_starts_meet_their_limits_too(tmp_path, epochs, wish):
    start = start_model(tmp_path)
    done = run(start, tmp_path / "run", epochs=epochs, **wish)
    count = load(start).parameter_count
    assert done.shortfall == ""
    assert done.network.parameter_count <= wish.get("max_parameters", count / wish.get("shrink", 1))
    assert (done.run / "best.onnx").stat().st_size <= wish.get("max_size", 10**9)


def test_the_file_is_within_its_bytes(tmp_path):
    """models/digits-small.onnx is untrained; a file of 6,000 bytes holds a good network."""
    done = run(MODELS / "digits-small.onnx", tmp_path / "run", max_size=6000, epochs=30, batch_size=None)
    assert (done.run / "best.onnx").stat().st_size <= 6000
    assert done.test.accuracy > 0.9


def test_training_gains(trained, tmp_path):
    done = run(trained, tmp_path / "run", shrink=20, epochs=12)
    straight = max(e["accuracy"] for e in events_of(done, "recuperated") if e["parameters"] <= COUNT // 20)
    assert done.validation_accuracy > straight + 0.1


def test_the_number_of_workers_does_not_matter(undisturbed, trained, tmp_path):
    other = run(trained, tmp_path / "run", workers=3, shrink=8, epochs=12)
    assert branch_digests(other.run) == branch_digests(undisturbed.run)
    assert file_digest(other.run / "best.onnx") == file_digest(undisturbed.run / "best.onnx")


def test_steps_of_pruning_are_not_told_twice():
    steps = (
        "merge_duplicates:1",
        "prune:1:40",
        "prune:2:30",
        "prune:1:30",
        "factorize_data:2:8",
        "prune:1:20",
        "prune:1:9",
    )
    assert without_steps(steps) == (
        "merge_duplicates:1",
        "prune:2:30",
        "prune:1:30",
        "factorize_data:2:8",
        "prune:1:9",
    )


def test_the_smallest_that_loses_no_more_than_asked(trained, tmp_path):
    """What has lost nothing passes; what has lost something has to do so by half a standard error."""
    done = run(trained, tmp_path / "run", lose=0.03, epochs=24)
    given = events_of(done, "started")[0]["accuracies"][0]
    tried = events_of(done, "recuperated", "trained")
    sizes = {passes: [e["parameters"] for e in tried if e["accuracy"] >= given - passes] for passes in (0.0, 0.03)}
    assert done.validation_accuracy >= given - 0.03
    assert min(sizes[0.03]) <= done.network.parameter_count <= min(sizes[0.0])
    assert done.network.parameter_count < COUNT / 3


def test_without_a_wish_the_smallest_that_is_no_worse(trained, tmp_path):
    done = evolve(
        trained,
        "digits",
        settings=settings(epochs=24),
        validation_fraction=0.4,
        run_dir=tmp_path / "run",
        workers=1,
    )
    front = events_of(done, "decided")[-1]["front"]
    best = max(entry["accuracy"] for entry in front)
    assert done.validation_accuracy >= best - 0.01
    assert done.network.parameter_count < COUNT
    few = run(trained, tmp_path / "few", epochs=24)  # 144 rows tell no loss below 0.01 by two standard errors
    assert few.is_given
    assert not any(e["parameters"] > COUNT for e in events_of(done, "trained", "recuperated"))


def test_where_the_given_size_is_allowed_the_given_network_stays_unless_another_is_better(trained, tmp_path):
    done = run(trained, tmp_path / "run", max_parameters=COUNT, epochs=1, learning_rate=1e-9)
    assert done.is_given
    assert file_digest(done.run / "best.onnx") == file_digest(done.run / "branches" / "0000-start.onnx")


@pytest.mark.parametrize("wish", [{"max_parameters": 2 * COUNT}, {"max_size": 50_000}])
@pytest.mark.parametrize("rate", [0.004, 10.0])
def test_where_more_is_allowed_the_given_network_is_in_the_race(trained, tmp_path, wish, rate):
    """It is the first on the front, and stays unless a larger one is better by more than chance: here none is."""
    done = run(trained, tmp_path / "run", epochs=4, learning_rate=rate, **wish)
    grown = [event["parameters"] for event in events_of(done, "trained", "recuperated")]
    assert max(grown) > COUNT
    assert events_of(done, "started")[0]["front"][0]["branch"] == 0
    assert done.is_given
    assert done.shortfall == ""


def test_of_several_limits_the_one_that_is_below_leads_to_straight_pruning(trained, tmp_path):
    done = run(trained, tmp_path / "run", max_parameters=2 * COUNT, max_size=12_000)
    tried = events_of(done, "recuperated", "trained")
    assert max(event["parameters"] for event in tried) <= COUNT
    assert {kind_of(event["surgery"]) for event in tried if event["epoch"] == 0} >= {UNITS, LAYERS}
    assert done.shortfall == ""


def test_rows_without_labels_shrink_it(trained, unlabelled, tmp_path):
    done = run(trained, tmp_path / "run", data=unlabelled, shrink=4, epochs=12)
    assert done.test.metric == "agreement"
    assert done.start.accuracy == 1.0
    assert done.test.accuracy > 0.9
    labelled = load_dataset("digits")
    assert ENGINE.evaluate(done.network, prepare(done.network, labelled, labelled.test)).accuracy > 0.88


def test_the_front_begins_with_the_given_network(trained, tmp_path):
    done = run(trained, tmp_path / "run", objective="pareto", epochs=24)
    assert done.front[0].parameters <= COUNT
    assert len(done.front) >= 5
    assert done.front[-1].parameters < COUNT / 5


def test_nothing_is_pruned_that_nobody_asked_for(tmp_path):
    done = run(start_model(tmp_path), tmp_path / "run", ensemble=2, time_limit=6, epochs=10**5, refit=False)
    assert not any(e["surgery"].startswith("prune") for e in events_of(done, "proposed"))


def test_a_time_limit_that_is_long_enough_changes_nothing(undisturbed, trained, tmp_path):
    """The race is as long as without one: what an epoch takes is found before it."""
    done = run(trained, tmp_path / "run", shrink=8, epochs=12, time_limit=1000.0)
    assert branch_digests(done.run) == branch_digests(undisturbed.run)


@pytest.mark.parametrize("wish", [{"shrink": 8}, {"lose": 0.05}, {}, {"objective": "pareto"}])
def test_where_time_is_short_pruning_does_not_take_it_all(trained, tmp_path, monkeypatch, wish):
    """A step of pruning takes two seconds of sixteen, by a clock of its own: plans of other kinds are left out."""
    now = [0.0]
    operate_once = ShrinkTrained.untrained
    monkeypatch.setattr(ShrinkTrained, "elapsed", lambda self, state: now[0])
    monkeypatch.setattr("onnxsurgeon.surgeon.pruning_search.time", SimpleNamespace(perf_counter=lambda: now[0]))

    def untrained(self, *given):
        now[0] += 2.0
        return operate_once(self, *given)

    monkeypatch.setattr(ShrinkTrained, "untrained", untrained)
    done = run(trained, tmp_path / "run", time_limit=16.0, **wish)
    assert now[0] <= 10.0
    tried = events_of(done, "recuperated")
    assert {kind_of(event["surgery"]) for event in tried} == {UNITS}
    assert done.shortfall == ""
    assert done.network.parameter_count <= COUNT // wish.get("shrink", 1)
    if "shrink" in wish:
        assert len(tried) <= 3
        assert events_of(done, "trained")  # there is time left for that


def test_what_there_is_no_time_for_is_not_trained(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(Pace, "epochs", lambda *_: 0.9)
    done = run(trained, tmp_path / "run", shrink=8, time_limit=1000.0)
    assert not events_of(done, "trained")
    assert done.network.parameter_count <= COUNT // 8


def test_plans_of_a_limit_on_latency_are_of_equal_latency(trained, tmp_path, monkeypatch):
    """A layer takes 1 ms, a thousand parameters 0.1: with a layer less, more units are as fast."""
    layers = {"64-48-32-10": 3}

    def latency_of(_, path):
        network = load(path)
        return layers.get(network.topology, network.topology.count("-")) + network.parameter_count / 10_000

    monkeypatch.setattr("onnxsurgeon.surgeon.fast_enough.Yardstick.latency_of", latency_of)
    monkeypatch.setattr("onnxsurgeon.surgeon.start.latency_of", lambda _: 2.0)
    done = run(trained, tmp_path / "run", max_latency=3.1, epochs=6)
    tried = [event for event in events_of(done, "recuperated") if event["epoch"] == 0]
    units = [e["parameters"] for e in tried if kind_of(e["surgery"]) == UNITS and e["parameters"] <= 1000]
    shallow = [e["parameters"] for e in tried if kind_of(e["surgery"]) == LAYERS]
    assert max(units) >= 800
    assert max(shallow) > 2 * max(units)
    assert done.shortfall == ""
    assert max(units) <= done.network.parameter_count


@pytest.mark.parametrize(("moment", "count"), [("training", 4), ("training", 9), ("surgery", 6), ("writing", 12)])
def test_a_killed_run_ends_alike(moment, count, tmp_path):
    changes = settings(start="trained", shrink=2, epochs=10)
    undisturbed = evolve(start_model(tmp_path), "digits", settings=changes, run_dir=tmp_path / "whole", workers=2)
    resumed = killed_and_resumed(moment, count, tmp_path / "run", changes)
    assert branch_digests(resumed.run) == branch_digests(undisturbed.run)
    assert file_digest(resumed.run / "best.onnx") == file_digest(undisturbed.run / "best.onnx")


@pytest.mark.parametrize(("rate", "factor"), [(1e-4, 1), (0.1, 1 / 4)])
def test_rates_race_in_a_run_of_few_epochs_with_many_steps(rate, factor, trained, tmp_path):
    """Where all steps are short the higher wins, where they are long the lower."""
    done = run(trained, tmp_path / "run", shrink=8, epochs=4, batch_size=3, learning_rate=rate)
    (chosen,) = events_of(done, "chosen")
    assert chosen["learning_rate"] == pytest.approx(factor * rate)
    assert chosen["reason"].startswith("the least loss of 2 rates after 21")
    assert len(events_of(done, "trained")) == 1  # of the race nothing is kept
    (last,) = [event["search"] for event in events_of(done, "decided")][-1:]
    assert last["rate"] == factor


def test_rates_do_not_race_where_there_is_no_time(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(Race, "epochs", lambda self: 0)
    done = run(trained, tmp_path / "run", shrink=8, epochs=4, batch_size=3)
    assert not events_of(done, "chosen")
    assert events_of(done, "decided")[-1]["search"]["rate"] == 1 / 4


def test_rates_do_not_race_where_there_are_few_steps(trained, tmp_path):
    done = run(trained, tmp_path / "run", shrink=8, epochs=4)
    assert not events_of(done, "chosen")
    assert events_of(done, "decided")[-1]["search"]["rate"] == 1 / 4


@pytest.fixture(scope="module")
def known(trained, digits):
    network = load(trained)
    examples = prepare(network, digits, digits.train)
    rows = sample_rows(examples)
    return network, lambda each: with_sensitivities(calibrate(each, examples, rows), each, examples, rows)


@pytest.mark.parametrize("share", [2, 5, 12])
def test_each_plan_is_as_small_as_asked_and_counts_right(known, share):
    network, measure = known
    most = COUNT // share
    plans = reductions(network, measure, most)
    assert {kind_of(str(plan)) for plan in plans} >= {UNITS, LAYERS}
    for plan in plans:
        made = network
        for surgery in plan.surgeries:
            made = operate(made, surgery, moments=measure(made)).network
        assert made.parameter_count == plan.parameters <= most
        assert plan.parameters > 0.9 * most


def test_the_kind_of_a_plan():
    assert kind_of("prune:1:4+prune:2:8") == kind_of("start") == UNITS
    assert kind_of("factorize_data:2:4") == RANKS
    assert kind_of("prune:1:4+factorize_data:2:4") == BOTH
    assert kind_of("merge_data:1+prune:1:4") == LAYERS


def test_nothing_is_planned_for_what_is_small_enough(known):
    network, measure = known
    assert reductions(network, measure, COUNT) == []


def test_duplicates_go_without_a_loss(known):
    network, _ = known
    assert without_duplicates(network) is None
    wider = operate(network, Widen(2, 5, "equal"), np.random.default_rng(1)).network
    plan = without_duplicates(wider)
    assert str(plan) == "merge_duplicates:2"
    assert plan.parameters == COUNT


def test_units_that_the_outputs_do_not_need_go_first(known):
    """Units of layer 1 that only dead units of layer 2 read are worth nothing, whatever they do to layer 2."""
    network, measure = known
    rng = np.random.default_rng(0)
    second, third = network.layers[1].weight.copy(), network.layers[2].weight.copy()
    useless, unread = rng.permutation(48)[:20], rng.permutation(32)[:12]
    read = np.setdiff1d(np.arange(32), unread)
    second[np.ix_(useless, read)] = 0
    second[np.ix_(useless, unread)] *= 10
    third[unread] = 0
    changed = {id(network.layers[1].weight): second, id(network.layers[2].weight): third}
    silent = network.with_parameters(changed.get(id(values), values) for _, values in network.parameters())
    unweighed = replace(measure(silent), sensitivities={})
    gone = []
    for moments in (measure(silent), unweighed):
        kept = operate(silent, Prune(1, 28), moments=moments).network.layers[0].weight.T
        left = {values.tobytes() for values in kept}
        gone.append(sum(silent.layers[0].weight[:, unit].tobytes() not in left for unit in useless))
    assert gone[0] >= 15  # others are dead on the digits, and go for nothing as well
    assert gone[0] > 2 * gone[1]


def test_pruning_by_the_outputs_beats_what_goes_by_the_next_layer_alone(known, digits):
    network, measure = known
    examples = prepare(network, digits, digits.test)
    losses = {}
    for name, plan in (
        ("sensitive", by_units(network, measure(network), COUNT // 6)),
        ("plain", shrinkage(network, calibrate(network, prepare(network, digits, digits.train)), COUNT // 6)),
    ):
        made = network
        for surgery in plan.surgeries:
            made = operate(made, surgery, moments=measure(made)).network
        losses[name] = ENGINE.evaluate(made, examples).loss
    assert losses["sensitive"] < losses["plain"]


def test_a_target_that_only_the_given_network_has_does_not_end_the_run(trained, tmp_path):
    done = run(trained, tmp_path / "run", shrink=8, target_accuracy=0.5)
    assert len(events_of(done, "recuperated")) > 1  # the given network has it, and is too large: plans compete
    assert done.network.parameter_count <= COUNT / 8


def test_patience_does_not_count_pruning_without_training(trained, tmp_path):
    assert run(trained, tmp_path / "run", shrink=8, patience=1).steps


@pytest.mark.parametrize("epochs", [2, 8])
def test_training_that_diverges_leaves_what_was_pruned(trained, tmp_path, epochs, caplog):
    out = tmp_path / "out.onnx"
    done = evolve(
        trained,
        "digits",
        settings=settings(shrink=4, epochs=epochs, learning_rate=1e30),
        run_dir=tmp_path / "run",
        workers=1,
        out=out,
    )
    assert load(out).parameter_count <= COUNT / 4
    assert done.network.parameter_count == load(out).parameter_count
    assert "try a smaller --learning-rate" in caplog.text


def test_a_file_hardly_larger_than_the_least_that_is_reachable(trained, tmp_path):
    with pytest.raises(SettingsError, match="cannot be reached") as refused:
        run(trained, tmp_path / "refused", max_size=300)
    least = int(str(refused.value).split("some ")[1].split(" bytes")[0].replace(",", ""))
    done = run(trained, tmp_path / "run", max_size=least + 100, epochs=1)
    assert done.after.size <= least + 100 or "--max-size" in done.shortfall


def test_an_accuracy_that_is_out_of_reach_at_the_limit_is_trained_for_there(trained, tmp_path):
    done = run(trained, tmp_path / "run", shrink=8, min_accuracy=1.0)
    assert (
        done.branch.accuracy >= run(trained, tmp_path / "limit", shrink=8).branch.accuracy
    )  # a wish more does no harm
    longest = [event["parameters"] for event in events_of(done, "trained")]
    assert min(longest) >= 0.7 * COUNT / 8  # smaller networks are not accurate enough either


def test_the_smallest_network_that_is_accurate_enough_is_sought_by_bisection(trained, tmp_path):
    done = run(trained, tmp_path / "run", lose=0.03, epochs=24)
    journal = RunDirectory.open(done.run).read_journal()
    (started,) = [event for event in journal if event["event"] == "started"]
    least = started["best_accuracy"] - 0.03
    straight = [event for event in events_of(done, "recuperated") if event["epoch"] == 0]
    accurate = min(event["parameters"] for event in straight if event["accuracy"] >= least)
    tries = [event for event in journal if event["event"] == "decided" and event["search"]["tries"]]
    assert tries[-1]["search"]["tries"] > 2
    failed = [event["search"]["failed"] for event in tries]
    assert failed == sorted(failed)
    for event in tries:  # none is smaller than what was not accurate enough
        assert event["search"]["failed"] < event["parameters"][0]
    assert done.validation_accuracy >= least
    assert done.network.parameter_count < accurate
