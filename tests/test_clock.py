"""What a time limit is counted by: on the command line from the start of the process, with time left for the report."""

import subprocess
import sys
import time

import pytest

from onnxsurgeon.surgeon import clock
from onnxsurgeon.surgeon.clock import REPORT, Clock, process_seconds
from onnxsurgeon.surgeon.search import Surgeon
from tests.conftest import start_model


def test_a_process_knows_for_how_long_it_has_been_there():
    code = (
        "import time; time.sleep(0.5); from onnxsurgeon.surgeon.clock import process_seconds; print(process_seconds())"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # The system counts in hundredths.
    assert 0.5 <= float(done.stdout) + 0.02 <= time.perf_counter() - begun + 0.04


def test_where_the_system_does_not_tell_its_work_counts(monkeypatch):
    monkeypatch.setattr(clock, "Path", lambda _: (_ for _ in ()).throw(FileNotFoundError()))
    before = time.process_time()
    assert before <= process_seconds() <= time.process_time()


@pytest.mark.parametrize(
    ("report", "limit", "deadline"),
    [
        (0.0, 60.0, 57.5),
        (0.0, 4.0, 3.0),
        (1.5, 60.0, 57.5),
        (1.5, 5.0, 2.5),
        (4.375, 60.0, 55.0),  # a busy machine
        (4.375, 6.0, 3.0),  # there is as much time for the search as for the end
    ],
)
def test_time_is_kept_for_the_end(report, limit, deadline):
    assert Clock(0.0, report).deadline(limit) == pytest.approx(deadline)


def test_a_report_is_expected_to_take_as_long_as_the_machine_is_slow(monkeypatch):
    monkeypatch.setattr(clock, "process_seconds", lambda: 2.0)
    monkeypatch.setattr(time, "perf_counter", lambda: 100.0)
    assert Clock.of_process() == Clock(98.0, 2 * REPORT)


def test_the_command_counts_from_its_start(cli, tmp_path, monkeypatch):
    """Of 20 seconds the process has taken 7 before the search begins; another 15.4 would be its report's."""
    seen = []
    evolve = Surgeon.evolve
    monkeypatch.setattr(clock, "process_seconds", lambda: 7.0)
    monkeypatch.setattr(Surgeon, "evolve", lambda self: seen.append((time.perf_counter(), self)) or evolve(self))
    start = start_model(tmp_path)
    options = ("--time-limit", "20", "--epochs", "1", "--run-dir", tmp_path / "run", "-q")
    assert cli("evolve", start, "--data", "digits", *options)[0] == 0
    ((now, surgeon),) = seen
    assert now - surgeon.clock.begun >= 7.0
    assert surgeon.deadline == 10.0
