"""The order of candidates: score first, parameter count second (paper, eq. 14-15)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxsurgeon.choices import SELECTIONS
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.recommend.candidates import IDENTITY, Candidate


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Candidates by descending score, then by ascending parameter count.

    At a fixed sample size the Bayesian information criterion of eq. 14 is, up to constants, the parameter count. Ties
    end in an order that depends only on the candidates.
    """
    return sorted(candidates, key=lambda c: (-c.score, c.parameters, c.branch, c.operation, str(c)))


def select(
    selection: str, candidates: Sequence[Candidate], rng: np.random.Generator, *, n: int, random_draw: bool
) -> list[Candidate]:
    """The candidates to try, by the named selection.

    Raises:
        SettingsError: unknown selection.
    """
    if selection == "best-of-each":
        return best_of_each(candidates, rng, random_draw=random_draw)
    if selection == "top-n":
        return top_n(candidates, n)
    if selection == "random-walk":
        return random_walk(candidates, rng)
    raise SettingsError(
        f"selection: '{selection}' is unknown: expected one of {', '.join(SELECTIONS)}", "unknown-choice"
    )


def best_of_each(candidates: Sequence[Candidate], rng: np.random.Generator, *, random_draw: bool) -> list[Candidate]:
    """Every identity, the best of each operation over all branches, and one random draw from the rest."""
    chosen = [c for c in candidates if c.operation == IDENTITY]
    seen = {IDENTITY}
    for candidate in ranked(candidates):
        if candidate.operation not in seen:
            seen.add(candidate.operation)
            chosen.append(candidate)
    rest = [c for c in ranked(candidates) if c not in chosen]
    if random_draw and rest:
        chosen.append(rest[int(rng.integers(len(rest)))])
    return chosen


def top_n(candidates: Sequence[Candidate], n: int) -> list[Candidate]:
    """The ``n`` best."""
    return ranked(candidates)[:n]


def random_walk(candidates: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
    """One candidate drawn at random."""
    pool = ranked(candidates)
    return [pool[int(rng.integers(len(pool)))]] if pool else []
