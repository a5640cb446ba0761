"""Two branches side by side against one after the other, the way the Surgeon trains them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarking.steps import Spread, ratio
from benchmarking.task import RATE, WARM_UP, make_task
from onnxsurgeon import Examples, Network, TrainedNetwork, TrainingSpec, create, make_engine

HEADER = "| network | one after the other, s | two workers, s | times as fast |\n| --- | ---: | ---: | ---: |"


def measure(size: str, sizes: tuple[int, ...], steps: int, rounds: int) -> dict[str, Any]:
    """Seconds for ``steps`` steps of each of two networks on the same examples, in turns."""
    task = make_task(sizes, steps)
    examples = Examples.classification(task.features, task.labels, sizes[-1])
    networks = [create(sizes, seed=seed) for seed in (0, 1)]
    engine, spec = make_engine("loop"), TrainingSpec(RATE)

    def train(network: Network) -> TrainedNetwork:
        return engine.train(network, examples, iter((task.batches[WARM_UP:],)), spec)

    serial: list[float] = []
    parallel: list[float] = []
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(2) as two:
        for workers in (one, two):
            list(workers.map(train, networks))  # untimed: sessions and threads are made
        for number in range(rounds):
            turns = [(one, serial), (two, parallel)]
            for workers, seconds in turns if number % 2 else reversed(turns):
                seconds.append(clocked(workers, train, networks))
    return {
        "size": size,
        "network": task.topology,
        "steps": steps,
        "serial": serial,
        "parallel": parallel,
        "ratio": vars(ratio(serial, parallel)),
    }


def clocked(workers: ThreadPoolExecutor, train: Callable[[Network], object], networks: list[Network]) -> float:
    """Seconds that ``workers`` take to train all ``networks``."""
    start = time.perf_counter()
    list(workers.map(train, networks))
    return time.perf_counter() - start


def row(record: dict[str, Any]) -> str:
    """A row of the table."""
    serial, parallel = Spread.of(record["serial"]).text(2), Spread.of(record["parallel"]).text(2)
    cells = (
        f"{record['size']}, {record['network']}, {record['steps']:,} steps each",
        serial,
        parallel,
        Spread(**record["ratio"]).text(2),
    )
    return f"| {' | '.join(cells)} |"
