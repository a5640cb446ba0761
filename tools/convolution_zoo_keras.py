"""Export small convolutional networks of Keras, channels last, for tests of reading and writing.

    KERAS_BACKEND=tensorflow python tools/convolution_zoo_keras.py tests/convolutions     # NAME-tf2onnx.onnx
    KERAS_BACKEND=torch python tools/convolution_zoo_keras.py tests/convolutions vgg      # NAME-keras.onnx

On TensorFlow they are written by tf2onnx, on PyTorch by Keras's own export to ONNX. Weights are random, statistics of
normalisations too. Needs Keras 3, and TensorFlow and tf2onnx or PyTorch and onnxscript.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from keras import layers

IMAGE = (12, 12, 3)
OPSET = 18


def conv(x: Any, units: int, kernel: Any = 3, activation: str | None = "relu", **options: Any) -> Any:
    """A convolution that keeps the size, unless it steps."""
    return layers.Conv2D(units, kernel, padding="same", activation=activation, **options)(x)


def normalised(x: Any, units: int, kernel: int = 3, activation: str | None = "relu", **options: Any) -> Any:
    """Convolution without bias, normalisation, activation."""
    x = layers.BatchNormalization()(conv(x, units, kernel, None, use_bias=False, **options))
    return layers.Activation(activation)(x) if activation else x


def head(x: Any, classes: int = 5) -> Any:
    """Means of the channels, and a dense layer."""
    return layers.Dense(classes, activation="softmax")(layers.GlobalAveragePooling2D()(x))


def vgg(x: Any) -> Any:
    """Convolutions two by two with pooling, and a dense head behind a Flatten of channels last."""
    x = layers.MaxPooling2D(2)(conv(conv(x, 6), 6))
    x = layers.MaxPooling2D(2)(conv(conv(x, 8), 8))
    return layers.Dense(5, activation="softmax")(layers.Dense(10, activation="relu")(layers.Flatten()(x)))


def resnet(x: Any) -> Any:
    """A block that keeps the size and one that halves it, normalised."""
    x = normalised(x, 6)
    x = layers.ReLU()(layers.Add()([x, normalised(normalised(x, 6), 6, activation=None)]))
    shortcut = normalised(x, 8, 1, None, strides=2)
    return head(layers.ReLU()(layers.Add()([shortcut, normalised(normalised(x, 8, strides=2), 8, activation=None)])))


def mobilenet(x: Any) -> Any:
    """An inverted bottleneck: pointwise, depthwise, pointwise, with ReLU6; SAME in steps pads at one side only."""
    x = normalised(x, 6, activation="relu6", strides=2)
    y = normalised(x, 12, 1, "relu6")
    y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y))
    y = normalised(layers.Activation("relu6")(y), 6, 1, None)
    return head(layers.Add()([x, y]))


def excited(x: Any) -> Any:
    """Separable convolutions, and channels weighed by what dense layers make of their means."""
    x = conv(x, 8, activation="silu")
    x = layers.SeparableConv2D(8, 3, padding="same", activation="silu")(x)
    weigh = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(x))
    weigh = layers.Dense(8, activation="sigmoid")(layers.Dense(4, activation="relu")(weigh))
    return head(conv(layers.Multiply()([x, weigh]), 6, 1, "silu"))


def densenet(x: Any) -> Any:
    """Each convolution reads all that came before, normalised."""
    x = conv(x, 6, activation=None)
    for _ in range(2):
        y = conv(layers.ReLU()(layers.BatchNormalization()(x)), 4, activation=None)
        x = layers.Concatenate()([x, y])
    x = layers.AveragePooling2D(2)(conv(x, 7, 1, None))
    return layers.Dense(5, activation="softmax")(layers.Flatten()(x))


def inception(x: Any) -> Any:
    """Branches of several kernels side by side."""
    x = conv(x, 6)
    pooled = layers.MaxPooling2D(3, 1, padding="same")(x)
    return head(layers.Concatenate()([conv(x, 3, 1), conv(conv(x, 4, 1), 4, (1, 5)), conv(pooled, 3, 1)]))


def unet(x: Any) -> Any:
    """One level down and up again, with what was before beside it."""
    first = conv(x, 6)
    deep = conv(conv(layers.MaxPooling2D(2)(first), 8), 6)
    x = layers.Concatenate()([first, layers.UpSampling2D()(deep)])
    return conv(conv(x, 6), 2, 1, None)


def autoencoder(x: Any) -> Any:
    """Down by steps, and up again by a transposed convolution."""
    x = conv(conv(x, 6), 8, strides=2)
    return conv(layers.Conv2DTranspose(6, 2, strides=2, activation="relu")(x), 1, activation=None)


def sound(x: Any) -> Any:
    """One dimension: steps, dilation, pooling; signals are (batch, length, channels)."""
    x = layers.Conv1D(6, 5, strides=2, activation="relu")(x)
    x = layers.Conv1D(8, 3, dilation_rate=2, padding="same", activation="elu")(x)
    x = layers.Conv1D(6, 3, activation="tanh")(layers.MaxPooling1D(3, 2)(x))
    return layers.Dense(3, activation="softmax")(layers.Flatten()(x))


def volume(x: Any) -> Any:
    """Three dimensions."""
    x = layers.BatchNormalization()(layers.Conv3D(4, 3, padding="same")(x))
    x = layers.Conv3D(6, (1, 3, 3), (1, 2, 2), activation="elu")(layers.ReLU()(x))
    return layers.Dense(3, activation="softmax")(layers.Flatten()(layers.AveragePooling3D(2)(x)))


def padded(x: Any) -> Any:
    """Borders as nodes of their own, and a convolution without padding behind a cut."""
    x = layers.Conv2D(6, 3, activation="selu")(layers.ZeroPadding2D(((0, 1), (1, 0)))(x))
    return head(layers.Conv2D(8, 3, activation="relu")(layers.Cropping2D(1)(x)))


ZOO: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "vgg": (vgg, IMAGE),
    "resnet": (resnet, IMAGE),
    "mobilenet": (mobilenet, IMAGE),
    "excited": (excited, IMAGE),
    "densenet": (densenet, IMAGE),
    "inception": (inception, IMAGE),
    "unet": (unet, (12, 12, 1)),
    "autoencoder": (autoencoder, (12, 12, 1)),
    "sound": (sound, (32, 2)),
    "volume": (volume, (5, 8, 8, 1)),
    "padded": (padded, IMAGE),
}


# PyTorch's exporter refuses three dimensions as Keras lays them out: "memory_format support is not implemented".
NOT_BY_TORCH = ("volume",)


def network(name: str) -> Any:
    """The network, its weights drawn; so that it is drawn alike on each backend, by NumPy."""
    make, shape = ZOO[name]
    pixels = keras.Input(shape, name="pixels")
    made = keras.Model(pixels, make(pixels))
    draw = np.random.default_rng(0)
    for layer in made.layers:
        values = []
        for variable in layer.variables:
            kind, size = variable.name, tuple(variable.shape)
            if kind in ("gamma", "moving_variance"):
                values.append(draw.uniform(0.5, 1.5, size))
            elif len(size) == 1:
                values.append(draw.normal(0, 0.3, size))
            else:
                values.append(draw.normal(0, np.sqrt(2 / np.prod(size[:-1])), size))
        for variable, value in zip(layer.variables, values, strict=True):
            variable.assign(value.astype(np.float32))
    return made


def export(name: str, folder: Path) -> None:
    """Write NAME-tf2onnx.onnx or NAME-keras.onnx, as the backend is."""
    made = network(name)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf
        import tf2onnx

        signature = (tf.TensorSpec((None, *ZOO[name][1]), tf.float32, name="pixels"),)
        function = tf.function(lambda x: made(x, training=False), input_signature=signature)
        model, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=OPSET)
        onnx.save(model, folder / f"{name}-tf2onnx.onnx")
        return
    made(np.zeros((1, *ZOO[name][1]), np.float32))
    path = folder / f"{name}-keras.onnx"
    made.export(str(path), format="onnx", verbose=False)
    model = onnx.load(path)
    for holder in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del holder.metadata_props[:]  # of its own source code, which takes more bytes than the weights
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
    onnx.save(model, path)


def main() -> None:
    """Export all, or those that are named."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2:] or ZOO:
        if keras.backend.backend() == "tensorflow" or name not in NOT_BY_TORCH:
            export(name, folder)


if __name__ == "__main__":
    main()
