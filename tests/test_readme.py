"""The commands and the Python of README.md are run, and so is the long example; output has the shape that is shown."""

import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import MODELS

ROOT = MODELS.parent
README = (ROOT / "README.md").read_text()
LONG = (ROOT / "docs" / "worked_example.md").read_text()


def blocks(language, page=README):
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models").symlink_to(MODELS)
    return tmp_path


BORDER = re.compile(r"[╭╮╰╯┬┴─ ]+|…")  # as wide as the figures in it; or lines that are left out
LATENCY = re.compile(r"# [nµm]?s\b|#× (faster|slower)|about the same")
SEARCHING = ("tried", "trained", "surgeries:")  # the search may take another way where sums are rounded otherwise


def shape(text):
    """Words of the output with every number replaced: figures may differ from machine to machine."""
    return LATENCY.sub("§", re.sub(r"[-+]?[\d][\d.,e+-]*", "#", " ".join(text.split())))


def work_through(page, folder):
    """Run every command of the page; the lines that it shows are printed, in their order. The number of commands.

    Of what a search tries, only the first word is compared: the way to the result may be another one.
    """
    commands = 0
    for block in blocks("console", page):
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            program, *arguments = shlex.split(command)
            assert program == "onnxsurgeon"
            done = subprocess.run(
                [sys.executable, "-m", "onnxsurgeon", *arguments],
                cwd=folder,
                capture_output=True,
                text=True,
                env={**os.environ, "COLUMNS": "100"},
            )
            assert (done.returncode, done.stderr) == (0, ""), command
            printed = [shape(line) for line in done.stdout.splitlines()]
            words = {line.partition(" ")[0] for line in printed}
            rest = iter(printed)
            for line in (line for line in shown.splitlines() if not BORDER.fullmatch(line)):
                word = line.partition(" ")[0]
                assert word in words if word in SEARCHING else shape(line) in rest, f"{command}: {line}"
            commands += 1
    return commands


def test_the_readme_is_short():
    assert len(README.encode()) <= 8 * 1024
    (example,) = blocks("console")
    assert len(example.splitlines()) <= 25


def test_the_worked_example_and_its_python(folder):
    assert work_through(README, folder) == 3
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 5
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    shown = re.search(r"# (.*) …$", code, re.MULTILINE)[1]
    first = done.stdout.splitlines()[0]
    assert shape(first) == shape(shown)
    assert first.endswith("runs/trained-digits-1/best.onnx")
    assert int(re.search(r"([\d,]+) parameters", first)[1].replace(",", "")) <= 50_826 / 10


def test_the_long_example(folder, fashion):
    assert work_through(LONG, folder) == 4


def test_the_two_commands_are_targets_of_the_makefile():
    (two,) = blocks("sh")
    targets = re.findall(r"^make (\w+)", two, re.MULTILINE)
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_every_command_is_in_the_table():
    from tests.command_line import commands

    index = (ROOT / "docs" / "index.md").read_text()
    for command in commands():
        assert f"`{' '.join(command)}" in index, command


def test_what_the_readme_and_the_pages_link_to_is_there():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text()):
            if target not in ("commands.md", "changelog.md", "../commands.md"):  # these are made by `make docs`
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_ci_calls_the_readmes_test_command():
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text()
