"""Damaged run directories: what reads runs must end in a result or a named error, and touch nothing outside them."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx

from fuzzing.pipeline import Ending, judged
from onnxsurgeon import OnnxSurgeonError, SurgeonSettings, create, diff, evolve, read_run, resume, save
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.report import page, write_report
from onnxsurgeon.report.write import write_plots
from onnxsurgeon.runs.journal import file_digest
from onnxsurgeon.runs.lines import plain, sealed

SECONDS = 3.0  # after which a run that goes on well is stopped
DRAWN = 0.04  # of the reports have pictures, which take a hundred times as long as the rest
STARTS: tuple[dict[str, Any], ...] = (
    {"epochs": 8, "objective": "pareto"},
    {"epochs": 8, "ensemble": 2},
    {"preset": "corrected", "epochs": 3, "initial_epochs": 1, "epoch_step": 1, "optimizer": "momentum"},
    {"epochs": 4, "start": "trained", "shrink": 1.5},
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 7, 3.5, -0.0, 1e300, float("nan"), float("inf"), 10**30, -(2**63)),
    *(
        "",
        "x",
        "0",
        "../../outside/secret",
        "/etc/passwd",
        "..",
        "a\0b",
        "\ud800",
        "\x1b[2J",
        "é" * 300,
        "0001-grow.onnx",
    ),
    *([], {}, [[]], [None], ["x"], [0, 1], {"x": 1}, {"0": ["x", "y"]}, [{}], {"": None}),
)


@cache
def base() -> Path:
    """A folder with the finished runs that damage begins with, made once in each process."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-runs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 5)).astype("f")
    np.savez(folder / "data.npz", x=x, y=(x[:, 0] * x[:, 1] > 0).astype(int))
    np.savez(folder / "rows.npz", x=x)
    save(create((5, 6, 2), seed=1), folder / "model.onnx")
    for number, changes in enumerate(STARTS):
        settings = SurgeonSettings.from_preset(**changes)
        # The last one has a teacher: the given model itself.
        data = folder / ("rows.npz" if number == len(STARTS) - 1 else "data.npz")
        run = folder / str(number)
        evolve(folder / "model.onnx", str(data), settings=settings, workers=1, run_dir=run)
        write_report(run)
    return folder


def run_damaged(seed: int, index: int, folder: Path) -> Ending:
    """Damage a run, the same for the same arguments, in ``folder``, and let everything read it that reads runs."""
    rng = Random(f"runs {seed} {index}")
    inside, outside = folder / "inside", folder / "outside"
    for each in (inside, outside):
        shutil.rmtree(each, ignore_errors=True)
    (outside / "folder").mkdir(parents=True)
    for name in ("secret", "secret.onnx", "folder/0001-grow.onnx", "folder/760.onnx"):
        (outside / name).write_text("secret")
    run = inside / "run"
    shutil.copytree(base() / str(rng.randrange(len(STARTS))), run)
    if rng.random() < 0.5:
        _unfinish(rng, run)
    _rewrite(run, [json.loads(line) for line in _journal(run)], seal=rng.random() < 0.5)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(_DAMAGE)(rng, run, outside)
    before = _seen(folder, run)
    endings = [_use(use, rng, run) for use in (_history, _compare, _report, _resume)]
    bugs = [ending for ending in endings if ending.kind == "BUG"]
    if not bugs and _seen(folder, run) != before:
        return Ending("BUG", "something was written outside the run")
    return bugs[0] if bugs else next((each for each in endings[::-1] if each.kind == "error"), endings[-1])


# What is done with a run.


def _use(use: Callable[[Random, Path], None], rng: Random, run: Path) -> Ending:
    try:
        with _limited():
            use(rng, run)
    except _Enough:
        return Ending("result", "stopped")
    except OnnxSurgeonError as error:
        return judged(error)
    except Exception as error:
        return judged(error)
    return Ending("result")


def _history(rng: Random, run: Path) -> None:
    record = read_run(run)
    assert isinstance(record.history, list)
    assert record._repr_html_()
    assert repr(record)


def _compare(rng: Random, run: Path) -> None:
    diff(f"{run}#{rng.choice((0, 0, 1, 3))}", run)


def _report(rng: Random, run: Path) -> None:
    if rng.random() < DRAWN:
        write_report(run)
        if rng.random() < 0.2:
            write_plots(run)
        return
    pictures = page._pictures
    page._pictures = lambda scene: {}
    try:
        write_report(run)
    finally:
        page._pictures = pictures


def _resume(rng: Random, run: Path) -> None:
    try:
        resume(run, workers=1)
    except OnnxSurgeonError as error:
        onward = re.search(r"--from-checkpoint (\d+) ", str(error))
        if onward is None:
            raise
        resume(run, workers=1, from_checkpoint=int(onward[1]))


class _Enough(Exception):  # noqa: N818 - a request
    """It goes well, and has gone on for long enough."""


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _Enough

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Damage.


def _journal(run: Path) -> list[bytes]:
    return (run / "journal.jsonl").read_bytes().splitlines() if (run / "journal.jsonl").is_file() else []


def _rewrite(run: Path, events: list[dict[str, Any]], *, seal: bool) -> None:
    """Write events as lines, with checksums that fit or, as earlier versions did, without."""
    lines = []
    for event in events:
        rest = {key: value for key, value in event.items() if key != "checksum"}
        lines.append(sealed(rest) if seal and rest.get("event") in ("started", "decided") else plain(rest))
    (run / "journal.jsonl").write_bytes(b"".join(lines))


def _unfinish(rng: Random, run: Path) -> None:
    """As if it had been killed somewhere."""
    lines = _journal(run)
    kept = lines[: rng.randrange(1, len(lines) + 1)]
    (run / "journal.jsonl").write_bytes(b"".join(line + b"\n" for line in kept))


def _any_file(rng: Random, run: Path) -> Path | None:
    often = [run / "journal.jsonl", run / "settings.json"]
    files = sorted(path for path in run.rglob("*") if path.is_file() and not path.is_symlink())
    files = [path for path in often if path in files] * 3 + files
    return rng.choice(files) if files else None


def _flip(rng: Random, run: Path, outside: Path) -> None:
    path = _any_file(rng, run)
    content = bytearray(path.read_bytes()) if path else bytearray()
    if path and content:
        for _ in range(rng.choice((1, 1, 3, 20))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)


def _cut(rng: Random, run: Path, outside: Path) -> None:
    path = _any_file(rng, run)
    if path:
        content = path.read_bytes()
        path.write_bytes(content[: rng.randrange(len(content) + 1)])


def _lines(rng: Random, run: Path, outside: Path) -> None:
    """Lines of the journal cut, left out, repeated or exchanged."""
    lines = _journal(run)
    if not lines:
        return
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
    elif kind == 1:
        del lines[at]
    elif kind == 2:
        lines.insert(at, lines[other])
    elif kind == 3:
        lines[at], lines[other] = lines[other], lines[at]
    else:
        lines.insert(
            at, rng.choice((b"", b"null", b"[" * 5000, b"\xff\xfe", b'{"event": "decided"}', b'{"event": {}}'))
        )
    (run / "journal.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))


def _value(rng: Random, run: Path, outside: Path) -> None:
    """A value of the journal replaced by another, with a checksum that fits or none."""
    try:
        events = [json.loads(line) for line in _journal(run)]
    except (ValueError, RecursionError):
        return
    events = [event for event in events if isinstance(event, dict)]
    if events:
        wanted = [event for event in events if event.get("event") in ("started", "decided")]
        _replace(rng, rng.choice(wanted if wanted and rng.random() < 0.7 else events))
        _rewrite(run, events, seal=rng.random() < 0.5)


def _setting(rng: Random, run: Path, outside: Path) -> None:
    """A value of another file replaced."""
    path = run / rng.choice(("settings.json", "settings.json", "teacher/teacher.json"))
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(record, dict):
        _replace(rng, record)
        path.write_text(json.dumps(record))


def _replace(rng: Random, record: dict[str, Any]) -> None:
    place: Any = record
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.75:
            place = place[key]
            continue
        kind = rng.random()
        if kind < 0.12:
            del place[key]
        elif kind < 0.2 and isinstance(place, dict):
            place[rng.choice(("x", "", "0", "mpoch", str(key) + "s"))] = place.pop(key)
        else:
            place[key] = rng.choice(VALUES)
        return


def _missing(rng: Random, run: Path, outside: Path) -> None:
    path = _anything(rng, run)
    _remove(path)


def _exchanged(rng: Random, run: Path, outside: Path) -> None:
    """A file or folder replaced by another kind of thing."""
    path = _anything(rng, run)
    _remove(path)
    path.parent.mkdir(exist_ok=True)
    kind = rng.randrange(6)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.write_bytes(rng.randbytes(rng.choice((0, 1, 200))))
    else:
        path.symlink_to(rng.choice((outside / "secret", outside / "folder", outside / "secret.onnx", outside / "new")))


def _anything(rng: Random, run: Path) -> Path:
    named = [
        run / name for name in ("front", "plots", "teacher", "branches", "best.onnx", "report.html", "tensorboard")
    ]
    there = sorted(path for path in run.rglob("*") if path.parent.is_dir() and not path.parent.is_symlink())
    return rng.choice(named + [run / "journal.jsonl", run / "settings.json"] * 2 + there)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()


def _metadata(rng: Random, run: Path, outside: Path) -> None:
    """What a branch's file says of itself changed, in most cases with the digests that then fit."""
    files = [path for path in sorted(run.glob("branches/*.onnx")) if path.is_file() and not path.is_symlink()]
    if not files:
        return
    path = rng.choice(files)
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # it is damaged already
        return
    before = file_digest(path)
    if rng.random() < 0.25:  # another network, of this or another run
        others = sorted(base().glob("*/branches/*.onnx"))
        graph = onnx.load(rng.choice(others)).graph if rng.random() < 0.8 else to_model(create((4, 3, 3))).graph
        model.graph.CopyFrom(graph)
    elif model.metadata_props:
        entry = rng.choice(model.metadata_props)
        if rng.random() < 0.2:
            model.metadata_props.remove(entry)
        else:
            value = rng.choice(VALUES)
            text = value if isinstance(value, str) else json.dumps(value)
            entry.value = text.encode(errors="replace").decode()
    path.write_bytes(model.SerializeToString())
    lines = _journal(run)
    if rng.random() < 0.8 and lines:
        content = b"\n".join(lines).replace(before.encode(), file_digest(path).encode())
        try:
            events = [json.loads(line) for line in content.split(b"\n")]
        except (ValueError, RecursionError):
            return
        _rewrite(run, [event for event in events if isinstance(event, dict)], seal=True)


_DAMAGE: tuple[Callable[[Random, Path, Path], None], ...] = (
    *(_flip, _flip, _cut, _lines, _lines, _value, _value, _value, _setting, _setting),
    *(_missing, _exchanged, _exchanged, _metadata, _metadata),
)


@dataclass(frozen=True)
class _Thing:
    """What is seen of a file or folder."""

    kind: int
    content: bytes
    changed: int


def _seen(folder: Path, run: Path) -> dict[str, _Thing]:
    """Everything below ``folder`` but for what is in the run, and below the folder of the models and rows."""
    found = {}
    for root in (folder, base()):
        for path in root.rglob("*"):
            if path == run or run in path.parents or (root == base() and path.parent != root):
                continue
            status = path.lstat()
            content = path.read_bytes() if path.is_file() else b""
            changed = 0 if path == run.parent else status.st_mtime_ns
            found[str(path)] = _Thing(status.st_mode, content, changed)
    return found
