"""The how-tos as a reader works through them: every script and every command, in the order of the page."""

import re
import shutil

import pytest
from reprint import BLOCK, COMMAND, run

from tests.conftest import MODELS

PAGES = MODELS.parent / "docs" / "howto"
MARGIN = 0.03  # how far accuracies may be from those shown


def accuracies(text):
    """Accuracies on the test rows: a result's, and those of one command's last line."""
    found = re.findall(r"^accuracy (\d\.\d+) on the test split|^test accuracy (\d\.\d+)", text, re.MULTILINE)
    return [float(first or second) for first, second in found]


def shape(text):
    """The words of a text without what may differ from machine to machine: numbers, topologies, surgeries, times."""
    text = re.sub(r"^(surgeries:|one row takes) .*", r"\1 #", text, flags=re.MULTILINE)
    return re.sub(r"[-+]?\d[\d.,e+-]*", "#", text).split()


def worked_through(page, folder):
    """Each command, what the page shows of it, and what it printed in ``folder``."""
    if page == "microcontroller" and not shutil.which("cc"):
        pytest.skip("the page compiles C: cc")
    (folder / "models").symlink_to(MODELS)
    found = []
    for language, title, body in (match.groups() for match in BLOCK.finditer((PAGES / f"{page}.md").read_text())):
        if language == "python":
            (folder / title).write_text(body)
        elif language == "console":
            found += [(line, shown, "\n".join(run(line, folder))) for line, shown in COMMAND.findall(body)]
    return found


@pytest.mark.parametrize("page", sorted(path.stem for path in PAGES.glob("*.md")))
def test_a_how_to(page, tmp_path):
    commands = worked_through(page, tmp_path)
    assert commands
    for line, shown, printed in commands:
        if "…" not in shown:
            assert shape(printed) == shape(shown), line
        for here, there in zip(accuracies(printed), accuracies(shown), strict=True):
            assert abs(here - there) <= MARGIN, line


def test_surgery_by_hand_prints_what_the_page_shows(tmp_path):
    ((shown, printed),) = [each[1:] for each in worked_through("python", tmp_path) if each[0] == "python wider.py"]
    assert printed == shown.strip()


def test_the_heads_learned_what_they_are_for():
    found = accuracies((PAGES / "head.md").read_text())
    assert len(found) == 2
    assert min(found) > 0.9
