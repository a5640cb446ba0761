"""Runs ``evolve`` and kills itself with SIGKILL at a chosen moment; test_evolve starts it in a process of its own.

    python -m tests.killed_run MOMENT COUNT RUN_DIR WORKERS ENGINE [SETTINGS [DATA]]

SETTINGS is a JSON object of settings that differ from those below; DATA is digits where nothing else is given. The
process dies the COUNT-th time that MOMENT comes. It is one of a hundred processes, and imports no more than it needs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from onnxsurgeon import SurgeonSettings, create, evolve, save
from onnxsurgeon.runs import journal
from onnxsurgeon.surgeon import branching, search
from onnxsurgeon.training.schedule import BatchSchedule

SETTINGS = {
    "seed": 6,
    "epochs": 12,
    "initial_epochs": 2,
    "epoch_step": 2,
    "learning_rate": 0.4,
    "recuperation_batches": 5,
}


def start_model(folder):
    """A fresh network with enough layers for every surgery, written to ``folder``."""
    path = folder / "start.onnx"
    save(create((64, 20, 10, 10), seed=1, input_shape=(8, 8)), path, overwrite=True)
    return path


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(count: int, function):
    """``function``, but the process dies on the ``count``-th call."""
    calls = []

    def counted(*args, **kwargs):
        calls.append(1)
        if len(calls) >= count:
            die()
        return function(*args, **kwargs)

    return counted


def arm(moment: str, count: int) -> None:
    """Plant the kill."""
    if moment == "training":  # between two arrays of batches of some branch
        original = BatchSchedule.window
        step = after(count, lambda block: block)
        BatchSchedule.window = lambda *given: (step(block) for block in original(*given))
    elif moment == "surgery":
        branching.operate = after(count, branching.operate)
    elif moment == "writing":  # a temporary file is there, and not yet renamed
        Path.replace = after(count, Path.replace)
    elif moment == "journal":  # half a line is there
        original_append = journal.RunDirectory.append
        calls = []

        def append(self, event):
            calls.append(1)
            if len(calls) >= count:
                with self.journal.open("ab") as file:
                    file.write(b'{"event": "tra')
                die()
            original_append(self, event)

        journal.RunDirectory.append = append
    elif moment == "checkpoint":  # best.onnx is new, the journal does not know of it yet
        search.Surgeon._checkpoint = after(count, search.Surgeon._checkpoint)
    else:
        raise SystemExit(f"unknown moment {moment}")


if __name__ == "__main__":
    moment, count, run_dir, workers, engine, *others = sys.argv[1:]
    settings = SurgeonSettings.from_preset("corrected", **{**SETTINGS, **json.loads(others[0] if others else "{}")})
    start = start_model(Path(run_dir).parent)
    arm(moment, int(count))
    data = others[1] if others[1:] else "digits"
    evolve(start, data, settings=settings, workers=int(workers), run_dir=Path(run_dir), engine=engine)
