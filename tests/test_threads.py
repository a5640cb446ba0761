"""Several threads for one session: only where they pay, and never another bit."""

from concurrent.futures import Future
from unittest.mock import patch

import numpy as np
import pytest

from onnxsurgeon import (
    Examples,
    SurgeonSettings,
    TrainingSpec,
    create,
    create_convolutional,
    evolve,
    make_engine,
)
from onnxsurgeon.surgeon.workers import local as workers
from onnxsurgeon.training import threads as rule
from onnxsurgeon.training.sessions import Sessions
from onnxsurgeon.training.threads import Threads, step_flops, useful_threads
from tests.conftest import start_model
from tests.killed_run import SETTINGS

WIDTHS = [(40, 30, 10), (784, 10, 10), (784, 300, 100, 100, 10), (3000, 70, 5), (200, 1024, 17, 512, 2)]


def examples(sizes, rows=512):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, sizes[-1], rows)
    return Examples.classification(rng.random((rows, sizes[0]), np.float32), labels, sizes[-1])


@pytest.mark.parametrize("batch", [1, 16, 64, 250])
@pytest.mark.parametrize("sizes", WIDTHS, ids=lambda sizes: "-".join(map(str, sizes)))
def test_no_bit_depends_on_the_number_of_threads(sizes, batch, monkeypatch):
    bits_do_not_depend_on_threads(create(sizes, seed=2), examples(sizes), batch, monkeypatch)


@pytest.mark.parametrize("text", ["14x14x1-c8-p-c16-p-5", "12x10x3-c16-c32-p-c16s2-5", "16x2-c16k5s2-c16-g-4"])
def test_no_bit_of_a_convolution_does(text, monkeypatch):
    rng, network = np.random.default_rng(1), create_convolutional(text, seed=2)
    (shape,) = network.frame.trunk.features.values()
    classes = network.heads[0].width
    data = Examples.classification(rng.random((64, *shape), np.float32), rng.integers(0, classes, 64), classes)
    verdicts = bits_do_not_depend_on_threads(network, data, 16, monkeypatch)
    assert verdicts == {True}  # several threads were taken


def bits_do_not_depend_on_threads(network, data, batch, monkeypatch):
    monkeypatch.setattr(rule, "FLOPS", 1.0)
    monkeypatch.setattr(rule, "GAIN", 0.0)  # taken wherever the bits are the same
    monkeypatch.setattr(rule, "AT_LEAST", 3)
    monkeypatch.setattr(rule, "TOO_FEW", 12)
    batches = [np.random.default_rng(3).integers(0, data.rows, (12, batch)) for _ in range(2)]
    results, verdicts = [], set()
    for count in (1, 2, 3, 4):
        spec = TrainingSpec(0.05, "momentum", report_loss=True, threads=lambda count=count: count)
        engine = make_engine("loop")
        trained = engine.train(network, data, batches, spec)
        verdicts.update(engine._threads._same.values())
        assert trained.steps == 24
        moments = [values for moment in trained.state.moments for values in moment]
        values = [values for _, values in trained.network.parameters()]
        results.append([trained.mean_loss, *(array.tobytes() for array in values + moments)])
    assert results[1:] == results[:1] * 3
    return verdicts


class Machine:
    """Stands for training: counts up from its parameter; how long a step takes depends on the number of threads.

    It stands for the clock as well: seconds pass while it trains, and none else.
    """

    def __init__(self, seconds, wrong=()):
        self.seconds, self.wrong, self.calls, self.now = seconds, wrong, [], 0.0

    def perf_counter(self):
        return self.now

    def __call__(self, threads, parameters, part):
        steps = part.stop - part.start
        self.calls.append((threads, part.start, part.stop))
        self.now += self.seconds[threads] * steps
        return [parameters[0] + steps + (threads in self.wrong), np.ones(steps)]


def outcome(choice, machine, steps=1280, threads=2, flops=0.0):
    parameters, seen = [np.zeros(1)], 0
    with patch.object(rule, "time", machine):
        for outputs in choice.run(machine, parameters, steps, threads, "network", flops):
            parameters, seen = outputs[:1], seen + len(outputs[1])
    assert seen == steps
    calls = list(machine.calls)
    machine.calls.clear()
    return parameters[0].item(), calls


@pytest.mark.parametrize(("seconds", "chosen"), [({1: 4e-3, 2: 1e-3}, 2), ({1: 1e-3, 2: 4e-3}, 1)])
def test_the_faster_way_is_gone(seconds, chosen):
    choice, machine = Threads(), Machine(seconds)
    checked = [(1, 0, 10), (2, 0, 10), (1, 10, 20), (2, 20, 30), (chosen, 30, 640)]
    assert outcome(choice, machine, steps=640) == (640, checked)
    # The bits are known: nothing is done twice, and where nothing can be told the last finding holds.
    assert outcome(choice, machine, steps=640) == (640, [(1, 0, 10), (2, 10, 20), (chosen, 20, 640)])
    assert outcome(choice, machine, steps=127) == (127, [(chosen, 0, 127)])
    assert outcome(choice, machine, steps=127, threads=3) == (127, [(1, 0, 127)])


def test_of_long_steps_fewer_are_tried():
    machine = Machine({1: 4e-3, 2: 1e-3})
    tried = [(1, 0, 4), (2, 0, 4), (1, 4, 8), (2, 8, 12), (2, 12, 64)]
    assert outcome(Threads(), machine, steps=64, flops=rule.TRIED_FLOPS / 4) == (64, tried)
    assert outcome(Threads(), machine, steps=63, flops=rule.TRIED_FLOPS / 4) == (63, [(1, 0, 63)])
    assert outcome(Threads(), machine, steps=127, flops=rule.FLOPS) == (127, [(1, 0, 127)])
    heavy = outcome(Threads(), machine, steps=48, flops=1000 * rule.TRIED_FLOPS)
    assert heavy == (48, [(1, 0, 3), (2, 0, 3), (1, 3, 6), (2, 6, 9), (2, 9, 48)])


def test_a_network_whose_bits_differ_is_trained_with_one_thread_from_there_on():
    choice, machine = Threads(), Machine({1: 1e-4, 2: 0}, wrong=(2,))
    reached, calls = outcome(choice, machine, steps=640)
    assert (reached, calls) == (640, [(1, 0, 10), (2, 0, 10), (1, 10, 640)])
    assert outcome(choice, machine, steps=640) == (640, [(1, 0, 640)])
    assert outcome(choice, machine, steps=127) == (127, [(1, 0, 127)])


def test_nothing_is_tried_where_it_cannot_be_told_or_there_is_one_thread():
    assert outcome(Threads(), Machine({1: 0}), steps=127) == (127, [(1, 0, 127)])
    assert outcome(Threads(), Machine({1: 0}), steps=9999, threads=1) == (9999, [(1, 0, 9999)])


def test_small_networks_have_one_thread():
    def useful(sizes, batch, free):
        return useful_threads(step_flops(create(sizes), batch), free)

    assert useful((784, 10, 10), 16, 64) == 1
    assert useful((784, 300, 100, 100, 10), 16, 64) == 4
    assert useful((784, 300, 100, 100, 10), 16, 2) == 2
    assert useful((784, 10, 10), 512, 64) == 4


def test_jobs_that_are_left_share_the_cores(monkeypatch):
    monkeypatch.setattr(workers, "usable_cores", lambda: 8)
    local = workers.LocalWorkers()
    waiting = [Future() for _ in range(10)]
    local._futures = waiting
    shares = []
    for future in waiting:
        shares.append(local.free_threads())
        future.set_result(None)
    assert shares == [1, 1, 1, 1, 1, 1, 2, 2, 4, 8]
    assert local.free_threads() == 8
    local.close()


def test_a_run_takes_the_cores_that_are_free_and_keeps_its_bytes(tmp_path, monkeypatch):
    """One branch at a time on what pretends to be three cores."""
    settings = SurgeonSettings.from_preset("corrected", **SETTINGS)
    plain = evolve(start_model(tmp_path), "digits", settings=settings, run_dir=tmp_path / "plain", workers=2).run
    monkeypatch.setattr(workers, "usable_cores", lambda: 3)
    monkeypatch.setattr(rule, "FLOPS", 1.0)
    monkeypatch.setattr(rule, "GAIN", 0.0)
    monkeypatch.setattr(rule, "AT_LEAST", 3)
    monkeypatch.setattr(rule, "TOO_FEW", 12)
    used, get = set(), Sessions.get

    def watched(self, key, make, size, threads=1, **options):
        used.add(threads)
        return get(self, key, make, size, threads, **options)

    monkeypatch.setattr(Sessions, "get", watched)
    other = evolve(start_model(tmp_path), "digits", settings=settings, run_dir=tmp_path / "other", workers=1).run
    assert used == {1, 3}
    for path in plain.glob("branches/*"):
        assert path.read_bytes() == (other / "branches" / path.name).read_bytes()
