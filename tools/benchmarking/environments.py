"""The side that asks: one long-lived process in every environment, and all their peers in turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarking.serve import LOOP, PEERS, PRODUCTS
from benchmarking.task import Array, Task

TOOLS = Path(__file__).resolve().parent.parent
# BLAS, OpenMP, TensorFlow and XLA held to one thread; torch.compile's compiler to this process.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "NPROC": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}


def with_checkout(checkout: Path) -> dict[str, str]:
    """Variables with which a process imports these tools, and onnxsurgeon from a checkout wherever it is started."""
    paths = [str(TOOLS), str(checkout.resolve()), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class Environment:
    """A Python with its packages; ``about`` holds their versions and what each peer would run on there."""

    def __init__(self, python: str, folder: Path, checkout: Path | None = None) -> None:
        """Start its process. Raises SystemExit where that is not possible.

        Of a ``checkout`` other than this one, the loop engine is the only peer.
        """
        self.python, self._log = python, folder / "errors.txt"
        variables = {**with_checkout(checkout or TOOLS.parent), **ONE_THREAD}
        command = [python, "-m", "benchmarking.serve"]
        try:
            with self._log.open("ab") as errors:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=variables
                )
        except OSError as error:
            raise SystemExit(f"{python}: {error.strerror}") from error
        self.about = self.ask(do="about")
        if "error" in self.about:
            raise SystemExit(f"{python}: {self.about['error']}")
        if checkout is not None:
            own = f"{self.about['runs_on'][LOOP]}, of {checkout}"
            self.about["runs_on"] = {**dict.fromkeys(self.about["runs_on"]), LOOP: own}

    def ask(self, **request: str) -> dict[str, Any]:
        """The answer to a request; where the process has ended, its last line on standard error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        said = self._log.read_text(errors="replace").strip().splitlines()
        return {"error": f"the process ended by code {self._process.wait()}: {said[-1] if said else 'without a word'}"}

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.kill()
        self._process.wait()

    def __str__(self) -> str:
        packages = (f"{name} {version}" for name, version in self.about["packages"].items())
        return ", ".join((f"Python {self.about['python']}", *packages))


def start(pythons: Iterable[str], folder: Path, before: Path | None = None) -> list[Environment]:
    """A process of the Python that runs this, one of each of ``pythons``, and one with the checkout ``before``."""
    environments: list[Environment] = []
    wanted: list[tuple[str, Path | None]] = [(python, None) for python in dict.fromkeys((sys.executable, *pythons))]
    if before is not None:
        wanted.append((sys.executable, before))
    try:
        for python, checkout in wanted:
            own = folder / f"environment-{len(environments)}"
            own.mkdir()
            environments.append(Environment(python, own, checkout))
    except SystemExit:
        for environment in environments:
            environment.close()
        raise
    return environments


@dataclass
class Entrant:
    """One peer in one environment.

    Attributes:
        peer: its name in ``serve.ALL``.
        runs_on: the packages that matter to it, with their versions.
        environment: where it is.
        parameters: after the last step of the task, in the order of ``Task.start``.
        microseconds: a step, or a product, of each run.
    """

    peer: str
    runs_on: str
    environment: Environment
    parameters: list[Array] = field(default_factory=list)
    microseconds: list[float] = field(default_factory=list)


def compete(
    environments: list[Environment], task: Task, peers: Iterable[str], rounds: int, folder: Path
) -> tuple[list[Entrant], dict[str, str]]:
    """Run ``peers`` and the matrix products on a task, in turns; and why some are missing.

    A peer that runs on the same versions in several environments is measured in the first of them only.
    """
    entrants, absent = _prepare(environments, task, [*peers, *PRODUCTS], folder)
    for number in range(rounds):
        first = number % max(1, len(entrants))  # so that none always runs behind the same other
        for entrant in [*entrants[first:], *entrants[:first]]:
            answer = entrant.environment.ask(do="run", peer=entrant.peer)
            if "error" in answer:
                raise SystemExit(f"{entrant.peer} ({entrant.runs_on}) failed in round {number + 1}: {answer['error']}")
            entrant.microseconds.append(answer["microseconds"])
    for environment in environments:
        environment.ask(do="forget")
    return entrants, absent


def _prepare(
    environments: list[Environment], task: Task, peers: list[str], folder: Path
) -> tuple[list[Entrant], dict[str, str]]:
    task.save(folder / "task.npz")
    entrants: dict[tuple[str, str], Entrant] = {}
    absent = {peer: "not installed in any environment" for peer in peers if peer in PEERS}
    for environment in environments:
        for peer in peers:
            runs_on = environment.about["runs_on"][peer]
            if runs_on is None or (peer, runs_on) in entrants:
                continue
            final = folder / "parameters.npz"
            answer = environment.ask(do="prepare", peer=peer, task=str(folder / "task.npz"), parameters=str(final))
            if "error" in answer:
                if not any(name == peer for name, _ in entrants):
                    absent[peer] = f"{runs_on}, {task.topology}: {answer['error']}"
                continue
            absent.pop(peer, None)
            entrants[peer, runs_on] = Entrant(peer, runs_on, environment)
            with np.load(final, allow_pickle=False) as file:
                entrants[peer, runs_on].parameters = [file[name] for name in file.files]
    if LOOP in absent:
        raise SystemExit(f"{LOOP}: {absent[LOOP]}")
    return list(entrants.values()), absent
