"""Versions of everything on which the bytes of a result may depend."""

from __future__ import annotations

import platform
from importlib import metadata

import numpy as np
import onnx

_PACKAGES = ("onnxsurgeon", "onnxruntime", "onnxruntime-gpu", "onnxruntime-training-cpu", "onnxruntime-training")


def versions() -> dict[str, str]:
    """Package → version, of this process; and the kind of machine."""
    found = {"python": platform.python_version(), "numpy": np.__version__, "onnx": onnx.__version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {**found, "machine": platform.machine()}


def differences(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """The entries of ``found`` that are not as wanted, such as "numpy 2.1.0"; a missing one has version "None"."""
    return [f"{name} {found.get(name)}" for name in sorted({*wanted, *found}) if wanted.get(name) != found.get(name)]
