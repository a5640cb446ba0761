"""``watch``: the report on loopback, renewed while a run goes on, and what is said of the run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from onnxsurgeon import RunError, SurgeonSettings, evolve
from onnxsurgeon.cli.watching import WatchServer
from onnxsurgeon.runs.history import read_history
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.runs.liveness import FINISHED, GOING_ON, STOPPED, UNKNOWN, Watch
from tests.browser import Visit, browser  # noqa: F401
from tests.conftest import MODELS, start_model
from tests.killed_run import SETTINGS


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched")
    settings = SurgeonSettings.from_preset("corrected", **SETTINGS)
    return evolve(start_model(folder), "digits", settings=settings, run_dir=folder / "run").run


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def served(run):
    """A server for the run, and a function that asks it."""
    with WatchServer(run, None) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def ask(target, host=None):
            connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
            connection.putrequest("GET", target, skip_host=True)
            connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
            connection.endheaders()
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            return answer.status, body

        yield server, ask
        server.shutdown()
        thread.join()


def cut(run, *, to_event):
    """The journal's lines after the last of that event, taken away from it."""
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if json.loads(line)["event"] == to_event)
    (run / "journal.jsonl").write_bytes(b"".join(lines[: last + 1]))
    return b"".join(lines[last + 1 :])


class Time:
    """A clock that tests turn."""

    now = 0.0

    def __call__(self):
        return self.now


def state(watch):
    return watch.state(read_history(watch.run))


def test_what_is_said_of_a_run_nobody_here_holds(run):
    rest = cut(run, to_event="started")
    clock = Time()
    watch = Watch(RunDirectory.open(run), clock)
    assert state(watch) == UNKNOWN
    clock.now = 10
    with (run / "journal.jsonl").open("ab") as journal:  # as another machine would
        journal.write(rest[: rest.index(b"\n") + 1])
    assert state(watch) == GOING_ON
    clock.now = 39
    assert state(watch) == GOING_ON
    clock.now = 41
    assert state(watch) == STOPPED
    with (run / "journal.jsonl").open("ab") as journal:
        journal.write(rest[rest.index(b"\n") + 1 :])
    assert state(watch) == FINISHED


def test_a_run_that_was_stopped_long_ago_counts_as_stopped_after_a_while(run):
    cut(run, to_event="decided")
    clock = Time()
    watch = Watch(RunDirectory.open(run), clock)
    assert state(watch) == UNKNOWN
    clock.now = 10_000
    assert state(watch) == STOPPED


HOLDS = """
import sys, time
from pathlib import Path
from onnxsurgeon.runs.journal import RunDirectory
with RunDirectory.open(Path(sys.argv[1])).exclusive():
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_run_whose_process_is_killed_is_known_to_have_died(run):
    pytest.importorskip("fcntl")
    cut(run, to_event="decided")
    watch = Watch(RunDirectory.open(run), Time())
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(run)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            assert [state(watch), state(watch)] == [GOING_ON, GOING_ON]
        finally:
            process.kill()
    assert state(watch) == STOPPED


def test_looking_does_not_keep_a_run_from_being_worked_on(run):
    fcntl = pytest.importorskip("fcntl")
    directory = RunDirectory.open(run)
    with directory.settings_file.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # as one who looks
        threading.Timer(0.03, fcntl.flock, (file, fcntl.LOCK_UN)).start()
        with directory.exclusive():
            assert directory.is_held()
    assert not directory.is_held()
    with directory.exclusive(), pytest.raises(RunError, match="another process is working on this run"):  # noqa: SIM117
        with directory.exclusive():
            pass


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost.evil.example", "127.0.0.1:1"])
@pytest.mark.parametrize("target", ["/", "/news", "/report.html", "/best.onnx"])
def test_only_its_own_host_is_answered(host, target, served):
    assert served[1](target, host)[0] == 403


def test_it_serves_the_runs_models_and_nothing_else(served, run):
    _, ask = served
    for name in ("best.onnx", *(f"branches/{path.name}" for path in (run / "branches").glob("*.onnx"))):
        assert ask(f"/{name}") == (200, (run / name).read_bytes())
    for name in (
        "settings.json",
        "journal.jsonl",
        "branches/",
        "branches/../settings.json",
        "../start.onnx",
        "front/1",
    ):
        assert ask(f"/{name}")[0] == 404
    (run / "front").mkdir()
    (run / "front" / "10.onnx").symlink_to(run / "settings.json")
    assert ask("/front/10.onnx")[0] == 404
    assert not (run / "report.html").exists()  # nothing is written there


def test_what_is_no_run_is_told_in_a_line(tmp_path):
    with pytest.raises(RunError, match="not a run directory"):
        WatchServer(tmp_path, None)


@contextmanager
def begun(folder):
    """A run in a process of its own, which stands still once it has begun; the function lets it go on."""
    command = [sys.executable, "-m", "onnxsurgeon", "evolve", str(start_model(folder)), "--data", "digits", "--quiet"]
    command += ["--objective", "pareto", "--epochs", "6", "--seed", "1", "--run-dir", str(folder / "run")]
    with subprocess.Popen(command, cwd=MODELS.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            while not (folder / "run" / "journal.jsonl").is_file():
                assert process.poll() is None, process.stderr.read()
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGSTOP)

            def finish():
                os.kill(process.pid, signal.SIGCONT)
                assert process.wait(timeout=300) == 0, process.stderr.read()

            yield folder / "run", finish
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_run_of_another_process_is_watched_to_its_end_and_a_point_of_its_front_downloaded(browser, tmp_path):  # noqa: F811
    with begun(tmp_path) as (run, finish), WatchServer(run, None) as server, Visit(browser) as visit:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        page = visit.page
        page.goto(server.url)
        page.locator("#words", has_text="The run goes on").wait_for()
        finish()
        page.locator(".finished #words", has_text="The run has finished.").wait_for(timeout=120_000)
        report = page.frame_locator("iframe.shown")
        report.get_by_text("Finished", exact=True).wait_for(timeout=120_000)
        points = report.locator(".picker .mark")
        assert points.count() >= 2
        points.first.click()
        with page.expect_download() as download:
            report.locator("#pick").get_by_role("link", name="Download").click()
        file = run / "front" / download.value.suggested_filename
        assert download.value.path().read_bytes() == file.read_bytes()
        assert visit.errors == []
        assert visit.elsewhere == []
        server.shutdown()


def test_the_page_follows_a_run_to_its_end(browser, served, run):  # noqa: F811
    server, _ = served
    rest = cut(run, to_event="started")
    with Visit(browser) as visit, RunDirectory.open(run).exclusive():
        page = visit.page
        page.goto(server.url)
        words, report = page.locator("#words"), page.frame_locator("iframe.shown")
        page.wait_for_function("document.querySelector('#words').textContent.startsWith('The run goes on: epoch 0')")
        report.get_by_text("Not finished: at epoch 0").wait_for()
        assert not report.locator(".resume").is_visible()
        report.locator("summary", has_text="as a table").click()
        for line in rest.splitlines(keepends=True):
            with (run / "journal.jsonl").open("ab") as journal:
                journal.write(line)
            if json.loads(line)["event"] == "decided":
                time.sleep(0.5)
        report.get_by_text("Finished", exact=True).wait_for(timeout=120_000)
        assert page.locator("iframe").count() == 1
        assert report.locator("tr[data-branch]:visible").count() > 3  # what was unfolded is so still
        assert words.inner_text() == "The run goes on: epoch 12 is decided."
        assert visit.errors == []
        assert visit.elsewhere == []
    with Visit(browser) as visit:
        visit.page.goto(server.url)
        visit.page.locator(".finished #words", has_text="The run has finished.").wait_for()
        link = visit.page.frame_locator("iframe.shown").get_by_role("link", name="Download best.onnx")
        with visit.page.expect_download() as download:
            link.click()
        assert download.value.path().read_bytes() == (run / "best.onnx").read_bytes()
        assert visit.errors == []
        assert visit.elsewhere == []
