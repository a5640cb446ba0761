"""A teacher from a file: its outputs before its squash, for every row and each head of a student.

ONNX Runtime runs the teacher as it is, so it may be any model with the same inputs: quantised, or with layers that no
surgery works on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import onnx

from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.data.features import run_in_chunks
from onnxsurgeon.data.inputs import fitted_inputs, with_rows
from onnxsurgeon.data.matching import changed, float_outputs
from onnxsurgeon.data.matching import sources as matched
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.soft import require_finite, space
from onnxsurgeon.errors import ModelError
from onnxsurgeon.graph.files import join, read_parts
from onnxsurgeon.graph.inference import inferred
from onnxsurgeon.graph.network import Network
from onnxsurgeon.graph.one_row import takes_one_row
from onnxsurgeon.linear_algebra import Array

_SQUASHES = ("Softmax", "LogSoftmax", "Sigmoid")
# A squash is also recognised before these: they leave its values, or round them.
_TRANSPARENT = frozenset(("Identity", "Cast", "DequantizeLinear", "QuantizeLinear", "Reshape", "Flatten", "Squeeze"))


class Taught(NamedTuple):
    """A teacher's outputs for some rows.

    Attributes:
        outputs: for each head of the student (rows, …, width) float32, before the squash.
        squashes: the function that the teacher itself applies to each: "Softmax", "Sigmoid" or "".
    """

    outputs: tuple[Array, ...]
    squashes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class TeacherModel:
    """A model whose outputs are to be imitated.

    Attributes:
        path: its file.
        model: read and checked, external data included.
        sha256: of its file, or with external data of all of it.
    """

    path: Path
    model: onnx.ModelProto
    sha256: str

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> TeacherModel:
        """Read the ONNX model at ``path``.

        Raises:
            ModelError: it is no model, or larger than 2 GB.
        """
        path = Path(path)
        parts = read_parts(path)
        try:
            model = join(parts)
        except ModelError as error:
            raise ModelError(f"{path}: {error}", error.kind) from error
        content = model.SerializeToString(deterministic=True) if parts.external else path.read_bytes()
        return cls(path, model, hashlib.sha256(content).hexdigest())

    def outputs(
        self,
        network: Network,
        dataset: Dataset,
        split: Split,
        options: InputOptions | None = None,
        losses: Sequence[str] = (),
    ) -> Taught:
        """Compute this model's outputs for the rows of ``split``, matched to the heads of the student ``network``.

        An output belongs to the head that leads to the student's output of the same name; else to the head in the same
        place, if there are as many; else to the next head of its width. If a Softmax or a Sigmoid ends the teacher, its
        input is taken. Of other outputs that hold probabilities where the head wants logits, the logarithm or the logit
        is taken.

        Args:
            network: the student.
            dataset: the data set of the rows.
            split: the rows.
            options: how rows become a model's input.
            losses: the loss of each head; none where that follows from heads and outputs.

        Raises:
            DataError: the rows do not fit the teacher's inputs, it fails on them, its outputs do not fit the heads, or
                one is not finite.
            ModelError: it computes a tensor that is too large.
        """
        options = options or InputOptions()
        name = str(self.path)
        constants = {tensor.name for tensor in self.model.graph.initializer}
        declared = [value for value in self.model.graph.input if value.name not in constants]
        shapes = [value.type.tensor_type.shape.dim for value in declared]
        fixed = all(size.dim_value > 0 for shape in shapes for size in shape)
        if (fixed or any(len(shape) == 1 for shape in shapes)) and takes_one_row(inferred(self.model)):
            declared = [with_rows(value) for value in declared]
        inputs = fitted_inputs(name, declared, dataset, split, options)
        names, model = self._exposed()
        pieces = run_in_chunks(model, names, inputs, split.rows, name=name, what="it")
        first = next(pieces)
        heads = network.heads
        declared_names = [value.name for value in self.model.graph.output]
        outputs = float_outputs(first, declared_names, self._squashed, names)
        sources = matched(name, network, outputs, len(declared_names), losses or [options.loss] * len(heads))
        found: list[Array] = []
        for piece in chain([first], pieces):
            rows = slice(piece.start, piece.start + piece.rows)
            values = [changed(piece, source, head) for source, head in zip(sources, heads, strict=True)]
            found = found or [space((split.rows, *each.shape[1:]), each.dtype) for each in values]
            for head, whole, each in zip(heads, found, values, strict=True):
                require_finite(each, piece.start, f"{name}: what it puts out for the head '{head.tensor}'")
                whole[rows] = each
        return Taught(tuple(found), tuple(source.squash for source in sources))

    def _exposed(self) -> tuple[list[str], onnx.ModelProto]:
        """All wanted tensors, outputs first, and a model with these as outputs."""
        names = [value.name for value in self.model.graph.output]
        before = [tensor for _, tensor in self._squashed.values()]
        wanted = list(dict.fromkeys([*names, *before]))
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        model.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in wanted[len(names) :])
        return wanted, model

    @property
    def _squashed(self) -> dict[str, tuple[str, str]]:
        """The outputs that end in a squash, as far as the nodes tell, with its op type and its input."""
        made = {name: node for node in self.model.graph.node for name in node.output if name}
        found = {}
        for value in self.model.graph.output:
            node = made.get(value.name)
            while node is not None and node.op_type in _TRANSPARENT and node.input:
                node = made.get(node.input[0])
            if node is not None and node.op_type in _SQUASHES and not node.domain and node.input[0] in made:
                found[value.name] = node.op_type, node.input[0]
        return found
