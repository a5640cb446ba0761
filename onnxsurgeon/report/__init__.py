"""One self-contained page about a run, and its pictures as files."""

from onnxsurgeon.report.write import draw_picture, render_report, require_extra, write_plots, write_report

__all__ = ["draw_picture", "render_report", "require_extra", "write_plots", "write_report"]
