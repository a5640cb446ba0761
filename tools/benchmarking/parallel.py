"""Two branches one after the other, side by side, and one after the other with the cores' threads for each."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarking.steps import Spread, ratio
from benchmarking.task import RATE, WARM_UP, make_task
from onnxsurgeon import Examples, Network, TrainedNetwork, TrainingSpec, create, make_engine

CORES = 2
HEADER = (
    "| network | one after the other, s | side by side, s | times as fast | each on two threads, s | times as fast |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: |"
)


def measure(size: str, sizes: tuple[int, ...], steps: int, rounds: int) -> dict[str, Any]:
    """Seconds for ``steps`` steps of each of two networks on the same examples, in turns."""
    task = make_task(sizes, steps)
    examples = Examples.classification(task.features, task.labels, sizes[-1])
    networks = [create(sizes, seed=seed) for seed in (0, 1)]
    engine = make_engine("loop")

    def trained(threads: int) -> Callable[[Network], TrainedNetwork]:
        spec = TrainingSpec(RATE, threads=lambda: threads)
        return lambda network: engine.train(network, examples, iter((task.batches[WARM_UP:],)), spec)

    seconds: dict[str, list[float]] = {"serial": [], "parallel": [], "threads": []}
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(CORES) as two:
        ways = {"serial": (one, trained(1)), "parallel": (two, trained(1)), "threads": (one, trained(CORES))}
        for pool, train in ways.values():
            list(pool.map(train, networks))  # untimed: sessions and threads are made
        for number in range(rounds):
            for way in ways if number % 2 else reversed(ways):
                seconds[way].append(clocked(*ways[way], networks))
    return {
        "size": size,
        "network": task.topology,
        "steps": steps,
        **seconds,
        "ratio": vars(ratio(seconds["serial"], seconds["parallel"])),
        "threads_ratio": vars(ratio(seconds["serial"], seconds["threads"])),
    }


def clocked(workers: ThreadPoolExecutor, train: Callable[[Network], object], networks: list[Network]) -> float:
    """Seconds that ``workers`` take to train all ``networks``."""
    start = time.perf_counter()
    list(workers.map(train, networks))
    return time.perf_counter() - start


def row(record: dict[str, Any]) -> str:
    """A row of the table."""
    cells = (
        f"{record['size']}, {record['network']}, {record['steps']:,} steps each",
        Spread.of(record["serial"]).text(2),
        Spread.of(record["parallel"]).text(2),
        Spread(**record["ratio"]).text(2),
        Spread.of(record["threads"]).text(2),
        Spread(**record["threads_ratio"]).text(2),
    )
    return f"| {' | '.join(cells)} |"
