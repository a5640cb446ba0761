"""Events read from a journal: an entry is what its type says, within its bounds, or reading it tells."""

import json
import math

import pytest

from onnxsurgeon.runs.checked import event_of, read_lines
from onnxsurgeon.runs.events import EVENTS, LARGEST
from onnxsurgeon.runs.lines import plain

MEASURED = {
    "event": "trained",
    "branch": 7,
    "parent": 3,
    "surgery": "widen:1:8",
    "topology": "64-18-10",
    "parameters": 1360,
    "epoch": 4.5,
    "accuracy": 0.9,
    "gain": 0.01,
    "loss": 0.3,
    "score": 1.2,
    "digest": "0" * 64,
}
OPERATED = {
    "event": "operated",
    "branch": 7,
    "layer": 1,
    "before": {"count": 3, "values": [3.0, 2.0, 1.0]},
    "after": [{"count": 2, "values": [3.0, 2.0]}, None],
}
COSTS = {"parameters": 10, "size": 500, "latency": None}
FINISHED = {
    "event": "finished",
    "run": "run",
    "best": "run/best.onnx",
    "branch": 7,
    "topology": "64-18-10",
    "parameters": 1360,
    "surgeries": ["widen:1:8"],
    "validation_accuracy": 0.9,
    "test_accuracy": 0.88,
    "test_loss": 0.4,
    "start_test_accuracy": 0.5,
    "steps": 100,
    "seconds": 2.5,
    "training_seconds": 2.0,
    "before": COSTS,
    "after": COSTS | {"multiplications": 90, "memory": None},
    "is_worse": False,
    "remarks": [],
    "predictions": [
        {"kind": "classes", "classes": 2, "names": ["no", "yes"], "cells": [[0, 1, 4]]},
        {"kind": "labels", "names": [], "counts": [[1, 2, 3, 4]]},
        {"kind": "values", "targets": [[[0.5, 0.25]]]},
    ],
}


@pytest.mark.parametrize("record", [MEASURED, OPERATED, FINISHED], ids=lambda record: record["event"])
def test_what_is_right_is_read_as_it_is(record):
    assert record.keys() <= EVENTS[record["event"]].__annotations__.keys()
    event = event_of(record)
    assert {key: event[key] for key in record} == record
    assert event.get("front", "none") == "none"


WRONG = [
    (MEASURED, "branch", None, TypeError),
    (MEASURED, "branch", True, TypeError),
    (MEASURED, "branch", 7.0, TypeError),
    (MEASURED, "branch", -1, ValueError),
    (MEASURED, "parameters", 10**16, ValueError),
    (MEASURED, "surgery", 4, TypeError),
    (MEASURED, "epoch", -0.5, ValueError),
    (MEASURED, "accuracy", 1.5, ValueError),
    (MEASURED, "accuracy", "0.9", TypeError),
    (MEASURED, "loss", math.inf, ValueError),
    (MEASURED, "gain", math.nan, ValueError),
    (OPERATED, "after", {}, TypeError),
    (OPERATED, "after", [[]], TypeError),
    (OPERATED, "before", "wide", TypeError),
    (FINISHED, "surgeries", [None], TypeError),
    (FINISHED, "is_worse", 1, TypeError),
    (FINISHED, "predictions", [{"kind": "else"}], ValueError),
    (FINISHED, "predictions", [{}], KeyError),
    (FINISHED, "seconds", 2 * LARGEST, ValueError),
]


@pytest.mark.parametrize(("record", "key", "value", "error"), WRONG)
def test_what_is_not_is_told_when_it_is_read_and_the_rest_is_read(record, key, value, error):
    event = event_of(record | {key: value})
    with pytest.raises(error):
        event[key]
    with pytest.raises(error):
        event.get(key)
    assert all(event[each] == record[each] for each in record if each != key)
    lacking = event_of({each: record[each] for each in record if each != key})
    with pytest.raises(KeyError):
        lacking[key]


def test_records_in_records_are_checked_when_they_are_read():
    spectrum = event_of(OPERATED | {"before": {"count": 3, "values": [-1.0]}})["before"]
    assert spectrum["count"] == 3
    with pytest.raises(ValueError, match="out of range"):
        spectrum["values"]


def test_half_a_surrogate_pair_is_no_text_that_can_be_written():
    assert event_of(MEASURED | {"surgery": "a\ud800"})["surgery"] == "a?"


def test_a_journal_is_read_as_it_was_written(tmp_path):
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(plain(MEASURED) + b"?\n" + plain(OPERATED) + b'{"event": "tra')
    lines = read_lines(journal)
    assert [number for number, _ in lines.records] == [1, 3]
    assert [json.dumps(record) for _, record in lines.records] == [json.dumps(each) for each in (MEASURED, OPERATED)]
    assert (lines.damaged, lines.cut_off) == ((2,), True)
