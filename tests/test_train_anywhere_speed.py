"""What training in the browser costs in bytes: of files, and of memory. Speed is measured by the tool, not asserted."""

import numpy as np
import pytest
import train_anywhere_speed as tool

from onnxsurgeon.deploy import state_file
from tests.browser import browser  # noqa: F401 (a fixture)
from tests.conftest import wanted

needs_runtime = pytest.mark.skipif(
    not wanted("NODE") and not (tool.RUNNER / "node_modules").is_dir(),
    reason="needs `make runners/js/node_modules/installed`",
)


@pytest.fixture
def task(tmp_path):
    return tool.Task(tmp_path, rows=160, batch=16)


def test_the_files_are_hardly_larger_than_the_model(task):
    model = (task.folder / "model.onnx").stat().st_size
    together = sum(path.stat().st_size for path in task.exported.folder.iterdir())
    assert together <= 1.1 * model


@needs_runtime
def test_the_rows_stay_out_of_the_runtimes_memory(browser, task):  # noqa: F811
    asked = {"file": task.many(), "batch": 16, "seconds": 0, "threads": 1}
    with tool.served(task.folder) as address:
        found = tool.by_page(browser, address, "byRuntime", asked)
    assert 8 * 2**20 < found["heap"] < 32 * 2**20 < tool.MANY * tool.PIXELS


@needs_runtime
def test_everyone_trains_the_same_network_on_the_same_batches(browser, task):  # noqa: F811
    rate, weights = tool.by_engine(task, 0.01)
    assert rate > 0
    before = state_file.read(task.exported.folder / "state.safetensors")["parameter/layer1.weight"]
    assert tool.apart([before, weights[1]], weights) > 1e-3  # an epoch is far more than what is rounded off
    asked = {"file": "rows.safetensors", "batch": 16, "seconds": 0.01, "threads": 1}
    with tool.served(task.folder) as address:
        found = tool.by_page(browser, address, "byRuntime", asked)
    others = [tool.by_python(task, 0.01)[1], tool.read_found(found)[1]]
    others += [tool.by_node(path, task, 0.01)[1] for path in tool.NODE.values()]
    assert [tool.apart(each, weights) <= 1e-5 for each in others] == [True] * 4
    assert [each[0].dtype for each in others] == [np.float32] * 4
