"""The names of a trainer's files and tensors, which runners in other languages use. docs/train_anywhere.md lists them.

A tensor of the user's file keeps its name behind a slash, so that none can clash with a name of ours.
"""

from __future__ import annotations

TRAIN, STEP, EVALUATE, PREDICT = "train.onnx", "step.onnx", "evaluate.onnx", "predict.onnx"
FEATURES, TEACHER = "features.onnx", "teacher.onnx"
STATE, DESCRIPTION = "state.safetensors", "trainer.json"

ROWS, TARGETS = "rows", "targets"
BATCHES, RATES, LOSSES = "batches", "rates", "losses"
NUMBERS, LOSS, CORRECT, SQUARED_ERROR = "numbers", "loss", "correct", "squared_error"
STEPS, SEED = "steps", "seed"


def parameter(name: str) -> str:
    """The name of a parameter in the state, by its name in the user's file."""
    return f"parameter/{name}"


def moment(number: int, name: str) -> str:
    """The name of the first (0) or second (1) moment of a parameter in the state."""
    return f"moment_{number + 1}/{name}"


def following(name: str) -> str:
    """The name of the output that holds a tensor of the state after the steps."""
    return f"next/{name}"
