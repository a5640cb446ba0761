"""What ``evolve`` shows while it runs: the live view, --quiet, logs; and how it is interrupted."""

import fcntl
import hashlib
import io
import json
import logging
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from onnxsurgeon import SurgeonSettings, TrainingProgress, evolve, load, resume
from onnxsurgeon.cli import learning, live
from onnxsurgeon.cli.interrupt import Interrupts
from onnxsurgeon.cli.run_state import RunState
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.surgeon import progress as progress_module
from tests.command_line import QUICK, SMALL
from tests.conftest import MODELS, start_model

SETTINGS = SurgeonSettings.from_preset(
    "corrected",
    epochs=6,
    initial_epochs=2,
    epoch_step=2,
    recuperation_batches=5,
    seed=6,
    learning_rate=0.1,
    batch_size=16,
)
SIZES = [(80, 24), (140, 40), (80, 12), (60, 24)]
ROOMY = SIZES[:2]


@pytest.fixture
def without_report(monkeypatch):
    """Spares the seconds that a report takes where it is not looked at."""
    monkeypatch.setattr(learning, "_write_report", lambda run: None)


class Recorder:
    """Keeps a run's events, and what was underway at each of them and at each piece of training."""

    def __init__(self):
        self.progress = TrainingProgress()
        self.moments = []
        advance = self.progress.advance

        def recorded(branch, steps):
            advance(branch, steps)
            self.moments.append((None, self.progress.underway, self.progress.steps))

        self.progress.advance = recorded

    def __call__(self, event):
        self.moments.append((event, self.progress.underway, self.progress.steps))

    def replay(self):
        """The state of the view after each moment, a tenth of a second apart."""

        class Replayed:
            underway, steps = [], 0

        now = [0.0]
        replayed = Replayed()
        state = RunState(replayed, clock=lambda: now[0])
        for event, replayed.underway, replayed.steps in self.moments:
            now[0] += 0.1
            if event is not None:
                state.consume(event)
            yield event, state


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress_module, "PIECE", 40)
        evolve(
            start_model(folder),
            "digits",
            settings=SETTINGS,
            run_dir=folder / "run",
            workers=2,
            callbacks=recorder,
            training_progress=recorder.progress,
        )
    return recorder


def shown(state, width, height, **options):
    """The view's lines; none is wider than the screen, and together they are no higher."""
    console = Console(width=width, height=height, record=True, file=io.StringIO())
    console.print(live.render(state, console, **options))
    lines = console.export_text().splitlines()
    assert max(cell_len(line) for line in lines) <= width
    assert len(lines) < height
    return lines


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_view_fits_at_every_moment(recorded, width, height):
    for event, state in recorded.replay():
        if state.path:
            lines = shown(state, width, height)
            assert re.match(r"epoch \d of 6 ", lines[1]), (event, lines)


@pytest.mark.parametrize(("width", "height"), [(80, 40), (140, 40)])
def test_the_view_shows_what_is_known(recorded, width, height):
    seen = set()
    for event, state in recorded.replay():
        if not state.path:
            continue
        text = "\n".join(shown(state, width, height))
        if event is None:
            seen |= set(re.findall(r"(?:trying|training) \d+%|measuring", text))
            assert re.search(r"\d:\d\d elapsed, about \d:\d\d left; [\d,]+ steps a second", text)
            continue
        kind = event["event"]
        if kind == "proposed":
            number, of = (event["epoch"] - 2) // 2 + 1, 2
            assert f"decision point {number} of {of}, draw {event['draw'] + 1} of at most 3" in text
        if kind in ("recuperated", "trained") and state.candidates:
            (line,) = [line for line in text.splitlines() if re.match(rf" *{event['branch']} {event['surgery']}", line)]
            for figure in (f"{event['parameters']:,}", f"{event['accuracy']:.4f}", f"{event['score']:.4f}"):
                assert figure in line
            assert event["topology"] in line
            if width >= live.WIDE:
                assert f"{event['gain']:+.4f}" in line
        if kind == "dropped":
            assert {"score": "dropped: ", "less accurate than before": "less accurate"}[event["reason"]] in text
        if kind == "decided":
            best = event["best"]
            assert f"best so far: accuracy {event['best_accuracy']:.4f}, branch {best} (" in text
            table = text.partition("branches ")[2].partition("candidates ")[0]
            described = zip(event["branches"], event["topologies"], event["parameters"], strict=True)
            for number, topology, parameters in described:
                (line,) = re.findall(rf"^ *{number} .*$", table, re.MULTILINE)
                assert topology in line
                assert f"{parameters:,}" in line
                assert re.search(r"[+-]0\.\d{4}", line)
            if event["epoch"] > 2:
                assert text.count(" kept") == len(event["branches"])
    assert len(seen) > 5
    assert "measuring" in seen


def test_an_interrupt_shows(recorded):
    *_, (_, state) = recorded.replay()
    assert "stopping …" in shown(state, 80, 24, is_stopping=True)


def test_the_estimate_ends_at_nothing(recorded):
    """Every step that is trained is counted, and towards the end none is left."""
    totals = [steps for _, _, steps in recorded.moments]
    assert totals == sorted(totals)
    finished = recorded.moments[-1][0]
    assert finished["event"] == "finished"
    assert totals[-1] == finished["steps"]
    for _, state in recorded.replay():
        assert not state.path or state.steps_left() >= 0
    assert state.steps_left() == 0


def test_many_candidates_leave_room_for_all_branches(recorded):
    """Of sixty candidates those that are dropped give way, and how many is said."""
    *_, (_, state) = recorded.replay()
    base = max(state.candidates) + 1
    for number in range(base, base + 60):
        event = {"event": "proposed", "branch": number, "surgery": "widen:1:2", "parameters": 99, "draw": 1, "epoch": 4}
        state.candidates[base - 1].stage = "proposed"
        state.consume(event)
        if number % 2:
            state.consume({"event": "dropped", "branch": number, "reason": "score"})
    for width, height in ROOMY:
        lines = shown(state, width, height)
        assert re.search(r"… and \d\d more", lines[-1])
        assert "dropped" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("topology", "width", "short"),
    [
        ("784-10-10", 9, "784-10-10"),
        ("784-300-100-100-10", 16, "784-300-…-100-10"),
        ("784-300-100-100-10", 12, "784-300-…-10"),
        ("3072-1000", 8, "3072-10…"),
        ("64-10+64-10-2", 12, "64-10+64-…-2"),
    ],
)
def test_long_topologies(topology, width, short):
    assert live.shorten(topology, width) == short


def test_without_a_terminal_there_is_a_line_an_event(cli, without_report):
    code, out, err = cli("evolve", SMALL, "--data", "digits", *QUICK)
    assert (code, err) == (0, "")
    assert "\x1b" not in out
    assert re.search(r"^tried      2 identity ", out, re.MULTILINE)
    assert "elapsed" not in out


def test_quiet_prints_the_path_of_the_result(cli, tmp_path, without_report):
    assert cli("evolve", SMALL, "--data", "digits", *QUICK, "-q") == (0, "runs/digits-small-digits-1/best.onnx\n", "")
    code, out, err = cli("evolve", SMALL, "--data", "digits", *QUICK, "--quiet", "--out", "best[1].onnx")
    assert (code, out, err) == (0, "best[1].onnx\n", "")
    code, out, err = cli("evolve", SMALL, "--data", "digits", "--quiet", "--epochs", "0")
    assert (code, out) == (2, "")
    assert err.startswith("onnxsurgeon: epochs: 0 is too small")


def test_every_event_is_logged(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "onnxsurgeon")
    events = []
    evolve(start_model(tmp_path), "digits", settings=SETTINGS, run_dir=tmp_path / "run", callbacks=events.append)
    records = [record for record in caplog.records if record.name.startswith("onnxsurgeon")]
    lines = [record.getMessage() for record in records if record.levelno < logging.WARNING]
    assert len(lines) == len(events)
    levels = {record.levelname for record in records}
    assert levels == {"DEBUG", "INFO", "WARNING"}
    (warning,) = [record.getMessage() for record in records if record.levelno == logging.WARNING]
    assert warning.startswith("near chance")
    for event, line in zip(events, lines, strict=True):
        assert "\n" not in line
        if "branch" in event and event["event"] != "finished":
            assert line.startswith(f"branch {event['branch']}")
    assert "resumed" not in " ".join(lines)


def test_nothing_is_logged_unasked(tmp_path):
    """A program without a configured log sees not even the warnings."""
    code = (
        "import sys, onnxsurgeon as o\n"
        "s = o.SurgeonSettings.from_preset('corrected', epochs=1, initial_epochs=1)\n"
        f"o.evolve({str(start_model(tmp_path))!r}, 'digits', settings=s, run_dir={str(tmp_path / 'run')!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_log_file(cli, tmp_path, without_report):
    for _ in range(2):
        assert cli("evolve", SMALL, "--data", "digits", *QUICK, "-q", "--log-file", "log.txt")[0] == 0
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert all(re.match(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING) ", line) for line in lines)
    assert sum(" run runs/digits-small-digits-" in line for line in lines) == 2
    assert cli("evolve", SMALL, "--data", "nowhere", "--log-file", "log.txt")[0] == 2
    assert re.search(r"ERROR   unknown data set 'nowhere'.* \[D01\]$", (tmp_path / "log.txt").read_text(), re.MULTILINE)
    code, _, err = cli("evolve", SMALL, "--data", "digits", "--log-file", "no/log.txt")
    assert (code, err) == (2, "onnxsurgeon: log-file: no/log.txt: cannot be written: No such file or directory\n")
    assert not [each for each in logging.getLogger("onnxsurgeon").handlers if isinstance(each, logging.FileHandler)]


def test_a_resumed_run_says_what_it_goes_on_with(tmp_path):
    run, events = tmp_path / "run", []
    evolve(start_model(tmp_path), "digits", settings=SETTINGS, run_dir=run)
    resume(run, callbacks=events.append)
    resumed = next(event for event in events if event["event"] == "resumed")
    last = [event for event in RunDirectory(run).read_journal() if event["event"] == "decided"][-1]
    assert [each["branch"] for each in resumed["branches"]] == last["branches"]
    assert [each["accuracy"] for each in resumed["branches"]] == last["accuracies"]
    assert resumed["best"]["branch"] == last["best"]
    assert '"resumed"' not in (run / "journal.jsonl").read_text()


@contextmanager
def on_a_terminal(arguments, folder, columns=80, lines=24):
    """``onnxsurgeon`` with a terminal of that size: yields the process and a function that reads until a text comes."""
    import pty

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "onnxsurgeon", *arguments],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm-256color"},
        # A suite started in the background has interrupts ignored, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(theirs)
    output = bytearray()

    def read(wanted=None):
        while wanted is None or wanted.encode() not in output:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux says so where the other side has been closed
                part = b""
            if not part:
                assert wanted is None, output.decode()[-2000:]
                break
            output.extend(part)
        return output.decode()

    try:
        yield process, read
    finally:
        process.kill()
        process.wait()
        os.close(ours)


ENDLESS = [
    "evolve",
    SMALL,
    "--data",
    "digits",
    "--preset",
    "corrected",
    "--seed",
    "6",
    "--epochs",
    "100000",
    "--learning-rate",
    "0.1",
]
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def test_the_view_on_a_terminal_leaves_the_record(tmp_path):
    with on_a_terminal(["evolve", SMALL, "--data", "digits", *QUICK], tmp_path) as (process, read):
        output = read()
        assert process.wait(timeout=60) == 0
    assert "elapsed" in output
    assert output.count(HIDE_CURSOR) == output.count(SHOW_CURSOR) == 1
    # What is printed once the cursor is back is not painted over.
    assert "result: \x1b[1mruns/digits-small-digits-1/best.onnx" in output.partition(SHOW_CURSOR)[2]
    record = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", output)
    for line in (r"trained    1 identity +64-10-10 ", r"tried      2 identity ", r"epoch   2: keep "):
        assert re.search(line, record), line


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_restores_the_terminal(tmp_path, stop):
    with on_a_terminal(ENDLESS, tmp_path) as (process, read):
        read("epoch  20")
        process.send_signal(stop)
        output = read()
        assert process.wait(timeout=60) == 128 + stop
    assert output.count(HIDE_CURSOR) == output.count(SHOW_CURSOR) == 1
    after = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", output.partition(SHOW_CURSOR)[2])
    assert (
        "onnxsurgeon: interrupted; continue with: onnxsurgeon evolve --resume runs/digits-small-digits-1\r\n" in after
    )
    assert "Traceback" not in output
    best = load(tmp_path / "runs/digits-small-digits-1/best.onnx")
    assert (best.layers[0].weight.shape[0], best.layers[-1].units) == (64, 10)
    assert best.is_finite
    assert not np.array_equal(best.layers[-1].weight, load(MODELS / "digits-small.onnx").layers[-1].weight)


def start(arguments, folder):
    return subprocess.Popen(
        [sys.executable, "-m", "onnxsurgeon", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_best_is_there_before_the_first_decision_and_the_resumed_run_ends_alike(tmp_path):
    """Interrupted twice while the given model is trained: the second time in haste."""
    settings = {"epochs": 402, "initial_epochs": 400, "epoch_step": 2, "learning_rate": 0.1, "seed": 6}
    evolve(SMALL, "digits", settings=SurgeonSettings.from_preset("corrected", **settings), run_dir=tmp_path / "alone")
    given = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    arguments = ["evolve", SMALL, "--data", "digits", "--preset", "corrected", *given, "--run-dir"]
    process = start([*arguments, "run"], tmp_path)
    try:
        while "epoch   0" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.count("continue with: onnxsurgeon evolve --resume run") == 1
    assert "Traceback" not in err
    assert load(tmp_path / "run" / "best.onnx").topology == "64-10-10"
    assert [event["event"] for event in RunDirectory(tmp_path / "run").read_journal()] == ["started"]
    resume(tmp_path / "run")
    alone, run = (hashlib.sha256((tmp_path / name / "best.onnx").read_bytes()).digest() for name in ("alone", "run"))
    assert run == alone


def test_a_process_too_busy_to_stop_ends_at_the_second_signal(tmp_path):
    """As where the main thread is inside a library for a long time, and nothing comes of the first signal."""
    code = (
        "import ctypes\n"
        "from onnxsurgeon.cli.interrupt import Interrupts\n"
        "libc = ctypes.CDLL(None)\n"
        "with Interrupts(lambda: 'interrupted; go on', lambda: None):\n"
        "    while True:\n"
        "        try:\n"
        "            print('ready', flush=True)\n"
        "            libc.sleep(1000)\n"
        "        except BaseException:\n"
        "            pass\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "ready\n"  # it goes on
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "onnxsurgeon: interrupted; go on\n")


def test_an_interrupt_that_comes_out_as_another_error_is_one_still():
    interrupts = Interrupts(lambda: "", lambda: None)

    def import_an_extension():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt as error:
            raise ImportError("initialization failed") from error

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt), interrupts:
            import_an_extension()
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
        os.close(interrupts._written)
    assert interrupts.is_disturbed
    assert interrupts.exit_code == 143


def test_a_tracker_that_fails_is_told_of(cli, tmp_path, monkeypatch, without_report):
    pytest.importorskip("tensorboard")
    arguments = ("evolve", SMALL, "--data", "digits", *QUICK, "--run-dir", "run", "--epochs", "2")
    assert cli(*arguments)[0] == 0
    (tmp_path / "run" / "tensorboard").write_text("in the way")
    code, out, err = cli("evolve", "--resume", "run", "--track", "tensorboard", "-q")
    assert code == 0
    assert out.splitlines() == [str(Path("run") / "best.onnx")]
    assert len(err.splitlines()) == 1
    assert "tracking with tensorboard failed" in err


def test_a_report_that_cannot_be_written_leaves_the_result(cli, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ("evolve", SMALL, "--data", "digits", *QUICK, "--run-dir", "run [bold]x[/]", "--epochs", "2")
    code, out, _ = cli(*arguments)
    assert code == 0
    assert f"report: {Path('run [bold]x[/]') / 'report.html'}" in out.splitlines()
    assert cli("report", "run [bold]x[/]")[1].strip() == str(Path("run [bold]x[/]") / "report.html")
    (tmp_path / "run [bold]x[/]" / "report.html").unlink()
    (tmp_path / "run [bold]x[/]" / "report.html").mkdir()
    code, out, err = cli("evolve", "--resume", "run [bold]x[/]", "--json")
    assert code == 0
    assert json.loads(out)["topology"]
    assert "no report was written" in err
