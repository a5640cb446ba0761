"""Write a run's page into its folder."""

from __future__ import annotations

from pathlib import Path

from onnxsurgeon.errors import RunError
from onnxsurgeon.graph.files import write_bytes
from onnxsurgeon.surgeon.journal import RunDirectory

_EXTRA = ("jinja2", "markupsafe", "matplotlib")


def write_report(run: Path) -> Path:
    """Write report.html about the run in the folder ``run``; return the page's path.

    The run may be finished, still going, or killed at any moment.

    Raises:
        RunError: the folder is no run directory, its settings are damaged, the page cannot be written, or the extra
            "report" is not installed.
    """
    directory = RunDirectory.open(Path(run))
    try:
        from onnxsurgeon.report.page import render  # here, since jinja2 and matplotlib are optional
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise RunError("report needs pip install 'onnxsurgeon[report]'") from error
    path = directory.path / "report.html"
    # A damaged journal can hold half of a surrogate pair, which no encoding has.
    write_bytes(path, render(directory).encode(errors="replace"), overwrite=True)
    return path
