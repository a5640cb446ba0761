"""Two models on the rows of a data set: the accuracy of each, and how their outputs differ there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from onnxsurgeon.comparison.outputs import Feeds, OutputComparison, compare, fixed_batch, free_inputs, in_memory
from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.inputs import model_inputs
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.prepare import prepare
from onnxsurgeon.data.rows import Rows
from onnxsurgeon.errors import EngineError, ModelError
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.sizes import largest_tensor, rows_that_fit
from onnxsurgeon.runtime import are_rows, first_line, ranks_of
from onnxsurgeon.training.choose import make_engine
from onnxsurgeon.training.metrics import Metrics

CHUNK = 1024


@dataclass(frozen=True)
class DataComparison:
    """Two models on the same rows of a data set.

    Attributes:
        data: the set's name.
        split: "train", "validation", "test" or "all".
        before: the first model's metrics.
        after: the second's.
        outputs: their outputs compared, row by row.
    """

    data: str
    split: str
    before: Metrics
    after: Metrics
    outputs: OutputComparison


def compare_on_data(
    networks: tuple[Network, Network],
    dataset: Dataset,
    name: str,
    split: Split,
    options: InputOptions,
    *,
    engine: str = "auto",
    device: str = "cpu",
) -> DataComparison:
    """Measure two models on the rows of ``split``, and compare all their outputs there.

    Raises:
        DataError: the rows do not fit a model.
        EngineError: a model cannot be evaluated.
    """
    before, after = (
        make_engine(engine, device, network).evaluate(network, prepare(network, dataset, split, options))
        for network in networks
    )
    try:
        models = in_memory(networks[0]), in_memory(networks[1])
        inputs = [model_inputs(network, dataset, split, options) for network in networks]
        for model, given in zip(models, inputs, strict=True):
            missing = [value.name for value in free_inputs(model) if value.name not in given]
            if missing:
                raise ModelError(f"the data has nothing for the input '{missing[0]}'", "unlike-models")
        names = networks[0].name, networks[1].name
        outputs = compare(*models, _feeds(models, inputs, split.rows, names))
    except (EngineError, ModelError) as error:
        outputs = OutputComparison(notes=(f"outputs not compared on {dataset.name}: {first_line(error)}",))
    return DataComparison(dataset.name, name, before, after, outputs)


def _feeds(
    models: tuple[onnx.ModelProto, onnx.ModelProto], inputs: list[dict[str, Rows]], rows: int, names: tuple[str, str]
) -> Iterator[tuple[Feeds, Feeds]]:
    """Yield the rows in chunks; for a fixed batch only whole ones, with rows repeated where there are too few."""
    sizes = {
        fixed_batch(model)
        for model, given in zip(models, inputs, strict=True)
        if not are_rows(ranks_of(model), {name: len(values.shape) for name, values in given.items()})
    } - {0}
    if len(sizes) > 1:
        raise ModelError(f"the models take batches of different sizes, {min(sizes)} and {max(sizes)}", "unlike-models")
    step, fixed = max(sizes, default=CHUNK), bool(sizes)
    for model, given, name in zip(models, inputs, names, strict=True):
        read = {value.name for value in model.graph.input}
        shapes = {key: tuple(values.shape[1:]) for key, values in given.items() if key in read}
        if fixed:
            largest_tensor(model, {key: (step, *shape) for key, shape in shapes.items()}, name=f"'{name}'")
        else:
            step = rows_that_fit(model, shapes, min(step, rows), name=f"'{name}'")
    for start in range(0, rows, step):
        if fixed and start + step > rows > step:
            return
        numbers = np.arange(start, start + step) % rows if fixed else np.arange(start, min(start + step, rows))
        first, second = ({name: values.take(numbers) for name, values in given.items()} for given in inputs)
        yield first, second
