"""One self-contained page about a run, and its pictures as files."""

from onnxsurgeon.report.write import draw_picture, write_plots, write_report

__all__ = ["draw_picture", "write_plots", "write_report"]
