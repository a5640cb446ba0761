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
    *(
        float("-inf"),
        5e-324,
        2**53 + 1,
        10**400,
        "NaN",
        "1e999",
        "a\nb",
        "a\r\nb",
        "a\u2028b",
        "a\x85b",
        "a\u202eb",
        "\ufeff",
    ),
    *("con", "." * 300, "a/b", "~", "$HOME", "%2e%2e/x", "0000-start.onnx", "0001-*.onnx", "-rf", "file:///etc/passwd"),
    *([0] * 10_000, {str(i): i for i in range(1000)}, [[[[[[[[]]]]]]]], "x" * 100_000),
)
# What a number in the text of a line becomes.
NUMBERS = (
    b"NaN",
    b"-Infinity",
    b"1e400",
    b"-0",
    b"00",
    b"9" * 5000,
    b"1e-400",
    b"0x1",
    b"1_0",
    b"true",
    b"1.",
    b"\xd9\xa3",
)
# Signs that some take for line ends, or for nothing.
SEPARATORS = tuple(
    sign.encode() for sign in ("\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\ufeff", "\0", "\r", "\u202e")
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


def _deep(rng: Random, run: Path, outside: Path) -> None:
    """A value of the journal or the settings becomes lists or dictionaries, very many inside one another."""
    path = run / rng.choice(("journal.jsonl", "journal.jsonl", "settings.json"))
    lines = path.read_bytes().splitlines() if path.is_file() else []
    if lines:
        at, deep = rng.randrange(len(lines)), rng.choice((50, 900, 100_000))
        left, right = rng.choice(((b"[", b"]"), (b'{"x":', b"}")))
        lines[at] = re.sub(rb"(: )(\d+)", rb"\1" + left * deep + rb"\2" + right * deep, lines[at], count=1)
        path.write_bytes(b"".join(line + b"\n" for line in lines))


def _spelling(rng: Random, run: Path, outside: Path) -> None:
    """Keys twice, numbers that are none, and signs that some take for line ends, in the text of a line."""
    path = run / rng.choice(("journal.jsonl", "journal.jsonl", "settings.json"))
    lines = path.read_bytes().splitlines() if path.is_file() else []
    if not lines:
        return
    at, kind = rng.randrange(len(lines)), rng.randrange(3)
    line = lines[at]
    found = list(re.finditer(rb'"(\w+)": (-?\d+\.?\d*)' if kind < 2 else rb'"', line))
    if not found:
        return
    hit = rng.choice(found)
    if kind == 0:
        line = (
            line[: hit.start()] + hit[0] + b", " + line[hit.start() :].replace(hit[2], rng.choice((b"null", b"7")), 1)
        )
    elif kind == 1:
        line = line[: hit.start(2)] + rng.choice(NUMBERS) + line[hit.end(2) :]
    else:
        line = line[: hit.start()] + rng.choice(SEPARATORS) + line[hit.start() :]
    lines[at] = line
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def _other_checkpoint(rng: Random, run: Path, outside: Path) -> None:
    """What one checkpoint says of itself, another says; or files and branches are those of others."""
    try:
        events = [json.loads(line) for line in _journal(run)]
    except (ValueError, RecursionError):
        return
    events = [event for event in events if isinstance(event, dict)]
    points = [event for event in events if event.get("event") in ("started", "decided")]
    if len(points) < 2:
        return
    one, other = rng.sample(points, 2)
    keys = sorted(set(one) & set(other) - {"event"})
    for key in rng.sample(keys, min(len(keys), rng.choice((1, 1, 2, 5)))):
        one[key], other[key] = other[key], one[key]
    if rng.random() < 0.5 and isinstance(one.get("files"), dict) and one["files"]:
        names = list(one["files"])
        first, second = rng.choice(names), rng.choice(names)
        one["files"][first], one["files"][second] = one["files"][second], one["files"][first]
    _rewrite(run, events, seal=rng.random() < 0.7)


def _other_file(rng: Random, run: Path, outside: Path) -> None:
    """Two files change places, or one becomes another's copy, of this run or of another."""
    files = sorted(path for path in run.rglob("*") if path.is_file() and not path.is_symlink())
    others = sorted(path for path in base().rglob("*") if path.is_file())
    alike = [path for path in files if path.suffix in (".onnx", ".npz", ".json")]
    if not alike:
        return
    path = rng.choice(alike)
    same = [other for other in (files if rng.random() < 0.6 else others) if other.suffix == path.suffix]
    other = rng.choice(same)
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    if other in files:
        other.write_bytes(content)


def _state(rng: Random, run: Path, outside: Path) -> None:
    """An optimizer's state that becomes far more than it is, or leads out, or is of another type."""
    files = [path for path in sorted(run.rglob("*.npz")) if path.is_file() and not path.is_symlink()]
    if not files:
        return
    path, kind = rng.choice(files), rng.randrange(6)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception:  # it is damaged already
        arrays = {"steps": np.zeros(1, np.int64)}
    name = rng.choice(sorted(arrays)) if arrays else "steps"
    if kind == 0:
        arrays[name] = np.zeros(2**24, np.float32)
    elif kind == 1:
        arrays[
            rng.choice(("../../outside/secret", "/tmp/x", "a\nb", "", "\ud800".encode(errors="replace").decode()))
        ] = arrays[name]
    elif kind == 2:
        values = (
            np.array("x"),
            np.full(3, np.nan),
            np.array(2**62),
            np.array([-1]),
            np.zeros((0, 4)),
            np.array([True]),
            np.array(1j),
        )
        arrays[name] = rng.choice(values)
    elif kind == 3:
        del arrays[name]
    elif kind == 4:
        arrays[name] = np.asarray(arrays[name]).astype(np.float64) * 1e300
    with path.open("wb") as file:
        (np.savez_compressed if kind in (0, 5) else np.savez)(file, **arrays)


def _named(rng: Random, run: Path, outside: Path) -> None:
    """Files and folders with names that are no usual ones, beside those of the run, or in their place."""
    name = rng.choice(
        ("a\nb.onnx", "\x1b[2J.onnx", "a\u202eb", "9999-x.onnx", "é" * 120, "0001-grow.onnx.1.data", " ", "-rf")
    )
    place = rng.choice((run, run / "branches", run / "front", run / "plots"))
    if not place.is_dir() or place.is_symlink():
        return
    target = place / name
    if os.path.lexists(target):
        return
    if rng.random() < 0.3:
        there = [path for path in sorted(place.iterdir()) if path.is_file()]
        if there:
            rng.choice(there).rename(target)
            return
    if rng.random() < 0.5:
        target.mkdir()
    else:
        target.write_bytes(rng.randbytes(10))


def _empty(rng: Random, run: Path, outside: Path) -> None:
    path = _any_file(rng, run)
    if path:
        path.write_bytes(rng.choice((b"", b"\n", b"\0" * 100, b" ")))


_DAMAGE: tuple[Callable[[Random, Path, Path], None], ...] = (
    *(_flip, _flip, _cut, _lines, _lines, _value, _value, _value, _setting, _setting),
    *(_missing, _exchanged, _exchanged, _metadata, _metadata),
    *(_deep, _spelling, _spelling, _other_checkpoint, _other_checkpoint, _other_file, _state, _state, _named, _empty),
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
