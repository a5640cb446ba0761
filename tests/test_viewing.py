"""``view``'s server: on loopback, for requests that were meant for it, and with one model's files only."""

import re
import socket
import threading
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote

import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from onnxsurgeon import SettingsError, create
from onnxsurgeon.cli import viewing
from onnxsurgeon.cli.viewing import ViewServer
from onnxsurgeon.graph.writer import to_model
from tests.conftest import MODELS

PAGE = '<html><head>\n<meta name="version" content="0">\n</head><title>Netron</title></html>'


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """A folder such as Netron's, so that these tests need no Netron."""
    folder = tmp_path / "netron"
    folder.mkdir()
    (folder / "index.html").write_text(PAGE)
    (folder / "view.js").write_text("1")
    (folder / "server.py").write_text("secret")
    (tmp_path / "outside.js").write_text("secret")
    monkeypatch.setattr(viewing, "_netron", folder.resolve)
    return folder


@pytest.fixture
def served(pages, tmp_path):
    """A server for a model with external data, and a function that asks it."""
    folder = tmp_path / "models"
    (folder / "sub").mkdir(parents=True)
    model = to_model(create((4, 3, 2)))
    convert_model_to_external_data(model, location="sub/weights.bin", size_threshold=0)
    path = folder / 'my "model" #1.onnx'
    onnx.save(model, path)
    (folder / "secret.txt").write_text("secret")
    with ViewServer(path, None) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def ask(target="/", *, method="GET", **headers):
            connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
            connection.putrequest(method, target, skip_host=True)
            for name, values in {"Host": f"127.0.0.1:{server.server_port}", **headers}.items():
                for value in values if isinstance(values, list) else [values]:
                    if value is not None:
                        connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            return answer.status, body, answer.headers

        yield server, path, ask
        server.shutdown()
        thread.join()


def test_it_listens_on_loopback_alone(served):
    server, _, _ = served
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_port}/"
    with socket.socket() as other, pytest.raises(OSError, match="refused"):
        other.connect(("127.0.0.2", server.server_port))  # which a server on all addresses answers too


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LocalHost"])
def test_its_own_names_are_answered(name, served):
    server, _, ask = served
    status, body, _ = ask(Host=f"{name}:{server.server_port}")
    assert (status, b"Netron" in body) == (200, True)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example:{port}",
        "localhost.evil.example:{port}",
        "localhost",
        "127.0.0.1:1",
        "0.0.0.0:{port}",
        "[::1]:{port}",
        "[::ffff:127.0.0.1]:{port}",
        "2130706433:{port}",
        "0x7f000001:{port}",
        "127.1:{port}",
        "localhost.:{port}",
        "localhost:{port}:{port}",
        "localhost:{port},evil.example",
        "localhost:{port}@evil.example",
        "user@localhost:{port}",
        "http://localhost:{port}",
        "loc\u0430lhost:{port}".encode().decode("latin-1"),
        "",
        None,
        ["127.0.0.1:{port}", "evil.example"],
    ],
)
@pytest.mark.parametrize("target", ["/", "/view.js", "/data/{model}", "/none"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_any_other_name_is_refused(host, target, method, served):
    server, path, ask = served
    port = server.server_port
    hosts = [each.format(port=port) for each in host] if isinstance(host, list) else host and host.format(port=port)
    status, body, _ = ask(target.format(model=quote(path.name)), method=method, Host=hosts)
    assert status == 403
    assert b"Netron" not in body


def test_a_request_that_names_another_server_is_refused(served):
    _, _, ask = served
    assert ask("http://evil.example/")[0] == 403


def test_the_page_says_which_model_and_serves_its_files(served):
    _, path, ask = served
    status, body, headers = ask()
    assert status == 200
    (file,) = re.findall(r'<meta name="file" content="([^"]*)">', body.decode())
    assert '<meta name="identifier" content="my &quot;model&quot; #1.onnx">' in body.decode()
    assert str(path.parent) not in body.decode()
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert ask(file)[1] == path.read_bytes()
    data = path.parent / "sub" / "weights.bin"
    assert ask("/data/sub/weights.bin")[1] == data.read_bytes()
    status, body, headers = ask("/data/sub/weights.bin", method="HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(data.stat().st_size))
    status, body, headers = ask("/view.js?v=1")
    assert (status, body, headers["Content-Type"]) == (200, b"1", "text/javascript")


@pytest.mark.parametrize(
    "target",
    [
        "/data/secret.txt",
        "/data/../models/secret.txt",
        "/data/sub/../secret.txt",
        "/data/",
        "/server.py",
        "/../outside.js",
        "/%2e%2e/outside.js",
        "//etc/passwd",
        "/%00.js",
        "/none.js",
        "/%2e%2e%2foutside.js",
        "/%252e%252e/outside.js",
        "/..%5coutside.js",
        "/%c0%ae%c0%ae/outside.js",
        "/view.js/../../outside.js",
        "/view.js%00.js",
        "/view.js%0a.js",
        "/server.py%20",
        "/./server.py",
        "/data/%00",
        "/data/%2e%2e/models/secret.txt",
        "/data/sub/%2e%2e/%2e%2e/secret.txt",
        "/%ff%fe.js",
        "/%ed%a0%80.js",
        "/%zz.js",
        pytest.param(f"/{'a' * 300}.js", id="name too long"),
        pytest.param(f"/{'a/' * 5000}b.js", id="path too long"),
        pytest.param(f"/data/{'a' * 300}", id="data too long"),
    ],
)
def test_nothing_else_is_served(target, served, capsys):
    status, body, _ = served[2](target)
    assert status == 404
    assert b"secret" not in body
    assert capsys.readouterr().err == ""


def test_a_page_that_is_not_known_is_told(pages):
    (pages / "index.html").write_text("<html></html>")
    with pytest.raises(SettingsError, match="this version of Netron is not known"):
        ViewServer(MODELS / "digits-small.onnx", None)
    (pages / "index.html").unlink()
    with pytest.raises(SettingsError, match=r"Netron's page cannot be read: No such file or directory: .*index\.html"):
        ViewServer(MODELS / "digits-small.onnx", None)


def test_the_installed_netron_is_known():
    netron = pytest.importorskip("netron")
    pages = Path(netron.__file__).parent
    assert b'<meta name="file" content="/data/m.onnx">' in viewing._index(pages / "index.html", "m.onnx")
    used = {path.suffix for path in pages.iterdir() if path.is_file()} - {".py"}
    assert used <= set(viewing.TYPES)
