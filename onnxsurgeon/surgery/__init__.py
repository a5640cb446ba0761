"""The surgeries (paper, section 3.1): pure functions from a network to a new one."""

from onnxsurgeon.surgery.base import SURGERIES, DataAware, Surgery, parse, spell
from onnxsurgeon.surgery.factorize import Factorize
from onnxsurgeon.surgery.factorize_data import FactorizeData, factorization_errors
from onnxsurgeon.surgery.grow import Grow
from onnxsurgeon.surgery.insert_behind_pool import InsertBehindPool
from onnxsurgeon.surgery.insert_block import InsertBlock
from onnxsurgeon.surgery.insert_identity import InsertIdentity
from onnxsurgeon.surgery.join import Join
from onnxsurgeon.surgery.merge import Merge
from onnxsurgeon.surgery.merge_data import MergeData
from onnxsurgeon.surgery.merge_duplicates import MergeDuplicates
from onnxsurgeon.surgery.narrow import Narrow
from onnxsurgeon.surgery.operated import EXACT_TOLERANCE, Operated, SurgeryRecord, operate
from onnxsurgeon.surgery.prune import Prune, pruning_errors
from onnxsurgeon.surgery.remove_block import RemoveBlock
from onnxsurgeon.surgery.remove_block_data import RemoveBlockData
from onnxsurgeon.surgery.widen import Widen

__all__ = [
    "EXACT_TOLERANCE",
    "SURGERIES",
    "DataAware",
    "Factorize",
    "FactorizeData",
    "Grow",
    "InsertBehindPool",
    "InsertBlock",
    "InsertIdentity",
    "Join",
    "Merge",
    "MergeData",
    "MergeDuplicates",
    "Narrow",
    "Operated",
    "Prune",
    "RemoveBlock",
    "RemoveBlockData",
    "Surgery",
    "SurgeryRecord",
    "Widen",
    "factorization_errors",
    "operate",
    "parse",
    "pruning_errors",
    "spell",
]
