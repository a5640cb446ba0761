"""The shell completes commands, options, choices, data sets and surgeries."""

import os
import re
import subprocess
import sys

import pytest

PROGRAM = "import sys; sys.argv[0] = 'onnxsurgeon'; from onnxsurgeon.cli import main; main()"


def run(**variables):
    environment = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("onnxsurgeon ev", ["evaluate", "evolve"]),
        (
            "onnxsurgeon evolve m.onnx --max-",
            ["--max-parameters", "--max-size", "--max-latency", "--max-macs", "--max-memory"],
        ),
        ("onnxsurgeon evolve m.onnx --epsilon", ["--epsilon"]),  # experts' options too, and no old names
        ("onnxsurgeon evolve m.onnx --engine ", ["auto", "loop", "artifacts"]),
        ("onnxsurgeon evolve m.onnx --search s", ["shrink-trained"]),
        ("onnxsurgeon evolve m.onnx --data em", ["emnist"]),
        ("onnxsurgeon data info cifar", ["cifar10", "cifar100"]),
        ("onnxsurgeon operate m.onnx pr", ["prune:"]),
        ("onnxsurgeon train m.onnx --schedule co", ["constant", "cosine"]),
    ],
)
def test_bash(words, found):
    count = len(words.split()) - (not words.endswith(" "))
    out = run(_ONNXSURGEON_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(count))
    assert out.split() == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_a_shell_is_to_source(shell):
    out = run(_ONNXSURGEON_COMPLETE=f"source_{shell}")
    assert f"_ONNXSURGEON_COMPLETE=complete_{shell}" in out
    assert re.search(r"(-F|compdef) _onnxsurgeon_completion onnxsurgeon|--command onnxsurgeon", out)
