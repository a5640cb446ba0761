"""Runs on a Dask cluster on loopback: the bytes of a local run, whatever happens to the workers."""

import asyncio
import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("distributed")

from distributed import Client

from onnxsurgeon import EngineError, InputOptions, SettingsError, SurgeonSettings, evolve, load, resume
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.runs.branch import START, Branch, read_branch, write_branch
from onnxsurgeon.runs.versions import versions
from onnxsurgeon.surgeon.workers import cluster as clusters
from onnxsurgeon.surgeon.workers import make_workers
from onnxsurgeon.surgeon.workers.host import WorkerHost, unpack_files
from onnxsurgeon.task import CROSS_ENTROPY, Task
from tests.conftest import MODELS, needs_training, start_model
from tests.killed_run import SETTINGS

SHORT = SurgeonSettings.from_preset("corrected", **{**SETTINGS, "epochs": 6})
# The first job alone trains long enough to be caught at it.
LONG = replace(SHORT, epochs=402, initial_epochs=400)
PLACED = "Starting Worker plugin onnxsurgeon-"
HANGS = 600  # seconds after which what is waited for will not come; a busy machine needs far more than an idle one
QUIET = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]


class Processes:
    """A scheduler and workers in processes of their own; all are ended at the end."""

    def __init__(self, folder):
        self.folder, self.file, self.started = folder, folder / "scheduler.json", []
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", "0")
        deadline = time.monotonic() + HANGS
        # It is there before it is full.
        while not (self.file.exists() and self.file.read_text().strip()) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.address = json.loads(self.file.read_text())["address"]
        self.name = self.address.replace("tcp://", "dask://")

    def start(self, kind, *options, path=()):
        log = (self.folder / f"{kind}-{len(self.started)}.log").open("wb")
        command = [sys.executable, "-m", "dask", kind, "--scheduler-file", str(self.file), *QUIET, *options]
        path = os.pathsep.join(filter(None, [*path, str(MODELS.parent), os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            command, cwd=self.folder, env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log
        )
        log.close()
        self.started.append(process)
        return process

    def workers(self, count, *options, path=()):
        options = ["--nworkers", str(count), "--nthreads", "1", "--host", "127.0.0.1", *options]
        process = self.start("worker", *options, path=path)
        with self.client() as client:
            client.wait_for_workers(count, timeout=HANGS)
        return process

    def client(self):
        return Client(self.address, set_as_default=False)

    def said(self, text):
        """How often a worker has logged this."""
        return sum(path.read_text().count(text) for path in self.folder.glob("worker-*.log"))

    def stop(self):
        for process in reversed(self.started):
            process.terminate()
        for process in reversed(self.started):
            process.wait(30)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two worker processes."""
    processes = Processes(tmp_path_factory.mktemp("cluster"))
    processes.workers(2)
    yield processes
    processes.stop()


@pytest.fixture
def fragile(tmp_path):
    """One worker process that nothing starts again."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    processes = Processes(folder)
    processes.worker = processes.workers(1, "--no-nanny")
    yield processes
    processes.stop()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Runs on this machine, by settings."""
    made = {}

    def run(settings):
        if settings not in made:
            folder = tmp_path_factory.mktemp("local")
            made[settings] = evolve(
                start_model(folder), "digits", settings=settings, run_dir=folder / "run", workers=2
            ).run
        return made[settings]

    return run


def contents(run):
    paths = [*run.glob("branches/*"), run / "best.onnx"]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in paths}


def at_work(client):
    """Address of a worker that is busy with a job, once there is one."""
    deadline = time.monotonic() + HANGS
    while time.monotonic() < deadline:
        for address, keys in client.processing().items():
            if keys:
                return address
        time.sleep(0.02)
    raise AssertionError("no job was started")


@contextlib.contextmanager
def when_at_work(processes, act):
    """Do ``act(client, address)`` in a thread as soon as a job is being done."""
    failed = []

    def watch():
        try:
            with processes.client() as client:
                act(client, at_work(client))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    yield
    thread.join()
    if failed:
        raise failed[0]


def kill_in_the_middle(client, address):
    pid = client.run(os.getpid, workers=[address])[address]
    os.kill(pid, signal.SIGSTOP)  # so that the job cannot end before the kill
    assert client.processing()[address]
    os.kill(pid, signal.SIGKILL)


def test_the_same_bytes_as_on_one_machine(cluster, local, tmp_path, monkeypatch):
    sizes, events = [], []
    pack = clusters.pack

    def measured(*args):
        packed = pack(*args)
        sizes.append(len(pickle.dumps(packed)))
        return packed

    monkeypatch.setattr(clusters, "pack", measured)
    placed = cluster.said(PLACED)
    start = start_model(tmp_path)
    run = evolve(
        start, "digits", settings=SHORT, run_dir=tmp_path / "run", workers=cluster.name, callbacks=events.append
    ).run
    assert contents(run) == contents(local(SHORT))
    (begun,) = (event for event in events if event["event"] == "run")
    assert (begun["workers"], begun["cluster"]) == (2, cluster.name)
    # The data set is placed once a worker, whatever the number of jobs, and does not travel with them.
    assert cluster.said(PLACED) == placed + 2
    assert len(sizes) > 10
    assert max(sizes) < 4 * start.stat().st_size
    with cluster.client() as client:
        plugins = client.run(lambda dask_worker: [name for name in dask_worker.plugins if "onnxsurgeon" in name])
    assert list(plugins.values()) == [[], []]


@pytest.mark.parametrize("export", ["torch-legacy-bfloat16", "torch-dynamo-external"])
def test_exports_of_every_kind_travel(export, cluster, tmp_path):
    path = MODELS / "exports" / f"{export}.onnx"
    settings = replace(SHORT, epochs=4, learning_rate=0.05)
    here = evolve(path, "digits", settings=settings, run_dir=tmp_path / "here", workers=1).run
    there = evolve(path, "digits", settings=settings, run_dir=tmp_path / "there", workers=cluster.name).run
    assert contents(there) == contents(here)


def test_an_optimizers_state_travels(cluster, local, tmp_path):
    settings = replace(SHORT, optimizer="adamw", learning_rate=0.001, schedule="cosine")
    run = evolve(start_model(tmp_path), "digits", settings=settings, run_dir=tmp_path / "run", workers=cluster.name).run
    assert any(name.endswith(".state.npz") for name in contents(run))
    assert contents(run) == contents(local(settings))


def test_rows_without_labels_and_those_made_of_them_travel(cluster, tmp_path, digits):
    """Whichever way wins: the race trains with the rows that were made and without."""
    np.savez(tmp_path / "rows.npz", x_train=digits.train.inputs[:300], x_test=digits.test.inputs[:100])
    settings = SurgeonSettings.from_preset(epochs=8, seed=3, shrink=2, start="trained")
    model = MODELS / "exports" / "torch-legacy-bfloat16.onnx"
    events = []
    wanted = {"settings": settings, "options": InputOptions(loss="cross-entropy"), "callbacks": events.append}
    here = evolve(model, str(tmp_path / "rows.npz"), run_dir=tmp_path / "here", workers=1, **wanted)
    there = evolve(model, str(tmp_path / "rows.npz"), run_dir=tmp_path / "there", workers=cluster.name, **wanted)
    assert contents(there.run) == contents(here.run)
    for run in (event for event in events if event["event"] == "run"):
        assert run["made_rows"] > run["rows"]


@needs_training
def test_the_artifacts_of_the_other_engine_travel(cluster, tmp_path):
    settings = replace(SHORT, optimizer="adamw", learning_rate=0.001)
    runs = [
        evolve(
            start_model(tmp_path), "digits", settings=settings, engine="artifacts", run_dir=path, workers=workers
        ).run
        for path, workers in ((tmp_path / "here", 2), (tmp_path / "there", cluster.name))
    ]
    here, there = (sorted(path.relative_to(run) for path in run.glob("branches/*/*")) for run in runs)
    assert here == there
    assert len(here) > 10
    # What ONNX Runtime's generator writes differs from time to time in itself.
    for path in [*runs[0].glob("branches/*.onnx"), *runs[0].glob("branches/*.npz"), runs[0] / "best.onnx"]:
        assert path.read_bytes() == (runs[1] / path.relative_to(runs[0])).read_bytes(), path


def test_training_and_validation_rows_of_one_array_travel_once():
    images = np.arange(2000 * 64, dtype=np.uint8).reshape(-1, 8, 8)
    task = Task(CROSS_ENTROPY, 10, "Softmax")

    def selected(numbers):  # each with a view of its own, as two splits of a data set have them
        rows = Rows(images, np.dtype(np.float32), scale=1 / 255).select(numbers).reshaped(64)
        return Examples([rows], (numbers % 10,), (task,))

    train, validation = selected(np.arange(1900)), selected(np.arange(1900, 2000))
    assert train.stored[0].source is not validation.stored[0].source
    assert train.targets[0].shape == (1900, 10)  # what a process has computed for itself does not travel
    content = pickle.dumps(WorkerHost("name", SHORT, "loop", "cpu", train, validation, versions()))
    assert len(content) < 1.5 * images.nbytes
    sent = pickle.loads(content)
    for before, after in ((train, sent._train), (validation, sent._validation)):
        np.testing.assert_array_equal(after.features[0], before.features[0])
        np.testing.assert_array_equal(after.labels[0], before.labels[0])


def test_a_worker_that_dies_in_the_middle_changes_no_byte(cluster, local, tmp_path):
    placed = cluster.said(PLACED)
    with when_at_work(cluster, kill_in_the_middle):
        run = evolve(start_model(tmp_path), "digits", settings=LONG, run_dir=tmp_path / "run", workers=cluster.name).run
    assert contents(run) == contents(local(LONG))
    with cluster.client() as client:
        client.wait_for_workers(2, timeout=HANGS)
    assert cluster.said(PLACED) in (placed + 2, placed + 3)  # 3: the one that took its place was in time


def test_without_workers_a_run_ends_and_can_be_continued(fragile, local, tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "ABSENCE_SECONDS", 1.0)
    run = tmp_path / "run"
    with (
        when_at_work(fragile, kill_in_the_middle),
        pytest.raises(EngineError, match=rf"no worker for 1 seconds; continue with: .* --resume {run}"),
    ):
        evolve(start_model(tmp_path), "digits", settings=LONG, run_dir=run, workers=fragile.name)
    resume(run, workers=2)
    assert contents(run) == contents(local(LONG))


def test_without_the_scheduler_a_run_ends_and_can_be_continued(fragile, local, tmp_path):
    run = tmp_path / "run"
    with (
        when_at_work(fragile, lambda client, address: fragile.scheduler.kill()),
        pytest.raises(EngineError, match=r"connection to the scheduler was lost; continue with: .* --resume"),
    ):
        evolve(start_model(tmp_path), "digits", settings=LONG, run_dir=run, workers=fragile.name)
    resume(run, workers=2)
    assert contents(run) == contents(local(LONG))


def test_an_interrupt_cancels_the_jobs(cluster, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-c", "from onnxsurgeon.cli import main; main()", "evolve", str(start_model(tmp_path))]
    options = ["--data", "digits", "--preset", "corrected", "--epochs", "100000", "--initial-epochs", "100000"]
    process = subprocess.Popen(
        [*command, *options, "--workers", cluster.name, "--run-dir", str(run)],
        cwd=MODELS.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell ignores interrupts for what it runs in the background, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with cluster.client() as client:
        at_work(client)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=HANGS)
        assert (process.returncode, errors.count("\n")) == (130, 1), errors
        assert f"continue with: onnxsurgeon evolve --resume {run}" in errors.replace("\n", "")
        deadline = time.monotonic() + HANGS
        while any(client.run(lambda dask_worker: dask_worker.state.executing_count).values()):
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("many", "'many' is neither a number nor an address such as dask://host:8786"),
        ("", "'' is neither a number"),
        ("dask://host", "'dask://host' is no address such as dask://host:8786"),
        ("dask://host:0", "is no address"),
        ("dask://host:99999", "is no address"),
        ("http://host:8786", "is no address"),
        ("0", "0 is too small: expected at least 1"),
    ],
)
def test_bad_addresses(text, reason):
    with pytest.raises(SettingsError, match=f"^workers: .*{reason}"):
        make_workers(text)


def test_nobody_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "CONNECT_SECONDS", 0.5)
    start = start_model(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # listens, and never answers
        address = f"dask://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(EngineError, match=f"no Dask scheduler answers at {address} within"):
            evolve(start, "digits", run_dir=tmp_path / "run", workers=address)
    for nobody in (address, "dask://no-such-host.invalid:8786"):
        with pytest.raises(EngineError, match=f"no Dask scheduler answers at {nobody}: ."):
            evolve(start, "digits", run_dir=tmp_path / "run", workers=nobody)
    assert not (tmp_path / "run").exists()


def test_the_command_line_ends_in_one_line(tmp_path):
    command = [sys.executable, "-c", "from onnxsurgeon.cli import main; main()", "evolve", str(start_model(tmp_path))]
    done = subprocess.run(
        [*command, "--data", "digits", "--workers", "dask://127.0.0.1:1", "--run-dir", str(tmp_path / "run")],
        cwd=MODELS.parent,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert not (tmp_path / "run").exists()


ANOTHER_RELEASE = """
from importlib import metadata
version = metadata.version
metadata.version = lambda package: "9.9" if package == "onnxsurgeon" else version(package)
"""


def test_clusters_that_cannot_be_used(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(ANOTHER_RELEASE)
    start, processes = start_model(tmp_path), Processes(tmp_path)
    try:
        with pytest.raises(EngineError, match="has no workers: start some with 'dask worker'"):
            evolve(start, "digits", run_dir=tmp_path / "run", workers=processes.name)
        processes.workers(1, path=[str(tmp_path)])
        reason = r"worker tcp://127.* has onnxsurgeon 9\.9; here it is onnxsurgeon .*: the result could differ"
        with pytest.raises(EngineError, match=reason):
            evolve(start, "digits", run_dir=tmp_path / "run", workers=processes.name)
    finally:
        processes.stop()
    assert not (tmp_path / "run").exists()


class Joining:
    """Stands for a worker that joins in the middle of a run."""

    address = "tcp://late:1"
    offered = None

    async def set_resources(self, **resources):
        self.offered = resources


def test_a_worker_with_other_versions_that_joins_later_gets_no_job(digit_examples):
    worker = Joining()
    host = WorkerHost("name", SHORT, "loop", "cpu", *digit_examples, {**versions(), "onnxruntime": "1.0"})
    with pytest.raises(EngineError, match=r"worker tcp://late:1 has onnxruntime .*; here it is onnxruntime 1\.0"):
        asyncio.run(host.setup(worker))
    assert worker.offered is None


def test_the_extra_is_not_installed(monkeypatch):
    for name in ("onnxsurgeon.surgeon.workers.cluster", "onnxsurgeon.surgeon.workers.host"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SettingsError, match=r"needs Dask: pip install 'onnxsurgeon\[dask\]'"):
        make_workers("dask://host:8786")


@pytest.mark.parametrize("name", ["/tmp/x.onnx", "../x.onnx", "a/../../x.onnx"])
def test_a_worker_writes_nowhere_else(name, tmp_path):
    with pytest.raises(EngineError, match="leads out of the folder of branches"):
        unpack_files({name: b""}, tmp_path)


@pytest.mark.parametrize("path", sorted(MODELS.glob("export-*.onnx")), ids=lambda path: path.stem)
def test_a_branch_is_what_its_file_holds(path, tmp_path):
    """Else a worker, which reads it from a file, would train something else than a thread, which does not."""
    first = write_branch(Branch(0, None, START, load(path)), tmp_path).read_bytes()
    branch = read_branch(tmp_path / f"0000-{START}.onnx")
    assert write_branch(branch, tmp_path).read_bytes() == first
    again = read_branch(Path(tmp_path) / branch.file_name)
    assert again.network.frame.trunk.digest == branch.network.frame.trunk.digest
    for (name, values), (other, same) in zip(branch.network.parameters(), again.network.parameters(), strict=True):
        assert (name, values.dtype, values.tobytes()) == (other, same.dtype, same.tobytes())
