"""ONNX files: every read is checked, and every write is whole or not done at all."""

from onnxsurgeon.graph.check import check_model, check_parts
from onnxsurgeon.graph.declared import subgraphs
from onnxsurgeon.graph.files.atomic import (
    TEMPORARY_SUFFIX,
    flush_file,
    open_regular,
    refuse_existing,
    require_writable,
    sha256_of,
    write_bytes,
)
from onnxsurgeon.graph.files.read import read_model, read_parts
from onnxsurgeon.graph.files.write import copy_model, model_digest, write_model, write_parts, written_size
from onnxsurgeon.graph.parts import Parts, join, split

__all__ = [
    "TEMPORARY_SUFFIX",
    "Parts",
    "check_model",
    "check_parts",
    "copy_model",
    "flush_file",
    "join",
    "model_digest",
    "open_regular",
    "read_model",
    "read_parts",
    "refuse_existing",
    "require_writable",
    "sha256_of",
    "split",
    "subgraphs",
    "write_bytes",
    "write_model",
    "write_parts",
    "written_size",
]
