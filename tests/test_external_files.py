"""Files of external data: how large they are, what they are called, and what becomes of old ones."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import convert_model_to_external_data

from onnxsurgeon import ModelError, create, load, save
from onnxsurgeon.cli import main
from onnxsurgeon.graph.external import ALIGNMENT, LARGE, layout
from onnxsurgeon.graph.files import copy_model, read_parts, write_parts
from onnxsurgeon.graph.writer import to_model, to_parts

SIZES = (20, 64, 32, 5)


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run the command line; returns (exit code, standard output)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["onnxsurgeon", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code or 0, " ".join(capsys.readouterr().out.split())

    return call


def outside(seed=0, sizes=SIZES):
    network = create(sizes, seed=seed)
    return replace(network, frame=replace(network.frame, external=True))


def exported(path, location="H_external.bin", sizes=SIZES, seed=0):
    """A model as exporters write it: every tensor, however small, in one file that is called as they please."""
    model = to_model(create(sizes, seed=seed))
    convert_model_to_external_data(model, location=location, size_threshold=0)
    onnx.save(model, path)
    return path


def data_files(folder):
    return sorted(each.name for each in Path(folder).iterdir() if each.suffix != ".onnx")


def locations(path):
    model = onnx.load(path, load_external_data=False)
    return {entry.value for each in model.graph.initializer for entry in each.external_data if entry.key == "location"}


def equal(path, network):
    read = load(path)
    return all(
        np.array_equal(a, b)
        for left, right in zip(read.segments, network.segments, strict=True)
        for (_, a), (_, b) in zip(left.parameters(), right.parameters(), strict=True)
    )


def test_small_tensors_are_not_padded(cli, tmp_path):
    given = exported(tmp_path / "model.onnx")
    before = (tmp_path / "H_external.bin").stat().st_size
    code, out = cli("operate", given, "widen:1:4", "-o", tmp_path / "o.onnx")
    assert code == 0
    assert "external" not in out
    assert data_files(tmp_path) == ["H_external.bin", "o.onnx.data"]
    assert locations(tmp_path / "o.onnx") == {"o.onnx.data"}
    added = 4 * (4 * SIZES[0] + 4 + 4 * SIZES[2])
    assert (tmp_path / "o.onnx.data").stat().st_size <= before + added + 6 * 16


def test_large_tensors_can_be_mapped_by_themselves():
    small, large = np.zeros(5, "f"), np.zeros(LARGE, np.uint8)
    places, length = layout([("a", small), ("b", small), ("c", large), ("d", small)])
    assert [places[name][0] for name in "abc"] == [0, 32, ALIGNMENT]
    assert length == ALIGNMENT + LARGE + small.nbytes


def test_the_same_file_in_and_out_leaves_no_orphan(cli, tmp_path):
    given = exported(tmp_path / "model.onnx")
    code, out = cli("operate", given, "widen:1:4", "-o", given, "--force")
    assert code == 0
    assert data_files(tmp_path) == ["model.onnx.data"]
    assert "'H_external.bin' is removed: only the model that 'model.onnx' was referred to it" in out
    assert load(given).topology == "20-68-32-5"


@pytest.mark.parametrize("inline", [False, True])
def test_what_is_written_over_takes_its_data_with_it(inline, tmp_path):
    path = exported(tmp_path / "o.onnx", location="o.onnx.data")
    network = create((20, 7, 5), seed=3) if inline else outside(seed=3)
    assert save(network, path, overwrite=True) == ()
    assert data_files(tmp_path) == ([] if inline else ["o.onnx.data"])
    assert locations(path) == (set() if inline else {"o.onnx.data"})
    assert equal(path, network)


def test_new_and_copies_leave_no_orphan(cli, tmp_path):
    path = exported(tmp_path / "o.onnx", location="weights.bin")
    assert cli("new", "4-3-2", "-o", path, "--force")[0] == 0
    assert data_files(tmp_path) == []
    path = exported(tmp_path / "o.onnx", location="weights.bin")
    save(create((4, 3, 2)), tmp_path / "plain.onnx")
    copy_model(tmp_path / "plain.onnx", path, overwrite=True)
    assert data_files(tmp_path) == []
    source = exported(tmp_path / "source.onnx", location="weights.bin")
    copy_model(source, path, overwrite=True)
    assert data_files(tmp_path) == ["o.onnx.data", "weights.bin"]
    assert equal(path, create(SIZES))


@pytest.mark.parametrize("location", ["o.onnx.data", "shared.bin"])
@pytest.mark.parametrize("copy", ["backup.onnx", "o.onnx.bak", "model.pb"])
def test_data_that_another_model_refers_to_stays(location, copy, tmp_path):
    path = exported(tmp_path / "o.onnx", location=location)
    (tmp_path / copy).write_bytes(path.read_bytes())
    old = (tmp_path / location).read_bytes()
    told = save(outside(seed=3), path, overwrite=True)
    assert (tmp_path / location).read_bytes() == old
    assert equal(path, outside(seed=3))
    if location == "o.onnx.data":
        assert f"'{copy}' refers to 'o.onnx.data'" in told[0]
        (name,) = locations(path)
        assert name.startswith("o.onnx.")
        assert name.endswith(".data")
        (tmp_path / copy).unlink()
        assert save(outside(seed=4), path, overwrite=True) == ()
        assert data_files(tmp_path) == ["o.onnx.data"]
    else:
        assert locations(path) == {"o.onnx.data"}
        assert told == ()


def test_a_longer_name_is_another(tmp_path):
    path = exported(tmp_path / "o.onnx", location="o.onnx.data")
    exported(tmp_path / "foo.onnx", location="foo.onnx.data", seed=1)
    assert save(outside(seed=3), path, overwrite=True) == ()
    assert data_files(tmp_path) == ["foo.onnx.data", "o.onnx.data"]
    assert equal(tmp_path / "foo.onnx", create(SIZES, seed=1))


def test_a_name_that_is_taken_is_told(cli, tmp_path):
    (tmp_path / "o.onnx.data").write_bytes(b"mine")
    given = exported(tmp_path / "model.onnx")
    code, out = cli("operate", given, "widen:1:4", "-o", tmp_path / "o.onnx")
    assert code == 0
    assert "'o.onnx.data' exists already and is not this model's" in out
    assert (tmp_path / "o.onnx.data").read_bytes() == b"mine"
    assert load(tmp_path / "o.onnx").topology == "20-68-32-5"


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_a_name_that_is_no_plain_file_is_left(kind, tmp_path):
    path = exported(tmp_path / "o.onnx")
    taken = tmp_path / "o.onnx.data"
    (tmp_path / "target").write_bytes(b"mine")
    {"pipe": lambda: os.mkfifo(taken), "folder": taken.mkdir, "link": lambda: taken.symlink_to("target")}[kind]()
    assert "is not this model's" in save(outside(seed=3), path, overwrite=True)[0]
    assert equal(path, outside(seed=3))
    assert (tmp_path / "target").read_bytes() == b"mine"
    assert os.path.lexists(taken)


@pytest.mark.parametrize("name", ["rows.csv", "notes.bin"])
def test_a_model_cannot_have_files_removed_that_are_more_than_its_data(name, tmp_path):
    path = exported(tmp_path / "o.onnx", location=name)
    if name == "notes.bin":
        with (tmp_path / name).open("ab") as file:
            file.write(bytes(2 * ALIGNMENT))
    old = (tmp_path / name).read_bytes()
    (told,) = save(outside(seed=3), path, overwrite=True)
    assert (tmp_path / name).read_bytes() == old
    assert f"'{name}' is left" in told


class Stopped(BaseException):
    """A process that ends here and now."""


def stop_at(call, monkeypatch, error):
    """Let the process end at a call, counted over all that make something on the disk the case; how many there are."""
    calls = []

    def counted(function):
        def wrapped(*arguments, **options):
            calls.append(function)
            if len(calls) - 1 == call:
                raise error
            return function(*arguments, **options)

        return wrapped

    for owner, name in ((os, "fsync"), (os, "link"), (Path, "replace"), (Path, "unlink")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    return calls


@pytest.mark.parametrize("location", ["o.onnx.data", "weights.bin"])
@pytest.mark.parametrize("error", [Stopped(), OSError(28, "No space left on device")], ids=["stopped", "full"])
def test_wherever_writing_stops_the_model_has_its_data(location, error, tmp_path, monkeypatch):
    finished = False
    for call in range(100):
        folder = tmp_path / str(call)
        folder.mkdir()
        path = exported(folder / "o.onnx", location=location)
        new = outside(seed=3)
        with monkeypatch.context() as patch:
            calls = stop_at(call, patch, error)
            try:
                save(new, path, overwrite=True)
                ended = True
            except (Stopped, ModelError, OSError):
                ended = False
            finished = len(calls) <= call
        assert equal(path, new) or (not ended and equal(path, create(SIZES)))
        save(new, path, overwrite=True)
        assert equal(path, new)
        left = data_files(folder)
        assert "o.onnx.data" in left
        assert [name for name in left if name not in ("o.onnx.data", "weights.bin") and not name.endswith(".tmp")] == []
        if finished:
            assert left == ["o.onnx.data"]
            break
    assert finished


def test_without_hard_links_the_reason_is_told(tmp_path, monkeypatch):
    path = exported(tmp_path / "o.onnx", location="o.onnx.data")

    def refused(*names):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refused)
    (told,) = save(outside(seed=3), path, overwrite=True)
    assert "'o.onnx.data' cannot be replaced: " in told
    assert "Operation not supported" in told
    (name,) = locations(path)
    assert data_files(tmp_path) == [name]
    assert equal(path, outside(seed=3))


def test_a_failed_write_leaves_no_data(tmp_path, monkeypatch):
    def refused(*names):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("onnxsurgeon.graph.files.write.flush_folder", refused)
        with pytest.raises(ModelError, match="No space left"):
            write_parts(to_parts(outside()), tmp_path / "o.onnx")
    assert list(tmp_path.iterdir()) == []
    write_parts(to_parts(outside()), tmp_path / "o.onnx")
    assert read_parts(tmp_path / "o.onnx").external
