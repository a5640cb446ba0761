"""Remarks on a result, in sentences: whether it is worse than the given model, or is the given model."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsurgeon.graph.outputs import NO_TARGETS, READ_ON
from onnxsurgeon.quantities import spell_share
from onnxsurgeon.runs.footprint import spell_metric
from onnxsurgeon.surgeon.settings import SurgeonSettings
from onnxsurgeon.surgeon.significance import unseen_loss
from onnxsurgeon.task import FIDELITY, R2

FEW_ROWS = 1000  # rows that decide: with more than the present few, more networks could be told apart
FEW_EPOCHS = 100
SMALL_LOSS = 0.005  # of an accuracy, which is taken for nothing
SLIGHT = 2  # times smaller: to ask for less than that is another wish


@dataclass(frozen=True)
class Outcome:
    """The facts on which the remarks depend.

    Attributes:
        settings: settings of the run.
        is_given: whether the result is the given model.
        is_trained: whether the given model was trained before.
        is_worse: whether the result is worse than the given model by more than chance on the test rows.
        is_held_out: whether the rows that decide were held out of the training rows, and not given apart.
        rows: number of rows that decide.
        test_rows: number of the test rows.
        metric: name of the metric.
        before: the given model's metric on the test rows.
        after: the result's metric there.
        is_teacher: whether the given model is the one that is imitated, and the measure.
        shortfall: what was asked for and not found, in words; "" where all was found.
        notes: notes on the network; see ``Frame``.
    """

    settings: SurgeonSettings
    is_given: bool
    is_trained: bool
    is_worse: bool
    is_held_out: bool
    rows: int
    test_rows: int
    metric: str
    before: float
    after: float
    is_teacher: bool = False
    shortfall: str = ""
    notes: tuple[str, ...] = ()

    @property
    def counts_rows(self) -> bool:
        """Whether the metric counts rows that are right, and is no share of a variance."""
        return R2 not in self.metric and FIDELITY not in self.metric


def remarks(outcome: Outcome) -> tuple[str, ...]:
    """The remarks; the first is that the result is worse, where it is."""
    said = []
    if outcome.is_worse:
        said.append(
            f"WORSE than the given model by more than chance: {outcome.metric} {spell_metric(outcome.after)} on the "
            f"{outcome.test_rows:,} test rows, where the given model has {spell_metric(outcome.before)}; try "
            f"{_one_of([*_bounds(outcome.settings), *_more(outcome)] or ['more rows to train on'])}"
        )
    lost = _lost_on_the_test_rows(outcome)
    little = "" if outcome.is_given or lost else little_evidence(outcome.settings, outcome.rows, outcome.is_held_out)
    if little and outcome.counts_rows:
        said.append(little)
    if lost:
        said.append(
            f"on the {outcome.test_rows:,} test rows it {lost}; on the {outcome.rows:,} rows that decide it kept to "
            "that; more of these would tell better"
        )
    if outcome.is_given:
        said.append(f"best.onnx is the given model: {_why(outcome)}; try {_one_of(_hints(outcome))}")
    if not outcome.is_given:
        said += [
            f"{note}: its values may have moved, and nothing here measured that; `diff --data` does, and --freeze of "
            "the layers before it keeps them"
            for note in outcome.notes
            if NO_TARGETS in note and READ_ON in note
        ]
    if outcome.is_trained and outcome.is_held_out:
        said.append(
            "the given model may have been trained on the rows that decide, which flatters it: if so, give rows that "
            "it has not seen as a validation split"
        )
    return tuple(said)


def little_evidence(settings: SurgeonSettings, rows: int, is_held_out: bool) -> str:
    """What the rows that decide cannot tell of an accuracy that may be lost; "" where there are enough of them.

    It is for metrics that count rows that are right.
    """
    name, allowed = ("lose", settings.lose) if settings.lose is not None else ("tolerance", settings.tolerance)
    if allowed is None or unseen_loss(rows) <= max(allowed, SMALL_LOSS):
        return ""
    more = "more rows to decide by (--validation-fraction)" if is_held_out else "more validation rows"
    return (
        f"only {rows:,} rows decide whether --{name} {spell_share(allowed)} is kept: one of them is {1 / rows:.1%}, "
        f"and what loses none of them may have lost up to {unseen_loss(rows):.1%} (19 times of 20); {more} would tell "
        "better"
    )


def _lost_on_the_test_rows(outcome: Outcome) -> str:
    """What the result has on the test rows of what it was to keep, in words; "" where it has kept it."""
    settings, lost = outcome.settings, outcome.before - outcome.after
    if outcome.is_given or outcome.shortfall:
        return ""
    if settings.lose is not None and lost > settings.lose:
        return f"lost {lost:.4f} of {outcome.metric}, more than --lose {spell_share(settings.lose)} allows"
    if settings.min_accuracy is not None and outcome.after < settings.min_accuracy:
        has = f"{outcome.metric} {spell_metric(outcome.after)}"
        return f"has {has}, less than --min-accuracy {settings.min_accuracy:g}"
    return ""


def _why(outcome: Outcome) -> str:
    settings, rows = outcome.settings, f"{outcome.rows:,} rows"
    if outcome.shortfall:
        return f"nothing came nearer to what is asked for on {rows}"
    if not settings.heeds_wishes or settings.target_accuracy is not None:
        return f"nothing was more accurate on {rows}"
    if _asks_for_accuracy(settings):
        return f"nothing smaller was accurate enough on {rows}"
    if outcome.is_teacher:
        return "nothing can be better than what is imitated"
    is_to_be_small = settings.has_no_wish and outcome.is_trained
    smaller = ", and nothing smaller surely as good" if is_to_be_small else ""
    return f"nothing was better by more than chance on {rows}{smaller}"


def _asks_for_accuracy(settings: SurgeonSettings) -> bool:
    return any(each is not None for each in (settings.lose, settings.tolerance, settings.min_accuracy))


def _hints(outcome: Outcome) -> list[str]:
    """Hints on what may lead to another result."""
    settings, found = outcome.settings, []
    limit = "a larger limit" if outcome.shortfall else "a smaller limit"
    if settings.lose is not None:
        found.append(f"--lose {spell_share(2 * settings.lose or 0.005)}")
    elif settings.tolerance is not None:
        found.append(f"--tolerance {spell_share(2 * settings.tolerance or 0.005)}")
    elif settings.min_accuracy is not None:
        found.append("a lower --min-accuracy")
    elif settings.objective == "pareto":
        found.append("one of RUN/front")
    elif settings.heeds_wishes:
        is_free = all(limit is None for limit in _limits(settings))
        found.append("--lose 0.5% or --shrink 2 for a smaller one" if is_free else limit)
    if found and outcome.is_teacher and not _asks_for_accuracy(settings):
        return found  # nor will more time or rows make one better than the teacher
    return [*found, *_more(outcome)] or ["more rows to train on"]


def _bounds(settings: SurgeonSettings) -> list[str]:
    """Settings that ask for a smaller loss than the one found."""
    if not settings.heeds_wishes:
        return []
    if settings.lose is not None or settings.tolerance is not None:
        return [f"a smaller --{'lose' if settings.lose is not None else 'tolerance'}"]
    if settings.min_accuracy is not None:
        return ["a higher --min-accuracy"]
    if settings.shrink is not None and settings.shrink > SLIGHT:
        return [f"--shrink {max(settings.shrink / 2, SLIGHT):g}", "--lose 0.5% in its place"]
    return ["a larger limit", "--lose 0.5% in its place"] if any(_limits(settings)) else []


def _more(outcome: Outcome) -> list[str]:
    """Hints to give a run more time, or more rows to decide by; empty where there is enough of both."""
    settings, found = outcome.settings, []
    if settings.time_limit is not None:
        found.append("a longer --time-limit")
    elif settings.epochs < FEW_EPOCHS:
        found.append(f"more --epochs than {settings.epochs}")
    if outcome.rows < FEW_ROWS:
        found.append(
            "more rows to decide by (--validation-fraction)" if outcome.is_held_out else "more validation rows"
        )
    return found


def _limits(settings: SurgeonSettings) -> tuple[float | None, ...]:
    """Every limit on the costs of the result."""
    return (
        settings.max_parameters,
        settings.max_size,
        settings.max_latency,
        settings.max_macs,
        settings.max_memory,
        settings.shrink,
    )


def _one_of(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])}, or {texts[-1]}"
