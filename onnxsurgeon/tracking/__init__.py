"""Runs shown in other tools: TensorBoard and MLflow, through their own libraries.

The log follows from the journal alone (``values``), so it is the same whether a run was killed on the way or not, and a
run that was started without tracking can be resumed with it and is logged as a whole. Nothing in a run depends on its
being tracked.

TensorBoard's event files go to RUN/tensorboard. MLflow's run goes where MLFLOW_TRACKING_URI says, else to a store
beside the run directory, mlflow.db and mlartifacts; its id is kept in RUN/mlflow.json, and a resumed run goes on with
it.
"""

from onnxsurgeon.tracking.base import Tracker, Tracking
from onnxsurgeon.tracking.choose import make_tracking

__all__ = ["Tracker", "Tracking", "make_tracking"]
