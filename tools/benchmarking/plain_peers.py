"""Peers that need no onnxsurgeon and no ONNX: numpy by hand, PyTorch, scikit-learn, Keras; and matrix products."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarking.task import BATCH, RATE, WARM_UP, Array, Task

PRODUCT = 1024  # rows and columns of the matrices that show the peak: 12 MB, and 25 ms at 90 GFLOP/s
PRODUCTS = 4


class Run(NamedTuple):
    """Microseconds of a timed step, and the parameters in the end, in the order of ``Task.start``."""

    microseconds: float
    parameters: list[Array]


Runner = Callable[[], Run]


def timed(step: Callable[[Any], object], batches: Sequence[Any] | Array) -> float:
    """Microseconds that ``step`` takes for one of ``batches``, those of the warm-up not counted."""
    for rows in batches[:WARM_UP]:
        step(rows)
    start = time.perf_counter()
    for rows in batches[WARM_UP:]:
        step(rows)
    return (time.perf_counter() - start) / (len(batches) - WARM_UP) * 1e6


def numpy_peer(task: Task) -> Runner:
    """A step by hand: in place where numpy can, and scaled by the rate where the tensor is smallest."""
    features, targets = task.features, task.targets

    def run() -> Run:
        parameters = task.fresh()
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))

        def step(rows: Array) -> None:
            outputs = [features[rows]]
            for weight, bias in layers:
                z = outputs[-1] @ weight
                z += bias
                outputs.append(np.maximum(z, 0, out=z) if len(outputs) < len(layers) else z)
            delta = outputs.pop()
            delta -= delta.max(axis=1, keepdims=True)
            np.exp(delta, out=delta)
            delta /= delta.sum(axis=1, keepdims=True)
            delta -= targets[rows]
            delta *= -RATE / BATCH
            for (weight, bias), x in zip(reversed(layers), reversed(outputs), strict=True):
                previous = (delta @ weight.T) * (x > 0) if x is not outputs[0] else delta
                weight += x.T @ delta
                bias += delta.sum(axis=0)
                delta = previous

        return Run(timed(step, task.batches), parameters)

    return run


def torch_peer(task: Task, *, compiled: bool = False) -> Runner:
    """PyTorch as its tutorials write it: Sequential, cross_entropy, backward, optim.SGD; compiled or not."""
    import torch

    torch.set_num_threads(1)
    features, labels = torch.from_numpy(task.features), torch.from_numpy(task.labels)
    modules: list[Any] = []
    for n_in, n_out in zip(task.sizes, task.sizes[1:], strict=False):
        modules += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
    model = torch.nn.Sequential(*modules[:-1])
    parameters = list(model.parameters())
    optimizer = torch.optim.SGD(parameters, RATE)

    def loss(rows: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(features[rows]), labels[rows])

    # Compiling optimizer.step as well gained nothing.
    forward = torch.compile(loss) if compiled else loss

    def step(rows: Any) -> None:
        optimizer.zero_grad()
        forward(rows).backward()
        optimizer.step()

    batches = torch.from_numpy(task.batches).unbind()

    def run() -> Run:
        with torch.no_grad():
            for parameter, values in zip(parameters, task.start, strict=True):
                parameter.copy_(torch.from_numpy(values.T))  # a Linear's weight is (n_out, n_in)
        microseconds = timed(step, batches)
        return Run(microseconds, [parameter.detach().numpy().T.copy() for parameter in parameters])

    return run


def compiled_torch_peer(task: Task) -> Runner:
    """The same with ``torch.compile``, which writes C++ and needs a compiler."""
    return torch_peer(task, compiled=True)


def sklearn_peer(task: Task) -> Runner:
    """scikit-learn's MLPClassifier, whose partial_fit loops over the batches of the rows that it is given."""
    from sklearn.neural_network import MLPClassifier

    classes = np.arange(task.sizes[-1])
    warm, rest = (rows.ravel() for rows in task.parts())
    features, labels = task.features[rest], task.labels[rest]

    def run() -> Run:
        model = MLPClassifier(
            task.sizes[1:-1],
            solver="sgd",
            alpha=0,
            batch_size=BATCH,
            learning_rate_init=RATE,
            momentum=0,
            nesterovs_momentum=False,
            shuffle=False,
        )
        model.partial_fit(task.features[:BATCH], task.labels[:BATCH], classes=classes)
        # Its first call makes the parameters, in the type of the features: they are set in place.
        for own, values in zip((*model.coefs_, *model.intercepts_), (*task.start[::2], *task.start[1::2]), strict=True):
            own[...] = values
        model.partial_fit(task.features[warm], task.labels[warm])
        start = time.perf_counter()
        model.partial_fit(features, labels)
        microseconds = (time.perf_counter() - start) / (len(task.batches) - WARM_UP) * 1e6
        pairs = zip(model.coefs_, model.intercepts_, strict=True)
        return Run(microseconds, [values for pair in pairs for values in pair])

    return run


def keras_peer(task: Task) -> Runner:
    """Keras as its guides write it: Sequential, compile, fit without shuffling, on the backend that ``serve`` chose."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    *hidden, last = task.sizes[1:]
    dense = keras.layers.Dense
    layers = [dense(units, activation="relu") for units in hidden]
    model = keras.Sequential([keras.Input((task.sizes[0],)), *layers, dense(last)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE), loss)

    rows = task.batches.ravel()
    features, labels = task.features[rows], task.labels[rows]

    class Clock(keras.callbacks.Callback):  # type: ignore[misc] # mypy does not see Keras
        """Starts behind the warm-up; an epoch's end waits for its last step."""

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == WARM_UP - 1:
                self.begun = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seconds = time.perf_counter() - self.begun

    def run() -> Run:
        model.set_weights(list(task.start))
        clock = Clock()
        model.fit(features, labels, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[clock])
        return Run(clock.seconds / (len(task.batches) - WARM_UP) * 1e6, model.get_weights())

    return run


def fastest_product(multiply: Callable[[], object]) -> Run:
    """Microseconds of the fastest of a few products: the peak is what the processor can do undisturbed."""
    multiply()
    times = []
    for _ in range(PRODUCTS):
        start = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - start)
    return Run(min(times) * 1e6, [])


def factors() -> tuple[Array, Array]:
    """Two square float32 matrices."""
    rng = np.random.default_rng(0)
    return rng.random((PRODUCT, PRODUCT), np.float32), rng.random((PRODUCT, PRODUCT), np.float32)


def numpy_product(_: Task) -> Runner:
    """Sgemm of numpy's BLAS."""
    a, b = factors()
    out = np.empty_like(a)
    return lambda: fastest_product(lambda: np.matmul(a, b, out=out))


def torch_product(_: Task) -> Runner:
    """Sgemm of PyTorch's BLAS."""
    import torch

    torch.set_num_threads(1)
    a, b = map(torch.from_numpy, factors())
    return lambda: fastest_product(lambda: torch.mm(a, b))
