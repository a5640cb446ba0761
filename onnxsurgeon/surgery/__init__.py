"""The surgeries (paper, section 3.1): pure functions from a network to a new one."""

from onnxsurgeon.surgery.base import (
    EXACT_TOLERANCE,
    SURGERIES,
    Operated,
    Surgery,
    SurgeryRecord,
    operate,
    parse,
    spell,
)
from onnxsurgeon.surgery.factorize import Factorize
from onnxsurgeon.surgery.insert_identity import InsertIdentity
from onnxsurgeon.surgery.merge import Merge
from onnxsurgeon.surgery.narrow import Narrow
from onnxsurgeon.surgery.widen import Widen

__all__ = [
    "EXACT_TOLERANCE",
    "SURGERIES",
    "Factorize",
    "InsertIdentity",
    "Merge",
    "Narrow",
    "Operated",
    "Surgery",
    "SurgeryRecord",
    "Widen",
    "operate",
    "parse",
    "spell",
]
