"""How many rows a batch has, by what is learnt and what limits it."""

import threading

import numpy as np
import pytest

from onnxsurgeon import SurgeonSettings, make_engine
from onnxsurgeon.data.examples import Examples
from onnxsurgeon.surgeon.trainer import TrainingContext
from onnxsurgeon.task import CROSS_ENTROPY, SQUARED, Task

NUMBERS, CLASSES = Task(SQUARED, 1, imitates=True), Task(CROSS_ENTROPY, 1, "Softmax", imitates=True)
LABELLED = Task(SQUARED, 1)


@pytest.mark.parametrize(
    ("rows", "tasks", "changes", "expected"),
    [
        (120_000, (NUMBERS,), {"time_limit": 60}, 128),
        (120_000, (NUMBERS,), {}, 64),  # epochs count, and more steps in each gain
        (120_000, (LABELLED,), {"time_limit": 60}, 64),
        (120_000, (CLASSES,), {"time_limit": 60}, 64),
        (120_000, (NUMBERS, CLASSES), {"time_limit": 60}, 64),
        (120_000, (NUMBERS,), {"time_limit": 60, "batch_size": 20}, 20),
        (20_000, (NUMBERS,), {"time_limit": 60}, 50),
        (20_000, (NUMBERS,), {}, 25),
        (2_000, (NUMBERS,), {"time_limit": 60}, 16),
    ],
)
def test_numbers_are_imitated_in_larger_batches_where_time_counts(rows, tasks, changes, expected):
    x = np.zeros((rows, 1), np.float32)
    examples = Examples((x,), (x,) * len(tasks), tasks)
    settings = SurgeonSettings.from_preset(**changes)
    context = TrainingContext(settings, make_engine("loop"), examples, examples.first(10), threading.Event())
    assert context.schedule.batch_size == expected
