"""Figures and names from elsewhere that belong on the page of a run on a public data set."""

from __future__ import annotations

from dataclasses import dataclass

_FASHION_MNIST = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# The publishers' names of the classes, by the data set's name.
CLASS_NAMES = {"fashion-mnist": _FASHION_MNIST, "cifar10": _CIFAR10}


@dataclass(frozen=True)
class PaperFigure:
    """A row of Table 3 of the paper, as printed there: accuracies on the test split.

    Schiessler, Aydin, Linka, Cyron, Neural Networks 144 (2021) 384-393, doi 10.1016/j.neunet.2021.08.034.
    """

    baseline: str
    surgeon: str


# By data set and topology of the given model; tools/paper_table3.py has the whole table.
PAPER = {("fashion-mnist", "784-10-10"): PaperFigure("0.85", "0.85")}
