"""axe-core finds no serious fault of accessibility: pages that are written, served, and read; light and dark."""

import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import build_demo_page
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from onnxsurgeon import SurgeonSettings, create, evolve, load_dataset, make_engine, save
from onnxsurgeon.cli.watching import WatchServer
from onnxsurgeon.report import write_report, write_side_by_side
from onnxsurgeon.training.fit import fit
from tests.browser import Visit, browser  # noqa: F401 (a fixture)
from tests.conftest import MODELS, wanted

AXE = MODELS.parent / "runners" / "js" / "node_modules" / "axe-core" / "axe.min.js"
SITE = MODELS.parent / "site"
if not wanted("NODE") and not AXE.is_file():
    pytest.skip("needs `make runners/js/node_modules/installed`", allow_module_level=True)

GRAVE = ("serious", "critical")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
ASK = "() => axe.run(document, {resultTypes: ['violations'], iframes: false}).then(found => found.violations)"
pytestmark = pytest.mark.parametrize(
    ("scheme", "viewport"), [("light", DESKTOP), ("dark", DESKTOP), ("light", PHONE)], ids=["light", "dark", "phone"]
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that has learned its rows, and a run that made it smaller."""
    folder = tmp_path_factory.mktemp("trained")
    digits, start = load_dataset("digits"), create((64, 48, 10), input_shape=(8, 8))
    trained, _ = fit(start, digits, make_engine("loop"), epochs=20)
    save(trained.network, folder / "trained.onnx")
    settings = SurgeonSettings.from_preset(shrink=3, epochs=4, seed=1)
    return evolve(folder / "trained.onnx", "digits", settings=settings, run_dir=folder / "run").run


@pytest.fixture(scope="module")
def front(tmp_path_factory):
    """A run whose objective is the front."""
    folder = tmp_path_factory.mktemp("front")
    settings = SurgeonSettings.from_preset(objective="pareto", epochs=6, seed=1)
    return evolve(create((64, 24, 10), input_shape=(8, 8, 1)), "digits", settings=settings, run_dir=folder / "run").run


def faults(page):
    """What axe-core finds in the page and in its frames: rule, how bad, and where."""
    source, found = AXE.read_text(), []
    for frame in page.frames:
        frame.evaluate(source)
        found += frame.evaluate(ASK)
    return [
        f"{fault['id']} ({fault['impact']}): {node['target']} {node['failureSummary']}"
        for fault in found
        if fault["impact"] in GRAVE
        for node in fault["nodes"]
    ]


def opened(browser, address, scheme, viewport):  # noqa: F811
    visit = Visit(browser, color_scheme=scheme, viewport=viewport, reduced_motion="reduce")
    visit.page.goto(address)
    return visit


BAD = "<html lang='en'><title>t</title><p style='color: #ccc; background: #fff'>faint</p><input>"


def test_faults_are_found(browser, scheme, viewport):  # noqa: F811
    with opened(browser, f"data:text/html,{BAD.replace('#', '%23')}", scheme, viewport) as visit:
        assert [fault.partition(" ")[0] for fault in faults(visit.page)] == ["color-contrast", "label"]


@pytest.mark.parametrize("run", ["trained", "front"])
def test_a_report(run, browser, scheme, viewport, request):  # noqa: F811
    address = write_report(request.getfixturevalue(run)).as_uri()
    with opened(browser, address, scheme, viewport) as visit:
        for fold in visit.page.locator("details").all():
            fold.evaluate("each => { each.open = true }")
        visit.page.locator(".mark").first.focus()  # which shows a branch's card
        assert faults(visit.page) == []


def test_two_runs_side_by_side(browser, scheme, viewport, trained, front):  # noqa: F811
    with opened(browser, write_side_by_side(trained, front).as_uri(), scheme, viewport) as visit:
        assert faults(visit.page) == []


def test_the_watch_page(browser, scheme, viewport, trained):  # noqa: F811
    with WatchServer(trained, None) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        with opened(browser, server.url, scheme, viewport) as visit:
            visit.page.locator(".finished #words", has_text="The run has finished.").wait_for()
            assert len(visit.page.frames) == 2
            assert faults(visit.page) == []
        server.shutdown()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A function that serves a folder for as long as the tests last."""
    servers = []

    def serve(folder):
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def demo(served, tmp_path_factory):
    built = tmp_path_factory.mktemp("demo") / "page"
    build_demo_page.build(built)
    return f"{served(built)}/"


def test_the_demo_page(browser, scheme, viewport, demo):  # noqa: F811
    with opened(browser, demo, scheme, viewport) as visit:
        visit.page.locator("#main:not([aria-busy])").wait_for(timeout=120_000)
        assert faults(visit.page) == []


@pytest.mark.parametrize("name", ["index", "troubleshooting", "surgeries", "api"])
def test_a_page_of_the_manual(name, browser, scheme, viewport, served):  # noqa: F811
    if not SITE.is_dir() and not os.environ.get("CI"):
        pytest.skip("the site is not built: make docs")
    with opened(browser, f"{served(SITE)}/{name}.html", scheme, viewport) as visit:
        assert faults(visit.page) == []
