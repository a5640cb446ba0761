"""docs/ says what is so: every public name, option, event, setting and surgery, and drawings of the surgeries."""

import importlib
import json
import re
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

import onnx
import pytest

import onnxsurgeon
from onnxsurgeon import SurgeonSettings, evolve
from onnxsurgeon.surgeon.settings import PRESETS
from onnxsurgeon.surgery import SURGERIES
from onnxsurgeon.surgery.base import usage
from tests.conftest import MODELS

DOCS = MODELS.parent / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if page.name not in ("commands.md", "changelog.md"))
SVG = "{http://www.w3.org/2000/svg}"


def text(page):
    return (DOCS / f"{page}.md").read_text()


def options():
    """Every option of every command."""
    from typer.main import get_command

    from onnxsurgeon.cli import app

    commands = [get_command(app)]
    for command in commands:
        commands += getattr(command, "commands", {}).values()
        for parameter in command.params:
            yield from (*parameter.opts, *parameter.secondary_opts)


def test_the_api_reference_has_every_public_name_once():
    listed = re.findall(r"^::: onnxsurgeon\.(\w+)$", text("api"), re.MULTILINE)
    assert sorted(listed) == sorted(onnxsurgeon.__all__)


OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


@pytest.mark.parametrize("page", [DOCS.parent / "README.md", *PAGES], ids=lambda page: page.stem)
def test_options_that_a_page_names_exist(page):
    inline = re.findall(r"`([^`\n]+)`", page.read_text())
    lines = [line for line in inline if not line.startswith("python ")]
    lines += re.findall(r"^(?: {4}|\$ )?onnxsurgeon .*", page.read_text(), re.MULTILINE)
    named = {name for line in lines for name in OPTION.findall(line)}
    # The last are those of tools/benchmark.py and tools/better_networks.py.
    assert named <= {*options(), "--help", "--rounds", "--plot", "--run", "--peer-python", "--tables"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_options_of_tools_that_a_page_names_exist(page):
    for name, arguments in re.findall(
        r"(?:^ {4}|`)(?:\$ )?python (tools/\w+\.py)([^`\n#]*)", page.read_text(), re.MULTILINE
    ):
        text = (DOCS.parent / name).read_text()
        packages = (DOCS.parent / "tools").glob("*/*.py")
        code = text + "".join(path.read_text() for path in packages)
        assert [option for option in OPTION.findall(arguments) if f'"{option}"' not in code] == [], name


def test_the_page_on_surgeries_has_and_draws_them_all():
    page = text("surgeries")
    for name, kind in SURGERIES.items():
        if not kind.is_for_one:
            continue
        assert f"`{usage(kind)}`" in page
        for theme in ("light", "dark"):
            assert f"(surgeries/{name}-{theme}.svg#only-{theme})" in page


def test_the_drawings_are_those_that_the_tool_makes(tmp_path):
    pytest.importorskip("matplotlib")
    from draw_surgeries import main

    # Matplotlib's releases differ in how they write paths, so what is compared is what a drawing says and shows.
    made = {path.name: content(path) for path in main(tmp_path)}
    assert made == {path.name: content(path) for path in (DOCS / "surgeries").iterdir()}


def content(path):
    root = ET.parse(path).getroot()
    words = ["".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")]
    styles = [element.get("style", "") for element in root.iter(f"{SVG}path")]
    colours = sorted(colour for style in styles for colour in re.findall(r"stroke: (#\w+)", style))
    return words, colours


def test_the_presets_are_described():
    page = text("surgeon")
    for name in PRESETS["paper"]:
        assert f"| `--{name.replace('_', '-')}` |" in page


def test_the_page_on_files_describes_what_a_run_writes(tmp_path):
    page = text("files")
    settings = SurgeonSettings.from_preset(
        "corrected", epochs=2, initial_epochs=1, epoch_step=1, recuperation_batches=2, seed=6
    )
    run = evolve(MODELS / "digits-small.onnx", "digits", settings=settings, run_dir=tmp_path / "run").run
    assert {path.name for path in run.iterdir()} <= set(re.findall(r"^  (\w[\w.]*)", page, re.MULTILINE)) | {"branches"}
    for line in (run / "journal.jsonl").read_text().splitlines():
        event = json.loads(line)
        described = next(row for row in page.splitlines() if row.startswith(f"| `{event['event']}` |"))
        if event["event"] in ("proposed", "recuperated", "decided"):
            assert {key for key in event if f"`{key}`" not in described} == {"event"}
    for key in json.loads((run / "settings.json").read_text()):
        assert f"`{key}`" in page
    for entry in onnx.load(run / "best.onnx").metadata_props:
        assert f"`{entry.key}`" in page


@pytest.mark.parametrize("page", [DOCS.parent / "README.md", *PAGES], ids=lambda page: page.stem)
def test_whatever_a_page_starts_listens_on_this_machine_only(page):
    served = re.findall(
        r"^.*(?:dask scheduler|dask worker|http\.server|tensorboard --|mlflow ui|mlflow server).*$",
        page.read_text(),
        re.MULTILINE,
    )
    assert [line for line in served if "127.0.0.1" not in line] == []


def test_the_table_of_surgeries_is_what_they_say_of_themselves():
    lines = [line for line in text("surgeries").splitlines() if line.startswith("| [")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = {row[1].strip("`"): row[2] for row in rows}
    assert found == {usage(kind): kind.exact_if for kind in SURGERIES.values() if kind.is_for_one}


NOT_CODE = {"[tool.importlinter]", "make lint", "widen:1:8", "loop", "artifacts"}  # of docs/architecture.md


@cache
def words_of(package):
    return {word for path in package.rglob("*.py") for word in re.findall(r"\w+", path.read_text())}


def missing_code(named):
    """Whether the package lacks what docs/architecture.md names: a file or several, a folder, a class, a function."""
    package = Path(onnxsurgeon.__file__).parent
    if "/" in named or named.endswith(".py"):
        return not any(package.glob(named))
    module, _, name = named.rpartition(".")
    if not module:
        return name not in words_of(package)
    return not hasattr(importlib.import_module(f"onnxsurgeon.{module}"), name)


def test_what_the_architecture_page_names_exists():
    named = set(re.findall(r"`([^`\n]+)`", text("architecture")))
    assert named >= NOT_CODE
    assert sorted(each for each in named - NOT_CODE if missing_code(each)) == []
    assert missing_code("graph/nowhere.py")
    assert missing_code("randomness.nothing")


def test_the_drawing_of_the_rooms_has_every_room():
    (drawing,) = re.findall(r"```text\n(.*?)```", text("architecture"), re.DOTALL)
    *floors, ground = drawing.splitlines()
    package = Path(onnxsurgeon.__file__).parent
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert {word for floor in floors for word in floor[:35].split()} == {*rooms, "onnxsurgeon"}
    assert set(ground.replace("…", "").split()) <= {path.stem for path in package.glob("*.py")}
