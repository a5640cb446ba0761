"""onnxsurgeon's search: one run of its command for the whole front, from which every budget is read off."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from onnxsurgeon import Network, load, read_run
from onnxsurgeon.graph.reader import METADATA_PREFIX
from searching.networks import Candidate, Search


@dataclass(frozen=True)
class SurgeonJob:
    """One run.

    Attributes:
        start: the model to begin with.
        data: name of the data set.
        seed: of the run.
        seconds: its time limit.
        most: parameters of the largest network wanted.
        cores: branches trained side by side.
    """

    start: Path
    data: str
    seed: int
    seconds: float
    most: int
    cores: int

    def command(self, folder: Path) -> list[str]:
        """What a user would call."""
        command = [sys.executable, "-m", "onnxsurgeon", "evolve", str(self.start), "--data", self.data]
        command += ["--objective", "pareto", "--max-parameters", str(self.most), "--time-limit", f"{self.seconds:g}"]
        command += ["--epochs", "1000"]  # the time ends it
        return [*command, "--seed", str(self.seed), "--workers", str(self.cores), "--run-dir", str(folder), "--quiet"]


def search(job: SurgeonJob, folder: Path) -> Search:
    """Run it in ``folder``, which must not exist; its seconds are those of the whole process.

    Raises:
        SystemExit: it failed; with the last line it said.
    """
    start = time.monotonic()
    done = subprocess.run(job.command(folder), capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended by code {done.returncode}"]
        raise SystemExit(f"onnxsurgeon, seed {job.seed}: {said[-1]}")
    seconds, rows = time.monotonic() - start, read_run(folder).history
    epochs = sum(row["epoch"] - (row["decision_epoch"] or 0.0) for row in rows)
    return Search(read_front(folder), len(rows), epochs, seconds)


def read_front(folder: Path) -> list[Candidate]:
    """The networks of a run's front, with the accuracy on the validation rows that their files tell.

    Raises:
        SystemExit: there is none, or one does not tell.
    """
    paths = sorted((folder / "front").glob("*.onnx"))
    if not paths:
        raise SystemExit(f"{folder}: the run left no front")
    return [_candidate(load(path), path) for path in paths]


def _candidate(network: Network, path: Path) -> Candidate:
    told = network.metadata.get(METADATA_PREFIX + "accuracy")
    if told is None:
        raise SystemExit(f"{path}: does not tell its accuracy")
    topology = "-".join(map(str, network.widths))
    return Candidate(network.parameter_count, topology, float(told), {"file": path.name}, network)
