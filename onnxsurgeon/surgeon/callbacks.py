"""A user's functions that are told of every event of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from onnxsurgeon.errors import StopRun
from onnxsurgeon.runs.events import Event

Callback = Callable[[Any], object]  # of an ``Event``; a function that takes a dict fits as well


class Callbacks:
    """Calls each callback with every event, in the given order, in the thread from which the run was started.

    An error of a callback ends the run, which can be resumed; only ``StopRun`` ends it in good order.

    Attributes:
        stop_asked: whether a callback raised ``StopRun``.
    """

    def __init__(self, *given: Callback | Iterable[Callback]) -> None:
        """``given`` are functions, or several at once."""
        self._callbacks = [one for each in given for one in ((each,) if callable(each) else each)]
        for callback in self._callbacks:
            if not callable(callback):
                raise TypeError(f"callbacks: {callback!r} is no function")
        self.stop_asked = False

    def __call__(self, event: Event) -> None:
        """Tell all callbacks, also those behind one that asks for an end."""
        for callback in self._callbacks:
            try:
                callback(event)
            except StopRun:
                self.stop_asked = True
