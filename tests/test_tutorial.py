"""The tutorials as a reader works through them: every script and every command, in the order of the page."""

import os
import re
from importlib.util import find_spec
from typing import NamedTuple

import pytest
from reprint import BLOCK, LEFT_OUT, run

from onnxsurgeon import load
from tests.conftest import MODELS

PAGES = MODELS.parent / "docs" / "tutorial"
NEEDS = {
    "pytorch": ("torch", "onnxscript", "sklearn"),
    "keras": ("keras", "torch", "onnxscript"),
    "scikit-learn": ("sklearn", "skl2onnx", "pyarrow"),
}
# What the pages say: how far accuracies may be from those shown, and how many parameters the result has at most.
ACCURACY_MARGIN = 0.03
LARGEST_SHARE = {"pytorch": 0.1, "scikit-learn": 0.5}


class Command(NamedTuple):
    """A command of a page, what the page shows of its output, and what it printed here."""

    line: str
    shown: list[str]
    printed: list[str]


def blocks(page):
    return [match.groups() for match in BLOCK.finditer((PAGES / f"{page}.md").read_text())]


def shape(line):
    """A line with numbers, topologies, bars, lists of surgeries replaced: they may differ from machine to machine."""
    line = re.sub(r"^surgeries: .*", "surgeries: #", " ".join(line.split()))
    line = re.sub(r"[▁▂▃▄▅▆▇█┊·]+", "#", line)
    return re.sub(r"[-+]?\d[\d.,e+-]*", "#", line)


def checked(command):
    """The lines of the page whose shape must come out; which candidates a run tries, and in which order, may differ."""
    shown = command.shown
    if LEFT_OUT in shown and not command.line.startswith("onnxsurgeon evolve"):
        return [line for line in shown if line != LEFT_OUT]
    if command.line.startswith("onnxsurgeon evolve"):
        return [shown[0], *shown[len(shown) - shown[::-1].index("") :]]
    if command.line.startswith("onnxsurgeon inspect"):
        return shown[: next(i for i, line in enumerate(shown) if line.startswith("Recommended"))]
    return shown


def accuracies(lines):
    return [float(number) for line in lines for number in re.findall(r"accuracy (\d\.\d+)", line)]


@pytest.mark.parametrize("page", sorted(NEEDS))
def test_a_tutorial(page, tmp_path, request):
    missing = [name for name in NEEDS[page] if find_spec(name) is None]
    if missing and not os.environ.get("TUTORIAL"):
        pytest.skip(f"not installed: {', '.join(missing)}; make test-tutorial installs them")
    if page == "keras":
        request.getfixturevalue("fashion")
    commands = []
    for language, title, body in blocks(page):
        if language == "python":
            (tmp_path / title).write_text(body)
        elif language == "console":
            first, *shown = body.splitlines()
            line = first.removeprefix("$ ")
            commands.append(Command(line, shown, run(line, tmp_path)))
    for command in commands:
        printed = [shape(text) for text in command.printed]
        for text in checked(command):
            assert shape(text) in printed, f"{command.line}: {text}"
    _check_claims(page, commands, tmp_path)


def _check_claims(page, commands, folder):
    by_name = {command.line.split(" --")[0]: command for command in commands}
    trained, deployed = by_name["python train.py"], by_name["python deploy.py"]
    (measured,) = (c for c in commands if c.line.startswith("onnxsurgeon evaluate"))
    (evolved,) = (c for c in commands if c.line.startswith("onnxsurgeon evolve"))
    (framework,), summary = accuracies(trained.printed), accuracies(evolved.printed[-8:])
    # The exported file is what the framework measured, and the deployed one what the run measured.
    assert float(measured.printed[1].split()[0]) == framework
    assert accuracies(deployed.printed) == [summary[1]]
    for command in (trained, deployed):
        for here, there in zip(accuracies(command.printed), accuracies(command.shown), strict=True):
            assert abs(here - there) <= ACCURACY_MARGIN, command.line
    if page in LARGEST_SHARE:
        (parameters,) = re.findall(r"([\d,]+) parameters", trained.printed[-1])
        given = int(parameters.replace(",", ""))
        assert load(folder / "run" / "best.onnx").parameter_count <= LARGEST_SHARE[page] * given
        assert abs(summary[1] - framework) <= ACCURACY_MARGIN
    else:
        assert summary[1] >= framework + 0.02


def test_every_tutorial_is_tested():
    assert {path.stem for path in PAGES.glob("*.md")} == set(NEEDS)


@pytest.mark.parametrize("page", sorted(NEEDS))
def test_a_tutorial_deploys_with_onnx_runtime_alone(page):
    (deploy,) = (body for language, title, body in blocks(page) if title == "deploy.py")
    imported = set(re.findall(r"^(?:import|from) (\w+)", deploy, re.MULTILINE))
    assert imported <= {"csv", "numpy", "onnxruntime"}
