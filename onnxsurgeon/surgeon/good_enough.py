"""Which networks are accurate enough: as accurate as asked for, or not worse than the best by more than chance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from onnxsurgeon.data.examples import Examples
from onnxsurgeon.linear_algebra import Array
from onnxsurgeon.runs.branch import Branch, read_branch
from onnxsurgeon.runs.entry import Entry
from onnxsurgeon.surgeon.objective import Given, least_accuracy, most_accurate
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.surgeon.significance import is_within_an_error, row_scores
from onnxsurgeon.training.engine import Engine

MOST_LOST = 0.01  # of the metric, for a network that counts as no worse; few rows would let more pass
CAUTION = 0.5  # standard errors
SURE = 2.0  # standard errors, where nobody asked for a smaller network
LOST_OF_ITSELF = 0.01  # of agreement or fidelity, for the smallest network that is wanted where nothing is asked for


@dataclass
class Judge:
    """Compares networks row by row, on the rows to choose by.

    Attributes:
        settings: say what accuracy is asked for.
        given_branch: the given model, measured.
        branches: the folder of the branches' files.
        engine: evaluates.
        validation: rows to choose by.
        is_held_out: whether they were held out of the training rows, and not given apart.
        is_to_be_small: whether the smallest network that is no worse is wanted, since nothing is asked for.
    """

    settings: SurgeonSettings
    given_branch: Branch
    branches: Path
    engine: Engine
    validation: Examples
    is_held_out: bool
    is_to_be_small: bool
    _scored: dict[str, Array] = field(default_factory=dict)

    @cached_property
    def given(self) -> Given:
        """The values to which some wishes are relative."""
        return Given(self.given_branch.network.parameter_count, self.given_branch.accuracy)

    def test(self, within: Sequence[Entry]) -> Callable[[Entry], bool] | None:
        """A test for networks that are accurate enough, where the smallest such is wanted.

        None: the most accurate is. ``within`` is the front within the limits.
        """
        least = least_accuracy(within, self.settings, self.given)
        lose = self.settings.lose
        if lose is not None:
            return lambda entry: self._loses_little(entry, self.given.accuracy, self.given_scores, lose)
        if least is None and self.is_to_be_small and self.is_measure:
            least = self.given.accuracy - LOST_OF_ITSELF
        if least is not None:
            return lambda entry: entry.accuracy >= least
        return self._no_worse(within) if self.is_to_be_small else None

    def scores(self, entry: Entry) -> Array:
        """What each row adds to the metric, as ``row_scores``, for a network of the front."""
        if entry.digest not in self._scored:
            network = read_branch(self.branches / entry.file).network
            self._scored[entry.digest] = row_scores(network, self.engine, self.validation)
        return self._scored[entry.digest]

    @cached_property
    def given_scores(self) -> Array:
        """The same for the given network."""
        return row_scores(self.given_branch.network, self.engine, self.validation)

    @cached_property
    def is_measure(self) -> bool:
        """Whether the given network is the one that is imitated: no other can be better, and few are as good."""
        imitates = any(task.imitates for task in self.validation.tasks)
        return imitates and self.given.accuracy >= 1 - LOST_OF_ITSELF / 100

    def _loses_little(self, entry: Entry, accuracy: float, scores: Array, lose: float) -> bool:
        """Whether a network has lost no more than ``lose`` of an accuracy, with some caution.

        The smallest network is lucky. Unless it has lost nothing, its loss has to be below ``lose`` by ``CAUTION``
        standard errors, paired by row. ``scores`` (rows,) are those of the network with that accuracy.
        """
        lost = accuracy - entry.accuracy
        if lost <= 0 or lost > lose:
            return lost <= 0
        difference = scores - self.scores(entry)
        mean = difference.mean()
        if mean <= 0 or len(difference) < 2:
            return True
        error = difference.std(ddof=1) / np.sqrt(len(difference)) * lost / mean
        return bool(lost <= lose - CAUTION * error)

    def _no_worse(self, entries: Iterable[Entry]) -> Callable[[Entry], bool]:
        """A test for networks that are no worse than the best by more than chance: a standard error, paired by row."""
        best = most_accurate(entries)

        def is_good(entry: Entry) -> bool:
            is_within = entry == best or is_within_an_error(self.scores(entry), self.scores(best))
            is_within = is_within and self._loses_little(entry, best.accuracy, self.scores(best), MOST_LOST)
            return is_within and (not entry.branch or self._is_surely_no_worse(entry))

        return is_good

    def _is_surely_no_worse(self, entry: Entry) -> bool:
        """Whether a network is right on as many rows as the given one, except for ``MOST_LOST`` of them, beyond luck.

        Of many networks that are tried, the chosen one is lucky. And rows that were held out of the training rows may
        be ones on which the given network was trained, and which its descendants remember. So a network may have lost
        two standard errors more, paired by row, than was seen, with one row more on which they differ. (Of 1,438 digits
        144 decided; a network of a fifth of the size was right on all of these, and on 0.012 less of the test rows.)
        For a regression this does not decide.
        """
        scores = self.given_scores
        if not self.is_held_out or not np.isin(scores, (0, 1)).all():
            return True
        difference = scores - self.scores(entry)
        error = np.sqrt((difference**2).sum() + 1) / len(difference)
        return bool(difference.mean() + SURE * error <= MOST_LOST)
