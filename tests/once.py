"""Tests that touch no ONNX Runtime are run once, beside one of its releases: the other would say the same.

    pytest -p tests.once --untouched FILE                beside the current ONNX Runtime, writes which tests these are
    pytest -p tests.once --leave-out-untouched FILE      beside the training build, leaves them out

The two environments have the same Python and the same packages, but for ONNX Runtime and what is missing. A test is
listed if it passed, and if neither it, nor a fixture that it uses, nor the import of its module asked for ONNX Runtime,
made or ran a session, or started a process, and if its module does not import ONNX Runtime. What is new, was skipped,
failed or was lost with its worker is not listed, so it is run beside both.
"""

from __future__ import annotations

import functools
import multiprocessing.process
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

# As in conftest.py, which is imported later: before numpy is.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Such a module may ask it for more than is watched.
IMPORT = re.compile(r"^\s*(import|from) onnxruntime\b|importorskip\(.onnxruntime\b", re.MULTILINE)
PROCESSES = ("fork", "forkpty", "posix_spawn", "posix_spawnp", "system")  # of os, where the system has them


class Touches:
    """Counts what is asked of ONNX Runtime, and processes that are started."""

    def __init__(self):
        self.count = 0

    def watch(self):
        """Begin to count, before conftest.py is imported, and what takes the watched functions by their names."""
        import onnxruntime

        from onnxsurgeon import runtime

        assert [name for name in sys.modules if name.startswith("onnxsurgeon.training")] == []
        runtime.onnxruntime = self.counted(runtime.onnxruntime)
        for name in ("__init__", "run", "run_with_iobinding", "run_with_ort_values", "run_async"):
            setattr(onnxruntime.InferenceSession, name, self.counted(getattr(onnxruntime.InferenceSession, name)))
        for owner, name in ((subprocess.Popen, "__init__"), (multiprocessing.process.BaseProcess, "start")):
            setattr(owner, name, self.counted(getattr(owner, name)))
        for name in PROCESSES:
            if hasattr(os, name):
                setattr(os, name, self.counted(getattr(os, name)))

    def counted(self, function):
        @functools.wraps(function)
        def call(*arguments, **named):
            self.count += 1
            return function(*arguments, **named)

        return call

    @contextmanager
    def added(self):
        """A list that is filled with whether anything was touched meanwhile."""
        before, said = self.count, []
        yield said
        said.append(self.count > before)


class Recorder:
    """Notes which tests passed untouched; a worker of pytest-xdist sends its own to the process that writes them."""

    def __init__(self, path):
        self.path = path
        self.touches = Touches()
        self.touches.watch()
        self.modules, self.fixtures, self.asked_for = set(), set(), ()
        self.passed, self.untouched = set(), set()

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector):
        with self.touches.added() as touched:
            report = yield
        if any(touched) or (isinstance(collector, pytest.Module) and IMPORT.search(collector.path.read_text("utf-8"))):
            self.modules.add(collector.nodeid)
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef, request):
        with self.touches.added() as touched:
            found = yield
        if any(touched):
            self.fixtures.add((fixturedef.baseid, fixturedef.argname))
        return found

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        with self.touches.added() as touched:
            done = yield
        if not any(touched) and item.nodeid in self.passed and not self.depends(item):
            self.untouched.add(item.nodeid)
        return done

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item):
        self.asked_for = item._request.fixturenames  # those that were asked for by name are among them

    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed and not hasattr(report, "wasxfail"):
            self.passed.add(report.nodeid)
        elif not report.passed:
            self.passed.discard(report.nodeid)
            self.untouched.discard(report.nodeid)

    def depends(self, item):
        """Whether something that was made before this test touched ONNX Runtime."""
        if any(item.nodeid.startswith(module) for module in self.modules):
            return True
        return any(name in self.asked_for and item.nodeid.startswith(where) for where, name in self.fixtures)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self.untouched.update(getattr(node, "workeroutput", {}).get("untouched", ()))

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["untouched"] = sorted(self.untouched)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("".join(f"{name}\n" for name in sorted(self.untouched)), encoding="utf-8")


def pytest_addoption(parser):
    group = parser.getgroup("once")
    group.addoption("--untouched", type=Path, help="write which tests touched no ONNX Runtime")
    group.addoption("--leave-out-untouched", type=Path, help="leave out those that another run wrote down")


def pytest_load_initial_conftests(early_config):
    if path := early_config.known_args_namespace.untouched:
        path.unlink(missing_ok=True)
        early_config.pluginmanager.register(Recorder(path.resolve()))


def pytest_collection_modifyitems(config, items):
    if (path := config.getoption("leave_out_untouched")) and path.is_file():
        untouched = set(path.read_text(encoding="utf-8").split("\n"))
        left_out = [item for item in items if item.nodeid in untouched]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.nodeid not in untouched]
