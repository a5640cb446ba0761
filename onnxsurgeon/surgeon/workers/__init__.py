"""Where branches are trained side by side: threads of this process, or a Dask cluster."""

from onnxsurgeon.surgeon.workers.base import Workers
from onnxsurgeon.surgeon.workers.choose import make_workers

__all__ = ["Workers", "make_workers"]
