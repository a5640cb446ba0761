"""Large arrays a piece at a time."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from onnxsurgeon import buffers
from onnxsurgeon.buffers import release, take_columns


def resident():
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


@pytest.fixture
def mapped(tmp_path):
    values = np.random.default_rng(0).random((8000, 1000)).astype(np.float32)
    values.tofile(tmp_path / "values")
    return values, np.memmap(tmp_path / "values", np.float32, "r", 0, (8000, 1000))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="the system takes no such advice")
def test_released_pages_leave_memory_and_come_back(mapped):
    values, array = mapped
    total = array.sum(dtype=np.float64)
    before = resident()
    release(array.T[:10])
    assert before - resident() > 0.9 * array.nbytes
    assert array.sum(dtype=np.float64) == total == values.sum(dtype=np.float64)


def test_arrays_in_memory_are_left_alone():
    values = np.arange(12.0).reshape(3, 4)
    release(values)
    values.flags.writeable = False
    release(values)
    assert values.sum() == 66


def test_what_may_have_been_changed_is_left_alone(mapped, tmp_path):
    changed = np.memmap(tmp_path / "values", np.float32, "c", 0, (8000, 1000))
    changed[0, 0] = 7
    release(changed)
    assert changed[0, 0] == 7


def test_a_view_that_may_only_be_read_of_a_map_that_was_changed(mapped, tmp_path):
    changed = np.memmap(tmp_path / "values", np.float32, "c", 0, (8000, 1000))
    changed[0, 0] = 7
    view = changed[:]
    view.flags.writeable = False
    release(view)
    assert view[0, 0] == 7


@pytest.mark.parametrize("transposed", [False, True])
def test_columns_are_the_same_however_large(mapped, transposed, monkeypatch):
    array = mapped[1].T if transposed else mapped[1]
    columns = np.array([0, 3, 3, 999, 1])
    for chunk in (buffers.CHUNK, 10_000, 2**40):
        monkeypatch.setattr(buffers, "CHUNK", chunk)
        taken = take_columns(array, columns)
        assert np.array_equal(taken, np.asarray(array)[:, columns])
        assert taken.flags.writeable
