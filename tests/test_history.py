"""A run's history as rows, DataFrame and table."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

import onnxsurgeon
from onnxsurgeon import RunError, SurgeonSettings, evolve, load, read_run
from onnxsurgeon.runs.table import COLUMNS
from tests.conftest import need, start_model
from tests.killed_run import SETTINGS


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder, events = tmp_path_factory.mktemp("history"), []
    settings = SurgeonSettings.from_preset("corrected", **SETTINGS)
    result = evolve(start_model(folder), "digits", settings=settings, run_dir=folder / "run", callbacks=events.append)
    return result, events


def test_a_row_for_every_measured_branch_with_its_latest_figures(finished):
    result, events = finished
    measured = {event["branch"]: event for event in events if event["event"] in ("recuperated", "trained")}
    assert [row["number"] for row in result.history] == sorted({0, *measured})
    for row in result.history:
        assert tuple(row) == COLUMNS
        assert load(row["file"]).topology == row["topology"]
        if row["number"]:
            event = measured[row["number"]]
            for key in ("parent", "surgery", "epoch", "topology", "parameters", "accuracy", "gain", "loss", "score"):
                assert row[key] == event[key]
            assert row["stage"] == event["event"]
    proposed = {event["branch"]: event for event in events if event["event"] == "proposed"}
    for row in result.history:
        if row["number"] in proposed:
            event = proposed[row["number"]]
            found = (row["proposal"], row["reason"], row["decision_epoch"], row["draw"])
            assert found == (event["score"], event["reason"], event["epoch"], event["draw"])


def test_kept_outcome_and_result(finished):
    result, events = finished
    kept = {number for event in events if event["event"] in ("started", "decided") for number in event["branches"]}
    dropped = {event["branch"] for event in events if event["event"] == "dropped"}
    assert dropped
    assert kept
    for row in result.history:
        assert row["kept"] == (row["number"] in kept)
        assert row["outcome"].startswith("dropped") == (row["number"] in dropped)
    assert [row["number"] for row in result.history if row["result"]] == [result.branch.number]


def test_the_same_rows_later_from_the_run_directory(finished):
    result, _ = finished
    record = read_run(str(result.run))
    assert record.finished
    assert record.history == result.history
    assert record.damaged == ()
    json.dumps(record.history, allow_nan=False)  # plain values, all of them


def test_no_extra_is_needed(finished):
    code = f"""
import sys
for name in ("matplotlib", "jinja2", "pandas", "tensorboard", "mlflow"):
    sys.modules[name] = None
import onnxsurgeon
record = onnxsurgeon.read_run({str(finished[0].run)!r})
print(len(record.history), "<table" in record._repr_html_())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(finished[0].history)), "True"]


def test_a_data_frame_in_one_call(finished):
    pd = need("pandas")
    result, _ = finished
    frame = result.to_frame()
    assert list(frame.columns) == list(COLUMNS)
    for row, (_, found) in zip(result.history, frame.iterrows(), strict=True):
        for key, value in row.items():
            assert pd.isna(found[key]) if value is None else found[key] == value, key
    assert str(frame["parent"].dtype) == "Int64"  # though the given model has none
    assert frame["parent"].isna().tolist() == [row["parent"] is None for row in result.history]
    assert {str(frame[name].dtype) for name in ("accuracy", "gain", "loss", "score", "proposal")} == {"float64"}
    best = frame[frame["result"]].iloc[0]
    assert best["accuracy"] == result.validation_accuracy


def test_without_pandas_it_says_what_to_install(finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(RunError, match=re.escape("pip install 'onnxsurgeon[pandas]'")):
        finished[0].to_frame()


class Cells(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.rows, self.tags = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip("\n")


def test_a_notebook_shows_a_table(finished):
    result, _ = finished
    head, *rows = Cells(result._repr_html_()).rows
    assert len(rows) == len(result.history)
    for shown, row in zip(rows, result.history, strict=True):
        cells = dict(zip(head, shown, strict=True))
        assert cells["number"] == str(row["number"])
        assert cells["topology"] == row["topology"]
        assert cells["accuracy"] == f"{row['accuracy']:.4f}"
        assert cells["outcome"] == row["outcome"]
    assert "font-weight: bold" in result._repr_html_()


def test_the_table_escapes_what_a_journal_holds(finished, tmp_path):
    lines = (finished[0].run / "journal.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    for event in events:
        if event["event"] in ("recuperated", "trained"):
            event["topology"] = event["surgery"] = "<script>alert(1)</script>&"
    folder = tmp_path / "<b>run"
    (folder / "branches").mkdir(parents=True)
    (folder / "settings.json").write_text("{}")
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    text = read_run(folder)._repr_html_()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in text
    assert Cells(text).tags == {"p", "div", "table", "thead", "tbody", "tr", "th", "td"}


def test_one_line_says_what_it_is(finished):
    result, _ = finished
    assert repr(result) == (
        f"<Evolved {result.run}: {result.network.topology}, {result.network.parameter_count:,} parameters, accuracy: "
        f"validation {result.validation_accuracy:.4f}, test {result.test.accuracy:.4f}>"
    )
    count = len(result.history)
    best = f"best {result.branch.number} ({result.network.topology}) {result.validation_accuracy:.4f}"
    assert repr(read_run(result.run)) == f"<RunRecord {result.run}: finished, {count} branches, {best}>"


def test_a_run_that_is_going_on_or_damaged_can_be_read(finished, tmp_path):
    lines = (finished[0].run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "branches").mkdir()
    (tmp_path / "settings.json").write_text("{}")
    measured = next(i for i, line in enumerate(lines) if json.loads(line)["event"] == "recuperated")
    lines[measured] = b"\x00" + lines[measured]
    (tmp_path / "journal.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]) + b'{"event": "tra')
    record = read_run(tmp_path)
    assert not record.finished
    assert record.damaged == (measured + 1,)
    assert 0 < len(record.history) < len(finished[0].history)
    assert "not finished" in repr(record)
    assert "1 damaged lines left out" in repr(record)


def test_what_is_no_run_is_an_error(tmp_path):
    with pytest.raises(RunError, match="not a run directory"):
        onnxsurgeon.read_run(tmp_path)
