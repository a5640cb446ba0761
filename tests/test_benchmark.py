"""The benchmark tool: what it counts, that peers do the same work, and that what is missing costs nothing else."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from benchmarking import convolutions, image_memory, profile
from benchmarking.environments import with_checkout
from benchmarking.image_networks import ImageNetwork
from benchmarking.onnx_peers import loop_peer
from benchmarking.plain_peers import numpy_peer
from benchmarking.steps import Spread, ratio
from benchmarking.task import WARM_UP, Task, make_task, step_flops
from benchmarking.whole_run import MODELS, BusyClock, ask
from benchmarking.width import plot, require_plot, table

from onnxsurgeon import TrainedNetwork

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "benchmark.py"


def run_tool(*arguments):
    return subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "report.json"
    done = run_tool("--rounds", "1", "--steps", "20", "--sizes", "small", "--json", str(path))
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(path.read_text())


def test_peers_do_the_same_work(quick):
    printed, report = quick
    records = {record["peer"]: record for record in report["steps"]}
    assert {"loop engine", "numpy by hand"} <= set(records)
    for peer, record in records.items():
        assert record["deviation"] < 1e-6 < 1e-4 < record["moved"], peer
        assert len(record["microseconds"]) == 1
        assert 0 < record["share_of_peak"]["median"] < 1
        assert f"| {peer}, " in printed
    assert records["loop engine"]["ratio"]["median"] == 1


def test_convolutional_networks_are_trained_from_the_same_weights(monkeypatch):
    network = ImageNetwork(1, 8, 4, (3, "pool", 4, "pool", (4, 1), (6, 2), "mean"), 5)
    monkeypatch.setattr(convolutions, "NETWORKS", (network,))
    monkeypatch.setattr(convolutions, "WARM_UP", 1)
    records = list(convolutions.measure(2, networks=[network]))
    assert records[0]["peer"] == "loop engine"
    assert records[0]["network"] == str(network) == "residual 1-3-4-4-6, 8 × 8, 4"
    for record in records:  # PyTorch's and onnxsim's too, where they are installed
        assert record["deviation"] < 1e-6
        assert len(record["milliseconds"]) == 2
        assert min(record["milliseconds"]) > 0
        assert convolutions.row(record).startswith(f"| {network} | {record['peer']} | ")


def test_another_checkout_is_a_peer(monkeypatch):
    monkeypatch.setattr(convolutions, "WARM_UP", 1)
    monkeypatch.setattr(convolutions, "find_spec", lambda name: None)
    own, other = convolutions.measure(1, before=ROOT, networks=[convolutions.NETWORKS[3]])
    assert other["peer"] == f"loop engine of {ROOT}"
    assert own["deviation"] == other["deviation"] == 0
    assert other["ratio"]["median"] > 0
    done = run_tool(
        "--rounds", "1", "--steps", "20", "--sizes", "small", "--peers", "loop engine", "--before", str(ROOT)
    )
    assert f", of {ROOT} |" in done.stdout, done.stderr
    absent = run_tool("--before", "/nonexistent")
    assert (absent.returncode, absent.stderr) == (
        2,
        "benchmark.py: --before /nonexistent: no checkout of onnxsurgeon\n",
    )


def test_another_checkout_is_imported_wherever_the_tool_is_started(tmp_path):
    package = tmp_path / "onnxsurgeon"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('the other one')")
    done = run_tool("--rounds", "1", "--steps", "20", "--sizes", "small", "--before", str(tmp_path))
    assert done.returncode == 0, done.stderr  # that peer is missing, this checkout's is not
    code = "import benchmarking, onnxsurgeon"
    failed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=with_checkout(tmp_path), capture_output=True, text=True, check=False
    )
    assert "the other one" in failed.stderr


def test_a_peer_that_cannot_train_a_network_is_a_row_with_the_reason(monkeypatch):
    def fails(*_, **__):
        raise ValueError("no gradient of this\nmore")

    monkeypatch.setattr(convolutions, "WARM_UP", 1)
    monkeypatch.setattr(convolutions, "find_spec", lambda name: name == "onnxsim" or None)
    monkeypatch.setattr(convolutions, "_onnxsim", fails)
    network = ImageNetwork(1, 4, 2, (2,), 1)
    _, record = convolutions.measure(1, networks=[network])
    assert convolutions.row(record) == f"| {network} | {convolutions.ONNXSIM} | ValueError: no gradient of this | | |"


def test_the_profile_counts_the_nodes_of_a_step(monkeypatch):
    monkeypatch.setattr(profile, "STEPS", 2)
    network = ImageNetwork(1, 6, 2, (2, "pool"), 1)
    kinds = profile.of(network, threads=1)
    assert kinds["MaxPool"][0] == kinds["Softmax"][0] == 1
    assert all(spent >= 0 for _, spent in kinds.values())
    assert profile.table([{"network": str(network), "kinds": kinds}]).splitlines()[2].startswith(f"| {network} | ")


def test_memory_of_training_on_images_is_measured(monkeypatch):
    monkeypatch.setattr(image_memory, "TEST_ROWS", 100)
    record = image_memory.measure(200)
    assert record["steps"] == 4
    assert record["imports"] < record["loaded"] <= record["peak"]
    assert record["stored"] == 300 * (32 * 32 * 3 + 1)
    assert "peak memory" in image_memory.text(record)


def test_what_is_missing_is_said(quick):
    printed, report = quick
    present = {record["peer"] for record in report["steps"]}
    for peer, reason in report["absent"].items():
        assert peer not in present
        assert f"- {peer}: {reason}" in printed


def test_two_branches_are_measured_both_ways(quick):
    (record,) = quick[1]["parallel"]
    assert record["ratio"]["median"] == pytest.approx(record["serial"][0] / record["parallel"][0])
    assert record["threads_ratio"]["median"] == pytest.approx(record["serial"][0] / record["threads"][0])


def test_an_environment_that_is_none_is_one_line():
    done = run_tool("--peer-python", "/nonexistent/python", "--sizes", "small")
    assert (done.returncode, done.stderr) == (2, "benchmark.py: /nonexistent/python: No such file or directory\n")


@pytest.mark.parametrize("option", ["--plot", "--json"])
def test_what_cannot_be_written_is_said_first(option):
    done = run_tool("--sizes", "small", option, "/nonexistent/file.png")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"benchmark.py: {option} /nonexistent/file.png: no such folder\n"


def test_peers_need_no_onnxsurgeon(tmp_path):
    task = make_task((6, 5, 3), 4)
    task.save(tmp_path / "task.npz")
    blocked = "import sys; sys.modules['onnxsurgeon'] = None; from benchmarking.serve import main; main()"
    requests = [
        {"do": "prepare", "peer": peer, "task": str(tmp_path / "task.npz"), "parameters": str(tmp_path / "final.npz")}
        for peer in ("loop engine", "numpy by hand")
    ]
    requests.append({"do": "run", "peer": "numpy by hand"})
    done = subprocess.run(
        [sys.executable, "-c", blocked],
        input="".join(json.dumps(request) + "\n" for request in requests),
        env={**os.environ, "PYTHONPATH": str(ROOT / "tools")},
        capture_output=True,
        text=True,
        check=True,
    )
    loop, prepared, ran = map(json.loads, done.stdout.splitlines())
    assert "onnxsurgeon" in loop["error"]
    assert prepared == {}
    assert ran["microseconds"] > 0
    with np.load(tmp_path / "final.npz") as final:
        assert [final[name].shape for name in final.files] == [(6, 5), (5,), (5, 3), (3,)]


def test_a_task_comes_back_from_its_file(tmp_path):
    task = make_task((6, 5, 3), 4)
    task.save(tmp_path / "task.npz")
    again = Task.load(tmp_path / "task.npz")
    assert again.sizes == task.sizes
    assert again.batches.shape == (WARM_UP + 4, 16)
    for mine, theirs in zip(
        (*task.start, task.features, task.labels), (*again.start, again.features, again.labels), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_numpy_by_hand_follows_the_gradient():
    """A step of one layer is W − η/B Xᵀ (softmax(XW) − Y)."""
    task = make_task((4, 3), 1)
    weight, bias = (values.astype(np.float64) for values in task.start)
    for rows in task.batches:
        z = task.features[rows] @ weight + bias
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        delta = 0.005 / 16 * (p - task.targets[rows])
        weight, bias = weight - task.features[rows].T @ delta, bias - delta.sum(axis=0)
    for mine, theirs in zip(numpy_peer(task)().parameters, (weight, bias), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-7)


class FakeEngine:
    """Takes 100 s for the first array of batches, which is the warm-up, and 8 s for the second, by its own clock."""

    def __init__(self, monkeypatch, *, reads_ahead):
        self.now, self.reads_ahead = 0.0, reads_ahead
        monkeypatch.setattr("onnxsurgeon.make_engine", lambda name: self)
        monkeypatch.setattr("benchmarking.onnx_peers.time", SimpleNamespace(perf_counter=lambda: self.now))

    def train(self, network, examples, batches, spec):
        for seconds, _ in zip((100.0, 8.0), list(batches) if self.reads_ahead else batches, strict=True):
            self.now += seconds
        return TrainedNetwork(network, None, 0, 108.0)


def test_a_slow_warm_up_counts_for_nothing(monkeypatch):
    FakeEngine(monkeypatch, reads_ahead=False)
    assert loop_peer(make_task((6, 5, 3), 4))().microseconds == 8e6 / 4


def test_an_engine_that_reads_ahead_is_not_timed(monkeypatch):
    FakeEngine(monkeypatch, reads_ahead=True)
    with pytest.raises(RuntimeError, match="reads batches ahead"):
        loop_peer(make_task((6, 5, 3), 4))()


def test_operations_of_a_step():
    assert step_flops((784, 10), 16) == 2 * 16 * 2 * 7840  # forward and the weight's gradient
    assert step_flops((784, 10, 10), 16) == 2 * 16 * (2 * 7840 + 3 * 100)


def test_spread_of_rounds():
    assert ratio([2.0, 6.0, 20.0], [1.0, 2.0, 5.0]) == Spread(3.0, 2.5, 3.5)
    assert Spread.of([4.0]).text(1) == "4.0"


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_cost_against_width_is_drawn_whole(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    shared = {"peer": "loop engine", "runs_on": "onnxruntime 1.0", "peak": {"gflops": 80.0}}
    times = {10: Spread(40.0, 38.0, 45.0), 4096: Spread(7000.0, 6900.0, 8000.0)}
    measured = [{**shared, "width": width, "step": vars(spread)} for width, spread in times.items()]
    require_plot(tmp_path / f"width{suffix}")
    plot(measured, tmp_path / f"width{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"width{suffix}"]
    start = (tmp_path / f"width{suffix}").read_bytes()[:8]
    assert start in (b"\x89PNG\r\n\x1a\n", b"<?xml ve")
    # 32 (2 · 784 · 4096 + 3 · 4096 · 10) operations at 80,000 a microsecond
    assert "| 4096 | 7,000.0 | 2,618.2 |" in table(measured)


def test_a_run_is_timed_from_within():
    record = ask(MODELS / "digits-small.onnx", "digits", epochs=2, initial_epochs=1, epoch_step=1)
    assert record["steps"] > 2 * 89
    assert 0 < record["outside"] < 1 <= record["sessions_active"] <= 2 * os.cpu_count()
    assert record["data_bytes"] == 1797 * (64 + 1)
    assert record["peak_bytes"] > 30e6


def test_a_run_that_fails_says_why():
    with pytest.raises(SystemExit, match=r"nothing\.npz: no such file"):
        ask(MODELS / "digits-small.onnx", "nothing.npz")


def test_time_with_several_threads_inside_counts_once():
    now = iter([1.0, 2.0, 5.0, 7.0, 10.0, 11.0])
    clock = BusyClock(lambda: next(now))
    first, second = clock.enter(), clock.enter()  # at 1 and 2
    clock.leave(first)  # at 5
    clock.leave(second)  # at 7
    clock.leave(clock.enter())  # at 10 and 11
    assert (clock.any, clock.sum) == (7.0, 10.0)


def test_a_watched_method_counts_where_it_fails():
    class Session:
        def run(self, barrier):
            barrier.wait()
            raise ValueError("as it would")

    now = iter(range(100))
    clock, barrier = BusyClock(lambda: float(next(now))), threading.Barrier(2)
    clock.watch(Session, "run")

    def attempt():
        with pytest.raises(ValueError, match="as it would"):
            Session().run(barrier)

    threads = [threading.Thread(target=attempt) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.any == 3.0  # both were inside from 0 or 1 on, until 2 or 3
