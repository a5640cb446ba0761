"""What is kept of a network's predictions, and of a surgery's spectra, for pictures that are drawn later."""

import json
from dataclasses import replace

import numpy as np
import pytest

from onnxsurgeon import create, make_engine, operate, parse
from onnxsurgeon.data.heads import class_names
from onnxsurgeon.linear_algebra import singular_values
from onnxsurgeon.surgeon import spectra as module
from onnxsurgeon.surgeon.spectra import VALUES, spectra
from onnxsurgeon.task import BINARY, CROSS_ENTROPY, SQUARED, Task
from onnxsurgeon.training import predictions
from onnxsurgeon.training.predictions import POINTS, TARGETS, watchers
from tests.conftest import randomised


def seen(task, parts, names=()):
    """The record of one head that was shown these (output, labels)."""
    (watcher,) = watchers((task,), sum(len(labels) for _, labels in parts), (names,))
    for output, labels in parts:
        watcher.add(output, labels)
    record = watcher.record()
    assert json.loads(json.dumps(record)) == record
    return record


def test_the_engine_shows_every_row_once(digit_examples):
    network = randomised(create((64, 10, 10), input_shape=(8, 8)))
    _, test = digit_examples
    watch = watchers(test.tasks, test.rows)
    engine = make_engine("loop")
    metrics = engine.evaluate(network, test, watch)
    assert metrics == engine.evaluate(network, test)
    (record,) = [each.record() for each in watch]
    assert sum(rows for _, _, rows in record["cells"]) == test.rows
    right = sum(rows for true, told, rows in record["cells"] if true == told)
    assert right / test.rows == metrics.accuracy


def test_classes_are_counted_over_all_parts():
    task = Task(CROSS_ENTROPY, 3, "Softmax")
    parts = [(np.eye(3)[[0, 1]], np.array([0, 2])), (np.eye(3)[[1]], np.array([2]))]
    assert seen(task, parts, ("a", "b", "c")) == {
        "kind": "classes",
        "classes": 3,
        "names": ["a", "b", "c"],
        "cells": [[0, 0, 1], [2, 1, 2]],
    }


def test_one_logit_is_two_classes():
    record = seen(Task(BINARY, 1, "Sigmoid"), [(np.array([[2.0], [-1], [3]]), np.array([[1.0], [1], [0]]))])
    assert record["cells"] == [[0, 1, 1], [1, 0, 1], [1, 1, 1]]


def test_of_many_classes_the_most_frequent_mistakes(monkeypatch):
    monkeypatch.setattr(predictions, "CONFUSIONS", 2)
    told, true = np.array([70, 70, 5, 9, 9, 9]), np.array([70, 70, 5, 1, 1, 2])
    record = seen(Task(CROSS_ENTROPY, 80), [(np.eye(80)[told], true)])
    assert record["cells"] == [[1, 9, 2], [2, 9, 1]]


def test_labels_are_counted_one_by_one():
    told, true = np.array([[1.0, -1], [1, -1], [-1, -1]]), np.array([[1.0, 0], [0, 0], [1, 1]])
    assert seen(Task(BINARY, 2), [(told, true)])["counts"] == [[1, 1, 1, 0], [0, 0, 1, 2]]


@pytest.mark.parametrize("rows", [5, POINTS, 1234])
def test_a_regression_keeps_evenly_spaced_rows(rows):
    true = np.arange(rows, dtype=np.float64)[:, None].repeat(TARGETS + 1, axis=1)
    parts = [(true[start : start + 100] + 0.5, true[start : start + 100]) for start in range(0, rows, 100)]
    targets = seen(Task(SQUARED, TARGETS + 1), parts)["targets"]
    assert len(targets) == TARGETS
    step = -(-rows // POINTS)
    assert targets[0] == [[float(row), row + 0.5] for row in range(0, rows, step)]


def test_a_squashed_regression_keeps_what_the_model_returns():
    record = seen(Task(SQUARED, 1, "Sigmoid"), [(np.zeros((1, 1)), np.array([[0.25]]))])
    assert record["targets"] == [[[0.25, 0.5]]]


def test_classes_have_the_data_sets_names(digits):
    network = create((64, 10, 3), input_shape=(8, 8))
    assert class_names(network, digits) == ((),)
    named = replace(digits, class_labels=("ash", "elm", "oak"))
    assert class_names(network, named) == (("ash", "elm", "oak"),)
    assert class_names(network, replace(digits, class_labels=(4, 5, 9))) == (("4", "5", "9"),)
    assert class_names(network, replace(digits, class_labels=("ash", "elm"))) == ((),)


@pytest.mark.parametrize("surgery", ["narrow:1:7", "factorize:1:5", "insert_identity:1", "insert_identity:2"])
@pytest.mark.parametrize("affordable", [True, False])
def test_spectra_that_need_not_be_computed_are_right(surgery, affordable, monkeypatch):
    monkeypatch.setattr(module, "AFFORDABLE", 2**27 if affordable else 0)
    network = randomised(create((20, 12, 9, 4), input_shape=(20,)))
    chosen = parse(surgery)
    after = operate(network, chosen).network
    record = spectra(network, chosen, after)
    assert record["before"]["values"] == pytest.approx(singular_values(network.hidden(chosen.layer).weight), rel=1e-5)
    for position, written in enumerate(record["after"]):
        assert written["values"] == pytest.approx(
            singular_values(after.layers[chosen.layer - 1 + position].weight), rel=1e-5
        )
        assert written["count"] == len(written["values"])


def test_spectra_that_would_cost_much_are_left_out(monkeypatch):
    monkeypatch.setattr(module, "AFFORDABLE", 0)
    network = randomised(create((20, 12, 9, 4), input_shape=(20,)))
    for surgery in ("widen:1:3", "merge:2"):
        chosen = parse(surgery)
        assert spectra(network, chosen, operate(network, chosen).network)["after"] == [None]


def test_a_long_spectrum_is_thinned_out():
    network = create((400, 300, 10), input_shape=(400,))
    chosen = parse("widen:1:2")
    before = spectra(network, chosen, operate(network, chosen).network)["before"]
    values = singular_values(network.hidden(1).weight)
    assert (before["count"], len(before["values"])) == (300, VALUES)
    assert before["values"][0] == pytest.approx(values[0], rel=1e-5)
    assert before["values"][-1] == pytest.approx(values[-1], rel=1e-5)
    assert before["values"] == sorted(before["values"], reverse=True)
