"""Whatever is refused has a code and an entry: every raise names its kind, each is raised, the page has them all."""

import ast
import json
import pickle
import re
from typing import get_args

import pytest
import troubleshooting

import onnxsurgeon
from onnxsurgeon import errors
from onnxsurgeon.cli.streams import OutputError
from onnxsurgeon.refusals import SECTIONS, Kind, refusals
from tests.conftest import MODELS, without_code

PACKAGE = MODELS.parent / "onnxsurgeon"
PAGE = (MODELS.parent / "docs" / "troubleshooting.md").read_text()
CLASSES = {
    name: each
    for name, each in {**vars(errors), "OutputError": OutputError}.items()
    if isinstance(each, type) and issubclass(each, errors.OnnxSurgeonError)
}
OF_THE_COMMAND_LINE = {"usage", "system"}  # errors of Typer, and of the operating system


def source():
    """The package's text, with strings that go on in the next line put together."""
    whole = "\n".join(path.read_text() for path in sorted(PACKAGE.rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", whole)


def refusing_calls():
    """Every call of one of the classes, or of a class in a variable ``error``, with its file and line."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {*CLASSES, "error"}:
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def kinds_of(node):
    """The kinds that a second argument may be; ``error.kind`` passes on that of another error."""
    if isinstance(node, ast.IfExp):
        return kinds_of(node.body) | kinds_of(node.orelse)
    if isinstance(node, ast.Attribute):
        assert node.attr == "kind"
        return set()
    assert isinstance(node, ast.Constant)
    return {node.value}


def test_every_error_that_is_raised_names_its_kind():
    calls = dict(refusing_calls())
    assert len(calls) > 500
    assert [place for place, call in calls.items() if len(call.args) != 2 or call.keywords] == []
    named = {place: kinds_of(call.args[1]) for place, call in calls.items()}
    assert {place: kinds for place, kinds in named.items() if not kinds <= set(get_args(Kind))} == {}


def test_no_error_is_raised_without_being_called():
    trees = [ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))]
    raised = [node.exc for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    assert [each.id for each in raised if isinstance(each, ast.Name) and each.id in CLASSES] == []


def test_every_kind_is_raised_somewhere():
    raised = set().union(*(kinds_of(call.args[1]) for _, call in refusing_calls()))
    assert set(get_args(Kind)) - raised == OF_THE_COMMAND_LINE


def test_the_registry_is_in_order():
    entries = refusals()
    assert tuple(entries) == get_args(Kind)
    codes = [entry.code for entry in entries.values()]
    wanted = {letter: [code for code in codes if code.startswith(letter)] for letter in SECTIONS}
    assert codes == [code for group in wanted.values() for code in group]
    for letter, group in wanted.items():
        assert group == [f"{letter}{number:02}" for number in range(1, len(group) + 1)]
    assert len({entry.heading for entry in entries.values()}) == len(entries)
    assert all(entry.means.strip() and entry.cure.strip() for entry in entries.values())


def test_every_message_that_is_quoted_is_one():
    code = source()
    quoted = [text for name, entry in refusals().items() if name not in OF_THE_COMMAND_LINE for text in entry.says]
    quoted += re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)
    assert len(quoted) >= 200
    missing = [text for text in quoted for part in text.split(" … ") if part.strip("… ") not in code]
    assert missing == []


def test_the_page_has_every_entry_with_an_anchor():
    assert troubleshooting.with_tables(PAGE) == PAGE, "python tools/troubleshooting.py"
    assert re.findall(r'^\| <a id="(\w+)"></a>\1 \|', PAGE, re.MULTILINE) == [e.code for e in refusals().values()]
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert headings[: len(SECTIONS)] == list(SECTIONS.values())


def test_links_of_a_cure_lead_to_pages_and_headings_that_exist():
    for entry in refusals().values():
        for page, anchor in re.findall(r"\]\(([\w/]+\.md)#?([\w-]*)\)", entry.cure):
            text = (MODELS.parent / "docs" / page).read_text()
            headings = [re.sub(r"[^\w -]", "", line).lower() for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
            assert not anchor or anchor in [heading.replace(" ", "-") for heading in headings], (entry.code, anchor)


@pytest.mark.parametrize("kind", CLASSES.values(), ids=lambda each: each.__name__)
def test_an_error_knows_its_code_and_keeps_it_between_processes(kind):
    error = kind("m.onnx: no dense layers found", "no-layers")
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert (type(each), str(each), each.kind) == (kind, "m.onnx: no dense layers found", "no-layers")
        assert (each.code, each.link) == ("M01", "troubleshooting.md#M01")
        assert each.explanation.startswith("M01: No layers to work on\n")
        assert "puts new layers (docs/howto/head.md) on any model" in each.explanation


def test_errors_from_python_have_a_code(tmp_path):
    with pytest.raises(onnxsurgeon.ModelError) as caught:
        onnxsurgeon.load(tmp_path / "none.onnx")
    assert (caught.value.code, caught.value.kind) == ("F02", "no-such-file")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("inspect none.onnx", "F02"),
        ("evolve m.onnx --data mnst", "D01"),
        ("evolve m.onnx --data digits --epochs 0", "O09"),
        ("evolve m.onnx --data digits --max-parameters 3", "O01"),
        ("operate m.onnx cut:1 -o o.onnx", "S04"),
        ("evolve --resume .", "R07"),
        ("evolve m.onnx --data digits --device cuda", "E02"),
        ("evolve m.onnx --data digits --epoch 3", "O07"),
        ("evolve m.onnx --data digits --epochs three", "O07"),
        ("inspect", "O07"),
        ("inspekt m.onnx", "O07"),
        ("data lst", "O07"),
        ("--verson", "O07"),
        ("explain X01", "O08"),
    ],
)
def test_the_line_of_the_command_line_ends_with_the_code(command, code, refused, tmp_path):
    onnxsurgeon.save(onnxsurgeon.create((64, 6, 10), seed=1, input_shape=(8, 8)), tmp_path / "m.onnx")
    status, out, err = refused(*command.split())
    assert (status, out) == (2, "")
    assert err.endswith(f" [{code}]\n")
    assert without_code(err) == err.removesuffix(f" [{code}]\n") + "\n"


def test_explain_says_what_a_code_means(cli):
    for spelled in ("D07", "d07", "[D07]"):
        code, out, err = cli("explain", spelled)
        assert (code, err) == (0, "")
        assert out.splitlines() == [
            "D07: Too few rows",
            "such as: “too few to hold out”",
            "what it means: so few rows that no part of them can decide",
            "what to do: more rows, or a validation split of your own",
            "more: docs/troubleshooting.md#D07",
        ]
    code, out, err = cli("explain")
    assert (code, err) == (0, "")
    assert re.findall(r"^  ([A-Z]\d\d)  \S", out, re.MULTILINE) == [entry.code for entry in refusals().values()]
    (entry,) = json.loads(cli("explain", "M01", "--json")[1])
    assert (entry["code"], entry["link"]) == ("M01", "troubleshooting.md#M01")
    assert len(json.loads(cli("explain", "--json")[1])) == len(refusals())
    assert "'X01' is unknown: expected such as M01" in cli("explain", "X01")[2]
