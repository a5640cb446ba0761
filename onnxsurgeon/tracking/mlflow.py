"""A run of MLflow's, on a tracking server or in a local store, by MLflow's own client."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from onnxsurgeon.errors import RunError, SettingsError
from onnxsurgeon.graph.files import write_bytes
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.runs.own_files import read_own_file
from onnxsurgeon.tracking.base import FAILED, FINISHED, INTERRUPTED, Logged, Settings
from onnxsurgeon.tracking.values import Entry

RUN_FILE = "mlflow.json"
_LARGEST = 2**16  # bytes of that file, which holds one name
EXPERIMENT = "onnxsurgeon"
STORY = "story.md"
_STATUS = {FINISHED: "FINISHED", INTERRUPTED: "KILLED", FAILED: "FAILED"}
# MLflow's own limits of one request.
_METRICS, _PARAMETERS = 1000, 100


class MLflow:
    """Numbers become metrics, settings parameters, the texts of decision points tags and, with all others, story.md.

    The log is sent at every decision point, since each request may take long.
    """

    name = "mlflow"

    def __init__(self, folder: Path) -> None:
        """For a run directory in ``folder``; where MLFLOW_TRACKING_URI is not set, the store will be there, too.

        Raises:
            SettingsError: MLFLOW_TRACKING_URI cannot be used.
        """
        self._folder = folder.resolve()
        self._remote = os.environ.get("MLFLOW_TRACKING_URI", "")
        self._metrics: list[Metric] = []
        self._tags: dict[str, str] = {}
        self._story: list[str] = []
        if self._remote:
            try:
                self._client = MlflowClient(self._remote)
                self._client.search_experiments(max_results=1)
            except Exception as error:  # whatever the store behind the address raises
                # The address is not repeated, since it may hold a password. Neither is the error, which may repeat it.
                kind = type(error).__name__
                raise SettingsError(
                    f"track: no MLflow store answers at MLFLOW_TRACKING_URI ({kind})", "no-tracker"
                ) from error

    def begin(self, run: RunDirectory, settings: Settings) -> Logged:
        """Start a run of MLflow's, or go on with the one whose id is in RUN/mlflow.json, where the store knows it."""
        if not self._remote:
            # Otherwise it reports every table that it makes on standard error.
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
            self._client = MlflowClient(f"sqlite:///{(self._folder / 'mlflow.db').as_posix()}")
        known = self._known(run)
        if known is None:
            created = self._client.create_run(self._experiment(), run_name=run.path.name)
            self._id = created.info.run_id
            write_bytes(run.path / RUN_FILE, (json.dumps({"run_id": self._id}) + "\n").encode(), overwrite=True)
            there, logged = {}, set()
        else:
            self._id = known.info.run_id
            self._client.update_run(self._id, status="RUNNING")
            there, logged = known.data.params, self._logged(known.data.metrics)
        missing = [Param(name, str(value)) for name, value in settings.items() if name not in there]
        for first in range(0, len(missing), _PARAMETERS):
            self._client.log_batch(self._id, params=missing[first : first + _PARAMETERS])
        return logged

    def log(self, entry: Entry) -> None:
        """Add metrics and texts; send them after each decision point."""
        now = int(time.time() * 1000)
        self._metrics += [Metric(name, value, now, entry.step) for name, value in entry.numbers.items()]
        what = "epoch" if entry.current else "branch"
        self._story += [f"**{what} {entry.step}, {name}**\n\n{text}\n" for name, text in entry.texts.items()]
        if entry.current:
            self._tags |= entry.texts
            self._send()

    def finish(self, run: RunDirectory) -> None:
        """Add best.onnx, with its external data where it has any, and the files that tell its story."""
        for path in (*sorted(run.path.glob(f"{run.best.name}*")), run.journal, run.settings_file):
            self._client.log_artifact(self._id, str(path))

    def close(self, outcome: str) -> None:
        """Send what is left and end the run of MLflow's."""
        self._send()
        self._client.set_terminated(self._id, _STATUS[outcome])

    def _send(self) -> None:
        tags = [RunTag(name, text) for name, text in self._tags.items()]
        for first in range(0, len(self._metrics), _METRICS):
            self._client.log_batch(self._id, metrics=self._metrics[first : first + _METRICS])
        self._client.log_batch(self._id, tags=tags)
        self._client.log_text(self._id, "\n".join(self._story), STORY)
        self._metrics, self._tags = [], {}

    def _known(self, run: RunDirectory) -> Any:
        """The run of MLflow's that this one was logged to before; None: there is none, or not in this store."""
        try:
            if not (run.path / RUN_FILE).exists():
                return None
            known = json.loads(read_own_file(run.path / RUN_FILE, _LARGEST))["run_id"]
            return self._client.get_run(known) if isinstance(known, str) else None
        except (RunError, OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _logged(self, latest: dict[str, float]) -> Logged:
        return {(name, metric.step) for name in latest for metric in self._client.get_metric_history(self._id, name)}

    def _experiment(self) -> str:
        """The experiment's id; MLFLOW_EXPERIMENT_ID and MLFLOW_EXPERIMENT_NAME mean what they mean to MLflow."""
        given = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if given:
            return given
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        artifacts = None if self._remote else (self._folder / "mlartifacts").as_uri()
        return str(self._client.create_experiment(name, artifact_location=artifacts))
