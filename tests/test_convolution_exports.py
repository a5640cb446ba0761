"""Convolutional networks of five exporters: written back they compute the same, and nothing stays in silence.

tools/convolution_zoo.py, tools/convolution_zoo_keras.py and tools/convolution_zoo_jax.py made the files.
"""

import re
from collections import Counter
from pathlib import Path

import convolution_table
import onnx
import onnx_graphsurgeon as gs
import pytest

from onnxsurgeon import Factorize, InsertIdentity, Widen, from_model, load, operate, save
from onnxsurgeon.graph.canonical import canonicalise
from onnxsurgeon.graph.equivalence import compare_models, random_inputs
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.surgery import Surgery
from onnxsurgeon.surgery.proof import prove_group
from tests.conftest import skip_unreadable

FOLDER = Path(__file__).parent / "convolutions"
FILES = sorted(path.name for path in FOLDER.glob("*.onnx"))
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Of which no width is free.
NOTHING_FREE = ("shufflenet-torch-dynamo.onnx", "shufflenet-torch-legacy.onnx")
# What is found of nodes that need no rule of pooling: convolutions, sums, means, channels beside one another.
FOUND = {
    "adaptive-torch-dynamo": "c3-c6-c4+100-5",
    "all-convolutions-torch-dynamo": "c3-c6-c8-c5",
    "efficientnet-torch-dynamo": "c3-c6-c8+8-5",
    "mobilenet-torch-dynamo": "c3-c6+c6-c12+c12-c12+c12-c6+6-5",
    "mobilenet-excited-torch-dynamo": "c3-c6+c6-c12+c12-c12+c12-c4-c12+c12-c6+6-5",
    "padded-torch-dynamo": "c3-c6-c8+8-5",
    "resnet-torch-dynamo": "c3-c6+c6-c6-c6+c6-c8-c8+c6-c8+8-5",
    "resnet-before-torch-dynamo": "c3-c6+c6-c6-c6+6-5",
    "shufflenet-torch-dynamo": "c3-c8+c8-c8+c8-c8+8-5",
}


def test_there_are_files():
    assert len(FILES) >= 60
    assert FOUND.keys() <= {name.removesuffix(".onnx") for name in FILES}
    assert all((FOLDER / name).stat().st_size < 50_000 for name in FILES)


def test_the_page_has_a_row_for_each_in_which_every_cell_says_yes_or_why_not():
    page = (FOLDER.parent.parent / "docs" / "convolutions.md").read_text()
    rows = [row.strip("| ").split(" | ") for row in re.findall(r"^\| .* \| (?:same|no)[^|]* \|$", page, re.MULTILINE)]
    assert Counter(tuple(row[:2]) for row in rows) == Counter(
        convolution_table.split_name(path) for path in FOLDER.glob("*.onnx")
    )
    for row in rows:
        assert len(row) == len(convolution_table.HEADINGS)
        assert all(cell.strip() for cell in row)
        assert row[2] == load(FOLDER / convolution_table.file_of(*row[:2])).topology
        exact, _, done = row[4].partition(",")[0].partition(" of ")
        assert exact == done or row[4].startswith("none: ")
        assert row[6].startswith("yes, ")
        assert row[7].startswith("same, ")


@pytest.mark.parametrize("name", ["sound-keras.onnx", "unet-tf2onnx.onnx", "vgg-jax2onnx.onnx"])
def test_a_network_with_channels_last_goes_through_the_whole(name):
    skip_unreadable(FOLDER / name)
    row = convolution_table.check(FOLDER / name)
    assert not any(cell.startswith("no: ") or not cell for cell in row.cells())
    before, _, after = row.epoch.partition(" → ")
    assert float(after) < float(before)


@pytest.mark.parametrize("name", FILES)
def test_a_written_file_computes_the_same_behind_the_same_interface(name, tmp_path):
    skip_unreadable(FOLDER / name)
    given = onnx.load(FOLDER / name)
    network = load(FOLDER / name)
    save(network, tmp_path / "same.onnx")
    written = onnx.load(tmp_path / "same.onnx")
    onnx.checker.check_model(written, full_check=True)
    found = compare_models(given, written, random_inputs(given, rows=3))
    assert found.scale > 0
    assert found.relative <= 1e-5
    for field in ("input", "output"):
        assert list(getattr(written.graph, field)) == list(getattr(given.graph, field))
    again = load(tmp_path / "same.onnx")
    assert again.topology == network.topology
    assert to_model(again) == to_model(load(tmp_path / "same.onnx"))


@pytest.mark.parametrize("name", FILES)
def test_each_layer_is_worked_on_or_a_note_says_why_not(name):
    network = load(FOLDER / name)
    worked_on = {layer.names.node for layer in network.layers}
    named = {node.name for node in onnx.load(FOLDER / name).graph.node if node.op_type in LAYERS}
    assert worked_on & named
    for node in named - worked_on:
        assert any(f"'{node}'" in note and " stay" in note for note in network.frame.notes), node


def test_pads_that_an_exporter_computes_of_constants_are_known():
    """PyTorch's older exporter fills them up with zeros, turns them round and casts them before its Pad."""
    graph = gs.import_onnx(onnx.shape_inference.infer_shapes(onnx.load(FOLDER / "padded-torch-legacy.onnx")))
    canonicalise(graph)
    found = [node.inputs[1] for node in graph.nodes if node.op == "Pad"]
    assert [tensor.values.tolist() for tensor in found] == [[0, 0, 1, 1, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1]]


@pytest.mark.parametrize("name", FOUND)
def test_what_is_found(name):
    assert load(FOLDER / f"{name}.onnx").topology == FOUND[name]


@pytest.mark.parametrize("name", FILES)
def test_exact_surgeries_leave_the_whole_model_as_it_is(name):
    """Units added in every group, an identity behind every hidden layer, each hidden layer at full rank."""
    skip_unreadable(FOLDER / name)
    given = onnx.load(FOLDER / name)
    network, feeds = load(FOLDER / name), random_inputs(given, rows=3)
    surgeries: list[Surgery] = []
    for i in range(1, network.group_count + 1):
        if not network.group(i).normalised:
            surgeries += [Widen(i, 2), Widen(i, 2, "equal")]
    for i in range(1, network.hidden_count + 1):
        surgeries += [InsertIdentity(i), Factorize(i, min(network.hidden(i).weight.shape))]
    assert surgeries or name in NOTHING_FREE
    for surgery in surgeries:
        result, record = operate(network, surgery)
        assert record.exact, surgery
        written = to_model(result)
        onnx.checker.check_model(written, full_check=True)
        assert compare_models(given, written, feeds).relative <= 1e-5, surgery
        assert from_model(written).parameter_count == result.parameter_count == record.parameters


@pytest.mark.parametrize("name", FILES)
def test_units_permuted_wherever_a_group_has_them_leave_the_outputs(name):
    network = load(FOLDER / name)
    for i in range(1, network.group_count + 1):
        proof = prove_group(network, i)
        assert proof.together <= 1e-5, network.group(i)
        assert proof.alone > 1e-4, network.group(i)


def test_inspect_shows_the_activation_behind_each_convolution_by_the_name_people_know(cli):
    lines = cli("inspect", FOLDER / "mobilenet-torch-dynamo.onnx")[1].splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("part"))
    column = lines[begin].index("activation")
    table = lines[begin + 1 : lines.index("", begin)]
    found = [line[column:].split()[0] for line in table if line[:1].isdigit()]
    assert found == ["Relu6", "Relu6", "Relu6", "–", "–"]
