"""The bytes of a file before it is written, and that a model's own story is not what fills it."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnxsurgeon import create, load, save
from onnxsurgeon.graph.external import size_on_disk
from onnxsurgeon.graph.files import write_parts
from onnxsurgeon.graph.writer import to_parts
from onnxsurgeon.runs.branch import RECUPERATED, TRAINED, Branch, Measurement, read_branch, write_branch
from onnxsurgeon.surgeon.file_size import (
    bytes_as_written,
    bytes_besides_parameters,
    bytes_of_parameters,
    parameters_within,
)
from tests.conftest import MODEL_FILES


def branch_of(network, measurements=3, number=7):
    history = tuple(Measurement(i, i / 3, TRAINED, 1 / (i + 3), 0.1 + i) for i in range(measurements))
    return Branch(number, 3, "prune:1:8+prune:2:9", network, ("widen:1:8",) * 12, history, -0.25)


@pytest.mark.parametrize("path", MODEL_FILES, ids=lambda path: path.stem)
def test_the_size_is_that_of_the_file(path, tmp_path):
    network = load(path)
    save(network, tmp_path / "best.onnx")
    assert bytes_as_written(network) == (tmp_path / "best.onnx").stat().st_size
    branch = branch_of(network)
    assert bytes_as_written(branch) == write_branch(branch, tmp_path).stat().st_size
    assert bytes_as_written(branch) > bytes_as_written(network)
    weights = sum(
        values.size * segment.file_dtype.itemsize for segment in network.segments for _, values in segment.parameters()
    )
    assert bytes_of_parameters(network) == weights
    assert bytes_besides_parameters(branch) + weights == bytes_as_written(branch)


def test_external_data_counts(tmp_path):
    network = create((64, 300, 10), seed=1)
    outside = replace(network, frame=replace(network.frame, external=True))
    for name in ("best.onnx", "another-name.onnx"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        write_parts(to_parts(outside), folder / name)
        files = list(folder.iterdir())
        assert len(files) == 2
        assert bytes_as_written(outside, name) == sum(file.stat().st_size for file in files)
        assert bytes_as_written(outside, name) == size_on_disk(folder / name)
        assert bytes_as_written(network, name) < (folder / name).stat().st_size + 4 * network.parameter_count


def test_half_precision_takes_half():
    network = create((64, 10, 10), seed=1)
    halves = tuple(replace(segment, stored=np.dtype(np.float16)) for segment in network.segments)
    network = replace(network, segments=halves)
    assert bytes_of_parameters(network) == 2 * network.parameter_count == 1520
    limit = bytes_as_written(network)
    assert limit < bytes_as_written(create((64, 10, 10), seed=1)) - 1400
    assert parameters_within(limit, network) == network.parameter_count
    assert parameters_within(limit - 100, network) == network.parameter_count - 50


def test_a_limit_becomes_a_number_of_parameters():
    branch = branch_of(create((64, 10, 10), seed=1))
    limit = bytes_as_written(branch)
    assert parameters_within(limit, branch) == branch.network.parameter_count == 760
    assert parameters_within(limit + 3, branch) == 760
    assert parameters_within(limit + 4, branch) == 761
    assert parameters_within(limit - 1, branch) == 759
    assert parameters_within(100, branch) <= 0


def test_a_file_tells_the_latest_measurements_only(tmp_path):
    network = create((64, 10, 10), seed=1)
    sizes = [bytes_as_written(branch_of(network, count)) for count in (2, 3, 30, 300)]
    assert max(sizes) - min(sizes) < 60
    branch = branch_of(network, 30)
    tried = replace(branch.history[-1], position=31, stage=RECUPERATED)
    ended = replace(branch.history[-1], position=32)
    for added, told in (((), [28, 29]), ((tried,), [29, 31]), ((tried, ended), [29, 31, 32])):
        path = write_branch(replace(branch, history=(*branch.history, *added)), tmp_path)
        again = read_branch(path)
        assert [entry.position for entry in again.history] == told
        assert again.accuracy == (*branch.history, *added)[-1].accuracy
        assert write_branch(again, tmp_path).read_bytes() == path.read_bytes()
        (entry,) = (each for each in onnx.load(path).metadata_props if each.key == "onnxsurgeon.history")
        assert len(json.loads(entry.value)) == len(told)
