"""The page about a run in a browser: its links, hiding branches, narrow screens, print, and without script."""

import functools
import re
import threading
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import onnx
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from onnxsurgeon import SurgeonSettings, create, evolve
from onnxsurgeon.quantities import spell_latency, spell_size
from onnxsurgeon.report import write_report
from tests.browser import Visit, browser  # noqa: F401
from tests.conftest import start_model
from tests.killed_run import SETTINGS

PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    settings = SurgeonSettings.from_preset("corrected", **SETTINGS)
    evolved = evolve(start_model(folder), "digits", settings=settings, run_dir=folder / "run")
    write_report(evolved.run)
    return evolved


@pytest.fixture(scope="module")
def pareto(tmp_path_factory):
    """A run whose objective is the front."""
    folder = tmp_path_factory.mktemp("front")
    settings = SurgeonSettings.from_preset("default", objective="pareto", epochs=6)
    start = create((64, 24, 10), input_shape=(8, 8, 1))
    evolved = evolve(start, "digits", settings=settings, run_dir=folder / "run")
    write_report(evolved.run)
    return evolved


@contextmanager
def served(folder):
    """The folder through a server on this machine, which keeps silent."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def opened(browser, run, **context):  # noqa: F811
    """The page from its file; at the end nothing went wrong and nothing was asked of other hosts."""
    with Visit(browser, **context) as visit:
        visit.page.goto((run.run / "report.html").as_uri())
        yield visit.page
        assert visit.errors == []
        assert visit.elsewhere == []


def visible(page, branch, selector=".mark"):
    """How many of the branch's marks, or of what else is asked for, can be seen."""
    script = "found => found.filter(each => getComputedStyle(each).visibility === 'visible').length"
    return page.locator(f'{selector}[data-branch="{branch}"]').evaluate_all(script)


def test_a_branchs_link_leads_to_its_model(browser, run):  # noqa: F811
    with served(run.run) as address, Visit(browser) as visit:
        page = visit.page
        page.goto(f"{address}/report.html")
        link = page.locator(".front a").first
        with page.expect_download() as download:
            link.click()
        model = onnx.load(download.value.path())
        onnx.checker.check_model(model)
        assert download.value.suggested_filename == link.get_attribute("href").rpartition("/")[2]
        assert "Gemm" in {node.op_type for node in model.graph.node}
        assert visit.errors == []
        assert visit.elsewhere == []


def test_a_branch_is_hidden_and_shown(browser, run):  # noqa: F811
    branch = run.branch.number
    with opened(browser, run) as page:
        page.locator("summary", has_text="as a table").click()
        before = visible(page, branch)
        assert before >= 3  # by epoch, against size, in the tree
        others = page.locator("tr[data-branch]:visible").count()
        row = page.locator(f"#branch-{branch}")
        row.hover()
        row.get_by_role("button", name=f"hide branch {branch}").click()
        assert visible(page, branch) == visible(page, branch, ".trail") == 0
        assert not row.is_visible()
        assert visible(page, 0) > 0
        page.get_by_role("button", name=f"branch {branch}", exact=True).click()
        assert visible(page, branch) == before
        assert row.is_visible()
        assert page.locator("tr[data-branch]:visible").count() == others


def test_an_operation_is_hidden_and_shown(browser, run):  # noqa: F811
    with opened(browser, run) as page:
        widened = page.locator('tr[data-operation="widen"]').evaluate_all("rows => rows.map(row => row.dataset.branch)")
        assert widened
        box = page.get_by_role("checkbox", name="widen")
        box.uncheck()
        assert not any(visible(page, branch) for branch in widened)
        assert visible(page, 0) > 0
        box.check()
        assert all(visible(page, branch) for branch in widened)


def test_a_mark_tells_of_its_branch(browser, run):  # noqa: F811
    branch, accuracy = run.branch.number, f"{run.validation_accuracy:.4f}"
    with opened(browser, run) as page:
        card = page.locator("#card")
        mark = page.locator(f'.tree .mark[data-branch="{branch}"]')
        mark.focus()
        words = card.inner_text()
        for expected in (f"branch {branch}: {run.branch.surgery}", run.network.topology, accuracy, "score", "kept"):
            assert expected in words
        mark.click()
        assert card.get_by_role("link", name=run.branch.file_name).get_attribute("href").endswith(run.branch.file_name)
        card.get_by_role("link", name="its row").click()
        assert page.locator(f"#branch-{branch}").is_visible()  # the table unfolds
        page.keyboard.press("Escape")
        assert not card.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(scheme, browser, run):  # noqa: F811
    with opened(browser, run, viewport=PHONE, color_scheme=scheme, has_touch=True) as page:
        for fold in page.locator("details").all():
            fold.evaluate("each => { each.open = true }")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        red, green, blue = map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).color"))[:3])
        assert (red + green + blue > 384) == (scheme == "dark")


def test_all_is_there_without_script(browser, run):  # noqa: F811
    with opened(browser, run, java_script_enabled=False) as page:
        assert page.locator("svg.picture:visible").count() > 7
        assert page.locator("tr[id]:visible").count() == len(list(run.run.glob("branches/*.onnx")))
        assert page.locator("button:visible, input:visible, #hidden:visible, #card").count() == 0
        assert page.get_by_text("factorize", exact=False).count() > 0
        assert page.get_by_text("--recuperation-batches").is_visible()


def test_everything_is_unfolded_for_print(browser, run):  # noqa: F811
    with opened(browser, run, color_scheme="dark") as page:
        folded = page.locator("details:not([open])").count()
        assert folded > 0
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print")
        assert page.locator("details:not([open])").count() == 0
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"
        assert page.locator("button:visible").count() == 0
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("details:not([open])").count() == folded


def test_a_wide_family_is_scrolled_and_not_shrunk(browser, run):  # noqa: F811
    with opened(browser, run, viewport=PHONE) as page:
        sizes = "each => [each.scrollWidth, each.clientWidth]"
        whole, seen = page.locator(".tree").evaluate(sizes)
        assert whole > seen
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_point_of_the_front_downloads_its_file(browser, pareto):  # noqa: F811
    entries = pareto.written_front
    assert len(entries) >= 2
    with served(pareto.run) as address, Visit(browser) as visit:
        page = visit.page
        page.goto(f"{address}/report.html")
        pick = page.locator("#pick")
        assert pareto.network.topology in pick.inner_text()  # the result, before anything is picked
        for entry in (entries[0], entries[-1]):
            page.locator(f'.picker .mark[data-branch="{entry.branch}"]').click()
            words = pick.inner_text()
            for expected in (entry.topology, f"{entry.parameters:,}", f"{entry.accuracy:.4f}", spell_size(entry.size)):
                assert expected in words
            assert spell_latency(entry.latency) in words
            with page.expect_download() as download:
                pick.get_by_role("link", name="Download").click()
            assert download.value.suggested_filename == entry.file.rpartition("/")[2]
            assert download.value.path().read_bytes() == (pareto.run / entry.file).read_bytes()
        row = page.locator(f'.front-row[data-branch="{entries[0].branch}"]')
        row.focus()
        page.keyboard.press("Enter")
        assert entries[0].topology in pick.inner_text()
        assert page.locator(".picker .mark.picked").get_attribute("data-branch") == str(entries[0].branch)
        assert visit.errors == []
        assert visit.elsewhere == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_front_fits_a_phone(scheme, browser, pareto):  # noqa: F811
    with opened(browser, pareto, viewport=PHONE, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_the_first_screen_has_the_answer_and_three_numbers(browser, pareto):  # noqa: F811
    with opened(browser, pareto, viewport={"width": 1440, "height": 900}) as page:
        for selector in (".wish", ".before-after svg", ".large div:nth-child(3)"):
            box = page.locator(selector).bounding_box()
            assert box["y"] + box["height"] <= 900
        words = page.locator(".wish").inner_text()
        assert "the best of every size" in words
        assert f"{len(pareto.written_front)} networks to pick from" in words
        assert page.locator("#spectra").count() == 0  # this search does not go by them


def test_the_python_of_a_page_runs_the_result(browser, pareto, monkeypatch):  # noqa: F811
    pytest.importorskip("onnxruntime")
    with opened(browser, pareto) as page:
        code = page.locator(".snippets figure", has_text="Python").locator("pre").inner_text()
    monkeypatch.chdir(pareto.run)
    names = {}
    exec(code, names)
    assert names["result"].shape == (1, 10)
