"""The errors that onnxsurgeon raises on purpose; anything else that escapes is a bug."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxsurgeon.printable import shown
from onnxsurgeon.refusals import refusal

if TYPE_CHECKING:
    from onnxsurgeon.refusals import Kind

LONGEST_TEXT = 600


class OnnxSurgeonError(Exception):
    """Base of every error a user can cause and mend. Its text is one line, whatever names a file holds.

    Attributes:
        kind: what the user can do about it: an entry of ``refusals.toml``.
    """

    def __init__(self, text: str, kind: Kind) -> None:
        text = shown(text)
        if len(text) > LONGEST_TEXT:
            text = f"{text[: LONGEST_TEXT - 150]} … {text[-140:]}"
        super().__init__(text)
        self.kind: Kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        """Workers' errors are sent to the process that waits for them."""
        return type(self), (str(self), self.kind)

    @property
    def code(self) -> str:
        """A short code, such as "D12", by which the kind is looked up; the command line ends its message with it."""
        return refusal(self.kind).code

    @property
    def explanation(self) -> str:
        """What it means and what to do about it, in a few lines."""
        return str(refusal(self.kind))

    @property
    def link(self) -> str:
        """Where that stands in docs/, such as "troubleshooting.md#D12"."""
        return refusal(self.kind).link


class ModelError(OnnxSurgeonError):
    """What was given is no usable model; the text names the file, and the node where one is at fault."""


class SurgeryError(OnnxSurgeonError):
    """A surgery that cannot be done as asked; the text says which one, on which layer, and why."""


class DataError(OnnxSurgeonError):
    """A data set that cannot be used; the text names the set, the file or the row, and what was expected."""


class EngineError(OnnxSurgeonError):
    """Training or evaluation that cannot be done here; the text says what is missing or not supported."""


class DivergedError(EngineError):
    """Training after which no weights are finite."""


class RunError(OnnxSurgeonError):
    """A run directory that cannot be made, read or resumed."""


class SettingsError(OnnxSurgeonError):
    """A setting whose value makes no sense; the text names the setting."""


class StopRun(Exception):  # noqa: N818 - a request, not an error
    """Raised by a callback: the run shall end at its next decision point, as if its epochs were over.

    It is finished then, with a result. Resumed, it goes on to its settings' end, and comes to the same as one that was
    never stopped.
    """
