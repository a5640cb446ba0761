"""The first screen of a page: three large numbers, what was asked for, and whether it was found."""

from __future__ import annotations

from dataclasses import dataclass

from onnxsurgeon.quantities import spell_count, spell_latency, spell_share, spell_size
from onnxsurgeon.report.invocation import Invocation
from onnxsurgeon.runs.family import History
from onnxsurgeon.runs.footprint import SAME_LATENCY, Footprint, spell_metric

BETTER, WORSE, MORE, SAME = "better", "worse", "more", "same"


@dataclass(frozen=True)
class Large:
    """A number that is written large.

    Attributes:
        name: its meaning, such as "smaller".
        number: such as "10×".
        details: the lines below it.
        verdict: BETTER, WORSE or SAME; or MORE, for higher costs that may have been wanted.
    """

    name: str
    number: str
    details: tuple[str, ...]
    verdict: str


@dataclass(frozen=True)
class Headline:
    """The beginning of the page.

    Attributes:
        numbers: smaller, faster, better; fewer where something was not measured.
        asked: what was asked for, in words.
        answer: whether it was found, in words; "" while the run goes on.
        is_met: whether it was found; None: not known yet.
    """

    numbers: tuple[Large, ...]
    asked: str
    answer: str = ""
    is_met: bool | None = None


def headline(history: History, invocation: Invocation, accuracy_name: str) -> Headline:
    """The headline of a run so far."""
    asked = ", ".join(_wishes(invocation)) or f"the best {invocation.metric}"
    finish = history.finish
    if finish is None:
        return Headline(tuple(_so_far(history, invocation, accuracy_name)), asked)
    numbers = [] if finish.costs is None else _cheaper(*finish.costs, is_given=history.result == 0)
    numbers.append(_better(f"test {invocation.metric}", finish.start_test_accuracy, finish.test_accuracy))
    if finish.shortfall:
        return Headline(tuple(numbers), asked, f"not found: {finish.shortfall}; the result comes nearest", is_met=False)
    if finish.is_worse:
        return Headline(tuple(numbers), asked, "found, but worse than the given model on the test rows", is_met=False)
    if history.result == 0 and not _wishes(invocation):
        return Headline(tuple(numbers), asked, "nothing better than the given model was found", is_met=False)
    if len(finish.front) > 1:
        return Headline(tuple(numbers), asked, f"found: {len(finish.front)} networks to pick from", is_met=True)
    return Headline(tuple(numbers), asked, "found", is_met=True)


def _wishes(invocation: Invocation) -> list[str]:
    """What the settings ask for besides the best accuracy."""

    def value(name: str) -> float | None:
        found = invocation.value(name)
        return found if isinstance(found, int | float) and not isinstance(found, bool) else None

    said = []
    if invocation.value("objective") == "pareto":
        said.append("the best of every size")
    if (times := value("shrink")) is not None:
        said.append(f"{times:g}× fewer parameters")
    if (share := value("lose")) is not None:
        said.append(f"the smallest that loses at most {spell_share(share)}")
    if (count := value("max_parameters")) is not None:
        said.append(f"at most {spell_count(count)} parameters")
    if (size := value("max_size")) is not None:
        said.append(f"a file of at most {spell_size(size)}")
    if (latency := value("max_latency")) is not None:
        said.append(f"at most {spell_latency(latency)} a row")
    if (least := value("min_accuracy")) is not None:
        said.append(f"the smallest with {invocation.metric} {least:g}")
    if (tolerance := value("tolerance")) is not None and tolerance > 0:
        said.append(f"the smallest within {spell_share(tolerance)} of the best {invocation.metric}")
    return said


def _cheaper(before: Footprint, after: Footprint, *, is_given: bool) -> list[Large]:
    """The numbers for smaller, and where latencies were measured for faster."""
    details = [f"{spell_count(before.parameters)} → {spell_count(after.parameters)} parameters"]
    if not is_given:
        details.append(f"file {spell_size(before.size)} → {spell_size(after.size)}")
    found = [_factor(("smaller", "larger", "the same size"), before.parameters, after.parameters, details)]
    if before.latency and after.latency:
        details = [
            f"{spell_latency(before.latency)} → {spell_latency(after.latency)} a row",
            "on one thread",
        ]
        found.append(
            _factor(("faster", "slower", "the same speed"), before.latency, after.latency, details, SAME_LATENCY)
        )
    return found


def _factor(names: tuple[str, str, str], before: float, after: float, details: list[str], same: float = 1.0) -> Large:
    """By which factor ``after`` is less or more than ``before``; within the factor ``same`` they are the same."""
    less, more, equal = names
    if not before or not after:
        return Large(less, "–", tuple(details), SAME)
    factor, name, verdict = (before / after, less, BETTER) if before >= after else (after / before, more, MORE)
    text = f"{factor:.3g}" if factor < 100 else f"{factor:,.0f}"
    if factor < same or text == "1":
        return Large(equal, "1×" if before == after else "≈ 1×", tuple(details), SAME)
    return Large(name, f"{text}×", tuple(details), verdict)


def _better(name: str, before: float, after: float) -> Large:
    """How much the metric rose."""
    change = after - before
    details = (name + f" {spell_metric(before)} → {spell_metric(after)}".replace("-", "−"),)
    number = (f"{change:+.4f}" if abs(change) < 10 else f"{change:+.3g}").replace("-", "−")
    if not change:
        return Large("as good", "±0", details, SAME)
    return Large("better" if change > 0 else "worse", number, details, BETTER if change > 0 else WORSE)


def _so_far(history: History, invocation: Invocation, accuracy_name: str) -> list[Large]:
    """What is known before the end: size and accuracy of the best so far, and how far the run has come."""
    found: list[Large] = []
    given, last = history.members.get(0), history.decisions[-1] if history.decisions else None
    best = None if history.result is None else history.members.get(history.result)
    if given is not None and best is not None and given.parameters and best.parameters:
        details = [f"{spell_count(given.parameters)} → {spell_count(best.parameters)} parameters"]
        found.append(_factor(("smaller", "larger", "the same size"), given.parameters, best.parameters, details))
    if last is not None and given is not None and given.points:
        found.append(_better(accuracy_name, given.points[0].accuracy, last.best_accuracy))
    epochs = invocation.value("epochs")
    if last is not None and isinstance(epochs, int) and epochs > 0:
        share = min(1.0, last.epoch / epochs)
        found.append(Large("done", f"{share:.0%}", (f"epoch {last.epoch:g} of {epochs}",), SAME))
    return found
