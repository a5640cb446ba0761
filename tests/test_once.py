"""Which tests touch ONNX Runtime is seen (``tests.once``): by themselves, a fixture, an import, or a process."""

import os
import re
import subprocess
import sys

import pytest

from tests.conftest import MODELS

MODEL = MODELS / "digits-small.onnx"
TESTS = {
    "test_some.py": f"""
import subprocess
import sys
from multiprocessing import get_context

import onnx
import pytest

from onnxsurgeon import load
from onnxsurgeon.runtime import onnxruntime as asked, session

PATH = {str(MODEL)!r}

def test_reads():
    assert load(PATH).layers

def test_asks():
    assert asked().__version__

def test_runs():
    assert session(onnx.load(PATH)).get_inputs()

def test_starts_a_process():
    assert subprocess.run([sys.executable, "-c", ""], check=True)

def test_starts_a_worker():
    started = get_context("spawn").Process(target=print)
    started.start()
    started.join()

@pytest.fixture(scope="module")
def dear():
    return session(onnx.load(PATH)).get_inputs()[0].name

@pytest.fixture(scope="module")
def of_it(dear):
    return dear + "!"

@pytest.fixture
def cheap():
    return 1

def test_takes_what_a_fixture_made(dear):
    assert dear

def test_takes_it_too(dear):
    assert dear

def test_takes_what_was_made_of_it(of_it):
    assert of_it

def test_takes_it_by_name(request):
    assert request.getfixturevalue("dear")

def test_takes_another(cheap):
    assert cheap

@pytest.mark.parametrize("number", [1, 2])
def test_numbers(number):
    assert number

def test_is_skipped():
    pytest.skip("not here")

@pytest.mark.xfail(strict=True)
def test_is_expected_to_fail():
    raise AssertionError
""",
    "test_made_when_imported.py": f"""
import onnx

from onnxsurgeon.runtime import session

INPUTS = session(onnx.load({str(MODEL)!r})).get_inputs()

def test_inputs():
    assert INPUTS
""",
    "test_importing.py": """
import onnxruntime

def test_its_version():
    assert onnxruntime.__version__
""",
    "test_failing.py": """
import pytest

def test_fails():
    raise AssertionError

@pytest.fixture
def broken():
    yield
    raise AssertionError

def test_fails_in_the_end(broken):
    pass
""",
}
UNTOUCHED = ["test_numbers[1]", "test_numbers[2]", "test_reads", "test_takes_another"]


def ran(folder, *arguments):
    """How many tests had which result."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.once", "-p", "no:cacheprovider", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(MODELS.parent)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", done.stdout.splitlines()[-1])}


@pytest.mark.parametrize("workers", [(), ("-n", "2", "--dist", "worksteal")], ids=["alone", "two workers"])
def test_those_that_touched_nothing_are_left_out(workers, tmp_path):
    for name, text in TESTS.items():
        (tmp_path / name).write_text(text)
    written = tmp_path / "build" / "untouched.txt"
    first = ran(tmp_path, "--untouched", written, *workers)
    assert {kind: first[kind] for kind in ("passed", "failed", "error", "skipped", "xfailed")} == {
        "passed": 15,
        "failed": 1,
        "error": 1,
        "skipped": 1,
        "xfailed": 1,
    }
    assert written.read_text().splitlines() == [f"test_some.py::{name}" for name in UNTOUCHED]
    second = ran(tmp_path, "--leave-out-untouched", written, *workers)
    assert second["passed"] == 15 - len(UNTOUCHED)
    assert second["failed"] == second["error"] == 1


def test_without_a_list_all_are_run(tmp_path):
    (tmp_path / "test_one.py").write_text("def test_one():\n    pass\n")
    assert ran(tmp_path, "--leave-out-untouched", "nowhere.txt")["passed"] == 1
