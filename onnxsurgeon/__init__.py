"""Evolve a trained network inside its ONNX file: smaller, faster or more accurate.

The names below are the public API; each is imported when it is first used, so that ``import onnxsurgeon`` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from onnxsurgeon.calibration.calibrate import calibrate
    from onnxsurgeon.calibration.gradients import with_gradients
    from onnxsurgeon.calibration.moments import Moment, Moments
    from onnxsurgeon.comparison.diff import Diff, diff
    from onnxsurgeon.data.dataset import Dataset, Split
    from onnxsurgeon.data.examples import Examples
    from onnxsurgeon.data.load import load_dataset
    from onnxsurgeon.data.options import InputOptions
    from onnxsurgeon.data.prepare import prepare
    from onnxsurgeon.data.sampling import sample_rows
    from onnxsurgeon.data.teacher import TeacherModel
    from onnxsurgeon.deploy.export import Exported, export_trainer
    from onnxsurgeon.deploy.importing import Imported, import_state
    from onnxsurgeon.errors import (
        DataError,
        EngineError,
        ModelError,
        OnnxSurgeonError,
        RunError,
        SettingsError,
        StopRun,
        SurgeryError,
    )
    from onnxsurgeon.graph.attach import NewHead, attach_head
    from onnxsurgeon.graph.create import create
    from onnxsurgeon.graph.create_convolutional import create_convolutional
    from onnxsurgeon.graph.layers import DenseLayer
    from onnxsurgeon.graph.network import Network
    from onnxsurgeon.graph.reader import from_model, load
    from onnxsurgeon.graph.writer import save, to_model
    from onnxsurgeon.operating.evaluate import evaluate
    from onnxsurgeon.operating.measure import found_error
    from onnxsurgeon.operating.operate import operate
    from onnxsurgeon.recommend import Candidate, Thresholds, inspect_layers, propose
    from onnxsurgeon.runs.entry import Entry
    from onnxsurgeon.runs.footprint import Footprint
    from onnxsurgeon.runs.model import RunModel
    from onnxsurgeon.runs.table import RunRecord, read_run
    from onnxsurgeon.surgeon.notebook import NotebookProgress
    from onnxsurgeon.surgeon.progress import TrainingProgress
    from onnxsurgeon.surgeon.result import Evolved
    from onnxsurgeon.surgeon.run import evolve, resume
    from onnxsurgeon.surgeon.settings import SurgeonSettings
    from onnxsurgeon.surgery import (
        Factorize,
        FactorizeData,
        Grow,
        InsertBehindPool,
        InsertBlock,
        InsertIdentity,
        Merge,
        MergeData,
        MergeDuplicates,
        Narrow,
        Operated,
        Prune,
        RemoveBlock,
        RemoveBlockData,
        SurgeryRecord,
        Widen,
        factorization_errors,
        parse,
        pruning_errors,
    )
    from onnxsurgeon.task import Task
    from onnxsurgeon.training.choose import make_engine
    from onnxsurgeon.training.engine import Engine, TrainedNetwork
    from onnxsurgeon.training.metrics import Metrics
    from onnxsurgeon.training.schedule import BatchSchedule
    from onnxsurgeon.training.settings import TrainingSettings, TrainingSpec
    from onnxsurgeon.training.state import OptimizerState
    from onnxsurgeon.training.teaching import head_outputs, imitating

_HOMES = {
    "calibration.calibrate": ("calibrate",),
    "calibration.gradients": ("with_gradients",),
    "operating.evaluate": ("evaluate",),
    "operating.measure": ("found_error",),
    "operating.operate": ("operate",),
    "calibration.moments": ("Moment", "Moments"),
    "comparison.diff": ("Diff", "diff"),
    "data.dataset": ("Dataset", "Split"),
    "data.examples": ("Examples",),
    "data.load": ("load_dataset",),
    "data.options": ("InputOptions",),
    "data.prepare": ("prepare",),
    "data.sampling": ("sample_rows",),
    "data.teacher": ("TeacherModel",),
    "deploy.export": ("Exported", "export_trainer"),
    "deploy.importing": ("Imported", "import_state"),
    "errors": (
        "DataError",
        "EngineError",
        "ModelError",
        "OnnxSurgeonError",
        "RunError",
        "SettingsError",
        "StopRun",
        "SurgeryError",
    ),
    "graph.attach": ("NewHead", "attach_head"),
    "graph.create": ("create",),
    "graph.create_convolutional": ("create_convolutional",),
    "graph.layers": ("DenseLayer",),
    "graph.network": ("Network",),
    "graph.reader": ("from_model", "load"),
    "graph.writer": ("save", "to_model"),
    "runs.table": ("RunRecord", "read_run"),
    "recommend": ("Candidate", "Thresholds", "inspect_layers", "propose"),
    "task": ("Task",),
    "runs.footprint": ("Footprint",),
    "runs.model": ("RunModel",),
    "runs.entry": ("Entry",),
    "surgeon.result": ("Evolved",),
    "surgeon.run": ("evolve", "resume"),
    "training.schedule": ("BatchSchedule",),
    "surgeon.notebook": ("NotebookProgress",),
    "surgeon.progress": ("TrainingProgress",),
    "surgeon.settings": ("SurgeonSettings",),
    "surgery": (
        "Factorize",
        "FactorizeData",
        "Grow",
        "InsertBehindPool",
        "InsertBlock",
        "InsertIdentity",
        "Merge",
        "MergeData",
        "MergeDuplicates",
        "Narrow",
        "Operated",
        "Prune",
        "RemoveBlock",
        "RemoveBlockData",
        "SurgeryRecord",
        "Widen",
        "factorization_errors",
        "parse",
        "pruning_errors",
    ),
    "training.choose": ("make_engine",),
    "training.engine": ("Engine", "TrainedNetwork"),
    "training.metrics": ("Metrics",),
    "training.settings": ("TrainingSettings", "TrainingSpec"),
    "training.state": ("OptimizerState",),
    "training.teaching": ("head_outputs", "imitating"),
}
_MODULES = {name: f"onnxsurgeon.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "BatchSchedule",
    "Candidate",
    "DataError",
    "Dataset",
    "DenseLayer",
    "Diff",
    "Engine",
    "EngineError",
    "Entry",
    "Evolved",
    "Examples",
    "Exported",
    "Factorize",
    "FactorizeData",
    "Footprint",
    "Grow",
    "Imported",
    "InputOptions",
    "InsertBehindPool",
    "InsertBlock",
    "InsertIdentity",
    "Merge",
    "MergeData",
    "MergeDuplicates",
    "Metrics",
    "ModelError",
    "Moment",
    "Moments",
    "Narrow",
    "Network",
    "NewHead",
    "NotebookProgress",
    "OnnxSurgeonError",
    "Operated",
    "OptimizerState",
    "Prune",
    "RemoveBlock",
    "RemoveBlockData",
    "RunError",
    "RunModel",
    "RunRecord",
    "SettingsError",
    "Split",
    "StopRun",
    "SurgeonSettings",
    "SurgeryError",
    "SurgeryRecord",
    "Task",
    "TeacherModel",
    "Thresholds",
    "TrainedNetwork",
    "TrainingProgress",
    "TrainingSettings",
    "TrainingSpec",
    "Widen",
    "attach_head",
    "calibrate",
    "create",
    "create_convolutional",
    "diff",
    "evaluate",
    "evolve",
    "export_trainer",
    "factorization_errors",
    "found_error",
    "from_model",
    "head_outputs",
    "imitating",
    "import_state",
    "inspect_layers",
    "load",
    "load_dataset",
    "make_engine",
    "operate",
    "parse",
    "prepare",
    "propose",
    "pruning_errors",
    "read_run",
    "resume",
    "sample_rows",
    "save",
    "to_model",
    "with_gradients",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'onnxsurgeon' has no attribute '{name}'")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
