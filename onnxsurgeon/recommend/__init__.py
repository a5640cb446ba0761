"""The recommendation module: singular values → scored candidates (paper, section 3.2)."""

from onnxsurgeon.recommend.blocks import BlockReport, inspect_blocks
from onnxsurgeon.recommend.candidates import Candidate, LayerReport, inspect_layers, propose
from onnxsurgeon.recommend.pruning import PruningReport, inspect_pruning
from onnxsurgeon.recommend.ranking import best_of_each, random_walk, ranked, select, top_n
from onnxsurgeon.recommend.spectrum import Thresholds, removable_neurons

__all__ = [
    "BlockReport",
    "Candidate",
    "LayerReport",
    "PruningReport",
    "Thresholds",
    "best_of_each",
    "inspect_blocks",
    "inspect_layers",
    "inspect_pruning",
    "propose",
    "random_walk",
    "ranked",
    "removable_neurons",
    "select",
    "top_n",
]
