"""From the names that ``--track`` takes to trackers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from onnxsurgeon.choices import TRACKERS
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.suggestions import did_you_mean
from onnxsurgeon.tracking.base import Tracker, Tracking

# What each extra installs, by the names to import.
_PACKAGES = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}


def make_tracking(track: str | Sequence[str], folder: Path) -> Tracking:
    """The trackers of these names; ``folder`` is where the run directory is or will be. Nothing is written yet.

    Args:
        track: names, or one text of names between commas.
        folder: of the run directory.

    Raises:
        SettingsError: a name is unknown, its extra is not installed, or MLflow's server does not answer.
    """
    names = track.split(",") if isinstance(track, str) else [part for name in track for part in name.split(",")]
    wanted = dict.fromkeys(name for each in names if (name := each.strip()))
    return Tracking([_make(name, folder) for name in wanted])


def _make(name: str, folder: Path) -> Tracker:
    if name not in TRACKERS:
        raise SettingsError(
            f"track: '{name}' is unknown: expected one of {', '.join(TRACKERS)}{did_you_mean(name, TRACKERS)}",
            "unknown-choice",
        )
    try:
        for package in _PACKAGES[name]:
            import_module(package)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _PACKAGES[name]:
            raise
        raise SettingsError(f"track: '{name}' needs pip install 'onnxsurgeon[{name}]'", "no-package") from error
    if name == "tensorboard":
        from onnxsurgeon.tracking.tensorboard import TensorBoard

        return TensorBoard()
    from onnxsurgeon.tracking.mlflow import MLflow

    return MLflow(folder)
