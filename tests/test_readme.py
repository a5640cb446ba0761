"""The README's commands and its Python are run, and its output has the shape that it shows."""

import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import MODELS

ROOT = MODELS.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models").symlink_to(MODELS)
    return tmp_path


def shape(text):
    """Words of the output with every number replaced: figures may differ from machine to machine."""
    return re.sub(r"[-+]?[\d][\d.,e+-]*", "#", " ".join(text.split()))


def test_the_worked_example(folder, fashion):
    commands = 0
    for block in blocks("console"):
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            program, *arguments = shlex.split(command)
            assert program == "onnxsurgeon"
            done = subprocess.run(
                [sys.executable, "-m", "onnxsurgeon", *arguments],
                cwd=folder,
                capture_output=True,
                text=True,
                env={**__import__("os").environ, "COLUMNS": "100"},
            )
            assert (done.returncode, done.stderr) == (0, ""), command
            for line in (shown.splitlines()[0], shown.splitlines()[-1]):
                assert shape(line) in shape(done.stdout), command
            commands += 1
    assert commands == 4


def test_the_python_example(folder):
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10 + 1
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "64-10-10 760"
    assert lines[1].startswith("True")
    assert lines[1].endswith("64-16-10")
    assert lines[2].endswith("runs/wider-digits-1")


def test_the_two_commands_are_targets_of_the_makefile():
    (two, _) = blocks("sh")
    targets = re.findall(r"^make (\w+)", two, re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_every_command_is_in_the_table():
    from tests.test_cli import commands

    for command in commands():
        assert f"`{' '.join(command)}" in README, command


def test_ci_calls_the_readmes_test_command():
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text()
