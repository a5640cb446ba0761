"""One self-contained page about a run, and its pictures as files."""

from onnxsurgeon.report.write import (
    draw_picture,
    render_report,
    require_extra,
    write_plots,
    write_report,
    write_side_by_side,
)

__all__ = ["draw_picture", "render_report", "require_extra", "write_plots", "write_report", "write_side_by_side"]
