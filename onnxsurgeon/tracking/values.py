"""What is logged of each event: numbers and texts, each at a step.

Two things are counted as steps. Names that begin with "candidate/" or "trained/" are about one branch, and their step
is its number, so that none falls upon another; the step of all others is the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxsurgeon.runs.journal import Event


@dataclass(frozen=True)
class Entry:
    """What there is to log at one step.

    Attributes:
        step: an epoch, or a branch's number.
        numbers: by name.
        texts: by name, Markdown.
        current: whether it tells of the run as it now is, rather than of one branch.
    """

    step: int
    numbers: Mapping[str, float] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    current: bool = False


class Values:
    """Turns events into entries; remembers what a later event does not repeat."""

    def __init__(self) -> None:
        self._topologies: dict[int, str] = {}
        self._parameters: dict[int, int] = {}
        self._last: Event = {"epoch": 0, "steps": 0, "seconds": 0.0, "training_seconds": 0.0}

    def entry(self, event: Event) -> Entry | None:
        """What to log of an event; None: nothing."""
        match event["event"]:
            case "proposed":
                what = f"{event['surgery']} of branch {event['parent']}: {event['reason']}"
                return Entry(event["branch"], {"candidate/proposal": event["score"]}, {"candidate/surgery": what})
            case "recuperated":
                return self._measured(event, "candidate")
            case "trained":
                return self._measured(event, "trained")
            case "dropped":
                return Entry(event["branch"], texts={"candidate/dropped": event["reason"]})
            case "started" | "decided":
                return self._decided(event)
            case "finished":
                return self._finished(event)
        return None

    def _measured(self, event: Event, stage: str) -> Entry:
        self._remember(event["branch"], event["topology"], event["parameters"])
        names = ("accuracy", "gain", "loss", "score", "parameters")
        text = f"{event['topology']}, {event['surgery']} of branch {event['parent']}"
        return Entry(event["branch"], {f"{stage}/{name}": event[name] for name in names}, {f"{stage}/topology": text})

    def _decided(self, event: Event) -> Entry:
        best, epoch = event["best"], event["epoch"]
        kept = list(zip(*(event[key] for key in ("branches", "topologies", "parameters")), strict=True))
        for branch in kept:
            self._remember(*branch)
        numbers: dict[str, float] = {
            "accuracy/best": event["best_accuracy"],
            "parameters/best": self._parameters[best],
            "branch/best": best,
        }
        for key in ("accuracies", "losses", "parameters", "branches"):
            name = {"accuracies": "accuracy", "losses": "loss", "branches": "branch"}.get(key, key)
            numbers |= {f"{name}/kept-{place}": value for place, value in enumerate(event[key], start=1)}
        numbers |= self._throughput(event)
        lines = [
            f"- branch {branch}: {topology}, {parameters:,} parameters, {accuracy:.4f}"
            for (branch, topology, parameters), accuracy in zip(kept, event["accuracies"], strict=True)
        ]
        topology = f"{self._topologies[best]} (branch {best})"
        return Entry(epoch, numbers, {"decision/kept": "\n".join(lines), "topology/best": topology}, current=True)

    def _throughput(self, event: Event) -> dict[str, float]:
        """Since the checkpoint before; what is the same whenever it is computed, as the journal holds the times."""
        before, self._last = self._last, event
        seconds = event["seconds"] - before["seconds"]
        numbers: dict[str, float] = {"throughput/steps": event["steps"]}
        if seconds > 0:
            numbers["throughput/steps-per-second"] = (event["steps"] - before["steps"]) / seconds
            training = event["training_seconds"] - before["training_seconds"]
            numbers["throughput/share-in-training"] = training / seconds
        return numbers

    def _finished(self, event: Event) -> Entry:
        names = {
            "test/accuracy": "test_accuracy",
            "test/loss": "test_loss",
            "test/start-accuracy": "start_test_accuracy",
            "test/validation-accuracy": "validation_accuracy",
            "test/parameters": "parameters",
        }
        surgeries = ", ".join(event["surgeries"]) or "none"
        text = f"branch {event['branch']}: {event['topology']}; surgeries: {surgeries}"
        numbers = {name: event[key] for name, key in names.items()}
        return Entry(self._last["epoch"], numbers, {"result": text}, current=True)

    def _remember(self, branch: int, topology: str, parameters: int) -> None:
        self._topologies[branch], self._parameters[branch] = topology, parameters


def hyperparameters(record: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """What a run was started with, flat, from its settings.json."""
    found = {
        **record["settings"],
        "engine": record["engine"],
        "device": record["device"],
        "metric": record["metric"],
        "model": record["model"]["file"],
        "model_sha256": record["model"]["sha256"],
        "data": record["data"]["name"],
        "data_digest": record["data"]["digest"],
        **{f"version_{package}": version for package, version in record["versions"].items()},
    }
    return {name: value if isinstance(value, bool | int | float | str) else str(value) for name, value in found.items()}
