"""Writes a run's page, and its pictures as files, into its folder."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from onnxsurgeon.errors import RunError
from onnxsurgeon.graph.files import write_bytes
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.suggestions import did_you_mean

_EXTRA = ("jinja2", "markupsafe", "matplotlib")


def write_plots(run: Path) -> list[Path]:
    """Write the report's pictures, each as SVG and as PNG, into the folder plots of the run in ``run``.

    Return their paths.

    Raises:
        RunError: as ``write_report`` does.
    """
    directory = RunDirectory.open(Path(run))
    require_extra()
    from onnxsurgeon.report.invocation import read_invocation
    from onnxsurgeon.report.pictures import picture_files
    from onnxsurgeon.report.scene import make_scene
    from onnxsurgeon.runs.history import read_history

    folder, paths = directory.path / "plots", []
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made: {error.strerror}", "cannot-write") from error
    for name, content in picture_files(make_scene(read_history(directory), read_invocation(directory))):
        write_bytes(folder / name, content, overwrite=True)
        paths.append(folder / name)
    return paths


def draw_picture(run: Path, name: str) -> Any:
    """Draw one of the report's pictures of the run in the folder ``run``, as a figure of matplotlib, on white.

    Raises:
        RunError: there is no such picture, the run has nothing for it, or what ``write_report`` raises.
    """
    directory = RunDirectory.open(Path(run))
    require_extra()
    from onnxsurgeon.report.invocation import read_invocation
    from onnxsurgeon.report.pictures import PICTURES, figure_of
    from onnxsurgeon.report.scene import make_scene
    from onnxsurgeon.runs.history import read_history

    if name not in PICTURES:
        near = did_you_mean(name, PICTURES)
        raise RunError(f"plot: '{name}' is unknown: expected one of {', '.join(PICTURES)}{near}", "unknown-choice")
    figure = figure_of(make_scene(read_history(directory), read_invocation(directory)), name)
    if figure is None:
        raise RunError(f"{run}: has nothing to show as '{name}'", "nothing-to-show")
    return figure


def write_report(run: Path) -> Path:
    """Write report.html about the run in the folder ``run``; return the page's path.

    The run may be finished, still going, or killed at any moment.

    Raises:
        RunError: the folder is no run directory, its settings are damaged, the page cannot be written, or the extra
            "report" is not installed.
    """
    path = Path(run) / "report.html"
    write_bytes(path, render_report(run), overwrite=True)
    return path


def render_report(run: Path) -> bytes:
    """Render the page about the run in the folder ``run`` in its present state; nothing is written.

    Raises:
        RunError: as ``write_report`` does.
    """
    directory = RunDirectory.open(Path(run))
    require_extra()
    from onnxsurgeon.report.page import render

    # A damaged journal can hold half of a surrogate pair, which no encoding has.
    return render(directory).encode(errors="replace")


def write_side_by_side(first: Path, second: Path) -> Path:
    """Write side_by_side.html about two runs into the folder of the first; return the page's path.

    Raises:
        RunError: as ``write_report`` does, of either.
    """
    runs = [RunDirectory.open(Path(run)) for run in (first, second)]
    require_extra()
    from onnxsurgeon.report.side_by_side import render_side_by_side

    path = runs[0].path / "side_by_side.html"
    write_bytes(path, render_side_by_side(*runs).encode(errors="replace"), overwrite=True)
    return path


def require_extra() -> None:
    """Raise RunError where jinja2 or matplotlib, which are optional, is not installed."""
    for name in _EXTRA:
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            raise RunError("report needs pip install 'onnxsurgeon[report]'", "no-package") from error
