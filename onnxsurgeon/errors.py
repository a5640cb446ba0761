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
        """Pickle the error with its kind, since the errors of workers are sent to the process that waits for them."""
        return type(self), (str(self), self.kind)

    @property
    def code(self) -> str:
        """A short code, such as "D12", by which the kind is looked up; the command line ends its message with it."""
        return refusal(self.kind).code

    @property
    def explanation(self) -> str:
        """What the error means and what to do about it, in a few lines."""
        return str(refusal(self.kind))

    @property
    def link(self) -> str:
        """The place in docs/ that explains the error, such as "troubleshooting.md#D12"."""
        return refusal(self.kind).link


class ModelError(OnnxSurgeonError):
    """The given model cannot be used; the text names the file, and the node where one is at fault."""


class SurgeryError(OnnxSurgeonError):
    """A surgery cannot be done as asked; the text says which one, on which layer, and why."""


class DataError(OnnxSurgeonError):
    """A data set cannot be used; the text names the set, the file or the row, and what was expected."""


class EngineError(OnnxSurgeonError):
    """Training or evaluation cannot be done here; the text says what is missing or not supported."""


class DivergedError(EngineError):
    """Training has left no finite weights."""


class RunError(OnnxSurgeonError):
    """A run directory cannot be made, read or resumed."""


class SettingsError(OnnxSurgeonError):
    """The value of a setting makes no sense; the text names the setting."""


class StopRun(Exception):  # noqa: N818 - a request, not an error
    """A callback raises this to end the run at its next decision point, as if its epochs were over.

    The run is finished then, with a result. If it is resumed, it goes on to the end of its settings, with the same
    result as a run that was never stopped.
    """
