"""Reasons why a run cannot go on from a line of its journal, which may be damaged, or a stranger's."""

from __future__ import annotations

import math
import re
from typing import cast

from onnxsurgeon.runs.checkpoint import DONE, GROW, PRUNE, RACE, REFIT, SETTLE, SHRINK, CyclePosition
from onnxsurgeon.runs.events import EVENTS, Resumable
from onnxsurgeon.runs.lines import Record
from onnxsurgeon.typed import UnfitError, check

_PHASES = (GROW, SETTLE, REFIT, SHRINK, DONE, PRUNE, RACE)
_TRAINED = ("branch", "digest", "state_digest")
_FILE_NAME = re.compile(r"([0-9]{4,18})-[a-z_]+\.onnx")
_DIGEST = re.compile(r"[0-9a-f]{64}")
# The entries that a resumption reads; callbacks and the report use the others.
_NEEDED = (
    "epoch",
    "branches",
    "best",
    "files",
    "next_number",
    "stale",
    "steps",
    "seconds",
    "training_seconds",
)


def why_damaged(record: Record) -> str:
    """Why a run cannot go on from the record of a journal's line; "" where it can.

    Only the entries that a resumption reads are checked: checkpoints, and the digests of branches trained since.
    """
    kind = record["event"]
    try:
        if kind == "trained":
            check({key: record[key] for key in _TRAINED if key in record}, EVENTS[kind], "", needed=_TRAINED[:1])
            _require(record["branch"] >= 0, "branch")
        elif kind in ("started", "decided", "extended"):
            needed = (*_NEEDED, "run_epochs") if kind == "extended" else _NEEDED
            check(record, EVENTS[kind], "", needed=needed)
            _check_checkpoint(cast(Resumable, record))
            _require(record.get("run_epochs", 1) > 0, "run_epochs")
    except UnfitError as error:
        return str(error)
    return ""


def _check_checkpoint(event: Resumable) -> None:
    """Raise UnfitError where numbers of a checkpoint, each of the right type, contradict one another."""
    files = {}
    for number, described in event["files"].items():
        _require(len(described) == 2, f"files.{number}")
        files[_number(described[0], f"files.{number}")] = number
        _require(_DIGEST.fullmatch(described[1]) is not None, f"files.{number}")
    _require(all(str(number) == key for number, key in files.items()), "files")
    for number, digest in event.get("states", {}).items():
        _require(number in event["files"] and _DIGEST.fullmatch(digest) is not None, f"states.{number}")
    _require(bool(event["branches"]) and set(event["branches"]) <= files.keys(), "branches")
    _require(event["best"] in files, "best")
    _require(event["next_number"] > max(files), "next_number")
    for key in ("epoch", "stale", "steps", "seconds", "training_seconds"):
        _require(0 <= event[key] < math.inf, key)
    check(event.get("search", {}), CyclePosition, "search")
    search = CyclePosition(**event.get("search", {}))
    _require(search.phase in _PHASES, "search.phase")
    for key in ("begin", "root", "top", "halvings"):
        _require(getattr(search, key) >= 0, f"search.{key}")
    _require(search.begin <= search.end, "search.end")
    _require(search.halvings < 1000, "search.halvings")
    _require(0 < search.rate < math.inf, "search.rate")
    for position, entry in enumerate(event.get("front", ())):
        name = f"front[{position}]"
        _require(_number(entry["file"], f"{name}.file") == entry["branch"], f"{name}.file")
        _require(_DIGEST.fullmatch(entry["digest"]) is not None, f"{name}.digest")
        _require(entry["parameters"] > 0, f"{name}.parameters")
        _require(entry["size"] > 0, f"{name}.size")
        _require(0 <= (entry.get("latency") or 0.0) < math.inf, f"{name}.latency")
        for cost, count in (("multiplications", entry.get("multiplications")), ("memory", entry.get("memory"))):
            _require((count or 0) >= 0, f"{name}.{cost}")


def _number(name: str, where: str) -> int:
    """The number of the branch with a file of that name, which must be a name and no path."""
    found = _FILE_NAME.fullmatch(name)
    if found is None:
        raise UnfitError(f"'{where}' is {name[:60]!r}, not the name of a branch's file")
    return int(found[1])


def _require(is_fit: bool, name: str) -> None:
    if not is_fit:
        raise UnfitError(f"'{name}' makes no sense")
