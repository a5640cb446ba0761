"""What a report says first: the wish, its answer, three large numbers; and the code that runs a result."""

import ast
import shutil
import subprocess

import onnx
import pytest
from onnx import TensorProto, helper

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from onnxsurgeon.report.deployment import snippets
from onnxsurgeon.report.headline import BETTER, MORE, SAME, WORSE, headline
from onnxsurgeon.report.invocation import Invocation, Setting
from onnxsurgeon.report.page import _recalls
from onnxsurgeon.runs.family import Decision, Finish, History, Member, Point
from onnxsurgeon.runs.footprint import Footprint
from onnxsurgeon.runs.predictions import Classes
from tests.conftest import MODELS


def invocation(**settings):
    found = tuple(Setting(name, value, "", changed=True) for name, value in settings.items())
    return Invocation("m.onnx", "digits", found, {}, {}, "")


def ended(before, after, accuracies=(0.9, 0.92), **others):
    finish = Finish(3, "4-2", after.parameters, (), 0.9, accuracies[1], accuracies[0], costs=(before, after), **others)
    return History({0: Member(0), 3: Member(3)}, [], finish)


def numbers(found):
    return [(each.name, each.number, each.verdict) for each in found.numbers]


def test_smaller_faster_better():
    found = headline(ended(Footprint(10_000, 4000, 0.2), Footprint(1000, 800, 0.05)), invocation(shrink=8.0), "")
    assert numbers(found) == [("smaller", "10×", BETTER), ("faster", "4×", BETTER), ("better", "+0.0200", BETTER)]
    assert found.numbers[0].details == ("10,000 → 1,000 parameters", "file 4 kB → 800 B")
    assert (found.asked, found.answer, found.is_met) == ("8× fewer parameters", "found", True)


def test_larger_slower_worse():
    found = headline(ended(Footprint(100, 900, 0.1), Footprint(250, 2000, 0.3), (0.9, 0.85)), invocation(), "")
    assert numbers(found) == [("larger", "2.5×", MORE), ("slower", "3×", MORE), ("worse", "−0.0500", WORSE)]


def test_what_is_the_same_and_what_was_not_measured():
    found = headline(ended(Footprint(100, 900), Footprint(100, 900), (0.9, 0.9)), invocation(), "")
    assert numbers(found) == [("the same size", "1×", SAME), ("as good", "±0", SAME)]
    found = headline(ended(Footprint(100, 900, 1.0), Footprint(100, 900, 1.05)), invocation(), "")
    assert numbers(found)[1] == ("the same speed", "≈ 1×", SAME)


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, "the best accuracy"),
        ({"objective": "pareto", "max_size": 20_000}, "the best of every size, a file of at most 20 kB"),
        ({"lose": 0.005}, "the smallest that loses at most 0.5%"),
        ({"max_parameters": 5000, "max_latency": 0.01}, "at most 5,000 parameters, at most 10 µs a row"),
        ({"min_accuracy": 0.95}, "the smallest with accuracy 0.95"),
    ],
)
def test_what_was_asked_for(settings, asked):
    history = ended(Footprint(100, 900), Footprint(50, 500))
    assert headline(history, invocation(**settings), "").asked == asked


def test_what_was_missed_is_said():
    missed = "no network was found with --shrink 8"
    found = headline(ended(Footprint(100, 900), Footprint(50, 500), shortfall=missed), invocation(shrink=8.0), "")
    assert (found.is_met, missed in found.answer) == (False, True)
    found = headline(ended(Footprint(100, 900), Footprint(50, 500), (0.9, 0.5), is_worse=True), invocation(), "")
    assert (found.is_met, "worse" in found.answer) == (False, True)


def test_a_run_that_goes_on():
    members = {
        0: Member(0, parameters=100, points=(Point(0, "trained", 0.5),)),
        2: Member(2, parameters=50, points=(Point(5, "trained", 0.75),)),
    }
    history = History(members, [Decision(5, (2,), ("4-2",), 2, 0.75, 10, 1.0, 1.0)])
    found = headline(history, invocation(epochs=20), "held-out accuracy")
    assert [(each.name, each.number) for each in found.numbers] == [
        ("smaller", "2×"),
        ("better", "+0.2500"),
        ("done", "25%"),
    ]
    assert found.numbers[1].details == ("held-out accuracy 0.5000 → 0.7500",)
    assert (found.answer, found.is_met) == ("", None)


def test_recall_is_the_share_of_a_classs_rows():
    classes = Classes(3, ("a", "b"), ((0, 0, 9), (0, 1, 1), (1, 1, 3), (1, 0, 1), (2, 0, 5)))
    assert _recalls(classes) == [("a", 10, 9, 0.9), ("b", 4, 3, 0.75), ("2", 5, 0, 0.0)]
    assert _recalls(Classes(900, (), ((3, 777, 41),))) == []  # the mistakes alone


def model(*inputs):
    """A model that hands its inputs on."""
    nodes = [helper.make_node("Identity", [name], [f"y{number}"]) for number, (name, _, _) in enumerate(inputs)]
    ins = [helper.make_tensor_value_info(*each) for each in inputs]
    outs = [helper.make_tensor_value_info(f"y{n}", kind, shape) for n, (_, kind, shape) in enumerate(inputs)]
    return helper.make_model(helper.make_graph(nodes, "g", ins, outs))


def test_code_for_every_input_of_a_model(tmp_path):
    path = tmp_path / 'my "model".onnx'
    onnx.save(model(('in "1"', TensorProto.FLOAT, ["n", 3, 2]), ("b", TensorProto.INT64, ["n"])), path)
    python, javascript, cpp = snippets(path)
    assert [each.language for each in (python, javascript, cpp)] == ["Python", "JavaScript", "C++"]
    ast.parse(python.code)
    assert 'InferenceSession("my \\"model\\".onnx")' in python.code
    assert '"in \\"1\\"": np.zeros((1, 3, 2), np.float32)' in python.code
    assert '"b": new ort.Tensor("int64", new BigInt64Array(1), [1])' in javascript.code
    assert "std::vector<int64_t> values1(1);" in cpp.code


def test_no_code_for_what_cannot_be_written(tmp_path):
    path = tmp_path / "m.onnx"
    assert snippets(path) == []
    onnx.save(model(("a", TensorProto.STRING, ["n"])), path)
    assert snippets(path) == []


@pytest.mark.skipif(not shutil.which("node"), reason="Node.js is not here")
def test_the_javascript_can_be_read(tmp_path):
    script = tmp_path / "use.mjs"
    script.write_text(snippets(MODELS / "digits-small.onnx")[1].code)
    subprocess.run([shutil.which("node"), "--check", script], check=True)
