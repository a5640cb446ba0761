"""A branch of a real run, opened by ``view`` in Netron's page: the browser sees its nodes."""

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

import onnx
import pytest

from onnxsurgeon import SurgeonSettings, evolve, load
from tests.browser import Visit, browser  # noqa: F401  a fixture
from tests.conftest import start_model

pytest.importorskip("netron")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewed")
    settings = SurgeonSettings.from_preset(
        "corrected", epochs=2, initial_epochs=1, epoch_step=1, recuperation_batches=2, seed=6
    )
    return evolve(start_model(folder), "digits", settings=settings, run_dir=folder / "run").run


@contextmanager
def viewed(*arguments):
    """The address at which ``onnxsurgeon view`` serves a model; stopped afterwards as by Ctrl-C."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "onnxsurgeon", "view", *arguments, "--no-browser", "--port", str(port)]
    server = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A suite started in the background has interrupts ignored, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        address = f"http://127.0.0.1:{port}/"
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None, server.stdout.read()
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield address
        server.send_signal(signal.SIGINT)
        output, _ = server.communicate(timeout=60)
        assert server.returncode == 0, output
    finally:
        server.kill()


def test_netron_shows_the_gemm_nodes_of_a_branch(run, browser):  # noqa: F811
    number, file = next((int(path.name[:4]), path) for path in sorted((run / "branches").glob("*-widen.onnx")))
    nodes = [node.op_type for node in onnx.load(file).graph.node]
    with viewed(str(run), "--branch", str(number)) as address, Visit(browser) as visit:
        page = visit.page
        # Netron's page asks ipinfo.io for the country and reports its usage to Google: here, neither gets out.
        page.route(lambda url: not url.startswith(address), lambda route: route.abort())
        page.goto(address)
        drawn, accept = page.locator("svg .node-item-type text"), page.get_by_role("button", name="Accept")
        drawn.first.or_(accept).first.wait_for(timeout=60_000)
        if accept.is_visible():  # to cookies: what it asks where it could not learn the country
            accept.click()
        drawn.first.wait_for(timeout=60_000)
        # The page takes window.eval away, and with it Playwright's all_text_contents.
        assert sorted(drawn.nth(i).text_content() for i in range(drawn.count())) == sorted(nodes)
    assert nodes.count("Gemm") == len(load(file).layers) >= 3
    hosts = {urlsplit(url).hostname for url in visit.elsewhere}
    assert {".".join(host.split(".")[-2:]) for host in hosts} <= {"ipinfo.io", "google.com", "google-analytics.com"}
    assert not any(file.stem in unquote(url) or run.name in unquote(url) for url in visit.elsewhere)
    assert set(visit.errors) <= {"Failed to load resource: net::ERR_FAILED"}


def test_a_port_in_use_is_one_clear_line(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "onnxsurgeon", "view", str(run), "--no-browser", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"port {port}: cannot be used" in done.stderr
