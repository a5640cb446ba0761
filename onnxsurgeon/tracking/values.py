"""The log entries of each event: numbers and texts, each at a step.

Two things are counted as steps. Names that begin with "candidate/" or "trained/" are about one branch, and their step
is its number, so that none overwrites another; the step of all others is the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxsurgeon.runs.events import Checkpoint, Event, Finished, Measured


@dataclass(frozen=True)
class Entry:
    """The entries for one step.

    Attributes:
        step: an epoch, or a branch's number.
        numbers: by name.
        texts: by name, Markdown.
        current: whether it is about the run as it now is, rather than about one branch.
    """

    step: int
    numbers: Mapping[str, float] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    current: bool = False


class Values:
    """Turns events into entries, and remembers what a later event does not repeat."""

    def __init__(self) -> None:
        self._topologies: dict[int, str] = {}
        self._parameters: dict[int, int] = {}
        self._last: Checkpoint | None = None

    def entry(self, event: Event) -> Entry | None:
        """The entry for an event; None where there is nothing to log."""
        if event["event"] == "proposed":
            what = f"{event['surgery']} of branch {event['parent']}: {event['reason']}"
            return Entry(event["branch"], {"candidate/proposal": event["score"]}, {"candidate/surgery": what})
        if event["event"] == "recuperated" or event["event"] == "trained":
            return self._measured(event)
        if event["event"] == "dropped":
            return Entry(event["branch"], texts={"candidate/dropped": event["reason"]})
        if event["event"] == "started" or event["event"] == "decided":
            return self._decided(event)
        return self._finished(event) if event["event"] == "finished" else None

    def _measured(self, event: Measured) -> Entry:
        self._remember(event["branch"], event["topology"], event["parameters"])
        stage = "candidate" if event["event"] == "recuperated" else "trained"
        numbers: dict[str, float] = {
            "accuracy": event["accuracy"],
            "gain": event["gain"],
            "loss": event["loss"],
            "score": event["score"],
            "parameters": event["parameters"],
        }
        text = f"{event['topology']}, {event['surgery']} of branch {event['parent']}"
        numbers = {f"{stage}/{name}": value for name, value in numbers.items()}
        return Entry(event["branch"], numbers, {f"{stage}/topology": text})

    def _decided(self, event: Checkpoint) -> Entry:
        best, epoch = event["best"], event["epoch"]
        kept = list(zip(event["branches"], event["topologies"], event["parameters"], strict=True))
        for branch in kept:
            self._remember(*branch)
        numbers: dict[str, float] = {
            "accuracy/best": event["best_accuracy"],
            "parameters/best": self._parameters[best],
            "branch/best": best,
        }
        for name, values in (
            ("accuracy", event["accuracies"]),
            ("loss", event["losses"]),
            ("parameters", event["parameters"]),
            ("branch", event["branches"]),
        ):
            numbers |= {f"{name}/kept-{place}": value for place, value in enumerate(values, start=1)}
        numbers |= self._throughput(event)
        lines = [
            f"- branch {branch}: {topology}, {parameters:,} parameters, {accuracy:.4f}"
            for (branch, topology, parameters), accuracy in zip(kept, event["accuracies"], strict=True)
        ]
        topology = f"{self._topologies[best]} (branch {best})"
        return Entry(epoch, numbers, {"decision/kept": "\n".join(lines), "topology/best": topology}, current=True)

    def _throughput(self, event: Checkpoint) -> dict[str, float]:
        """Throughput since the checkpoint before; it is always computed alike, since the journal holds the times."""
        before, self._last = self._last, event
        steps, seconds, training = event["steps"], event["seconds"], event["training_seconds"]
        numbers: dict[str, float] = {"throughput/steps": steps}
        if before is not None:
            steps, seconds = steps - before["steps"], seconds - before["seconds"]
            training -= before["training_seconds"]
        if seconds > 0:
            numbers["throughput/steps-per-second"] = steps / seconds
            numbers["throughput/share-in-training"] = training / seconds
        return numbers

    def _finished(self, event: Finished) -> Entry:
        numbers: dict[str, float] = {
            "test/accuracy": event["test_accuracy"],
            "test/loss": event["test_loss"],
            "test/start-accuracy": event["start_test_accuracy"],
            "test/validation-accuracy": event["validation_accuracy"],
            "test/parameters": event["parameters"],
        }
        surgeries = ", ".join(event["surgeries"]) or "none"
        text = f"branch {event['branch']}: {event['topology']}; surgeries: {surgeries}"
        epoch = 0 if self._last is None else self._last["epoch"]
        return Entry(epoch, numbers, {"result": text}, current=True)

    def _remember(self, branch: int, topology: str, parameters: int) -> None:
        self._topologies[branch], self._parameters[branch] = topology, parameters


def hyperparameters(record: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """The flat settings with which a run was started, from its settings.json."""
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
