"""The kinds of refusal, told apart by what the user can do: each has a code, says what it means and what helps."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

# The kinds of refusals.toml, in its order; mypy checks here that every error names one of them.
Kind = Literal[
    "no-layers",
    "quantized-model",
    "training-mode",
    "not-a-model",
    "external-data",
    "leads-out",
    "runtime-refuses",
    "too-large",
    "damaged-model",
    "opset",
    "unsupported-form",
    "open-shape",
    "not-finite-weights",
    "beyond-one-file",
    "place-of-head",
    "unlike-models",
    "unlike-state",
    "diverged-state",
    "outputs-not-followed",
    "unknown-data",
    "columns-for-input",
    "missing-value",
    "unlike-targets",
    "other-classes",
    "label-columns",
    "too-few-rows",
    "own-validation",
    "pickled-data",
    "no-download",
    "unlike-teacher",
    "unreadable-data",
    "npz-keys",
    "unlike-rows",
    "not-numbers",
    "no-rows",
    "table-form",
    "target-column",
    "no-labels",
    "label-form",
    "unlike-inputs",
    "names-of-inputs",
    "value-too-large",
    "too-much-data",
    "folder-form",
    "changed-while-read",
    "rows-depend",
    "class-names",
    "text-column",
    "outputs-not-finite",
    "no-mixing",
    "misread-rows",
    "out-of-reach",
    "not-with-resume",
    "longer-only",
    "nothing-to-train",
    "classes-only",
    "workers-address",
    "usage",
    "unknown-choice",
    "senseless-value",
    "exclusive",
    "tables-only",
    "other-search",
    "layer-names",
    "settings-file",
    "wrong-type",
    "topology",
    "trainer-tells",
    "incomplete",
    "not-exact",
    "proof-failed",
    "not-finite-inside",
    "unknown-surgery",
    "no-such-layer",
    "amount",
    "unlike-layer",
    "needs-data",
    "unlike-moments",
    "ensemble",
    "block-stays",
    "gone",
    "left-out",
    "exchanged",
    "settings-of-run",
    "damaged-journal",
    "run-exists",
    "not-a-run",
    "no-such-branch",
    "busy",
    "other-data",
    "strange-file",
    "nothing-to-show",
    "cannot-write",
    "no-such-file",
    "cannot-read",
    "exists",
    "no-folder",
    "standard-output",
    "system",
    "no-package",
    "no-device",
    "no-training-build",
    "engine-lacks",
    "diverged",
    "runtime-failed",
    "no-scheduler",
    "unlike-workers",
    "workers-lost",
    "no-port",
    "no-tracker",
]
SECTIONS: Mapping[str, str] = {
    "M": "The model",
    "D": "Data and targets",
    "O": "Options and wishes",
    "S": "Surgeries",
    "R": "Runs",
    "F": "Files and folders",
    "E": "This machine",
}
PAGE = "troubleshooting.md"
_LINK = re.compile(r"\[([^]]*)\]\(([^)]*)\)")


@dataclass(frozen=True)
class Refusal:
    """A kind of refusal.

    Attributes:
        code: a letter of ``SECTIONS`` and two digits.
        heading: what is wrong, in a few words.
        says: the parts of messages that identify it; … stands for names and numbers.
        means: what the message means, in Markdown.
        cure: what to do about it, in Markdown whose links start from docs/.
    """

    code: str
    heading: str
    says: tuple[str, ...]
    means: str
    cure: str

    @property
    def link(self) -> str:
        """The place in docs/ that explains it."""
        return f"{PAGE}#{self.code}"

    def __str__(self) -> str:
        """Explain the kind in a few lines for a terminal."""
        lines = [f"{self.code}: {self.heading}"]
        if self.says:
            lines.append(f"such as: {'; '.join(f'“{part}”' for part in self.says)}")
        lines += [f"what it means: {self.means}", f"what to do: {self.cure}", f"more: docs/{self.link}"]
        return "\n".join(_LINK.sub(r"\1 (docs/\2)", line) for line in lines)


@cache
def refusals() -> Mapping[str, Refusal]:
    """Return every kind of refusal by its name."""
    entries = tomllib.loads(Path(__file__).with_name("refusals.toml").read_text(encoding="utf-8"))
    return {name: Refusal(**{**entry, "says": tuple(entry["says"])}) for name, entry in entries.items()}


def refusal(kind: Kind) -> Refusal:
    """Return the kind of that name."""
    return refusals()[kind]
