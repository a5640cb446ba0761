"""Ctrl-C and SIGTERM: the first one stops a run cleanly; a second one, or a time limit, ends it at once.

A run directory is whole at any moment, even if the process is killed. So a process that does not end in time, such as
one in the middle of a large singular value decomposition, may simply be ended.
"""

from __future__ import annotations

import functools
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from onnxsurgeon.printable import shown

# Jobs may take this many seconds to notice, and so may a cluster. Training notices within ``PIECE`` steps.
PATIENCE = 10.0
SOON = 0.6  # the same where nothing is lost: a library that does not come back is not waited for
SHOW_CURSOR = "\x1b[?25h"


class Interrupts:
    """Turns signals into one KeyboardInterrupt in the main thread; see above.

    A thread watches for what the main thread is too busy to see: Python runs signal handlers only between two of its
    instructions, and a call into a library is one instruction.

    Attributes:
        is_disturbed: whether the interrupt came out as another error, as it does during the import of an extension
            module. The interpreter may then be unable to end in good order.
    """

    def __init__(
        self, message: Callable[[], str], noticed: Callable[[], None], patience: Callable[[], float] = lambda: PATIENCE
    ) -> None:
        """Take the reactions to signals.

        Args:
            message: returns the last line where the process ends at once.
            noticed: called at the first signal.
            patience: returns the seconds to wait after that; ``SOON`` where a user's model is running.
        """
        self._message, self._noticed, self._patience = message, noticed, patience
        self._number = 0
        self.is_disturbed = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def exit_code(self) -> int:
        """The exit code of a process that the signal has ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self._number or signal.SIGINT)

    def __enter__(self) -> Self:
        # Other threads may not, and a signal that is ignored, as in the background of a shell, stays so.
        if threading.current_thread() is not threading.main_thread():
            return self
        wanted = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) is not signal.SIG_IGN]
        if wanted and sys.platform != "win32":
            self._watch(wanted)
        self._before = {each: signal.signal(each, self._handle) for each in wanted}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._number:  # the process is about to end: another Ctrl-C still ends it at once, and without a traceback
            if kind is not KeyboardInterrupt:
                self.is_disturbed = True
                raise KeyboardInterrupt from None
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before and sys.platform != "win32":
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._written)  # this ends the thread

    def _watch(self, wanted: list[signal.Signals]) -> None:
        read, self._written = os.pipe()
        os.set_blocking(self._written, False)
        self._wakeup = signal.set_wakeup_fd(self._written)
        threading.Thread(target=self._end_at_once, args=(read, wanted), name="onnxsurgeon-signals", daemon=True).start()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._number:
            self._number = number
            self._noticed()
            raise KeyboardInterrupt

    def _end_at_once(self, read: int, wanted: list[signal.Signals]) -> None:
        first, end = 0, 0.0
        while True:
            left = max(0.0, end - time.monotonic()) if first else None
            ready, _, _ = select.select([read], [], [], left)
            byte = os.read(read, 1) if ready else b""
            if ready and not byte:
                os.close(read)
                return
            if byte and byte[0] not in wanted:
                continue
            if first:
                break
            first = byte[0]
            end = time.monotonic() + (SOON if _terminate_runs() else self._patience())
        if sys.stdout.isatty():
            os.write(sys.stdout.fileno(), f"\r{SHOW_CURSOR}\n".encode())
        os.write(sys.stderr.fileno(), f"onnxsurgeon: {shown(self._message())}\n".encode())
        os._exit(128 + first)


def _terminate_runs() -> bool:
    """End what ONNX Runtime computes for a user's model; return whether anything was under way."""
    runtime = sys.modules.get("onnxsurgeon.runtime")  # it is not loaded where nothing runs
    return runtime is not None and bool(runtime.terminate_runs())


def interruptible(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let Ctrl-C and SIGTERM end a command within a second, with one line, even while a library is at work in it."""

    @functools.wraps(command)
    def guarded(*arguments: Any, **options: Any) -> Any:
        from onnxsurgeon.cli import console

        interrupts = Interrupts(lambda: "interrupted", lambda: None, lambda: SOON)
        try:
            with interrupts:
                return command(*arguments, **options)
        except KeyboardInterrupt:
            console.fail("interrupted")
            if interrupts.is_disturbed:
                sys.stdout.flush()
                os._exit(interrupts.exit_code)
            sys.exit(interrupts.exit_code)

    return guarded
