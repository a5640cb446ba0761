"""Standard output that is closed or full, and disks that refuse: one line, exit code 2, and nothing half-written."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxsurgeon import ModelError, RunError, SurgeonSettings, create, evolve, load, resume, save
from onnxsurgeon.cli.console import Terminal
from onnxsurgeon.graph.files import write_bytes, write_parts
from onnxsurgeon.graph.writer import to_parts
from onnxsurgeon.report import write_plots, write_report
from tests.conftest import MODELS, without_code

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
MODEL = MODELS / "digits-small.onnx"


def shell(command, folder):
    """Exit code and standard error of a command, in which ``onnxsurgeon`` is this one."""
    command = command.replace("onnxsurgeon", f"'{sys.executable}' -m onnxsurgeon", 1)
    paths = {**os.environ, "PYTHONPATH": str(MODELS.parent)}
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=paths, stderr=subprocess.PIPE, text=True)
    return done.returncode, without_code(done.stderr) if done.returncode == 2 and done.stderr else done.stderr


EVOLVE = f"onnxsurgeon evolve '{MODEL}' --data digits --epochs 2 --run-dir run"


@needs_full
@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (f"onnxsurgeon inspect '{MODEL}' >&-", "standard output is closed; > /dev/null lets it be"),
        (f"onnxsurgeon inspect '{MODEL}' --json >&-", "standard output is closed; > /dev/null lets it be"),
        (f"{EVOLVE} >&-", "standard output is closed; > /dev/null lets it be"),
        (f"onnxsurgeon inspect '{MODEL}' > /dev/full", "cannot be written to: No space left on device"),
        (f"onnxsurgeon inspect '{MODEL}' --json > /dev/full", "cannot be written to: No space left on device"),
        ("onnxsurgeon --version > /dev/full", "cannot be written to: No space left on device"),
        ("onnxsurgeon evolve --help > /dev/full", "cannot be written to: No space left on device"),
        (f"{EVOLVE} --quiet --log-file /dev/full", "log-file: /dev/full: cannot be written: No space left on device"),
    ],
)
def test_standard_output_that_fails_is_told_in_a_line(command, reason, tmp_path):
    code, error = shell(command, tmp_path)
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith("onnxsurgeon: ")
    assert error.endswith(f"{reason}\n")


def test_a_pipe_that_nobody_reads_is_told_in_a_line(tmp_path):
    read, written = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "onnxsurgeon", "inspect", str(MODEL)]
    done = subprocess.run(command, cwd=MODELS.parent, stdout=written, stderr=subprocess.PIPE, text=True)
    os.close(written)
    assert done.returncode == 2
    assert done.stderr == "onnxsurgeon: standard output cannot be written to: Broken pipe [F06]\n"


@needs_full
def test_a_run_whose_output_fails_goes_on_later(tmp_path):
    code, error = shell(f"{EVOLVE} > /dev/full", tmp_path)
    assert (code, error.count("\n")) == (2, 1)
    assert error.endswith("No space left on device; continue with: onnxsurgeon evolve --resume run\n")
    resume(tmp_path / "run")
    whole = evolve(MODEL, "digits", settings=SurgeonSettings(epochs=2), run_dir=tmp_path / "whole").run
    assert (tmp_path / "run" / "best.onnx").read_bytes() == (whole / "best.onnx").read_bytes()


@needs_full
@pytest.mark.parametrize("streams", ["2> /dev/full", "2>&-", ">&- 2>&-"])
def test_standard_error_that_fails_changes_no_exit_code(streams, tmp_path):
    assert shell(f"onnxsurgeon inspect missing.onnx {streams}", tmp_path) == (2, "")
    assert shell(f"onnxsurgeon inspect '{MODEL}' > /dev/null {streams}", tmp_path)[0] in (0, 2)


def test_a_file_does_not_take_the_place_of_a_closed_standard_error(tmp_path):
    command = f"onnxsurgeon operate '{MODEL}' widen:1:2 -o out.onnx 2>&- > /dev/null"
    assert shell(command, tmp_path) == (0, "")
    assert load(tmp_path / "out.onnx").topology == "64-12-10"


@pytest.mark.parametrize("length", [230, 245, 250, 255, 256, 300, 5000])
def test_names_up_to_the_longest_can_be_written(length, cli, tmp_path):
    name = "a" * (length - 5) + ".onnx"
    code, _, error = cli("operate", MODEL, "widen:1:2", "-o", name)
    assert [path.name for path in tmp_path.iterdir()] == ([name] if length <= 255 else [])
    assert code == (0 if length <= 255 else 2)
    assert ("File name too long" in error) == (length > 255)
    assert error.count("\n") == (length > 255)


def test_external_data_with_a_long_name_is_written_or_refused_whole(tmp_path):
    network = create((16, 128, 2), seed=1)
    parts = to_parts(network)
    external = type(parts)(parts.skeleton, parts.arrays, True, parts.headers)
    with pytest.raises(ModelError, match="File name too long"):
        write_parts(external, tmp_path / ("a" * 250 + ".onnx"))
    assert list(tmp_path.iterdir()) == []
    path = tmp_path / ("a" * 230 + ".onnx")
    write_parts(external, path)
    assert load(path).topology == network.topology


LONG = "a" * 300


@pytest.mark.parametrize(
    "command",
    [
        ("inspect", LONG),
        ("report", LONG),
        ("diff", LONG, MODEL),
        ("view", LONG),
        ("evolve", "--resume", LONG),
        ("evolve", MODEL, "--data", "digits", "--run-dir", LONG),
        ("evolve", MODEL, "--data", "digits", "--out", LONG),
        ("evolve", MODEL, "--data", f"{LONG}.npz"),
        ("evolve", MODEL, "--data", "digits", "--log-file", LONG),
        ("operate", MODEL, "widen:1:2", "--out", "folder"),
        ("operate", MODEL, "widen:1:2", "--force", "--out", "folder"),
        ("operate", MODEL, "widen:1:2", "--force", "--out", os.devnull),
        ("operate", MODEL, "widen:1:2", "--out", "missing/x.onnx"),
        ("operate", MODEL, "widen:1:2", "--out", "file/x.onnx"),
        ("evolve", MODEL, "--data", "digits", "--run-dir", "file/run"),
        ("evolve", MODEL, "--data", "digits", "--log-file", "folder"),
    ],
)
def test_what_cannot_be_a_file_is_told_in_a_line(command, cli, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    code, _, error = cli(*command)
    assert (code, error.count("\n")) == (2, 1)
    assert "Traceback" not in error
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told_at_the_start(cli, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, error = cli("evolve", MODEL, "--data", "digits", "-o", "locked/best.onnx", "--run-dir", "run")
    assert (code, error.count("\n")) == (2, 1)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def read_only(monkeypatch):
    """Turns the disk read-only, as far as Python's functions go; returns how to turn it back."""

    def turn():
        def refuse(path, *_, **__):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

        given = io.open

        def reading(path, mode="r", *arguments, **others):
            if not isinstance(path, int) and set(mode) & set("wax+"):
                refuse(path)
            return given(path, mode, *arguments, **others)

        monkeypatch.setattr(io, "open", reading)
        for name in ("mkdir", "unlink", "rename", "replace", "rmdir"):
            monkeypatch.setattr(os, name, refuse)

    return turn


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    pytest.importorskip("matplotlib.font_manager")  # which, where it is imported first, looks for a folder to write to
    folder = tmp_path_factory.mktemp("finished")
    x = np.random.default_rng(0).standard_normal((100, 5)).astype("f")
    np.savez(folder / "data.npz", x=x, y=(x[:, 0] > 0).astype(int))
    save(create((5, 6, 2), seed=1), folder / "model.onnx")
    settings = SurgeonSettings(epochs=8, objective="pareto")
    return evolve(folder / "model.onnx", str(folder / "data.npz"), settings=settings, run_dir=folder / "run").run


def test_a_read_only_disk_is_told_in_a_line(finished, cli, read_only, tmp_path):
    commands = [
        ("evolve", "--resume", finished),
        ("evolve", finished.parent / "model.onnx", "--data", finished.parent / "data.npz", "--run-dir", "new"),
        ("report", finished),
        ("operate", MODEL, "widen:1:2", "-o", "out.onnx"),
        ("train", MODEL, "--data", "digits", "--epochs", 1, "-o", "out.onnx"),
        ("new", "8-4-2", "-o", "out.onnx"),
    ]
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    read_only()
    for command in commands:
        code, _, error = cli(*command)
        assert (code, error.count("\n")) == (2, 1), error
        assert "Read-only file system" in error
    for use in (resume, write_report, write_plots):
        with pytest.raises(RunError, match="Read-only file system"):
            use(finished)
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", [1, 2, 3, 5, 8, 13, 21, 34])
def test_a_disk_that_fills_up_in_a_run_leaves_it_whole(moment, finished, tmp_path, monkeypatch):
    model, data = finished.parent / "model.onnx", str(finished.parent / "data.npz")
    settings = SurgeonSettings(epochs=8, objective="pareto")
    calls = []
    given = io.open

    class Full(io.FileIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def counted(path, mode="r", *arguments, **others):
        if not isinstance(path, int) and set(mode) & set("wax+") and "b" in mode:
            calls.append(path)
            if len(calls) >= moment:
                return io.BufferedWriter(Full(path, mode.replace("b", "")), 1)
        return given(path, mode, *arguments, **others)

    with monkeypatch.context() as patch:
        patch.setattr(io, "open", counted)
        with pytest.raises((RunError, ModelError), match="No space left on device"):
            evolve(model, data, settings=settings, run_dir=tmp_path / "run", workers=1)
    if (tmp_path / "run").exists():
        assert not list(tmp_path.rglob("*.tmp"))
        resume(tmp_path / "run")
        assert (tmp_path / "run" / "best.onnx").read_bytes() == (finished / "best.onnx").read_bytes()
    else:
        assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_what_cannot_be_written(tmp_path):
    def failing():
        yield b"half"
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "file").write_text("old")
    with pytest.raises(RunError, match="file: cannot be written: Input/output error"):
        write_bytes(tmp_path / "file", failing(), overwrite=True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(("columns", "width"), [("0", 80), ("00", 80), ("1", 1), ("132", 132)])
def test_a_width_of_0_is_none(columns, width, monkeypatch):
    """Nothing at all was printed."""
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", "50")
    terminal = Terminal(file=io.StringIO())
    terminal.print("some words", soft_wrap=False)
    assert terminal.width == width
    assert "".join(terminal.file.getvalue().split()) == "somewords"
