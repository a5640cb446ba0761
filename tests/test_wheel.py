"""What the check of the wheel finds: `make wheel` itself installs packages, and is no test of this folder."""

import subprocess
import zipfile

import check_wheel

from tests.conftest import MODELS

ROOT = MODELS.parent


def written(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
    return path


def test_files_that_are_missing_or_too_many_are_named(tmp_path):
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "onnxsurgeon"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "onnxsurgeon/py.typed" in listed
    names = [*listed, "onnxsurgeon-0.1.0.dist-info/METADATA"]
    assert check_wheel.missing_files(written(tmp_path / "whole.whl", names)) == []
    names.remove("onnxsurgeon/py.typed")
    names.append("tests/secret.py")
    assert check_wheel.missing_files(written(tmp_path / "wrong.whl", names)) == [
        "the wheel lacks onnxsurgeon/py.typed",
        "the wheel holds tests/secret.py",
    ]
