"""The page about a run: what it says, what it links to, and that it can be read whatever state the run is in."""

import base64
import hashlib
import html
import json
import re
import shlex
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from onnxsurgeon import RunError, SurgeonSettings, evolve, load
from onnxsurgeon.cli import app
from onnxsurgeon.linear_algebra import singular_values
from onnxsurgeon.report import page as page_module
from onnxsurgeon.report import write_plots, write_report
from onnxsurgeon.report.invocation import read_invocation
from onnxsurgeon.report.layers import stages
from onnxsurgeon.report.pictures import PICTURES, gap, page_pictures
from onnxsurgeon.report.pictures.style import operations, spoken, style_of, styles
from onnxsurgeon.report.scene import make_scene
from onnxsurgeon.runs.family import Member
from onnxsurgeon.runs.history import read_history
from onnxsurgeon.runs.journal import RunDirectory
from tests.conftest import start_model
from tests.killed_run import SETTINGS

VOID = {"meta", "wbr", "link", "br", "hr", "img", "input", "path", "use", "rect"}


class Page(HTMLParser):
    """What the tests want to know of a page."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags, self.links, self.ids, self.values, self.open, self.text = [], [], [], [], [], ""
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.links += [attributes[name] for name in ("href", "src", "xlink:href") if name in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.values += [float(attributes["value"])] if tag == "data" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text += data

    @property
    def words(self):
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that ended, and its events."""
    folder = tmp_path_factory.mktemp("report")
    events = []
    settings = SurgeonSettings.from_preset("corrected", **SETTINGS)
    evolved = evolve(start_model(folder), "digits", settings=settings, run_dir=folder / "run", callbacks=events.append)
    return evolved, [event for event in events if event["event"] != "run"]


@pytest.fixture(scope="module")
def page(finished):
    """Its page."""
    return Page(write_report(finished[0].run))


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of it to damage."""
    return shutil.copytree(finished[0].run, tmp_path / "run", ignore=shutil.ignore_patterns("report.html"))


@pytest.fixture
def unillustrated(monkeypatch):
    """Pages without pictures, which take a hundred times as long as the rest."""
    monkeypatch.setattr(page_module, "_pictures", lambda scene: {})


def of(events, *kinds):
    return [event for event in events if event["event"] in kinds]


def rewrite(run, change):
    """Replace the journal's lines by what ``change`` makes of them."""
    journal = run / "journal.jsonl"
    journal.write_bytes(b"".join(change(journal.read_bytes().splitlines(keepends=True))))


def line_of(run, kind, count=0):
    """Index of a line of the journal that tells of such an event."""
    lines = (run / "journal.jsonl").read_bytes().splitlines()
    return [index for index, line in enumerate(lines) if json.loads(line)["event"] == kind][count]


def test_the_page_of_a_finished_run(finished, page):
    evolved, events = finished
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert len(page.source) < 2_000_000
    assert "Finished" in page.text
    assert evolved.network.topology in page.text
    assert f"{evolved.network.parameter_count:,}" in page.text
    for accuracy in (evolved.test.accuracy, evolved.start.accuracy, evolved.validation_accuracy):
        assert f"{accuracy:.4f}" in page.text
        assert accuracy in page.values
    for event in of(events, "proposed"):
        assert event["surgery"] in page.text
        assert event["reason"] in page.text
    assert drawn(page) == expected_pictures(evolved.run)
    assert "cannot be read" not in page.text
    assert not list(evolved.run.glob(".*"))


def drawn(page):
    """Names of the pictures."""
    names = {label: name for name, (_, label) in PICTURES.items()}
    return {names[attributes["aria-label"]] for tag, attributes in page.tags if tag == "svg" and "role" in attributes}


def expected_pictures(run):
    """All of them, but for the spectra of the lineage where no surgery lies on it."""
    lineage = read_history(RunDirectory(run)).lineage()
    return set(PICTURES) - (set() if any(member.operated for member in lineage) else {"spectra"})


def scene_of(run):
    run = RunDirectory(run)
    return make_scene(read_history(run), read_invocation(run))


def test_its_accuracies_are_the_journals(finished, page):
    evolved, events = finished
    measured = [event["accuracy"] for event in of(events, "recuperated", "trained")]
    given = of(events, "started")[0]["accuracies"][0]
    headline = [given, evolved.validation_accuracy, evolved.start.accuracy, evolved.test.accuracy]
    assert sorted(page.values) == sorted([*measured, given, *headline])
    # Every one of them in the row of its branch, with gain and score.
    rows = {int(number): row for number, row in re.findall(r'<tr id="branch-(\d+)"(.*?)</tr>', page.source, re.DOTALL)}
    latest = {event["branch"]: event for event in of(events, "recuperated", "trained")}
    assert rows.keys() == {0, *latest}
    for event in of(events, "recuperated", "trained"):
        assert f'<data value="{event["accuracy"]}">{event["accuracy"]:.4f}</data>' in rows[event["branch"]]
    for branch, event in latest.items():
        assert f"<span>{event['gain']:+.4f}</span>".replace("-", "−") in rows[branch]
        assert f"<span>{event['score']:.4f}</span>" in rows[branch]
        assert f"<span>{event['topology']}</span>" in rows[branch]


def test_every_branch_is_linked_and_every_link_leads_somewhere(finished, page):
    evolved, _ = finished
    files = [link for link in page.links if not link.startswith(("#", "data:"))]
    for link in files:
        assert (evolved.run / unquote(link)).is_file(), link
    assert {unquote(link) for link in files} >= {
        f"branches/{path.name}" for path in evolved.run.glob("branches/*.onnx")
    }
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    for name in re.findall(r"url\(#(.*?)\)", page.source):
        assert name in page.ids


def test_nothing_is_loaded_from_elsewhere_and_nothing_else_runs(page):
    for link in page.links:
        assert "://" not in link
        assert not link.startswith("//")
    assert not {tag for tag, _ in page.tags} & {"img", "iframe", "object", "embed"}
    assert [attributes for tag, attributes in page.tags if tag == "link"] == [{"rel": "icon", "href": "data:,"}]
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [{}]
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.source
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert "@import" not in page.source
    assert set(re.findall(r"https?://[^\"'\s<]+", page.source)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "default-src 'none'" in page.source


def test_the_same_run_gives_the_same_page(finished, page):
    path = write_report(finished[0].run)
    assert path == finished[0].run / "report.html"
    assert path.read_text(encoding="utf-8") == page.source


def test_the_fates_are_the_runs(finished):
    evolved, events = finished
    history = read_history(RunDirectory(evolved.run))
    kept = {branch for event in of(events, "started", "decided") for branch in event["branches"]}
    assert {number for number, member in history.members.items() if member.kept} == kept
    fates = {number: history.fate(member) for number, member in history.members.items()}
    assert fates[0] == "given model"
    for event in of(events, "dropped"):
        assert fates[event["branch"]].startswith("dropped: ")
    assert set(fates.values()) == {
        "given model",
        "kept",
        "dropped: scored below those kept",
        "dropped: less accurate than before",
    }
    assert [member.surgery for member in history.lineage() if member.operation not in ("start", "identity")] == list(
        evolved.branch.lineage
    )
    assert history.members[0].parameters == 1620


@pytest.mark.parametrize("step", ["standardise", "refit"])
def test_what_a_search_does_besides_surgeries_is_named(finished, step):
    member = replace(read_history(RunDirectory(finished[0].run)).members[0], surgery=step)
    assert operations([member]) == [step]
    assert spoken(step).startswith(f"{step}: ")
    assert style_of(member) not in [styles()[other] for other in styles() if other != step]


def test_the_pictures_can_be_read_on_white_and_on_black(page):
    pictures = re.findall(r"<svg .*?</svg>", page.source, re.DOTALL)
    for picture in pictures:
        assert "currentColor" in picture
        assert not re.search(r"#(000000|ffffff|010203)", picture)
        assert "<style" not in picture
    assert any("stroke-dasharray" in picture and ">given<" in picture for picture in pictures)
    assert len(re.findall(r"<text", "".join(pictures))) > 20


def test_pictures_of_a_run_that_has_just_begun(copy):
    rewrite(copy, lambda lines: lines[:1])
    pictures = page_pictures(scene_of(copy), {})
    assert pictures.keys() == {"accuracy", "size", "widths", "networks"}
    assert ">given<" in pictures["accuracy"]
    assert 'data-branch="0"' in pictures["size"]


def test_pictures_of_a_history_without_its_beginning(copy):
    rewrite(copy, lambda lines: lines[line_of(copy, "trained", 2) :][:1])
    pictures = page_pictures(scene_of(copy), {})
    assert pictures.keys() == {"accuracy", "size"}
    assert not any(">given<" in picture for picture in pictures.values())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        ([0.5], None),
        ([0.5, 0.5], None),
        ([0.1, 0.8, 0.85, 0.9], (0.1, 0.8)),
        ([0.1, 0.3, 0.5, 0.7], None),
        ([0.1, 0.12, 0.9], None),  # one outlier at the top is what the picture is about
    ],
)
def test_where_an_axis_is_broken(values, expected):
    assert gap(values) == expected


def test_text_from_outside_is_escaped(copy):
    record = json.loads((copy / "settings.json").read_text())
    record["model"]["file"] = "models & more/<b>x</b>.onnx"
    record["data"]["name"] = '<img src=x onerror="y">'
    record["versions"]["<i>python</i>"] = "'\"><script>"
    (copy / "settings.json").write_text(json.dumps(record))
    event = {"event": "proposed", "branch": 999, "parent": 1, "surgery": "<u>$\\x$</u>", "score": 1, "parameters": 5}
    events = [event | {"reason": "\ud800</td><script>", "epoch": 2, "draw": 0}]
    events.append({"event": "trained", "branch": 999, "parent": 1, "surgery": "<u>$\\x$</u>", "topology": "<s>"})
    events[1] |= {"parameters": 5, "epoch": 2, "accuracy": 0.5, "gain": 0, "loss": 1, "score": 1, "digest": ""}
    rewrite(copy, lambda lines: [*lines, *(json.dumps(event).encode() + b"\n" for event in events)])
    page = Page(write_report(copy))
    assert not {tag for tag, _ in page.tags} & {"b", "i", "u", "s", "img"}
    assert [tag for tag, _ in page.tags].count("script") == 1  # the page's own
    assert "x</b>" not in page.source
    assert html.escape("'models & more/<b>x</b>.onnx'", quote=False) in page.source.replace("&#39;", "'")
    assert "<u>$\\x$</u>" in page.text
    assert page.open == []


def test_the_command_runs_the_same_again_even_if_names_are_markup(tmp_path, monkeypatch, unillustrated):
    (tmp_path / "<b>x<").mkdir()
    model = start_model(tmp_path).rename(tmp_path / "<b>x<" / "b>.onnx")
    settings = SurgeonSettings.from_preset("corrected", **SETTINGS | {"epochs": 4, "random_draw": False})
    run = RunDirectory(evolve(model, "digits", settings=settings, run_dir=tmp_path / "run <i>").run)
    page = Page(write_report(run.path))
    assert not {tag for tag, _ in page.tags} & {"b", "i"}
    assert "b>.onnx on digits" in page.text
    command = read_invocation(run).command
    assert command in page.text
    words = shlex.split(command)
    assert words[:3] == ["onnxsurgeon", "evolve", str(model)]
    again = RunDirectory(tmp_path / "again")
    monkeypatch.setattr(sys, "argv", [*words, "--run-dir", str(again.path)])
    app(standalone_mode=False)
    assert again.best.read_bytes() == run.best.read_bytes()
    assert again.read_settings() == run.read_settings()


@pytest.mark.parametrize("kind", ["started", "proposed", "recuperated", "trained", "decided"])
@pytest.mark.parametrize("ending", [b"", b'{"event": "tra'], ids=["whole", "cut off"])
def test_a_run_that_goes_on_or_was_killed(kind, ending, copy, unillustrated):
    last = line_of(copy, kind, 0 if kind in ("started", "proposed") else -1)
    rewrite(copy, lambda lines: [*lines[: last + 1], ending])
    page = Page(write_report(copy))
    assert "Not finished: at epoch" in page.text
    assert f"onnxsurgeon evolve --resume {copy}" in page.text
    assert ("is cut off" in page.text) == bool(ending)
    assert "cannot be read" not in page.text
    assert "measured once, at the end" in page.text
    assert ("not decided" in page.text) == (kind in ("proposed", "recuperated", "trained"))


@pytest.mark.parametrize("content", [None, b"", b'{"event": "sta', b"\x00\xff\n[1]\n"])
def test_a_run_whose_journal_tells_nothing(content, copy):
    (copy / "journal.jsonl").unlink()
    if content is not None:
        (copy / "journal.jsonl").write_bytes(content)
    page = Page(write_report(copy))
    assert "nothing is decided yet" in page.text
    assert ("Lines 1, 2 of journal.jsonl cannot be read" in page.words) == (content == b"\x00\xff\n[1]\n")
    assert "<svg" not in page.source


DAMAGED = [
    b"",
    b"\xff\xfe",
    b"null",
    b"{}",
    b'{"event": "trained"}',
    b'{"event": 3}',
    b"[" * 100_000,
    b'{"event": "trained", "branch": 5, "accuracy": NaN}',
    b'{"event": "decided", "epoch": 4, "branches": [], "topologies": []}',
]


@pytest.mark.parametrize("damaged", DAMAGED, ids=lambda line: line[:30].decode(errors="replace"))
def test_a_damaged_line_is_left_out_and_told(damaged, copy, unillustrated):
    last = line_of(copy, "trained", 2)
    rewrite(copy, lambda lines: [*lines[:last], damaged + b"\n", *lines[last + 1 :]])
    page = Page(write_report(copy))
    assert f"Line {last + 1} of journal.jsonl cannot be read" in page.words
    assert "Finished" in page.text


def test_any_line_can_be_missing(finished):
    run = RunDirectory(finished[0].run)
    lines = run.journal.read_bytes().splitlines(keepends=True)
    whole = read_history(run)
    try:
        for index in range(0, len(lines), 4):
            run.journal.write_bytes(b"".join([*lines[:index], b"?\n", *lines[index + 1 :]]))
            history = read_history(run)
            assert history.damaged == [index + 1]
            for number, member in history.members.items():
                assert history.fate(member) in (whole.fate(whole.members[number]), "not known", "not decided")
    finally:
        run.journal.write_bytes(b"".join(lines))


@pytest.mark.parametrize("kind", ["started", "proposed", "trained", "decided", "finished"])
def test_a_page_without_some_line(kind, copy, unillustrated):
    missing = line_of(copy, kind, -1)
    rewrite(copy, lambda lines: [*lines[:missing], b"?\n", *lines[missing + 1 :]])
    page = Page(write_report(copy))
    assert f"Line {missing + 1} of journal.jsonl cannot be read" in page.words
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_a_branch_without_a_file_is_not_linked(copy, unillustrated):
    removed = next(copy.glob("branches/0003-*.onnx"))
    removed.unlink()
    (copy / "best.onnx").unlink()  # a run has none before its first decision point
    (copy / "branches" / "0000-start.onnx").write_bytes(b"damaged")
    page = Page(write_report(copy))
    assert f"branches/{removed.name}" not in page.links
    assert "best.onnx" not in page.links
    assert 'id="branch-3"' in page.source


def test_the_command_spells_every_option(copy, unillustrated):
    record = json.loads((copy / "settings.json").read_text())
    record["settings"] |= {"preset": "paper", "step_back": False, "time_limit": 5.0, "widen": "equal", "from_later": 1}
    record["settings"] |= {"rank_bound": False, "decide_by": "test", "pick": "best-score"}
    record["data"] |= {"folder": "my data", "options": {"layout": "chw", "scale": 0.5, "mean": [0.1, -0.2], "std": []}}
    record["device"] = "cuda"
    (copy / "settings.json").write_text(json.dumps(record))
    words = shlex.split(read_invocation(RunDirectory(copy)).command)
    for expected in (
        ["--preset", "paper"],
        ["--no-step-back"],
        ["--time-limit", "5.0"],
        ["--data-dir", "my data"],
        ["--layout", "chw"],
        ["--scale", "0.5"],
        ["--mean", "0.1,-0.2"],
        ["--engine", "loop"],
        ["--device", "cuda"],
    ):
        start = words.index(expected[0])
        assert words[start : start + len(expected)] == expected
    assert not {"--widen", "--no-rank-bound", "--decide-by", "--std", "--target-accuracy"} & set(words)
    page = Page(write_report(copy))
    assert "test accuracy, which decides" in page.text


def test_what_cannot_be_reported_is_told_in_a_line(copy, tmp_path):
    with pytest.raises(RunError, match=r"not a run directory: no settings\.json in it"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(RunError, match="not a run directory"):
        write_report(copy / "branches")
    (copy / "settings.json").write_text('{"settings": {}}')
    with pytest.raises(RunError, match="lacks or misnames an entry"):
        write_report(copy)
    (copy / "settings.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        write_report(copy)
    assert not (copy / "report.html").exists()


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_told(package, copy, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("onnxsurgeon.report.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RunError, match=r"^report needs pip install 'onnxsurgeon\[report\]'$"):
        write_report(copy)


def test_the_pictures_are_files_too(copy, tmp_path):
    paths = write_plots(copy)
    expected = expected_pictures(copy)
    assert {path.name for path in paths} == {f"{name}.{kind}" for name in expected for kind in ("svg", "png")}
    assert sorted(paths) == sorted((copy / "plots").iterdir())
    for path in paths:
        if path.suffix == ".svg":
            root = ElementTree.parse(path).getroot()
            assert root.tag.endswith("svg")
            assert "currentColor" not in path.read_text()
        else:
            assert path.read_bytes().startswith(b"\x89PNG")
    before = {path: path.read_bytes() for path in paths}
    assert {path: path.read_bytes() for path in write_plots(copy)} == before
    shutil.rmtree(copy / "plots")
    (copy / "plots").write_text("in the way")
    with pytest.raises(RunError, match="plots: cannot be made"):
        write_plots(copy)


def test_the_command_writes_plots_only_if_asked_to(copy, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["onnxsurgeon", "report", str(copy)])
    app(standalone_mode=False)
    assert not (copy / "plots").exists()
    monkeypatch.setattr(sys, "argv", ["onnxsurgeon", "report", str(copy), "--plots"])
    app(standalone_mode=False)
    assert str(copy / "plots" / "accuracy.png") in capsys.readouterr().out.splitlines()


def test_the_spectra_are_those_of_the_branch_files(finished):
    evolved, events = finished
    history = read_history(RunDirectory(evolved.run))
    operated = of(events, "operated")
    proposed = [event["branch"] for event in of(events, "proposed") if event["surgery"] != "identity"]
    assert [event["branch"] for event in operated] == proposed
    for event in operated:
        member = history.members[event["branch"]]
        parent = load(evolved.run / "branches" / history.members[member.parent].file)
        before = singular_values(parent.hidden(event["layer"]).weight)
        # A parent that was trained on since has another file than the one that was operated on.
        if history.members[member.parent].kept:
            assert member.operated.before.values == pytest.approx(before, rel=1e-5)
        made = 2 if member.operation in ("factorize", "insert_identity") else 1
        assert [spectrum.count > 0 for spectrum in member.operated.after] == [True] * made
        if member.operation == "narrow":
            (after,) = member.operated.after
            assert after.values == pytest.approx(before[: after.count], rel=1e-4)


def test_the_matrix_counts_the_test_rows(finished, digits):
    evolved, events = finished
    (head,) = of(events, "finished")[0]["predictions"]
    total = sum(rows for _, _, rows in head["cells"])
    right = sum(rows for true, told, rows in head["cells"] if true == told)
    assert total == digits.test.rows
    assert right / total == evolved.test.accuracy
    counts = np.bincount(digits.test.labels, minlength=10)
    assert [sum(rows for true, _, rows in head["cells"] if true == digit) for digit in range(10)] == counts.tolist()


def test_a_run_from_before_spectra_and_predictions(copy):
    def older(lines):
        for line in lines:
            event = json.loads(line)
            event.pop("predictions", None)
            if event["event"] != "operated":
                yield json.dumps(event).encode() + b"\n"

    rewrite(copy, older)
    page = Page(write_report(copy))
    assert "cannot be read" not in page.text
    assert drawn(page) == set(PICTURES) - {"spectra", "other-spectra", "predictions"}
    assert not {"spectra", "predictions"} & set(page.ids)  # no section without anything in it
    assert not [link for link in page.links if link in ("#spectra", "#predictions")]


@pytest.mark.parametrize(
    "damage",
    [
        {"predictions": [{"kind": "classes", "classes": 2, "names": [], "cells": [[0, 5, 1]]}]},
        {"predictions": [{"kind": "values", "targets": [[[1, float("nan")]]]}]},
        {"predictions": [{"kind": "values", "targets": 3}]},
        {"predictions": [{"kind": "labels", "names": [], "counts": [[1, 2]]}]},
        {"predictions": [{"kind": "else"}]},
        {"predictions": [{}, 4]},
    ],
)
def test_damaged_predictions_are_told(damage, copy, unillustrated):
    last = line_of(copy, "finished")
    rewrite(copy, lambda lines: [*lines[:last], json.dumps(json.loads(lines[last]) | damage).encode() + b"\n"])
    assert f"Line {last + 1} of journal.jsonl cannot be read" in Page(write_report(copy)).words


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        ({"kind": "labels", "names": ["rain", "wind"], "counts": [[5, 1, 2, 9], [3, 0, 0, 14]]}, "rain 5 1 2 9"),
        (
            {"kind": "classes", "classes": 900, "names": [], "cells": [[3, 777, 41]]},
            "of 900 classes would show nothing",
        ),
        ({"kind": "values", "targets": [[[1, 1.5], [2, 1.75]], [[0, 0], [3, 2]]]}, "2 rows of the test split"),
    ],
)
def test_other_kinds_of_predictions(predictions, expected, copy):
    last = line_of(copy, "finished")
    change = {"predictions": [predictions, predictions]}
    rewrite(copy, lambda lines: [*lines[:last], json.dumps(json.loads(lines[last]) | change).encode() + b"\n"])
    page = Page(write_report(copy))
    assert expected in page.words
    assert "The first of 2 heads is drawn" in page.words
    assert ("predictions" in drawn(page)) == (predictions["kind"] == "values")


def test_the_front_is_beaten_by_none(finished):
    history = read_history(RunDirectory(finished[0].run))
    front = history.front()
    assert history.result in {member.number for member in front} or history.finish.validation_accuracy < max(
        member.latest.accuracy for member in front
    )
    for member in history.measured:
        better = [
            other
            for other in front
            if other.parameters <= member.parameters and other.latest.accuracy >= member.latest.accuracy
        ]
        assert better


def test_the_papers_figure_is_shown_for_its_network(copy, tmp_path):
    record = json.loads((copy / "settings.json").read_text())
    record["data"]["name"] = "fashion-mnist"
    (copy / "settings.json").write_text(json.dumps(record))
    assert scene_of(copy).paper is None  # another topology than the paper's
    first = line_of(copy, "started")
    given = {"topologies": ["784-10-10"]}
    started = json.loads((copy / "journal.jsonl").read_bytes().splitlines()[first]) | given
    del started["checksum"]
    rewrite(copy, lambda lines: [json.dumps(started).encode() + b"\n", *lines[first + 1 :]])
    assert scene_of(copy).paper.baseline == "0.85"
    assert "Table 3" in Page(write_report(copy)).text


@pytest.mark.parametrize(
    ("surgeries", "expected"),
    [
        (["8-4-3-2"], [{0: 4, 1: 3}]),
        (["8-4-3-2", "widen:1:2 8-6-3-2"], [{0: 4, 1: 3}, {0: 6, 1: 3}]),
        (["8-4-3-2", "insert_identity:1 8-4-4-3-2"], [{0: 4, 1: 3}, {0: 4, 2: 4, 1: 3}]),
        (["8-4-3-2", "factorize:1:2 8-2-4-3-2"], [{0: 4, 1: 3}, {2: 2, 0: 4, 1: 3}]),
        (["8-4-3-2", "merge:1 8-3-2", "identity 8-3-2"], [{0: 4, 1: 3}, {1: 3}]),
        (["8-4-2+4-3-1", "narrow:2:1 8-4-2+4-1-1"], [{0: 4, 1: 3}, {0: 4, 1: 1}]),
        (
            ["c1-c8+c8-c4-c16+784-10", "insert_identity:2+insert_identity:4+widen:2:2 c1-c8-c8+c8-c6-c16-c16+784-10"],
            [{0: 4}, {1: 8, 0: 6, 2: 16}],
        ),
        (
            ["c1-c8+c8-c4-c16+784-10", "prune:1:3+factorize_data:3:2+factorize_data:3:2 c1-c2-c8+c8-c3-c2-c16+784-10"],
            [{0: 4}, {1: 2, 0: 3, 2: 2}],
        ),
        (
            [
                "c1-c8+c8-c4-c16+784-10",
                "insert_behind_pool:3+insert_identity:4+widen:1:3 c1-c8+c8-c7-c16+c16-c16-c16+784-10",
            ],
            [{0: 4}, {0: 7, 1: 16}],
        ),
        (
            ["c1-c8+c8-c4-c16+784-10", "insert_behind_pool:2+widen:2:3 c1-c8+c8-c8-c7-c16+784-10"],
            [{0: 4}, {1: 8, 0: 7}],
        ),
        (["8-4-2", "widen:x 8-4-9-9-2"], [{0: 4}, {1: 4, 2: 9, 3: 9}]),  # what no such surgery makes
        (["no topology"], []),
    ],
)
def test_layers_keep_their_numbers_through_surgeries(surgeries, expected):
    lineage = []
    for number, words in enumerate(surgeries):
        surgery, _, topology = ("start " + words if number == 0 else words).partition(" ")
        lineage.append(Member(number, surgery=surgery, topology=topology))
    assert [stage.layers for stage in stages(lineage)] == expected
    assert [list(stage.layers) for stage in stages(lineage)] == [list(layers) for layers in expected]


def test_what_has_diverged_is_told_and_not_called_damaged(copy):
    def diverge(line):
        event = json.loads(line)
        if event["event"] == "operated":
            event["after"] = [
                each and {**each, "values": [v * 1e25 for v in each["values"]]} for each in event["after"]
            ]
        if event["event"] in ("recuperated", "trained"):
            event |= {"accuracy": -4e27, "gain": -4e27, "score": -4e27, "loss": 1e80}
        if event["event"] == "started":
            event |= {"best_accuracy": -4e27}
            del event["checksum"]
        return json.dumps(event).encode() + b"\n"

    rewrite(copy, lambda lines: [diverge(line) for line in lines])
    history = read_history(RunDirectory(copy))
    assert history.damaged == []
    assert {member.points[-1].accuracy for member in history.members.values() if member.points} == {-4e27}
    assert "cannot be read" not in Page(write_report(copy)).text


def test_control_characters_in_names_of_classes_are_shown(copy):
    """Escape codes, halves of surrogate pairs and marks that turn the direction of writing; a script without glyphs."""
    names = ["a\x1b[31m", "b\ud800", "c\u202e", "\u732b", "$\\x$"]
    last = line_of(copy, "finished")
    matrix = {"kind": "classes", "classes": 5, "names": names, "cells": [[i, (i + 1) % 5, 3] for i in range(5)]}
    change = {"predictions": [matrix, matrix]}
    rewrite(copy, lambda lines: [*lines[:last], json.dumps(json.loads(lines[last]) | change).encode() + b"\n"])
    page = Page(write_report(copy))
    wanted = ("a\\x1b[31m", "c\\u202e", "\u732b", "$\\x$")
    assert [name for name in wanted if name not in page.text] == []
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", page.source)
    for path in write_plots(copy):
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
