"""A data set that is refused before it is read."""

import tracemalloc
from contextlib import contextmanager

import pytest

from onnxsurgeon import DataError, create, load_dataset

MB = 2**20


@contextmanager
def little_memory(most=48 * MB):
    """What is inside must not take more memory than this."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def refused(data, reason, *networks, **options):
    with little_memory(), pytest.raises(DataError, match=reason) as error:
        load_dataset(str(data), networks=networks or (create((64, 10, 10)),), **options)
    assert str(error.value).isprintable()
