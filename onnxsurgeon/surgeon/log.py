"""Every event of a run as one line in the log, through ``logging``, for programs that call ``evolve``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxsurgeon.runs import events
    from onnxsurgeon.runs.events import Event

# Nothing is shown unless the calling program wants it. It is set here and not in the package's __init__, where every
# command's --help would wait for ``logging``.
logging.getLogger("onnxsurgeon").addHandler(logging.NullHandler())
logger = logging.getLogger("onnxsurgeon.surgeon")
SCORE = "score"  # the reason of a drop that is only its place in the ranking


def log_event(event: Event) -> None:
    """Log an event: results at INFO, candidates at DEBUG, what a user should look at as a WARNING."""
    level = _level(event)
    describe = _LINES.get(event["event"])
    if describe is not None and logger.isEnabledFor(level):
        logger.log(level, "%s", describe(event))
    if event["event"] == "run":
        for note in event["notes"]:
            logger.info("%s", note)
        if event["other_versions"]:
            logger.warning(
                "started with %s: the result's bytes may differ from that run's", ", ".join(event["other_versions"])
            )
    if event["event"] == "finished":
        if "shortfall" in event:
            logger.warning("%s", event["shortfall"])
        for remark in event["remarks"]:
            logger.log(
                logging.WARNING if event["is_worse"] and remark == event["remarks"][0] else logging.INFO, "%s", remark
            )


def line_of(event: Event) -> str:
    """The event as one line; "" for an event that needs none."""
    describe = _LINES.get(event["event"])
    return "" if describe is None else describe(event)


def near_chance(accuracy: float, classes: int) -> bool:
    """Whether a model is about as good as guessing.

    It is untrained, or its inputs are not of the kind that it knows.
    """
    return bool(classes) and accuracy < 1.5 / classes


def _level(event: Event) -> int:
    if event["event"] == "dropped":
        return logging.WARNING if "NaN" in event["reason"] else logging.DEBUG
    return logging.DEBUG if event["event"] in ("proposed", "operated", "recuperated") else logging.INFO


def _run(event: events.Run) -> str:
    where = f" at {event['cluster']}" if event["cluster"] else ""
    return (
        f"run {event['path']}: {event['rows']} rows to train on, {event['validation_rows']} to choose by, "
        f"{event['engine']} engine on {event['device']}, {event['workers']} workers{where}, "
        f"task {event['task']}, judged by {event['metric']}"
    )


def _started(event: events.Checkpoint) -> str:
    return f"epoch 0: the given model, {event['topologies'][0]}, has {event['best_accuracy']:.4f}"


def _resumed(event: events.Resumed) -> str:
    return f"epoch {event['epoch']}: resumed with {', '.join(_branch(each) for each in event['branches'])}"


def _proposed(event: events.Proposed) -> str:
    return (
        f"branch {event['branch']}: {event['surgery']} of branch {event['parent']} proposed, score "
        f"{event['score']:.4f}, {event['parameters']} parameters: {event['reason']}"
    )


def _operated(event: events.Operated) -> str:
    return f"branch {event['branch']}: layer {event['layer']} operated on"


def _measured(event: events.Measured) -> str:
    return (
        f"{_branch(event)} {event['event']} to epoch {event['epoch']:.2f}: {event['parameters']} parameters, "
        f"accuracy {event['accuracy']:.4f}, gain {event['gain']:+.4f}, score {event['score']:.4f}"
    )


def _dropped(event: events.Dropped) -> str:
    reason = "others have better scores" if event["reason"] == SCORE else event["reason"]
    return f"branch {event['branch']} dropped: {reason}"


def _decided(event: events.Checkpoint) -> str:
    kept = zip(event["branches"], event["topologies"], event["accuracies"], strict=True)
    text = ", ".join(f"branch {number} ({topology}) {accuracy:.4f}" for number, topology, accuracy in kept)
    return f"epoch {event['epoch']}: kept {text}; best is branch {event['best']}, {event['best_accuracy']:.4f}"


def _extended(event: events.Extended) -> str:
    return f"epoch {event['epoch']}: goes on to epoch {event['run_epochs']}"


def _finished(event: events.Finished) -> str:
    return (
        f"finished: branch {event['branch']}, {event['topology']}, {event['parameters']} parameters, validation "
        f"{event['validation_accuracy']:.4f}, test {event['test_accuracy']:.4f}; {event['steps']} steps in "
        f"{event['seconds']:.1f} s; {event['best']}"
    )


def _branch(branch: events.Known | events.Measured) -> str:
    return f"branch {branch['branch']} ({branch['surgery']}, {branch['topology']})"


# Each is for the kind of event that its argument says.
_LINES: Mapping[str, Callable[[Any], str]] = {
    "run": _run,
    "started": _started,
    "resumed": _resumed,
    "proposed": _proposed,
    "operated": _operated,
    "recuperated": _measured,
    "trained": _measured,
    "dropped": _dropped,
    "decided": _decided,
    "extended": _extended,
    "finished": _finished,
}
