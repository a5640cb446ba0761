"""The same run on this machine's threads and on a Dask cluster of two worker processes on it, in turns."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarking.steps import Spread, ratio
from benchmarking.whole_run import MODELS, ask

RUNS = {
    "small": ("fashion-mnist-small.onnx", {"epochs": 20}),
    "large": ("fashion-mnist-large.onnx", {"epochs": 3, "initial_epochs": 1, "epoch_step": 1}),
}
HEADER = (
    "| run | two threads, s | two Dask workers, s | times as fast | same bytes |\n| --- | ---: | ---: | ---: | :-: |"
)
WAIT_SECONDS = 60.0


@contextlib.contextmanager
def started(folder: Path, workers: int = 2) -> Iterator[str]:
    """A scheduler and its workers on loopback; gives the address, such as dask://127.0.0.1:40123."""
    file = folder / "scheduler.json"
    common = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    commands = [
        ["scheduler", *common, "--port", "0"],
        ["worker", *common, "--nworkers", str(workers), "--nthreads", "1", "--local-directory", str(folder)],
    ]
    processes = []
    try:
        for command in commands:
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dask", *command],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=folder,
                )
            )
            deadline = time.monotonic() + WAIT_SECONDS
            while not file.is_file():
                if time.monotonic() > deadline:
                    raise SystemExit("the Dask scheduler did not start")
                time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        from distributed import Client

        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=WAIT_SECONDS)
        yield address.replace("tcp://", "dask://")
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def why_absent() -> str:
    """Why there is no cluster to measure; "" where there can be."""
    return "" if importlib.util.find_spec("distributed") else "Dask is not installed: pip install 'onnxsurgeon[dask]'"


def measure(rounds: int) -> list[dict[str, Any]]:
    """Seconds of each run, here and there."""
    records = []
    with tempfile.TemporaryDirectory() as folder, started(Path(folder)) as address:
        for size, (model, settings) in RUNS.items():
            answers: dict[str | int, list[dict[str, Any]]] = {2: [], address: []}
            for number in range(rounds):
                for workers in answers if number % 2 else reversed(answers):
                    answers[workers].append(ask(MODELS / model, "fashion-mnist", workers, **settings))
            here, there = ([answer["wall"] for answer in each] for each in answers.values())
            digests = {answer["digest"] for each in answers.values() for answer in each}
            records.append(
                {
                    "size": size,
                    "settings": settings,
                    "steps": answers[2][0]["steps"],
                    "local": here,
                    "cluster": there,
                    "ratio": vars(ratio(here, there)),
                    "same": len(digests) == 1,
                }
            )
    return records


def row(record: dict[str, Any]) -> str:
    """A row of the table."""
    cells = (
        f"{record['size']}, {record['settings']['epochs']} epochs, {record['steps']:,} steps",
        Spread.of(record["local"]).text(2),
        Spread.of(record["cluster"]).text(2),
        Spread(**record["ratio"]).text(2),
        "yes" if record["same"] else "NO",
    )
    return f"| {' | '.join(cells)} |"
