"""Table 3 of the paper as printed: accuracies without and with the Surgeon, and what became of the parameter count.

Schiessler, Aydin, Linka, Cyron, Neural Networks 144 (2021) 384-393, doi 10.1016/j.neunet.2021.08.034. Means and
deviations over 15 runs: seeds 6, 63, 72, 77 and 97, three runs each.
"""

from __future__ import annotations

from typing import NamedTuple

SEEDS = (6, 63, 72, 77, 97)


class Spread(NamedTuple):
    """A mean and the deviation beside it, as printed."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.2f} ± {self.deviation:.2f}"


class Row(NamedTuple):
    """One network on one data set.

    Attributes:
        baseline: validation accuracy after plain training.
        surgeon: validation accuracy with the Surgeon.
        parameters: change of the parameter count by the Surgeon, in per cent; None where it is not legible to us.
    """

    baseline: Spread
    surgeon: Spread
    parameters: Spread | None


def _row(*figures: float) -> Row:
    spreads = [Spread(*pair) for pair in zip(figures[::2], figures[1::2], strict=True)]
    return Row(spreads[0], spreads[1], spreads[2] if len(spreads) > 2 else None)


# By data set and size of the starting topology (Table 2: 10, 10-10-10 and 300-100-100).
TABLE_3 = {
    ("svhn", "small"): _row(0.20, 0.00, 0.29, 0.16, 16.48, 52.0),
    ("svhn", "medium"): _row(0.34, 0.12, 0.58, 0.04, 1.97, 7.13),
    ("svhn", "large"): _row(0.78, 0.01, 0.79, 0.01, -7.23, 32.48),
    ("cifar10", "small"): _row(0.28, 0.01, 0.34, 0.01, 1.12, 2.85),
    ("cifar10", "medium"): _row(0.32, 0.01, 0.38, 0.06, 203.87, 417.45),
    ("cifar10", "large"): _row(0.49, 0.00, 0.51, 0.00, 2.12, 3.13),
    ("cifar100", "small"): _row(0.12, 0.01, 0.19, 0.00, 865.44, 0.00),
    ("cifar100", "medium"): _row(0.12, 0.01, 0.14, 0.01, -0.18, 11.94),
    ("cifar100", "large"): _row(0.20, 0.00, 0.20, 0.00, 7.40, 27.69),
    ("eurosat", "small"): _row(0.11, 0.00, 0.54, 0.05, -14.31, 10.68),
    ("eurosat", "medium"): _row(0.24, 0.10, 0.57, 0.03, -12.87, 13.83),
    ("eurosat", "large"): _row(0.60, 0.02, 0.66, 0.01, 3.24, 4.15),
    ("emnist", "small"): _row(0.67, 0.00, 0.73, 0.00, 470.44, 0.00),
    ("emnist", "medium"): _row(0.63, 0.01, 0.71, 0.01, 16.98, 47.30),
    ("emnist", "large"): _row(0.83, 0.00, 0.84, 0.00, 13.02, 9.78),
    ("fashion-mnist", "small"): _row(0.85, 0.01, 0.85, 0.00),
    ("fashion-mnist", "medium"): _row(0.85, 0.01, 0.85, 0.00),
    ("fashion-mnist", "large"): _row(0.89, 0.00, 0.89, 0.00),
}
