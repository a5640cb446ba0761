"""The user's data through the command line and through a run: options, records, resumption, errors of one line."""

import json

import numpy as np
import pytest

from onnxsurgeon import DataError, RunError, SurgeonSettings, create, evolve, load_dataset, prepare, save
from onnxsurgeon.surgeon.run import resume

QUICK = {"epochs": 2, "initial_epochs": 1, "epoch_step": 1, "recuperation_batches": 2, "seed": 6, "learning_rate": 0.05}


def write_table(folder, *, lacking=()):
    """200 rows whose class follows from their two numbers and their text: 4 inputs, 2 classes of texts."""
    pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    lines = ["a,b,t,y"]
    for row in range(200):
        a, b = rng.standard_normal(2)
        text = "uv"[row % 2]
        label = "high" if a + b + (row % 2) > 0.5 else "low"
        lines.append(f"{a},{'' if row in lacking else b},{text},{label}")
    (folder / "t.csv").write_text("\n".join(lines) + "\n")


def write_arrays(folder):
    x = np.random.default_rng(0).standard_normal((200, 4)).astype("f")
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", (x[:, 0] > 0).astype(int))


def write_pictures(folder):
    image = pytest.importorskip("PIL.Image")
    for level, name in enumerate(("dark", "light")):
        (folder / "p" / name).mkdir(parents=True)
        for i in range(30):
            image.fromarray(np.full((2, 2), 200 * level + i, np.uint8)).save(folder / "p" / name / f"{i}.png")


@pytest.mark.parametrize(
    ("make", "arguments", "rows"),
    [
        (write_table, ("--data", "t.csv", "--target", "y"), 40),
        (write_arrays, ("--data", "x.npy", "--target", "y.npy"), 40),
        (write_pictures, ("--data", "p"), 12),
    ],
)
def test_train_and_evaluate(make, arguments, rows, cli, tmp_path):
    make(tmp_path)
    save(create((4, 8, 2), seed=1), tmp_path / "a.onnx")
    code, out, err = cli("train", "a.onnx", *arguments, "--epochs", "20", "--learning-rate", "0.05", "-o", "b.onnx")
    assert (code, err) == (0, ""), out
    record = json.loads(cli("evaluate", "b.onnx", *arguments, "--json")[1])
    assert record["rows"] == rows
    assert record["accuracy"] > 0.85
    record = json.loads(
        cli("evaluate", "b.onnx", *arguments, "--split", "validation", "--validation-fraction", "0.5", "--json")[1]
    )
    assert record["rows"] == rows * 2


def test_a_run_records_how_its_rows_are_read_and_resumes_with_it(tmp_path):
    write_table(tmp_path, lacking=(3, 50))
    save(create((4, 8, 2), seed=1), tmp_path / "a.onnx")
    table = str(tmp_path / "t.csv")
    how = {"target": ("y",), "impute": "median", "validation_fraction": 0.25}
    settings = SurgeonSettings.from_preset("corrected", **QUICK)
    done = evolve(tmp_path / "a.onnx", table, settings=settings, run_dir=tmp_path / "run", workers=1, **how)
    record = json.loads((tmp_path / "run" / "settings.json").read_text())
    data = record["data"]
    assert {name: data[name] for name in how} == {**how, "target": ["y"]}
    assert data["digest"] == load_dataset(table, **how).digest
    events = []
    again = resume(tmp_path / "run", workers=1, callbacks=events.append)
    assert (again.branch.number, again.test) == (done.branch.number, done.test)
    assert (events[0]["rows"], events[0]["validation_rows"]) == (120, 40)
    write_table(tmp_path, lacking=(3,))
    with pytest.raises(RunError, match=r"data set '.*t\.csv' is not the one the run was started with"):
        resume(tmp_path / "run")


def test_a_run_of_before_there_were_tables_resumes(tmp_path):
    save(create((64, 8, 10), seed=1), tmp_path / "a.onnx")
    done = evolve(
        tmp_path / "a.onnx",
        "digits",
        settings=SurgeonSettings.from_preset("corrected", **QUICK),
        run_dir=tmp_path / "run",
        workers=1,
    )
    file = tmp_path / "run" / "settings.json"
    record = json.loads(file.read_text())
    for name in ("target", "impute", "validation_fraction"):
        del record["data"][name]
    file.write_text(json.dumps(record))
    assert resume(tmp_path / "run", workers=1).test == done.test


def test_errors_are_one_line_and_exit_code_2(cli, tmp_path):
    write_table(tmp_path, lacking=(3,))
    write_arrays(tmp_path)
    save(create((4, 8, 2), seed=1), tmp_path / "a.onnx")
    (tmp_path / "empty").mkdir()
    (tmp_path / "ragged.csv").write_text("a,y\n1,2\n1\n")
    before = sorted(tmp_path.rglob("*"))
    table = ("--data", "t.csv", "--target", "y")
    for command in (("train", "-o", "b.onnx"), ("evaluate",), ("evolve",)):
        for arguments, text in (
            (table, "t.csv: row 4 (line 5), column 'b': expected a number, found nothing; --impute mean|median|"),
            (
                ("--data", "t.csv"),
                "t.csv: expected 4 columns for the input 'input' of 'a', found 6: 'a', 'b', 't=u', 't=v', 'y=high', ",
            ),
            ((*table, "--impute", "zero"), "impute: 'zero' is unknown: expected one of mean, median, most-frequent"),
            ((*table, "--target", "z"), "t.csv: no column 'z' to predict; it has 'a', 'b', 't', 'y'"),
            ((*table, "--validation-fraction", "2"), "validation-fraction: 2 does not lie between 0 and 1"),
            (("--data", "ragged.csv", "--target", "y"), "ragged.csv: row 2 (line 3): expected 2 cells, found 1"),
            (
                ("--data", "x.npy", "--target", "y"),
                "x.npy: expected --target with the .npy file of its labels; found 'y'",
            ),
            (("--data", "empty"), "empty: expected a folder of images for each class; found none"),
            (("--data", "digits", "--target", "y"), "digits: --target is for tables and arrays of your own"),
        ):
            name, *options = command
            code, out, err = cli(name, "a.onnx", *arguments, *options)
            assert (code, out, err.count("\n")) == (2, "", 1), err
            assert err.startswith(f"onnxsurgeon: {text}"), err
    for option in (("--target", "y"), ("--impute", "mean"), ("--validation-fraction", "0.2")):
        code, out, err = cli("evolve", "--resume", "empty", *option)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "--resume takes model, data and settings from the run" in err
    assert sorted(tmp_path.rglob("*")) == before


def test_columns_that_do_not_fit_the_model(tmp_path):
    write_table(tmp_path)
    data = load_dataset(str(tmp_path / "t.csv"), target=("y",))
    with pytest.raises(DataError, match="expected 5 columns for the input 'input' of 'model', found 4: 'a', "):
        prepare(create((5, 2)), data, data.train)
