"""The search behind the objectives accuracy and pareto: phases, limits, the front, bytes, resume after a kill."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from onnxsurgeon import SettingsError, SurgeonSettings, create, evolve, load, operate, save
from onnxsurgeon.calibration.calibrate import calibrate
from onnxsurgeon.data.prepare import prepare
from onnxsurgeon.graph.equivalence import compare_chains, random_features
from onnxsurgeon.recommend import Candidate
from onnxsurgeon.recommend.growth import growths
from onnxsurgeon.recommend.shrinking import count_of, shrinkage
from onnxsurgeon.runs.entry import Entry
from onnxsurgeon.runs.journal import RunDirectory, file_digest
from onnxsurgeon.surgeon.cycles import Cycle, Pace, along_the_front, settling, to_the_limit
from onnxsurgeon.surgeon.fast_enough import largest_within
from onnxsurgeon.surgeon.latency import Yardstick, latency_of
from onnxsurgeon.surgeon.objective import choose, front, least_accuracy, shortfall
from onnxsurgeon.training.rates import RateSchedule
from tests.conftest import branch_digests, killed_and_resumed, start_model

CHANGES = {"seed": 6, "epochs": 20, "learning_rate": 0.01, "widen": "split", "batch_size": 32}
CHANGES |= {"growth": 0.25, "shrinkage": 0.4, "shrink_step": 2}
SETTINGS = SurgeonSettings.from_preset("default", objective="pareto", **CHANGES)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run along the front, and its events."""
    events = []
    folder = tmp_path_factory.mktemp("search")
    start = start_model(folder)
    done = evolve(start, "digits", settings=SETTINGS, run_dir=folder / "run", workers=1, callbacks=events.append)
    return done, events


@pytest.fixture
def start(tmp_path):
    return start_model(tmp_path)


def short(objective="accuracy", **changes):
    return replace(SETTINGS, objective=objective, **changes)


def run(start, settings, folder, **others):
    return evolve(start, "digits", settings=settings, run_dir=folder, workers=1, **others)


def of(events, *kinds):
    return [event for event in events if event["event"] in kinds]


def entry(branch, accuracy=0.9, parameters=1000, latency=None, **others):
    record = {"file": f"{branch:04d}-x.onnx", "digest": "", "topology": "", "loss": 0.1, "size": 4 * parameters}
    return Entry(branch=branch, accuracy=accuracy, parameters=parameters, latency=latency, **{**record, **others})


def test_a_run_grows_settles_and_shrinks(undisturbed):
    done, events = undisturbed
    phases = [event["search"]["phase"] for event in of(events, "decided")]
    assert phases == sorted(phases, key=["grow", "settle", "shrink"].index)
    assert set(phases) == {"grow", "settle", "shrink"}
    counts = {
        phase: [event["parameters"][0] for event in of(events, "decided") if event["search"]["phase"] == phase]
        for phase in set(phases)
    }
    assert counts["grow"] == sorted(counts["grow"])
    assert counts["grow"][-1] > of(events, "started")[0]["parameters"][0]
    assert len(set(counts["settle"])) == 1
    assert counts["shrink"] == sorted(set(counts["shrink"]), reverse=True)
    assert of(events, "decided")[-1]["epoch"] == SETTINGS.epochs
    assert done.test.accuracy > 0.9 > 0.3 > done.start.accuracy


def test_candidates_are_given_up_by_halves(start, tmp_path):
    """The better half of the candidates goes on for twice as long, and at the end of the step one is left."""
    settings = short(epochs=16, growth=0.5, trial=0.125, max_parameters=1500)
    events = RunDirectory.open(run(start, settings, tmp_path / "run").run).read_journal()
    proposed = {event["branch"] for event in of(events, "proposed") if event["epoch"] == 0}
    rungs = {}
    for event in of(events, "recuperated", "trained"):
        if event["branch"] in proposed:
            rungs.setdefault(event["epoch"], {})[event["branch"]] = event["score"]
    assert sorted(rungs) == [1, 2, 4, 8]
    assert set(rungs[1]) == proposed
    for (_, before), (epoch, after) in pairwise(sorted(rungs.items())):
        count = 1 if epoch == 8 else -(-len(before) // 2)
        assert sorted(after) == sorted(sorted(before, key=before.get, reverse=True)[:count])
    dropped = {event["branch"] for event in of(events, "dropped") if event["reason"] == "score"}
    assert proposed - dropped == set(rungs[8])


def test_the_score_is_the_loss(undisturbed):
    _, events = undisturbed
    assert all(event["score"] == -event["loss"] for event in of(events, "recuperated", "trained"))


def test_the_front_is_written_and_is_one(undisturbed):
    done, events = undisturbed
    assert len(done.front) >= 3
    assert sorted(f"front/{path.name}" for path in (done.run / "front").iterdir()) == sorted(e.file for e in done.front)
    for one in done.front:
        network = load(done.run / one.file)
        assert network.parameter_count == one.parameters
        assert network.topology == one.topology
        assert float(network.metadata["onnxsurgeon.accuracy"]) == one.accuracy
        assert file_digest(done.run / one.file) == one.digest
        assert one.latency > 0
    for larger, smaller in pairwise(done.front):
        assert larger.parameters > smaller.parameters
        assert larger.accuracy > smaller.accuracy or larger.latency < smaller.latency
    assert max(e.accuracy for e in done.front) == done.validation_accuracy
    (finished,) = of(events, "finished")
    assert [each["file"] for each in finished["front"]] == [e.file for e in done.front]


def test_the_number_of_workers_does_not_matter(undisturbed, start, tmp_path):
    done, _ = undisturbed
    other = evolve(start, "digits", settings=SETTINGS, run_dir=tmp_path / "run", workers=3)
    assert branch_digests(other.run) == branch_digests(done.run)
    assert file_digest(other.run / "best.onnx") == file_digest(done.run / "best.onnx")


@pytest.mark.parametrize(("moment", "count"), [("training", 30), ("training", 50), ("surgery", 6), ("writing", 20)])
def test_a_killed_run_ends_alike(undisturbed, moment, count, tmp_path):
    done, _ = undisturbed
    resumed = killed_and_resumed(moment, count, tmp_path / "run", SETTINGS)
    assert branch_digests(resumed.run) == branch_digests(done.run)
    assert [e.branch for e in resumed.front if e.branch == resumed.branch.number] == [resumed.branch.number]
    assert file_digest(resumed.run / "best.onnx") == file_digest(done.run / "best.onnx")


def test_a_limit_is_kept(start, tmp_path):
    done = run(start, short(max_parameters=1500), tmp_path / "run")
    assert 870 < done.network.parameter_count <= 1500
    assert done.shortfall == ""
    assert not (done.run / "front").exists()
    assert max(event["parameters"][0] for event in decided(done)) > 1500  # it grew beyond, and was pruned to the limit


def test_a_limit_on_the_file_is_kept(start, tmp_path):
    done = run(start, short(max_size=9000), tmp_path / "run")
    assert (done.run / "best.onnx").stat().st_size <= 9000
    assert done.shortfall == ""


def test_a_limit_on_the_latency_shrinks_the_network(start, tmp_path, monkeypatch):
    """A clock that goes by the parameters: real ones cannot be asserted on."""
    monkeypatch.setattr(
        "onnxsurgeon.surgeon.latency.Yardstick.latency_of", lambda self, path: load(path).parameter_count / 1000
    )
    done = run(start, short(max_latency=1.0), tmp_path / "run")
    assert done.network.parameter_count <= 1000
    assert done.shortfall == ""


def test_where_the_call_takes_most_of_the_time_no_more_goes_than_has_to(start, tmp_path, monkeypatch):
    """6 ms whatever the size, and 0.1 ms for a thousand parameters: 6.1 are 1,000, and not 0.9 of what there is."""
    monkeypatch.setattr(Yardstick, "latency_of", lambda _, path: 6 + load(path).parameter_count / 10_000)
    monkeypatch.setattr("onnxsurgeon.surgeon.start.latency_of", lambda _: 6.0)
    done = run(start, short(max_latency=6.1), tmp_path / "run")
    assert 800 <= done.network.parameter_count <= 1000
    assert done.shortfall == ""


def test_a_limit_on_latency_just_below_the_call_is_refused_unless_a_measurement_meets_it(start, tmp_path, monkeypatch):
    measured = [6.3, 6.1, 6.0, 6.2, 6.4]
    clock = iter(measured)
    monkeypatch.setattr("onnxsurgeon.surgeon.start.latency_of", lambda _: next(clock))
    with pytest.raises(SettingsError, match=r"^max-latency: 5.9 ms cannot be reached: .* takes 6 ms for a row"):
        run(start, short(max_latency=5.9), tmp_path / "run")
    clock = iter(measured)
    run(start, short(max_latency=6.1, epochs=1), tmp_path / "run")
    assert next(clock) == 6.0


@pytest.mark.parametrize(("limit", "count"), [(6.05, 500), (6.3, 3000), (6.0001, 87), (5.0, 87), (6.49, 4900)])
def test_the_largest_within_is_found_by_bisection(limit, count):
    tried = []

    def plan(most):
        tried.append(most)
        return Candidate(None, 0.0, most, "", 0)

    found = largest_within(limit, 5018, 87, plan, lambda candidate: 6 + candidate.parameters / 10_000)
    assert count / 1.05 <= found <= count
    assert len(tried) <= 8


def test_where_nothing_can_go_bisection_ends():
    def never(_):
        raise AssertionError("nothing is there to be measured")

    assert largest_within(1.0, 100, 10, lambda most: None, never) == 10
    assert largest_within(1.0, 100, 10, lambda most: Candidate(None, 0.0, 100, "", 0), never) == 10


def test_what_slows_the_machine_down_does_not_make_a_model_slower(start, tmp_path, monkeypatch):
    """From the second block on, everything takes twice as long, by a clock of its own."""
    save(create((64, 20, 10)), tmp_path / "other.onnx")
    calls = [0]

    def stopwatch(path):
        seconds = 1e-5 if path == start else 2e-5

        def once():
            calls[0] += 1
            return seconds * (1 if calls[0] < 2 * 90 else 2)

        return once

    monkeypatch.setattr("onnxsurgeon.surgeon.latency._stopwatch", stopwatch)
    yardstick = Yardstick(start)
    assert yardstick.latency_of(tmp_path / "other.onnx") == pytest.approx(0.02)
    assert yardstick.latency_of(start) == pytest.approx(0.01)


def test_latency_is_measured(start, tmp_path):
    assert latency_of(start) > 0
    wide = create((1024, 2048, 2048, 10))
    save(wide, tmp_path / "wide.onnx")
    assert latency_of(tmp_path / "wide.onnx") > 5 * latency_of(start)


def test_a_limit_that_nothing_can_meet_is_refused(start, tmp_path):
    """64-10-10-10 with one unit in each hidden layer: 65 + 2 + 20."""
    for changes in ({"max_parameters": 86}, {"shrink": 1e4}):
        with pytest.raises(SettingsError, match=r"cannot be reached: 'start' has at least 87 parameters"):
            run(start, short(epochs=6, **changes), tmp_path / "run")
    with pytest.raises(SettingsError, match=r"max-size: 500 bytes cannot be reached"):
        run(start, short(epochs=6, max_size=500), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert run(start, short(max_parameters=87, epochs=6), tmp_path / "run").network.parameter_count == 87


@pytest.mark.parametrize("brings_validation", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"refit": False, "epochs": 3},
        {"growth": 0.0, "epochs": 3},
        {"time_limit": 1.0},
        {"ensemble": 4, "refit": False, "epochs": 3, "growth": 0.0},
        {"ensemble": 4, "epochs": 1},
        {"objective": "pareto", "epochs": 1},
        {"tolerance": 0.01, "epochs": 2},
    ],
)
def test_short_runs_end_with_a_result(changes, brings_validation, tmp_path):
    """What an ensemble became had taken the given network's place in the front, which was left empty."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((420, 5)).astype(np.float32)
    y = x[:, :3].argmax(axis=1)
    parts = {"train": slice(0, 300), "test": slice(300, 360)} | (
        {"validation": slice(360, 420)} if brings_validation else {}
    )
    rows = {f"{key}_{part}": values[rows] for part, rows in parts.items() for key, values in (("x", x), ("y", y))}
    np.savez(tmp_path / "data.npz", **rows)
    save(create((5, 8, 3), seed=2), tmp_path / "start.onnx")
    settings = SurgeonSettings.from_preset(seed=1, **changes)
    done = evolve(
        tmp_path / "start.onnx", str(tmp_path / "data.npz"), settings=settings, run_dir=tmp_path / "run", workers=1
    )
    assert (done.run / "best.onnx").is_file()
    (started,) = of(RunDirectory.open(done.run).read_journal(), "started")
    assert done.validation_accuracy >= started["best_accuracy"] - 0.01


def test_a_latency_that_nothing_has_is_refused(start, tmp_path):
    with pytest.raises(SettingsError, match=r"^max-latency: 1e-06 ms cannot be reached: .* takes [\d.]+ ms for a row"):
        run(start, short(max_latency=1e-6, epochs=6), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_accuracy_that_nothing_has_is_told(start, tmp_path):
    done = run(start, short(min_accuracy=1.0, epochs=2), tmp_path / "run")
    assert "--min-accuracy 1.0" in done.shortfall
    assert done.record()["shortfall"] == done.shortfall


def test_the_smallest_network_that_keeps_an_accuracy(start, tmp_path):
    done = run(start, short(min_accuracy=0.85, epochs=30), tmp_path / "run")
    assert done.validation_accuracy >= 0.85
    sizes = {event["parameters"][0]: event["accuracies"][0] for event in decided(done)}
    assert done.network.parameter_count == min(size for size, accuracy in sizes.items() if accuracy >= 0.85)
    assert done.network.parameter_count < max(sizes)


def decided(done):
    return of(RunDirectory.open(done.run).read_journal(), "decided")


@pytest.mark.usefixtures("own_time")
def test_a_time_limit_ends_with_the_learning_rate_at_its_end(start, tmp_path):
    """The cycles fit into the time: the last checkpoint is at the end of one, or the run was over before it."""
    done = run(start, short("pareto", epochs=100_000, time_limit=6.0), tmp_path / "run")
    events = decided(done)
    assert events[-1]["epoch"] < 100_000
    assert events[-1]["search"]["phase"] == "shrink"


@pytest.mark.parametrize("changes", [{"max_parameters": 3000}, {}, {"objective": "pareto"}, {"ensemble": 2}])
def test_the_pace_is_known_before_anything_is_trained(start, tmp_path, monkeypatch, changes):
    """Ten epochs fit into the time that there is: no more are trained, from the first part of a cycle on."""
    monkeypatch.setattr(Pace, "epochs", lambda *_: 10.0)
    done = run(start, short(epochs=100, time_limit=3600.0, growth=0.0, **changes), tmp_path / "run")
    cycles = {(e["search"]["begin"], e["search"]["end"]) for e in decided(done)}
    assert max(end - begin for begin, end in cycles) <= 10


def test_where_no_epoch_fits_into_the_time_none_is_trained(start, tmp_path, monkeypatch):
    monkeypatch.setattr(Pace, "epochs", lambda *_: 0.9)
    done = run(start, short(max_parameters=300, epochs=9, time_limit=3600.0), tmp_path / "run")
    assert not of(RunDirectory.open(done.run).read_journal(), "trained")
    assert done.network.parameter_count <= 300


def test_the_pace_is_found_by_steps_that_nobody_keeps(start, tmp_path, monkeypatch):
    noted = []
    note = Pace.note
    monkeypatch.setattr(Pace, "note", lambda self, *given: noted.append(given) or note(self, *given))
    ended = [
        run(start, short(max_parameters=3000, epochs=8, **changes), tmp_path / str(len(changes)))
        for changes in ({}, {"time_limit": 3600.0})
    ]
    assert noted[0][1] > 0
    assert branch_digests(ended[0].run) == branch_digests(ended[1].run)


def test_the_given_model_stays_where_nothing_is_better(digits, tmp_path):
    """Of a network that is trained already, and a run too short to better it."""
    start = start_model(tmp_path)
    first = run(start, short(max_parameters=3000), tmp_path / "first")
    worse = short(max_parameters=3000, epochs=1, growth=0.0, learning_rate=0.5)
    second = run(first.run / "best.onnx", worse, tmp_path / "second")
    assert second.validation_accuracy >= first.validation_accuracy
    assert second.branch.number == 0


def test_patience_and_a_target_do_not_ask_for_more_than_chance(start, tmp_path):
    """What is better than a trained network by a row or two is worth waiting for, and is what reached the target."""
    first = run(start, short(epochs=3, growth=0.0, max_parameters=3000), tmp_path / "first")
    target = first.validation_accuracy + 0.005
    goal = short(max_parameters=3000, growth=0.0, shrinkage=0.0, epochs=60, learning_rate=0.004)
    second = run(first.run / "best.onnx", replace(goal, target_accuracy=target), tmp_path / "second")
    assert second.validation_accuracy >= target
    assert decided(second)[-1]["epoch"] < 60
    third = decided(run(first.run / "best.onnx", replace(goal, patience=2), tmp_path / "third"))
    best, stale = first.validation_accuracy, 0
    for event in third:
        better = event["accuracies"][0] > best
        best, stale = max(best, event["accuracies"][0]), 0 if better else stale + 1
        assert event["stale"] == stale


@pytest.mark.parametrize(
    ("changes", "most"),
    [({"max_parameters": 10_000}, 900), ({}, 900), ({"ensemble": 1}, 900), ({"max_parameters": 800}, 2400)],
)
def test_a_network_grows_no_larger_than_its_rows_are_enough_for(changes, most, tmp_path):
    """180 rows to train on are enough for 900 parameters; a limit below that is grown beyond, and shrunk to."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 6)).astype(np.float32)
    np.savez(
        tmp_path / "d.npz", x_train=x, y_train=(x[:, 0] > x[:, 1] * x[:, 2]).astype(int), x_test=x, y_test=x[:, 0] > 0
    )
    save(create((6, 5, 5, 2), seed=1), tmp_path / "m.onnx")
    settings = SurgeonSettings.from_preset("default", epochs=16, growth=0.5, **changes)
    options = {"run_dir": tmp_path / "run", "workers": 1, "validation_fraction": 0.1}
    evolve(tmp_path / "m.onnx", str(tmp_path / "d.npz"), settings=settings, **options)
    grown = [
        e["parameters"] for e in RunDirectory.open(tmp_path / "run").read_journal() if "grow:" in e.get("surgery", "")
    ]
    assert 0.9 * most < max(grown) <= most


# The parts.


def test_what_dominates_what():
    one = entry(1)
    assert one.is_dominated_by(entry(2, accuracy=0.91))
    assert one.is_dominated_by(entry(2, parameters=900))
    assert not one.is_dominated_by(entry(2, accuracy=0.95, parameters=1001))
    assert not one.is_dominated_by(entry(2))  # of equals the earlier one stays
    assert entry(2).is_dominated_by(one)
    assert one.is_dominated_by(entry(2, loss=0.09))  # or that of less loss: of few rows many are equally accurate
    assert not entry(2, loss=0.09).is_dominated_by(one)
    assert not entry(0).is_dominated_by(entry(2, loss=0.09))  # unless it is the given one
    assert entry(2, loss=0.09).is_dominated_by(entry(0))
    timed = entry(1, latency=1.0)
    assert not timed.is_dominated_by(entry(2, accuracy=0.95, latency=1.5))
    assert timed.is_dominated_by(entry(2, accuracy=0.95, latency=1.1))  # as good as equal: latencies are measured
    assert timed.is_dominated_by(entry(2, latency=0.5))


def test_a_front_keeps_what_nothing_dominates():
    entries = [entry(1, 0.9, 500), entry(2, 0.8, 400), entry(3, 0.85, 600), entry(4, 0.95, 900), entry(4, 0.95, 900)]
    assert [each.branch for each in front(entries)] == [4, 1, 2]


@pytest.mark.parametrize(
    ("changes", "branch"),
    [
        ({}, 4),
        ({"max_parameters": 800}, 3),
        ({"max_size": 2000}, 1),
        ({"max_latency": 1.5}, 1),
        ({"tolerance": 0.06}, 1),
        ({"tolerance": 0.01}, 4),
        ({"min_accuracy": 0.89}, 1),
        ({"min_accuracy": 0.91}, 3),
        ({"min_accuracy": 0.99}, 4),
        ({"min_accuracy": 0.99, "max_parameters": 550}, 1),
        ({"max_parameters": 100}, 2),
    ],
)
def test_what_is_read_off_a_front(changes, branch):
    entries = [
        entry(1, 0.9, 500, 1.0),
        entry(2, 0.8, 400, 2.0),
        entry(3, 0.92, 600, 3.0),
        entry(4, 0.95, 900, 4.0),
    ]
    assert choose(entries, short(**changes)).branch == branch


def test_the_accuracy_that_is_wanted():
    entries = [entry(1, 0.9, 500), entry(2, 0.95, 900)]
    assert least_accuracy(entries, short()) is None
    assert least_accuracy(entries, short(min_accuracy=0.7, tolerance=0.1)) == 0.7
    assert least_accuracy(entries, short(tolerance=0.01)) == pytest.approx(0.94)
    assert least_accuracy(entries, short(tolerance=0.01, max_parameters=600)) == pytest.approx(0.89)


def test_what_is_missed_is_named():
    assert shortfall(entry(1), short(max_parameters=1000, max_size=4000, min_accuracy=0.9)) == ""
    text = shortfall(entry(1, latency=2.0), short(max_parameters=999, max_latency=1.0, min_accuracy=0.91))
    for part in ("--max-parameters 999 (it has 1,000)", "--max-latency 1", "--min-accuracy 0.91 (it has 0.9000)"):
        assert part in text


def test_cycles_are_arithmetic():
    settings = short(growth=0.25, shrinkage=0.4, shrink_step=4)
    assert settling(settings, 75) == 35
    assert to_the_limit(settings, 40, 1000, 2.0) == (cycle := to_the_limit(settings, 40, 1000, 1.9999))
    assert (cycle.epochs, cycle.most) == (40, 500)
    assert to_the_limit(settings, 40, 1000, 4.0).most == 500
    assert to_the_limit(settings, 40, 1000, 4.0).epochs == 4
    first = along_the_front(settings, 40, 1024, 1)
    assert (first.epochs, first.most) == (4, 512)
    few = along_the_front(settings, 40, 1024, 512)
    assert (few.epochs, few.most) == (20, int(1024 / 2**0.5))
    assert along_the_front(settings, 7, 1024, 32).epochs == 7
    assert along_the_front(settings, 40, 1024, 1, 0.5).most == int(1024 / 2**0.5)
    assert along_the_front(settings, 40, 30, 32) == Cycle(40, 30)


def test_pace_is_measured():
    pace = Pace()
    assert pace.epochs(1000, 5.0) == np.inf
    pace.note(90_000, 2, 20.0)
    pace.note(90_000, 2, 0.0)  # found finished after a resume
    assert pace.epochs(90_000, 100.0) == pytest.approx(9.5)
    assert pace.epochs(40_000, 100.0) == pytest.approx(19)


def test_shapes_to_grow_to_fill_the_limit_and_are_exact():
    network = create((20, 8, 6, 3))
    found = growths(network, 1500, mode="split")
    assert len(found) >= 4
    assert len({each.surgeries for each in found}) == len(found)
    for each in found:
        grown = network
        for surgery in each.surgeries:
            grown = operate(grown, surgery, np.random.default_rng(0), require_exact=True).network
        assert grown.parameter_count == each.parameters <= 1500
        assert each.parameters > 1350
        assert compare_chains(network.chain, grown.chain, random_features(network.chain)).relative < 1e-5
        assert all(new >= old for new, old in zip(grown.chain.widths[1:-1], network.chain.widths[1:-1], strict=False))
    assert {str(each).startswith("insert_identity:2+") for each in found} == {True, False}
    assert growths(network, network.parameter_count, mode="split") == []
    assert all(str(each).startswith("insert_identity:1") for each in growths(create((20, 8, 3)), 900, mode="split"))
    wide = create((2, 100, 2))
    assert [str(each) for each in growths(wide, 1000, mode="split")] == ["widen:1:99"]  # no room for another layer
    assert growths(create((20, 3)), 1500, mode="split") == []


@pytest.mark.parametrize("most", [2000, 1000, 400, 100])
def test_a_shrinkage_meets_its_size(digits, most):
    network = create((64, 32, 16, 10), input_shape=(8, 8))
    moments = calibrate(network, prepare(network, digits, digits.train))
    candidate = shrinkage(network, moments, most)
    shrunk = network
    for surgery in candidate.surgeries:
        shrunk = operate(shrunk, surgery, moments=calibrate(shrunk, prepare(shrunk, digits, digits.train))).network
    assert shrunk.parameter_count == candidate.parameters <= most
    assert candidate.parameters > 0.8 * most - 80
    assert str(candidate).startswith("prune:1:")


def test_units_that_nothing_needs_go_first(digits):
    """Half of layer 2 is dead: it gives its units before layer 1 gives any."""
    network = create((64, 12, 16, 10), input_shape=(8, 8))
    _, second, _ = network.layers
    weight, bias = second.weight.copy(), second.bias.copy()
    weight[:, 8:], bias[8:] = 0, -1
    values = [values for _, values in network.parameters()]
    values[2], values[3] = weight, bias
    network = network.with_parameters(values)
    moments = calibrate(network, prepare(network, digits, digits.train))
    most = network.parameter_count - 8 * (12 + 1 + 10)
    assert str(shrinkage(network, moments, most)) == "prune:2:8"
    assert count_of(network, {1: 12, 2: 8}) == most
    assert shrinkage(create((64, 1, 10), input_shape=(8, 8)), calibrate(*one_unit(digits)), 1) is None


def one_unit(digits):
    network = create((64, 1, 10), input_shape=(8, 8))
    return network, prepare(network, digits, digits.train)


def test_a_course_may_begin_anywhere():
    shifted, plain = RateSchedule("cosine", 100, 10, 50), RateSchedule("cosine", 100, 10)
    np.testing.assert_array_equal(shifted.factors(50, 100), plain.factors(0, 100))
    constant = RateSchedule("constant", 0, 4, 10)
    np.testing.assert_allclose(constant.factors(10, 6), [0.2, 0.4, 0.6, 0.8, 1, 1])


def test_dropout_batches_and_rates_go_by_size():
    settings = SurgeonSettings.from_preset()
    assert settings.rate_of(10_000) == settings.rate_of(100) == 0.004
    assert settings.rate_of(1_000_000) == pytest.approx(0.004 / 100**0.3)
    assert SurgeonSettings.from_preset("paper").rate_of(1_000_000) == 0.005
    assert settings.batch_rows(54_000) == 64
    assert settings.batch_rows(1_000) == 16
    assert replace(settings, batch_size=50).batch_rows(54_000) == 50
    for parameters, expected in ((1_000, 0), (54_000, 0), (108_000, 0.05), (10**9, 0.5)):
        assert settings.dropout_of(parameters, 54_000) == expected
    assert replace(settings, size_dropout=0.0, dropout=0.13).dropout_of(54_000, 54_000) == 0.13
    assert replace(settings, dropout=0.98).dropout_of(10**9, 54_000) == 0.98


def test_without_room_for_a_rung_the_best_shape_wins(start, tmp_path):
    events = []
    run(start, short(epochs=8, growth=0.5, trial=1.0), tmp_path / "run", callbacks=events.append)
    proposed = {event["branch"]: event for event in of(events, "proposed")}
    scores = {e["branch"]: e["score"] for e in of(events, "trained") if e["branch"] in proposed and e["epoch"] <= 4}
    assert len(scores) > 1
    dropped = {event["branch"] for event in of(events, "dropped")}
    for epoch in {proposed[branch]["epoch"] for branch in scores}:
        rivals = {branch: score for branch, score in scores.items() if proposed[branch]["epoch"] == epoch}
        assert set(rivals) - dropped == {max(rivals, key=rivals.get)}
