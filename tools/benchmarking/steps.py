"""Microseconds a training step: every peer beside the loop engine, and beside what the processor could do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarking.environments import Entrant
from benchmarking.plain_peers import PRODUCT
from benchmarking.serve import LOOP, PRODUCTS
from benchmarking.task import BATCH, Task, deviation, step_flops

HEADER = (
    "| network | peer | µs a step | ratio to loop | to its own runtime's loop | share of peak | max \\|Δ weights\\| |\n"
    "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of what the rounds gave."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Of at least one value."""
        low, median, high = np.percentile(values, (25, 50, 75))
        return cls(float(median), float(low), float(high))

    def text(self, digits: int) -> str:
        """Such as "43.1 (42.0..45.9)"; the median alone of a single round."""
        spread = "" if self.low == self.high else f" ({self.low:,.{digits}f}..{self.high:,.{digits}f})"
        return f"{self.median:,.{digits}f}{spread}"


def ratio(some: list[float], others: list[float]) -> Spread:
    """The quotients of each round: what slows a whole round cancels out."""
    return Spread.of([mine / other for mine, other in zip(some, others, strict=True)])


def peaks(entrants: list[Entrant]) -> tuple[str, list[float]]:
    """The matrix product that is fastest at the median, and for each round the operations a microsecond of the best.

    Each time is the fastest of several already: where others disturb a round, this takes it from the steps' share.
    """
    products = [entrant for entrant in entrants if entrant.peer in PRODUCTS]
    fastest = min(products, key=lambda each: Spread.of(each.microseconds).median)
    rounds = zip(*(each.microseconds for each in products), strict=True)
    return f"{fastest.peer}, {fastest.runs_on}", [2 * PRODUCT**3 / min(times) for times in rounds]


def records(size: str, task: Task, entrants: list[Entrant]) -> list[dict[str, Any]]:
    """Of each peer what the table shows, and the time of each round."""
    product, limits = peaks(entrants)
    flops = step_flops(task.sizes)
    ideal = [flops / limit for limit in limits]
    loops = {each.runs_on: each for each in entrants if each.peer == LOOP}
    first = next(iter(loops.values()))
    made = []
    for entrant in entrants:
        if entrant.peer in PRODUCTS:
            continue
        times, own = Spread.of(entrant.microseconds), loops.get(entrant.environment.about["runs_on"][LOOP], first)
        made.append(
            {
                "size": size,
                "network": task.topology,
                "batch": BATCH,
                "peer": entrant.peer,
                "runs_on": entrant.runs_on,
                "microseconds": entrant.microseconds,
                "step": vars(times),
                "ratio": vars(ratio(entrant.microseconds, first.microseconds)),
                "ratio_to_own_loop": None if own is first else vars(ratio(entrant.microseconds, own.microseconds)),
                "flops": flops,
                "peak": {"product": product, "gflops": Spread.of(limits).median / 1e3},
                "share_of_peak": vars(ratio(ideal, entrant.microseconds)),
                "deviation": deviation(entrant.parameters, first.parameters),
                "moved": deviation(entrant.parameters, task.fresh()),
            }
        )
    return made


def row(record: dict[str, Any]) -> str:
    """A row of the table; a loop's own says how far it got, since two that stand still agree as well."""
    own = Spread(**record["ratio_to_own_loop"]).text(2) if record["ratio_to_own_loop"] else ""
    moved = f" (moved by {record['moved']:.0e})" if record["peer"] == LOOP else ""
    cells = (
        f"{record['size']}, {record['network']}",
        f"{record['peer']}, {record['runs_on']}",
        Spread(**record["step"]).text(1),
        Spread(**record["ratio"]).text(2),
        own,
        f"{100 * record['share_of_peak']['median']:.2g} %",
        f"{record['deviation']:.0e}{moved}",
    )
    return f"| {' | '.join(cells)} |"
