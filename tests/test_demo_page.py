"""The page of docs/demo in a browser: it learns what is drawn, and what it learned comes home."""

import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import build_demo_page
import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy

from onnxsurgeon import load
from tests.browser import Visit, browser  # noqa: F401 (a fixture)
from tests.conftest import wanted

if not wanted("NODE") and not build_demo_page.RUNTIME.is_dir():
    pytest.skip("needs `make runners/js/node_modules/installed`", allow_module_level=True)

PHONE = {"viewport": {"width": 360, "height": 780}, "device_scale_factor": 2, "has_touch": True}
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
THREE = [[(0.3, 0.2), (0.5, 0.12), (0.68, 0.25), (0.45, 0.48), (0.65, 0.55), (0.7, 0.72), (0.55, 0.87), (0.3, 0.8)]]
STAR = [[(0.5, 0.1), (0.5, 0.9)], [(0.15, 0.5), (0.85, 0.5)], [(0.2, 0.2), (0.8, 0.8)]]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def served(folder):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    built = tmp_path_factory.mktemp("demo") / "page"
    build_demo_page.build(built)
    return built


@contextmanager
def opened(browser, folder, **context):  # noqa: F811
    """The page, ready; at the end nothing went wrong and nothing was asked of other hosts."""
    with served(folder) as address, Visit(browser, **context) as visit:
        visit.page.goto(address)
        ready(visit.page)
        yield visit.page
        assert visit.errors == []
        assert visit.elsewhere == []


def ready(page):
    page.locator("#main:not([aria-busy])").wait_for(timeout=120_000)


def draw(page, strokes):
    """Draw by the mouse; afterwards the prediction is shown."""
    page.get_by_role("button", name="Clear").click()
    page.locator("#digit", has_text="?").wait_for()
    box = page.locator("#pad").bounding_box()
    for points in strokes:
        start, *others = ((box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points)
        page.mouse.move(*start)
        page.mouse.down()
        for to in others:
            page.mouse.move(*to, steps=4)
        page.mouse.up()
    page.locator(".bar.best:not([disabled])").wait_for()
    page.wait_for_timeout(200)


def teach(page, digit):
    page.get_by_role("button", name=f"It is a {digit}").click()
    page.get_by_text("It learned that in").wait_for(timeout=60_000)


def prediction(page):
    return int(page.locator("#digit").inner_text())


def accuracy(page):
    return float(page.locator("#accuracy").get_attribute("data-value"))


# Keeps every accuracy that is shown: a busy machine may look too late for the first ones.
SHOWN = """() => {
  window.shown = [];
  const element = document.getElementById('accuracy');
  new MutationObserver(() => shown.push(Number(element.dataset.value))).observe(element, { attributes: true });
}"""


def downloaded(page, name, path):
    with page.expect_download() as download:
        page.get_by_role("button", name=name).click()
    download.value.save_as(path)
    return download.value.suggested_filename


def onnxsurgeon(*arguments):
    command = [sys.executable, "-m", "onnxsurgeon", *map(str, arguments)]
    done = subprocess.run(command, cwd=build_demo_page.ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def evaluated(model):
    return json.loads(onnxsurgeon("evaluate", model, "--data", "digits", "--json"))["accuracy"]


def seen(page):
    """The row that the network is given, from the small picture."""
    script = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 8, 8).data].filter((_, i) => i % 4 === 3)"
    return np.round(np.array(page.locator("#seen").evaluate(script)).reshape(1, 8, 8) / 255 * 16).astype(np.float32)


def test_it_learns_what_is_drawn_and_the_file_has_learned_it(browser, folder, tmp_path):  # noqa: F811
    with opened(browser, folder, **DESKTOP) as page:
        draw(page, THREE)
        assert prediction(page) == 3
        assert accuracy(page) == pytest.approx(evaluated(folder / "digits.onnx"), abs=1e-9)
        draw(page, STAR)
        before = prediction(page)
        wanted = 7 if before != 7 else 2
        teach(page, wanted)
        assert prediction(page) == wanted
        assert page.locator("#steps").inner_text() == "200"
        assert page.locator("#taught li").all_inner_texts() == [str(wanted)]
        row = seen(page)
        assert accuracy(page) > 0.93  # what it knew, it knows
        draw(page, THREE)
        assert prediction(page) == 3
        assert downloaded(page, "Download the model", tmp_path / "taught.onnx") == "digits.onnx"
        said = accuracy(page)
    model = onnx.load(tmp_path / "taught.onnx")
    onnx.checker.check_model(model, full_check=True)
    given = onnx.load(folder / "digits.onnx")
    assert list(model.graph.input) == list(given.graph.input)
    assert list(model.graph.output) == list(given.graph.output)
    assert list(model.graph.node) == list(given.graph.node)
    for path, digit in ((folder / "digits.onnx", before), (tmp_path / "taught.onnx", wanted)):
        session = onnxruntime.InferenceSession(path)
        (shares,) = session.run(None, {session.get_inputs()[0].name: row / 16})
        assert shares.argmax() == digit
    assert evaluated(tmp_path / "taught.onnx") == pytest.approx(said, abs=1e-9)


def test_a_state_of_200_steps_comes_home(browser, folder, tmp_path):  # noqa: F811
    with opened(browser, folder, **DESKTOP) as page:
        draw(page, STAR)
        teach(page, 2)
        said = accuracy(page)
        assert downloaded(page, "Its state", tmp_path / "state.safetensors") == "digits.safetensors"
        downloaded(page, "Download the model", tmp_path / "taught.onnx")
    assert safetensors.numpy.load_file(tmp_path / "state.safetensors")["steps"] == 200
    command = ["import-state", folder / "digits.onnx", tmp_path / "state.safetensors", "-o", tmp_path / "home.onnx"]
    onnxsurgeon(*command)
    assert evaluated(tmp_path / "home.onnx") == pytest.approx(said, abs=1e-9)
    home, taught = (load(tmp_path / name).segments for name in ("home.onnx", "taught.onnx"))
    for ours, theirs in zip(home[0].layers, taught[0].layers, strict=True):
        np.testing.assert_array_equal(ours.weight, theirs.weight)
        np.testing.assert_array_equal(ours.bias, theirs.bias)


def test_it_learns_everything_from_nothing_and_goes_back(browser, folder):  # noqa: F811
    with opened(browser, folder, **DESKTOP) as page:
        came = accuracy(page)
        page.evaluate(SHOWN)
        page.get_by_role("button", name="Learn it all from nothing").click()
        page.locator("#scratch:not([disabled])").wait_for(timeout=60_000)
        assert min(page.evaluate("shown")) < 0.9 < accuracy(page)
        assert page.locator("#steps").inner_text() == "900"
        page.get_by_role("button", name="As it came").click()
        page.locator("#steps", has_text="0").wait_for()
        page.wait_for_timeout(300)
        assert accuracy(page) == came
        assert page.locator("#loss").inner_text() == "–"


def test_it_works_without_its_server(browser, folder):  # noqa: F811
    with Visit(browser) as visit:
        with served(folder) as address:
            visit.page.goto(address)
            ready(visit.page)
            visit.page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        visit.page.reload()
        ready(visit.page)
        draw(visit.page, THREE)
        assert prediction(visit.page) == 3
        assert visit.elsewhere == []


def test_another_file_is_not_written(browser, folder):  # noqa: F811
    script = """async ([from, to, name, shape]) => {
      const { patchModel } = await import('./runner/index.js');
      const file = new Uint8Array(await (await fetch('digits.onnx')).arrayBuffer()).subarray(from, to);
      const description = await (await fetch('trainer/trainer.json')).json();
      const state = {};
      for (const each of description.state) {
        state[each.name] = { data: new Float32Array(each.shape.reduce((a, b) => a * b, 1)) };
      }
      Object.assign(description.state[0], { of: name, shape });
      try { return patchModel(file, description, state).length; } catch (error) { return error.message; }
    }"""
    size = (folder / "digits.onnx").stat().st_size
    with opened(browser, folder, **DESKTOP) as page:
        assert page.evaluate(script, [0, size, "layer1.weight", [40, 64]]) == size
        told = page.evaluate(script, [0, size, "layer1.weight", [40, 63]])
        assert told.startswith("'layer1.weight' of this file is not written to")
        told = page.evaluate(script, [0, size, "layer9.weight", [40, 64]])
        assert told == "the file has no 'layer9.weight': it is another model's"
        assert page.evaluate(script, [0, size - 900, "layer1.weight", [40, 64]]) == "the file is cut off"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_fits_and_follows_the_light(browser, folder, screen, scheme):  # noqa: F811
    with opened(browser, folder, color_scheme=scheme, **screen) as page:
        draw(page, STAR)
        teach(page, 4)
        wider = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(wider) <= 0
        brightness = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
        assert (max(page.evaluate(brightness)) < 100) == (scheme == "dark")
        for canvas in page.locator("canvas").all():
            pixels = "canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data"
            assert canvas.evaluate(f"canvas => {pixels}.some(Boolean)"), canvas
