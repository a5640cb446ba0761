"""Build the wheel, install it into an empty environment away from the repository, and use it; check what it says.

    python tools/check_wheel.py [FOLDER]

Every file of the package is in the wheel and nothing else; twine finds its description and metadata in order; a run,
its report, a new head and the data that comes with the package work from the installed files alone; mypy, in strict
mode and from outside, sees the types of the public names. FOLDER keeps the environment; by default it is temporary.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "onnxsurgeon"
EXTRAS = "cpu,data,report"
TOOLS = ("mypy>=1.13", "twine>=6")

# What a user's own file could hold; each expression has a type that mypy would not know without the package's.
TYPED = """
from pathlib import Path

import onnx
from typing_extensions import assert_type

from onnxsurgeon import Evolved, Metrics, Network, RunModel, create, evaluate, evolve, load, operate, read_run, to_model

network = create((64, 10), input_shape=(8, 8))
assert_type(network, Network)
assert_type(network.parameter_count, int)
assert_type(load(Path("model.onnx")), Network)
assert_type(to_model(network), onnx.ModelProto)
assert_type(evaluate(network, ([[0.0]], [0])), Metrics)
result = evolve("model.onnx", "digits", settings={"epochs": 3}, freeze="1")
assert_type(result, Evolved)
assert_type(result.front, tuple[RunModel, ...])
assert_type(read_run(result.run).front[0].load(), Network)
assert_type(operate(network, "widen:1:8").record.exact, bool)
"""
WRONG = """
from onnxsurgeon import create, evaluate

create("64-10")
evaluate(create((64, 10)), 5)
"""
USED = """
import numpy as np

import onnxsurgeon
from onnxsurgeon import attach_head, evolve, load_dataset, save

assert "site-packages" in onnxsurgeon.__file__, onnxsurgeon.__file__
for name in onnxsurgeon.__all__:
    getattr(onnxsurgeon, name)
digits = load_dataset("digits")
found = evolve("start.onnx", digits, settings={"epochs": 3, "seed": 1}, run_dir="python-run")
assert found.report().stat().st_size > 10_000
save(attach_head(found.best.path, ("even", "odd")).network, "parity.onnx")
print(found.best.session().run(None, {"input": np.zeros((2, 8, 8), np.float32)})[0].shape)
print(found.summary())
"""


def main() -> int:
    """Do it all; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    given = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) if given is None else given.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        faults = check(folder)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return int(bool(faults))


def check(folder: Path) -> list[str]:
    """What is wrong, in sentences."""
    environment = folder / "environment"
    venv.create(environment, with_pip=True, clear=True, upgrade_deps=True)  # a new pip is twice as fast
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = (str(python), "-m", "pip", "--disable-pip-version-check", "-q")
    wheels = folder / "wheels"
    for old in wheels.glob("*.whl"):
        old.unlink()
    run(folder, *pip, "wheel", "--no-deps", "-w", str(wheels), str(ROOT))
    (wheel,) = wheels.glob("*.whl")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB")
    faults = missing_files(wheel)
    run(folder, *pip, "install", "--no-compile", f"{PACKAGE}[{EXTRAS}] @ {wheel.as_uri()}", *TOOLS)
    faults += [
        f"twine: {line}"
        for line in run(folder, str(python), "-m", "twine", "check", "--strict", str(wheel))
        if "PASSED" not in line
    ]
    command = (str(python), "-m", PACKAGE)
    run(folder, *command, "new", "64-20-10", "-o", "start.onnx", "--input-shape", "8x8", "--force")
    run(folder, *command, "inspect", "start.onnx", "--data", "digits")
    (folder / "used.py").write_text(USED)
    for old in folder.glob("*-run"):
        run(folder, str(python), "-c", f"import shutil; shutil.rmtree({str(old)!r})")
    (folder / "parity.onnx").unlink(missing_ok=True)
    print(*run(folder, str(python), "used.py"), sep="\n")
    (folder / "typed.py").write_text(TYPED)
    (folder / "wrong.py").write_text(WRONG)
    mypy = (str(python), "-m", "mypy", "--strict", "--python-version", "3.11", "--cache-dir", str(folder / "mypy"))
    faults += [f"mypy: {line}" for line in run(folder, *mypy, "typed.py", fails=True) if "error" in line]
    refused = [line for line in run(folder, *mypy, "wrong.py", fails=True) if "[arg-type]" in line]
    if len(refused) != 2:
        faults.append(f"mypy lets wrong arguments pass: it refused {refused}")
    print(f"twine and mypy: {'in order' if not faults else f'{len(faults)} faults'}")
    return faults


def missing_files(wheel: Path) -> list[str]:
    """Files of the package that the wheel lacks, and those that it should not have."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", PACKAGE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    found = [f"the wheel lacks {name}" for name in sorted(set(listed) - held)]
    return found + [f"the wheel holds {name}" for name in sorted(held - set(listed))]


def run(folder: Path, *command: str, fails: bool = False) -> list[str]:
    """The lines that a command prints, run in ``folder`` without the repository on its path.

    Raises:
        SystemExit: it failed, unless it ``fails``.
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode and not fails:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout.splitlines()


if __name__ == "__main__":
    sys.exit(main())
