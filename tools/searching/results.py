"""What was measured: kept in a file after every search, and shown as a table."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Run = dict[str, Any]
COUNTS = {
    "trials": "trials",
    "epochs trained": "epochs",
    "seconds searched": "search_seconds",
    "wall time, s": "seconds",
}


class Results:
    """One record for each method and seed, and for whatever else a tool varies.

    Attributes:
        settings: under which all of them were made.
        runs: the records.
    """

    settings: dict[str, Any]
    runs: list[Run]

    def __init__(self, settings: dict[str, Any], path: Path | None) -> None:
        """Go on with what is in ``path``, where there is such a file.

        Raises:
            SystemExit: it holds something else, or was made under other settings.
        """
        self.settings, self._path, self.runs = settings, path, []
        if path is None or not path.exists():
            return
        try:
            held = json.loads(path.read_text())
            before, self.runs = held["settings"], list(held["runs"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SystemExit(f"{path}: holds no results of this tool") from error
        for name in [name for name in settings if before.get(name) != settings[name]]:
            raise SystemExit(f"{path}: was begun with {name} {before.get(name)}, now it is {settings[name]}")

    def find(self, method: str, seed: int, **others: Any) -> Run | None:
        """The record of a run that was made; ``others`` say what else it was made with."""
        wanted = {"method": method, "seed": seed, **others}
        return next((run for run in self.runs if all(run.get(key) == value for key, value in wanted.items())), None)

    def add(self, run: Run) -> None:
        """Keep a record; a kill while it is written loses nothing that was there."""
        self.runs.append(run)
        if self._path is None:
            return
        text = json.dumps({"settings": self.settings, "runs": self.runs}, indent=2) + "\n"
        part = self._path.with_name(self._path.name + ".part")
        part.write_text(text)
        os.replace(part, self._path)  # noqa: PTH105


def table(runs: Sequence[Run], methods: dict[str, str], budgets: Sequence[int]) -> str:
    """Test accuracies as Markdown: a line for each budget, a column for each method that has any."""
    shown = {key: name for key, name in methods.items() if any(run["method"] == key for run in runs)}
    lines = [_line(["parameters at most", *shown.values()]), _line(["---", *["---:"] * len(shown)])]
    lines += [_line([f"{budget:,}", *[_cell(_of(runs, key), budget) for key in shown]]) for budget in budgets]
    lines.append(_line(["seeds", *[str(len(_of(runs, key))) for key in shown]]))
    for label, name in COUNTS.items():
        lines.append(_line([label, *[f"{mean(run[name] for run in _of(runs, key)):,.0f}" for key in shown]]))
    return "\n".join(lines)


def _of(runs: Sequence[Run], method: str) -> list[Run]:
    return [run for run in runs if run["method"] == method]


def _cell(runs: Sequence[Run], budget: int) -> str:
    """Mean ± standard deviation of the sample, and how many seeds found no network of the size."""
    found = [entry["test"] for run in runs if (entry := run["found"].get(str(budget)))]
    if not found:
        return "none found"
    spread = f" ± {stdev(found):.4f}" if len(found) > 1 else ""
    missing = f" ({len(runs) - len(found)} without)" if len(found) < len(runs) else ""
    return f"{mean(found):.4f}{spread}{missing}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
