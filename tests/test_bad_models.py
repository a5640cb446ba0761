"""Every bad model ends in one line that names the file and what is wrong in it; the table is tools/bad_models.py."""

import sys
import time

import pytest
from bad_models import CASES, FILE, Answer, find_faults, run_case

from onnxsurgeon.cli import main


def answer_here(name, folder, capsys, monkeypatch):
    """The command line in this process, which is faster than one for each case."""
    CASES[name].make(folder)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["onnxsurgeon", "inspect", str(folder / FILE)])
    start = time.perf_counter()
    with pytest.raises(SystemExit) as ended:
        main()
    seconds = time.perf_counter() - start
    shown = capsys.readouterr()
    return Answer(ended.value.code or 0, shown.out, shown.err, seconds)


@pytest.mark.parametrize("name", CASES)
def test_one_line_says_what_is_wrong(name, tmp_path, capsys, monkeypatch):
    answer = answer_here(name, tmp_path, capsys, monkeypatch)
    assert find_faults(name, answer) == [], answer


@pytest.mark.parametrize("name", ["subgraphs nested 10,000 deep", "ConstantOfShape of 2^40 elements", "empty"])
def test_the_same_in_a_process_of_its_own(name, tmp_path):
    answer = run_case(name, tmp_path)
    assert find_faults(name, answer) == [], answer


def test_faults_are_found():
    assert find_faults("empty", Answer(1, "", "Traceback\nKeyError", 0.1)) == [
        "exit code 1, expected 2",
        "does not name 'not an ONNX model'",
        "2 lines on standard error",
        "does not name the file",
    ]
    assert find_faults("empty", Answer(2, "x", f"{FILE}: not an ONNX model", 11)) == [
        "something on standard output",
        "took 11.0 s",
    ]
