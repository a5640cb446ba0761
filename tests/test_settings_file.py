"""``--settings FILE``: options from TOML, the command line wins, and what is no option is refused with a suggestion."""

import json
import os

import pytest

from tests.conftest import MODELS

SMALL = str(MODELS / "digits-small.onnx")
FILE = """
data = "digits"
epochs = 2
max_parameters = "0.9k"
seed = 3
refit = false
track = []
quiet = true
"""


@pytest.fixture
def settled(tmp_path):
    (tmp_path / "s.toml").write_text(FILE)


def settings(run):
    return json.loads((run / "settings.json").read_text())["settings"]


def test_a_file_says_what_options_say_and_the_command_line_wins(cli, tmp_path, settled):
    assert cli("evolve", SMALL, "--settings", "s.toml", "--run-dir", "a") == (0, "a/best.onnx\n", "")
    found = settings(tmp_path / "a")
    assert [found[name] for name in ("epochs", "max_parameters", "seed", "refit")] == [2, 900, 3, False]
    command = ("evolve", SMALL, "--epochs", "1", "--settings", "s.toml", "--refit", "--max-parameters", "800")
    assert cli(*command, "--run-dir", "b")[0] == 0
    found = settings(tmp_path / "b")
    assert [found[name] for name in ("epochs", "max_parameters", "seed", "refit")] == [1, 800, 3, True]


def test_a_file_from_an_editor_of_windows_is_read(cli, tmp_path):
    (tmp_path / "s.toml").write_bytes(b"\xef\xbb\xbf" + b"data = 'digits'\r\nsplit = 'validation'\r\njson = true\r\n")
    code, out, err = cli("evaluate", SMALL, "--settings", "s.toml")
    assert (code, json.loads(out)["metric"]) == (0, "accuracy"), err


def test_arguments_and_options_given_several_times_and_old_names(cli, tmp_path):
    cli("new", "2-4-2", "-o", "a.onnx")
    rows = [f"{row},{row % 7},{row % 2}" for row in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["age,size,one,two", *(f"{row},0.5" for row in rows)]))
    (tmp_path / "s.toml").write_text('model = "a.onnx"\ndata = "t.csv"\ntarget = ["one", "two"]\njson = true\n')
    code, _, err = cli("evaluate", "--settings", "s.toml")
    assert (code, err.startswith("onnxsurgeon: t.csv: ")) == (2, True)  # two targets of one model
    (tmp_path / "t.csv").write_text("\n".join(["age,size,one", *rows]))
    (tmp_path / "s.toml").write_text('model = "a.onnx"\ndata = "t.csv"\ntarget = "one"\njson = true\n')
    code, out, err = cli("evaluate", "--settings", "s.toml")
    assert (code, err) == (0, "training rows by class: '0' 16, '1' 16\n")
    assert json.loads(out)["rows"] == 8
    (tmp_path / "s.toml").write_text('data = "digits"\nepochs = 1\nmemory = false\n')
    code, _, err = cli("evolve", SMALL, "--settings", "s.toml", "--run-dir", "run")
    assert (code, err.splitlines()[0]) == (
        0,
        "--memory is called --step-back now; the old name is refused in the next version",
    )
    assert settings(tmp_path / "run")["step_back"] is False


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"epoch = 2", "s.toml: 'epoch' is no option of this command: did you mean 'epochs'?"),
        (b"max-parameter = 2", "s.toml: 'max-parameter' is no option of this command: did you mean 'max-parameters'?"),
        (b"settings = 's.toml'", "s.toml: 'settings' is no option of this command"),
        (b"help = true", "s.toml: 'help' is no option of this command"),
        (b"epochs = [1]", "s.toml: epochs: expected a text or a number"),
        (b"epochs = true", "s.toml: epochs: expected a text or a number"),
        (b"epochs = 2.5", "Invalid value for '--epochs'"),
        (b"epochs = 1979-05-27", "s.toml: epochs: expected a text or a number"),
        (b"[training]\nepochs = 2", "s.toml: 'training' is no option of this command"),
        (b"refit = 1", "s.toml: refit: expected true or false"),
        (b"max_size = 1\nmax-size = 2", "s.toml: 'max-size' is there twice"),
        (b"epochs = ", "s.toml: is no TOML, such as epochs = 20: "),
        (b"a = " + 9999 * b"[", "s.toml: is no TOML, such as epochs = 20: "),
        (b"epochs = \xff", "s.toml: is no UTF-8"),
        (b"#" * 2**20 + b"\n", "s.toml: has more than 1,048,576 bytes"),
        (None, "s.toml: cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(text, reason, cli, tmp_path):
    if text is not None:
        (tmp_path / "s.toml").write_bytes(text)
    code, out, err = cli("evolve", SMALL, "--data", "digits", "--settings", "s.toml")
    assert (code, out) == (2, "")
    assert reason in err
    assert not (tmp_path / "runs").exists()


def test_a_pipe_in_place_of_a_file_is_refused(cli, tmp_path):
    """Reading one waits without end."""
    os.mkfifo(tmp_path / "s.toml")
    code, out, err = cli("evolve", SMALL, "--data", "digits", "--settings", "s.toml")
    assert (code, out) == (2, "")
    assert "s.toml: is no regular file" in err
