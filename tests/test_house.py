"""Rules of this code base that no linter knows."""

import ast
import re
from pathlib import Path

import pytest

import onnxsurgeon

PACKAGE = Path(onnxsurgeon.__file__).parent
LONGEST = 300  # lines
REASON = re.compile(r"\bOne file: ([^.]+)\.")
WORDS = 6  # fewer are no reason


def reason(path):
    """Why the file is one, as its docstring says: the sentence behind "One file:"; "" where it does not."""
    found = REASON.search(ast.get_docstring(ast.parse(path.read_text())) or "")
    return " ".join(found[1].split()) if found else ""


FILES = sorted(PACKAGE.rglob("*.py"))
LONG = [path for path in FILES if len(path.read_text().splitlines()) > LONGEST]


@pytest.mark.parametrize("path", LONG, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_long_file_says_why_it_is_one(path):
    assert len(reason(path).split()) >= WORDS, f"split {path.name}, or say in its docstring why not: 'One file: …'"


def test_no_two_files_give_the_same_reason_and_no_short_one_gives_any():
    reasons = [reason(path) for path in LONG]
    assert len(set(reasons)) == len(LONG) > 0
    assert [path.name for path in FILES if path not in LONG and reason(path)] == []


def test_no_test_module_imports_from_another():
    """What several share is in a module of its own beside them, so that each can be changed, and run, alone."""
    tests = Path(__file__).parent
    pattern = re.compile(r"^\s*(?:from|import) tests\.(test_\w+)", re.MULTILINE)
    assert {path.name: found for path in tests.glob("*.py") if (found := pattern.findall(path.read_text()))} == {}
