"""Processes that run fuzzed inputs, and are replaced when one of these kills, hangs or bloats them."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzing.corpus import corpus
from fuzzing.pipeline import Ending, furnish, make_input, run_input

TIMEOUT = 10.0  # of the processor's time
HANGING = 6 * TIMEOUT  # of the clock's: other processes may have the machine
MEMORY = 2**30


def work(kind: str) -> None:
    """Serve requests, a JSON line each on standard input, until it ends; ``kind`` is theirs, or "all" or "both"."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is none of our answers
    warm_up(kind)
    base = _resident()
    # Address space beyond what the imports took; the measured peak is judged too, since an error may hide a refusal.
    limit = _status("VmSize") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        furnish(folder)
        for line in sys.stdin:
            request = json.loads(line)
            damaged = _DAMAGED.get(request.get("kind", ""))
            content = b""
            if damaged is None:
                content = Path(request["path"]).read_bytes() if "path" in request else make_input(**request)
            _reset_peak()
            start = time.process_time()
            if damaged is None:
                ending = run_input(content, folder)
            else:
                ending = damaged(request["seed"], request["index"], folder / request["kind"])
            seconds, peak = time.process_time() - start, _status("VmHWM") - base
            for data in folder.glob("*.data"):
                data.unlink()
            if seconds > TIMEOUT:
                ending = Ending("BUG", f"took {seconds:.0f} s")
            if peak > MEMORY:
                ending = Ending("BUG", f"memory: {peak / 2**20:.0f} MB above the imports' own")
            answers.write(
                json.dumps({"kind": ending.kind, "what": ending.what, "seconds": seconds, "peak": peak}) + "\n"
            )
            answers.flush()


def _run_damaged(seed: int, index: int, folder: Path) -> Ending:
    from fuzzing.runs import run_damaged

    return run_damaged(seed, index, folder)


def _run_data(seed: int, index: int, folder: Path) -> Ending:
    from fuzzing.data_files import run_data

    return run_data(seed, index, folder)


def _run_moved(seed: int, index: int, folder: Path) -> Ending:
    from fuzzing.moved_axes import run_moved

    return run_moved(seed, index, folder)


# What makes its inputs itself, from seed and index.
_DAMAGED: dict[str, Callable[[int, int, Path], Ending]] = {"runs": _run_damaged, "data": _run_data, "moved": _run_moved}


def warm_up(kind: str) -> None:
    """Import and run everything once: its memory is not the inputs'."""
    if kind in ("runs", "all"):
        from fuzzing import runs

        runs.base()
    with tempfile.TemporaryDirectory() as name:
        if kind in ("moved", "all"):
            for index in range(10):
                _run_moved(0, index, Path(name))
        if kind in ("data", "all"):
            for index in range(60):
                _run_data(0, index, Path(name) / "data")
        if kind not in _DAMAGED:
            furnish(Path(name))
            for content in corpus():
                run_input(content, Path(name))


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def _resident() -> int:
    return _status("VmRSS")


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class Worker:
    """One process; ``run`` answers whatever happens to it."""

    def __init__(self, kind: str = "bytes") -> None:
        """``kind`` is that of the inputs it will run; "all" and "both" are of several."""
        self._kind = kind
        self._process: subprocess.Popen[str] | None = None

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run one input: {"kind", "seed", "index"}, or {"path"} of a file."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], HANGING)
            line = process.stdout.readline() if ready else None
        except BrokenPipeError:
            line = ""
        if line is None:
            self.stop()
            return _bug(f"no end within {HANGING:.0f} s", HANGING)
        if not line:
            code = process.wait()
            self._process = None
            return _bug(f"the process ended by {signal.Signals(-code).name if code < 0 else f'code {code}'}", 0.0)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _start(self) -> subprocess.Popen[str]:
        script = Path(__file__).resolve().parent.parent / "fuzz.py"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(script), "--worker", "--kind", self._kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        # The first answer comes after the imports and the warm-up, which have more time.
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        first = self._kind if self._kind in _DAMAGED else "bytes"
        self._process.stdin.write(json.dumps({"kind": first, "seed": 0, "index": 0}) + "\n")
        self._process.stdin.flush()
        if not self._process.stdout.readline():
            raise SystemExit(f"a worker does not start: exit code {self._process.wait()}")
        return self._process

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            # One that waits for requests ends when there are no more, and removes its files.
            try:
                if self._process.stdin is not None:
                    self._process.stdin.close()
                self._process.wait(timeout=2)
            except (OSError, subprocess.TimeoutExpired):
                self._process.kill()
                self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
            self._process = None


def _bug(what: str, seconds: float) -> dict[str, Any]:
    return {"kind": "BUG", "what": what, "seconds": seconds, "peak": 0}
