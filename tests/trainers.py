"""Trainers that tests export, what they train on, and what strangers may send in place of their states."""

import functools
import json

import numpy as np
import onnxruntime as ort

from onnxsurgeon import (
    InputOptions,
    Network,
    TrainingSettings,
    create_convolutional,
    export_trainer,
    load,
    load_dataset,
    prepare,
)
from onnxsurgeon.data.inputs import model_inputs
from onnxsurgeon.deploy import state_file
from onnxsurgeon.training.loop import LoopEngine
from tests.conftest import MODELS

EXPORTS = MODELS / "exports"

SCHEMA = json.loads((MODELS.parent / "docs" / "trainer.schema.json").read_text())

STEPS, BATCH, SEED = 60, 16, 2**31 - 5

PIXELS = InputOptions(scale=1 / 16)  # of the .npz files


class Case:
    """A network, its rows, and the trainer made of them."""

    def __init__(self, folder, model, data="digits", *, target=(), options=None, **given):
        network = load(EXPORTS / model) if isinstance(model, str) else model
        self.options = options or InputOptions()
        self.dataset = load_dataset(
            data if data == "digits" else str(EXPORTS / "data" / data), target=target, networks=(network,)
        )
        self.network, self.examples = network, prepare(network, self.dataset, self.dataset.train, self.options)
        how = {
            name: given.pop(name)
            for name in ("optimizer", "learning_rate", "weight_decay", "schedule", "dropout", "input_dropout")
            if name in given
        }
        self.settings = TrainingSettings(**how)
        self.exported = export_trainer(
            network,
            folder / "trainer",
            dataset=self.dataset,
            options=self.options,
            settings=self.settings,
            step=True,
            **given,
        )
        self.folder, self.description = self.exported.folder, self.exported.description
        self.state = state_file.read(self.folder / "state.safetensors")

    def batches(self, steps=STEPS):
        rng = np.random.default_rng(3)
        return np.stack([rng.permutation(self.examples.rows)[:BATCH] for _ in range(steps)]).astype(np.int64)

    def raw(self):
        """The rows as they are given, by input."""
        found = model_inputs(self.network, self.dataset, self.dataset.train, self.options)
        stored = {
            name: rows.source[slice(None) if rows.numbers is None else rows.numbers] for name, rows in found.items()
        }
        types = {each["name"]: each["dtype"].replace("string", "object") for each in self.description["inputs"]}
        return {name: np.ascontiguousarray(values.astype(types[name])) for name, values in stored.items()}

    def fed(self):
        """Rows and targets as train.onnx takes them."""
        raw = self.raw()
        if "features" in self.description["files"]:
            rows = self.run("features", raw)
        else:
            rows = {each["name"]: raw[each["input"]] for each in self.description["rows"]}
        targets = zip(self.description["targets"], self.examples.labels, strict=True)
        return {**rows, **{each["name"]: labels.astype(each["dtype"]) for each, labels in targets}}

    @functools.cache  # noqa: B019 - a case is gone with its test
    def session(self, name):
        return ort.InferenceSession(self.folder / f"{name}.onnx")

    def run(self, name, feeds):
        session = self.session(name)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, feeds), strict=True))

    def train(self, name, batches):
        """The state afterwards, and the mean losses of the batches."""
        state, losses, fed = self.state, [], self.fed()
        if "dropout" in self.description:
            fed["seed"] = np.array(SEED, np.int32)
        for part in np.split(batches, len(batches) if name == "step" else 3):
            rates = np.full(len(part), self.settings.learning_rate, np.float32)
            found = self.run(name, {**fed, **state, "batches": part.astype(np.int32), "rates": rates})
            state = {key: found[f"next/{key}"] for key in state}
            losses.append(found["losses"])
        return state, np.concatenate(losses)

    def expected(self, batches):
        spec = self.settings.spec(1, len(batches), report_loss=True)
        return LoopEngine().train(self.network, self.examples, [batches], spec)


def tensors(header, body=b"", length=None):
    """A file of safetensors with this header, whatever it says."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def entry(begin, end, shape=(1,), dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


STRANGE = {  # files of safetensors that no reader may take
    "a header longer than the file": tensors({}, length=2**40),
    "a header longer than any": tensors(b"{}", b" " * 2**10, length=2**63 - 1),
    "no JSON": tensors(b"{'a': 1}"),
    "nested": tensors(b"[" * 100_000),
    "a list": tensors(b"[]"),
    "overlapping": tensors({"a": entry(0, 4), "b": entry(0, 4)}, bytes(4)),
    "partly overlapping": tensors({"a": entry(0, 8, (2,)), "b": entry(4, 12, (2,))}, bytes(12)),
    "a gap": tensors({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)),
    "what no name has": tensors({"a": entry(0, 4)}, bytes(8)),
    "beyond the end": tensors({"a": entry(0, 8, (2,))}, bytes(4)),
    "backwards": tensors({"a": entry(4, 0)}, bytes(4)),
    "negative": tensors({"a": entry(-4, 0)}, bytes(4)),
    "another size": tensors({"a": entry(0, 4, (2,))}, bytes(4)),
    "a size beyond integers": tensors({"a": entry(0, 4, (2**62, 2**62))}, bytes(4)),
    "a negative size": tensors({"a": entry(0, 4, (-1,))}, bytes(4)),
    "another type": tensors({"a": entry(0, 4, dtype="F99")}, bytes(4)),
    "no offsets": tensors({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)),
    "offsets of texts": tensors({"a": entry("0", "4")}, bytes(4)),
    "notes of numbers": tensors({"__metadata__": {"epoch": 1}}),
}


def largest_difference(one, two):
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30)) for (_, a), (_, b) in pairs)


CASES = {
    "classes": ("torch-dynamo-documented.onnx", {}),
    "residual": ("torch-dynamo-residual.onnx", {}),
    "regression": ("torch-dynamo-regression.onnx", {"data": "diabetes.csv", "target": ("progression",)}),
    "binary": ("sklearn-binary.onnx", {"data": "breast-cancer.csv", "target": ("benign",)}),
    "multi-label": (
        "torch-legacy-multi-label.onnx",
        {"data": "digits-facts.npz", "options": PIXELS},
    ),
    "two heads": ("torch-legacy-two-heads.onnx", {"data": "digits-parity.npz", "options": PIXELS}),
    "three axes": ("torch-legacy-rank3.onnx", {}),
    "two inputs": (
        "torch-legacy-two-inputs.onnx",
        {"data": "digits-halves.npz", "options": PIXELS},
    ),
    "float64": ("sklearn-float64.onnx", {}),
    "float16": ("torch-legacy-float16.onnx", {}),
    "slopes": ("torch-legacy-piecewise.onnx", {}),
    "convolutions": (create_convolutional("8x8x1-c6-c4-p-12-10", seed=5), {}),
    "transformer": (load(MODELS.parent / "tests" / "transformers" / "torch-dynamo.onnx"), {}),
    "names": ("sklearn-column-inputs.onnx", {"data": "iris-sizes.csv", "target": ("species",)}),
}

OPTIMIZERS = {  # at rates that float32 holds, so that what is left is rounding
    "sgd": {"optimizer": "sgd", "learning_rate": 2**-6, "weight_decay": 0.01},
    "momentum": {"optimizer": "momentum", "learning_rate": 2**-9, "weight_decay": 0.01},
    "nesterov": {"optimizer": "nesterov", "learning_rate": 2**-9},
    "adamw": {"optimizer": "adamw", "learning_rate": 2**-10, "weight_decay": 0.01},
}


PARITY = {"digits-small": (MODELS / "digits-small.onnx", {})} | {
    name: (EXPORTS / CASES[name][0], CASES[name][1]) for name in ("residual", "regression", "binary", "multi-label")
}

PARITY |= {name: CASES[name] for name in ("convolutions", "transformer")}

SETTINGS = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.01},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.001, "weight_decay": 0.01},
}


def fresh(model):
    """A network, or that of a file, with new weights: a trained one's gradients are as small as what is rounded off."""
    network, rng = model if isinstance(model, Network) else load(model), np.random.default_rng(5)
    reach = {v.shape: np.sqrt(6 / sum(v.shape)) for _, v in network.parameters() if v.ndim == 2}
    return network.with_parameters(
        rng.uniform(-reach[v.shape], reach[v.shape], v.shape).astype(v.dtype) if v.ndim == 2 else np.zeros_like(v)
        for _, v in network.parameters()
    )


def whole_epochs(name, case):
    """Epochs of 500 steps at least; one of convolutions, which have the most units.

    Where a unit of one row is so near 0 that rounding decides whether Relu lets it through, trainings part in earnest.
    """
    return -(-(80 if name == "convolutions" else 500) // -(-case.examples.rows // 16))


def given(case):
    """Rows and targets as a user has them."""
    pairs = zip(case.description["targets"], case.examples.labels, strict=True)
    labels = [values.astype(each["dtype"]) for each, values in pairs]
    return case.raw(), labels[0] if len(labels) == 1 else labels
