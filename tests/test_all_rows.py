"""``--split all``: every row of a data set is measured, however it is stored."""

import json

import numpy as np
import pytest

from onnxsurgeon import create, diff, evaluate, load_dataset, save
from tests.conftest import MODELS

SMALL = str(MODELS / "digits-small.onnx")


def test_it_is_all_splits_together(cli):
    parts = [evaluate(SMALL, "digits", split=split) for split in ("train", "test")]
    whole = evaluate(SMALL, "digits", split="all")
    assert whole.rows == sum(part.rows for part in parts) == 1797
    right = sum(part.accuracy * part.rows for part in parts)
    assert whole.accuracy == pytest.approx(right / 1797)
    code, out, _ = cli("evaluate", SMALL, "--data", "digits", "--split", "all", "--json")
    assert code == 0
    assert json.loads(out)["rows"] == 1797
    assert diff(SMALL, SMALL, data="digits", split="all").data.before == whole


def test_arrays_with_splits_of_their_own(tmp_path):
    rng = np.random.default_rng(1)
    arrays = {f"x_{part}": rng.random((n, 5), np.float32) for part, n in (("train", 7), ("test", 3), ("validation", 2))}
    labels = {name.replace("x", "y"): np.arange(len(x)) % 2 for name, x in arrays.items()}
    np.savez(tmp_path / "rows.npz", **arrays, **labels)
    whole = load_dataset(tmp_path / "rows.npz").every_row
    np.testing.assert_array_equal(
        whole.inputs, np.concatenate([arrays[f"x_{p}"] for p in ("train", "validation", "test")])
    )
    np.testing.assert_array_equal(
        whole.labels, np.concatenate([labels[f"y_{p}"] for p in ("train", "validation", "test")])
    )


def test_rows_of_one_array_are_not_copied(tmp_path):
    x, y = np.random.default_rng(2).random((40, 5), np.float32), np.arange(40) % 2
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    data = load_dataset(tmp_path / "x.npy", target=[str(tmp_path / "y.npy")])
    whole = data.every_row
    assert whole.source is data.train.source
    assert sorted(whole.numbers) == list(range(40))
    np.testing.assert_array_equal(whole.labels, y[whole.numbers])


def test_a_table(tmp_path, cli):
    lines = [f"{i},{'ab'[i % 2]},{i % 3}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(["n,letter,class", *lines]) + "\n")
    save(create((3, 4, 3)), tmp_path / "m.onnx")
    command = ("evaluate", str(tmp_path / "m.onnx"), "--data", str(tmp_path / "t.csv"), "--target", "class", "--json")
    code, out, _ = cli(*command, "--split", "all")
    assert code == 0
    assert json.loads(out)["rows"] == 60
    whole = load_dataset(tmp_path / "t.csv", target=["class"]).every_row
    assert sorted(whole.inputs["n"]) == list(range(60))
    np.testing.assert_array_equal(whole.inputs["letter"], np.where(whole.inputs["n"] % 2, "b", "a"))
    np.testing.assert_array_equal(whole.labels, whole.inputs["n"] % 3)


def test_a_table_with_a_test_file(tmp_path):
    for part, first in (("train", 0), ("test", 50)):
        rows = [f"{i},{'ab'[i % 2]},{i % 2}" for i in range(first, first + 20)]
        (tmp_path / f"{part}.csv").write_text("\n".join(["n,letter,class", *rows]) + "\n")
    whole = load_dataset(tmp_path, target=["class"]).every_row
    assert sorted(whole.inputs["n"]) == [*range(20), *range(50, 70)]
    np.testing.assert_array_equal(whole.inputs["letter"], np.where(whole.inputs["n"] % 2, "b", "a"))
