"""Two runs on one page: what it says of each, what it warns of, and that it is read in a browser."""

import json
import shutil

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from onnxsurgeon import RunError, SurgeonSettings, evolve
from onnxsurgeon.report import write_side_by_side
from tests.browser import Visit, browser  # noqa: F401
from tests.conftest import start_model
from tests.killed_run import SETTINGS

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two runs from one model, one of them shorter and with another learning rate."""
    folder = tmp_path_factory.mktemp("two")
    start = start_model(folder)
    found = []
    for name, changes in {"long": {}, "short": {"epochs": 6, "learning_rate": 0.2}}.items():
        settings = SurgeonSettings.from_preset("corrected", **{**SETTINGS, **changes})
        found.append(evolve(start, "digits", settings=settings, run_dir=folder / name))
    return found


def test_two_runs_are_set_side_by_side(browser, two):  # noqa: F811
    page_file = write_side_by_side(*(each.run for each in two))
    with Visit(browser) as visit:
        page = visit.page
        page.goto(page_file.as_uri())
        rows = page.locator("table").first.locator("tbody tr").all_inner_texts()
        table = {name: values for name, *values in (row.split("\t") for row in rows)}
        assert table["topology"] == [each.network.topology for each in two]
        assert table["parameters"] == [f"{each.network.parameter_count:,}" for each in two]
        assert table["test accuracy"] == [f"{each.test.accuracy:.4f}" for each in two]
        assert table["training steps"] == [f"{each.steps:,}" for each in two]
        differing = page.locator(".settings tbody tr").evaluate_all("rows => rows.map(row => row.cells[0].innerText)")
        assert differing == ["epochs", "learning-rate"]
        assert page.locator(".sides section").count() == 2
        assert page.locator(".sides .large .value").count() >= 4
        assert page.locator(".pictures svg").count() == 2
        assert page.locator(".notice").count() == 0
        ids = page.locator("[id]").evaluate_all("all => all.map(each => each.id)")
        assert len(ids) == len(set(ids))
        assert visit.errors == []
        assert visit.elsewhere == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(scheme, browser, two):  # noqa: F811
    page_file = write_side_by_side(*(each.run for each in two))
    with Visit(browser, viewport=PHONE, color_scheme=scheme) as visit:
        visit.page.goto(page_file.as_uri())
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_what_cannot_be_compared_is_said(two, tmp_path):
    other = shutil.copytree(two[1].run, tmp_path / "<other>")
    record = json.loads((other / "settings.json").read_text())
    record["data"]["digest"], record["metric"] = "0" * 64, "balanced accuracy"
    (other / "settings.json").write_text(json.dumps(record))
    words = write_side_by_side(two[0].run, other).read_text(encoding="utf-8")
    assert "The runs saw different data" in words
    assert "different measures, held-out accuracy and held-out balanced accuracy" in words
    assert "<other>" not in words
    assert "&lt;other&gt;" in words


def test_a_run_that_has_just_begun_is_set_beside_another(two, tmp_path):
    begun = shutil.copytree(two[1].run, tmp_path / "begun")
    (begun / "journal.jsonl").write_bytes(b"")
    assert "nothing is decided yet" in write_side_by_side(two[0].run, begun).read_text(encoding="utf-8")
    assert "Finished" in write_side_by_side(begun, two[0].run).read_text(encoding="utf-8")


def test_the_command_writes_the_page(two, cli, tmp_path):
    first = shutil.copytree(two[0].run, tmp_path / "first")
    code, out, err = cli("report", str(first), str(two[1].run))
    assert (code, out, err) == (0, f"{first / 'side_by_side.html'}\n", "")
    assert not (first / "report.html").exists()
    code, _, err = cli("report", str(first), str(tmp_path))
    assert (code, "not a run directory" in err) == (2, True)


def test_no_link_is_written_through(two, tmp_path):
    run = shutil.copytree(two[0].run, tmp_path / "run")
    (run / "side_by_side.html").unlink(missing_ok=True)
    (run / "side_by_side.html").symlink_to(tmp_path / "elsewhere.html")
    with pytest.raises(RunError, match="link"):
        write_side_by_side(run, two[1].run)
