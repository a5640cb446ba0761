"""The built site in a browser: nothing from elsewhere, no errors, legible on a phone and in the dark."""

import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

import onnxsurgeon
from onnxsurgeon.surgery import SURGERIES
from tests.browser import Visit, browser  # noqa: F401 (a fixture)
from tests.conftest import MODELS

SITE = MODELS.parent / "site"
PHONE = {"viewport": {"width": 360, "height": 780}, "device_scale_factor": 2}
DESKTOP = {"viewport": {"width": 1280, "height": 800}}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    """Where the site is served; it is built by `make docs`."""
    if not SITE.is_dir() and not os.environ.get("DOCS"):
        pytest.skip("the site is not built: make docs")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def pages():
    return sorted(path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html") if path.name != "404.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_pages_load_nothing_from_elsewhere_and_fit(address, browser, screen, scheme):  # noqa: F811
    assert len(pages()) >= 12
    with Visit(browser, color_scheme=scheme, **screen) as visit:
        for page in pages():
            visit.page.goto(f"{address}/{page}")
            wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert visit.page.evaluate(wider) <= 0, page
            brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
            assert (max(visit.page.evaluate(brightness)) < 100) == (scheme == "dark"), page
            broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
            assert visit.page.evaluate(broken) == [], page
        visit.page.wait_for_load_state("networkidle")
        assert visit.errors == []
        assert visit.elsewhere == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_drawing_is_shown_in_the_colours_of_the_page(address, browser, scheme):  # noqa: F811
    with Visit(browser, color_scheme=scheme, **DESKTOP) as visit:
        visit.page.goto(f"{address}/surgeries.html", wait_until="networkidle")
        shown = "[...document.images].filter(i => i.offsetWidth).map(i => i.getAttribute('src'))"
        sources = visit.page.evaluate(shown)
        assert len(sources) == sum(kind.is_for_one for kind in SURGERIES.values())
        assert all(f"-{scheme}.svg" in source for source in sources)


def test_every_public_name_has_a_place(address, browser):  # noqa: F811
    with Visit(browser) as visit:
        visit.page.goto(f"{address}/api.html")
        places = visit.page.evaluate("[...document.querySelectorAll('h3[id]')].map(e => e.id)")
        assert {f"onnxsurgeon.{name}" for name in onnxsurgeon.__all__} <= set(places)


def test_search_finds_a_surgery(address, browser):  # noqa: F811
    with Visit(browser, **DESKTOP) as visit:
        visit.page.goto(f"{address}/index.html", wait_until="networkidle")
        visit.page.keyboard.press("Control+k")
        visit.page.keyboard.type("factorize")
        visit.page.locator('a[href*="surgeries.html?h="]').first.wait_for()
        assert visit.elsewhere == []
