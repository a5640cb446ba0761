"""One self-contained page about a run, and its pictures as files."""

from onnxsurgeon.report.write import write_plots, write_report

__all__ = ["write_plots", "write_report"]
