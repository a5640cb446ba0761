"""Write models/: the paper's starting topologies (Table 2), and real outputs of exporters.

    python tools/make_models.py topologies
    python tools/make_models.py exports      # where torch, onnxscript, scikit-learn, skl2onnx and keras are installed
    python tools/make_models.py tensorflow   # where tensorflow and tf2onnx are installed
    python tools/make_models.py fixtures FAMILY…   # models/exports; models/exports/EXPORTS.md says what each needs

The topologies are untrained (Glorot uniform, seed 0). The exports are trained on the digits first, and each is
written by its exporter; models/EXPORTS.md records the versions. The fixtures are many, a file of tools/fixtures
for each family.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

MODELS = Path(__file__).resolve().parent.parent / "models"
SMALL: tuple[int, ...] = (10,)
MEDIUM: tuple[int, ...] = (10, 10, 10)
LARGE: tuple[int, ...] = (300, 100, 100)
SHAPES: dict[str, tuple[tuple[int, ...], int]] = {
    "mnist": ((28, 28, 1), 10),
    "fashion-mnist": ((28, 28, 1), 10),
    "emnist": ((28, 28, 1), 62),
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "svhn": ((32, 32, 3), 10),
    "eurosat": ((64, 64, 3), 10),
}


FAMILIES: dict[str, list[str]] = {
    "torch": ["torch_activations", "torch_structures", "torch_tasks", "torch_attention"],
    "attention": ["torch_attention"],
    "cnn": ["torch_cnn"],
    "sklearn": ["sklearn_exports"],
    "keras": ["keras_exports"],
    "tensorflow": ["tensorflow_exports"],
    "jax": ["jax_exports"],
    "functions": ["function_exports"],
    "onnxruntime": ["onnxruntime_exports"],
    "page": [],
    "check": [],
}


def fixtures(families: list[str]) -> None:
    """Make the fixtures of these families, and the page that lists all."""
    warnings.simplefilter("ignore")
    from fixtures.catalogue import verify, write_page

    if families == ["check"]:
        verify()
        return
    for family in families:
        for module in FAMILIES[family]:
            importlib.import_module(f"fixtures.{module}").make()
    write_page((Path(__file__).parent / "fixtures" / "notes.md").read_text())


def topologies() -> None:
    """Small and medium for every data set of the paper, large for two, and a small one for the digits."""
    from onnxsurgeon import create, save

    wanted: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {"digits-small": ((8, 8), SMALL, 10)}
    for name, (shape, classes) in SHAPES.items():
        wanted[f"{name}-small"] = (shape, SMALL, classes)
        wanted[f"{name}-medium"] = (shape, MEDIUM, classes)
        if name in ("fashion-mnist", "cifar10"):
            wanted[f"{name}-large"] = (shape, LARGE, classes)
    for name, (shape, hidden, classes) in wanted.items():
        network = create((int(np.prod(shape)), *hidden, classes), input_shape=shape, name=name)
        save(network, MODELS / f"{name}.onnx", overwrite=True)
        print(f"{name}.onnx: {network.topology}, {network.parameter_count:,} parameters")


def exports() -> None:
    """Train 64-32-10 on the digits in PyTorch, scikit-learn and Keras (on PyTorch), and export it."""
    os.environ["KERAS_BACKEND"] = "torch"
    warnings.simplefilter("ignore")
    images, labels = _digits()
    _torch(images, labels)
    _sklearn(images, labels)
    _keras(images, labels)


def tensorflow() -> None:
    """Train the same network in Keras on TensorFlow, and export it with tf2onnx."""
    import keras
    import onnx
    import tensorflow as tf
    import tf2onnx

    network = _train_keras(keras, *_digits())
    signature = (tf.TensorSpec((None, 8, 8), tf.float32, name="pixels"),)
    function = tf.function(lambda x: network(x), input_signature=signature)
    model, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=17)
    onnx.save(model, MODELS / "export-tf2onnx.onnx")
    _record("export-tf2onnx.onnx", "tensorflow-cpu", "keras", "tf2onnx", "onnx")


def _digits() -> tuple[Any, Any]:
    with np.load(MODELS.parent / "onnxsurgeon" / "data" / "digits.npz") as arrays:
        return arrays["images"].astype(np.float32) / 16, arrays["labels"].astype(np.int64)


def _record(file: str, *packages: str) -> None:
    """Enter a file and the versions that made it into models/EXPORTS.md."""
    index = MODELS / "EXPORTS.md"
    lines = [line for line in index.read_text().splitlines() if line.startswith("- ")] if index.exists() else []
    lines = [line for line in lines if not line.startswith(f"- {file}:")]
    lines.append(f"- {file}: {', '.join(f'{package} {version(package)}' for package in packages)}")
    heading = ["# Exported models", "", "Each trained on the digits and written by its own exporter:", ""]
    index.write_text("\n".join([*heading, *sorted(lines)]) + "\n")


def _torch(images: Any, labels: Any) -> None:
    import torch
    from fixtures.torch_tools import shorten_paths

    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, 32),
        torch.nn.ReLU(),
        torch.nn.Dropout(0.1),
        torch.nn.Linear(32, 10),
    )
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.Adam(net.parameters(), 0.005)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    net.eval()
    names: dict[str, Any] = {"input_names": ["pixels"], "output_names": ["logits"]}
    axes = {"pixels": {0: "batch"}, "logits": {0: "batch"}}
    torch.onnx.export(
        net, (x[:2],), MODELS / "export-torch-legacy.onnx", dynamo=False, opset_version=17, dynamic_axes=axes, **names
    )
    batch = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(
        net,
        (x[:2],),
        MODELS / "export-torch-dynamo.onnx",
        dynamo=True,
        opset_version=18,
        dynamic_shapes=batch,
        external_data=False,
        **names,
    )
    shorten_paths(MODELS / "export-torch-dynamo.onnx")
    for file in ("export-torch-legacy.onnx", "export-torch-dynamo.onnx"):
        _record(file, "torch", "onnxscript", "onnx")


def _sklearn(images: Any, labels: Any) -> None:
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier

    x = images.reshape(len(images), -1)
    classifier = MLPClassifier((32,), random_state=0, max_iter=60).fit(x, labels)
    model = to_onnx(classifier, x[:1], target_opset={"": 17, "ai.onnx.ml": 3})
    (MODELS / "export-sklearn.onnx").write_bytes(model.SerializeToString())
    _record("export-sklearn.onnx", "scikit-learn", "skl2onnx", "onnx")


def _keras(images: Any, labels: Any) -> None:
    import keras

    network = _train_keras(keras, images, labels)
    network.export(str(MODELS / "export-keras.onnx"), format="onnx", verbose=False)
    _record("export-keras.onnx", "keras", "torch", "onnx")


def _train_keras(keras: Any, images: Any, labels: Any) -> Any:
    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((8, 8)),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(images, labels, epochs=30, verbose=0)
    return network


def main(arguments: list[str]) -> None:
    """Do as the command line says."""
    actions = {"topologies": topologies, "exports": exports, "tensorflow": tensorflow}
    MODELS.mkdir(exist_ok=True)
    if len(arguments) == 1 and arguments[0] in actions:
        actions[arguments[0]]()
    elif len(arguments) > 1 and arguments[0] == "fixtures" and set(arguments[1:]) <= FAMILIES.keys():
        fixtures(arguments[1:])
    else:
        sys.exit(f"usage: make_models.py {'|'.join(actions)}, or make_models.py fixtures {'|'.join(FAMILIES)} …")


if __name__ == "__main__":
    main(sys.argv[1:])
