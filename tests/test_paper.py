"""What the paper states: eq. 16 by hand and in Table 1, the starting topologies of Table 2, the figures of Table 3."""

import math

import pytest
from paper_table3 import SEEDS, TABLE_3
from reproduce_table3 import lines, spread

from onnxsurgeon import create, load
from onnxsurgeon.report.known import PAPER
from onnxsurgeon.surgeon.score import paper_score
from tests.conftest import MODELS


@pytest.mark.parametrize(
    ("accuracy", "gain", "fraction", "score"),
    [
        # By hand: a + e^Δa / e^f, with e = 2.7182818, e^0.05 = 1.0512711, e^-0.1 = 0.9048374, e^0.5 = 1.6487213.
        (0.80, 0.00, 1.0, 0.80 + 0.3678794),
        (0.85, 0.05, 1.0, 0.85 + 1.0512711 * 0.3678794),
        (0.70, -0.10, 1.0, 0.70 + 0.9048374 * 0.3678794),
        (0.80, 0.00, 0.5, 0.80 + 1 / 1.6487213),
        (0.80, 0.00, 2.0, 0.80 + 0.1353353),
    ],
)
def test_equation_16(accuracy, gain, fraction, score):
    assert paper_score(accuracy, gain, fraction) == pytest.approx(score, abs=1e-6)


def test_equation_16_all_but_forbids_growth_of_a_small_network():
    # 20 more neurons in the first layer of 784-10-10: 7,960 → 23,860 parameters.
    cost = paper_score(0.8, 0, 1) - paper_score(0.8, 0, 23_860 / 7_960)
    assert cost == pytest.approx(0.318, abs=1e-3)
    # Removing the only hidden layer of 3072-10-100 multiplies the parameters by 9.65.
    assert paper_score(0.3, 0.05, 307_300 / 31_830) == pytest.approx(0.3 + math.exp(0.05 - 9.6544), abs=1e-6)


# Accuracy a, gain Δa, parameter fraction f and score s, all printed with four digits behind the point.
TABLE_1 = {
    "remove layer 5 (kept)": (0.6023, 0.0274, 0.9977, 0.9812),
    "identity (kept)": (0.6016, 0.0268, 1.0000, 0.9795),
    "remove 1 neuron of layer 5": (0.5829, 0.0081, 0.9997, 0.9539),
    "add a layer before layer 4": (0.5773, 0.0025, 1.0030, 0.9450),
    "add 20 neurons to layer 2": (0.5678, -0.0070, 2.6544, 0.6377),
}
HALF = 0.5e-4  # what rounding to four digits hides of a figure


@pytest.mark.parametrize(("accuracy", "gain", "fraction", "score"), TABLE_1.values(), ids=TABLE_1)
def test_table_1_follows_from_equation_16(accuracy, gain, fraction, score):
    """Of every row: the true inputs lie within half a digit of those printed, and so does the true score.

    s grows with a and Δa and falls with f, so the two corners bound it. The width of that interval is all the tolerance
    there is: below 1e-4 on each side. Worked out from the printed inputs, s differs from the printed one by at most
    0.7e-4 (the first row: 0.98127 against 0.9812), so all five rows follow from the formula.
    """
    least = paper_score(accuracy - HALF, gain - HALF, fraction + HALF)
    most = paper_score(accuracy + HALF, gain + HALF, fraction - HALF)
    assert least < paper_score(accuracy, gain, fraction) < most
    assert most - least < 2e-4
    assert least <= score + HALF
    assert score - HALF <= most


def test_table_1_has_one_parent_and_keeps_the_two_best():
    # a − Δa is the parent's accuracy: the same in every row, within the rounding of both.
    lower = max(a - gain - 2 * HALF for a, gain, _, _ in TABLE_1.values())
    upper = min(a - gain + 2 * HALF for a, gain, _, _ in TABLE_1.values())
    assert lower <= 0.5748 <= upper
    by_score = sorted(TABLE_1, key=lambda name: paper_score(*TABLE_1[name][:3]), reverse=True)
    assert [name.endswith("(kept)") for name in by_score] == [True, True, False, False, False]
    assert by_score == list(TABLE_1)


@pytest.mark.parametrize(
    ("name", "topology", "parameters"),
    [
        # (784 + 1) · 10 + (10 + 1) · 10
        ("fashion-mnist-small", "784-10-10", 7_960),
        # 7,850 + 110 + 110 + 110
        ("fashion-mnist-medium", "784-10-10-10-10", 8_180),
        # 785 · 300 + 301 · 100 + 101 · 100 + 101 · 10
        ("fashion-mnist-large", "784-300-100-100-10", 276_710),
        ("mnist-small", "784-10-10", 7_960),
        # 7,850 + 11 · 62
        ("emnist-small", "784-10-62", 8_532),
        ("emnist-medium", "784-10-10-10-62", 8_752),
        # 3,073 · 10 + 110
        ("cifar10-small", "3072-10-10", 30_840),
        # 3,073 · 300 + 30,100 + 10,100 + 1,010
        ("cifar10-large", "3072-300-100-100-10", 963_110),
        # 30,730 + 11 · 100
        ("cifar100-small", "3072-10-100", 31_830),
        ("svhn-medium", "3072-10-10-10-10", 31_060),
        # 12,289 · 10 + 110
        ("eurosat-small", "12288-10-10", 123_000),
        ("digits-small", "64-10-10", 760),
    ],
)
def test_starting_topologies(name, topology, parameters):
    network = load(MODELS / f"{name}.onnx")
    assert network.topology == topology
    assert network.parameter_count == parameters


def test_the_two_merges_of_table_3():
    """+865.44 % and +470.44 %, in every run: exactly the merge of the only hidden layer."""
    for data, sizes in (("cifar100", (3072, 10, 100)), ("emnist", (784, 10, 62))):
        printed = TABLE_3[data, "small"].parameters
        before = create(sizes).parameter_count
        after = (sizes[0] + 1) * sizes[-1]
        assert round(100 * (after / before - 1), 2) == printed.mean
        assert printed.deviation == 0
    others = [row.parameters for row in TABLE_3.values() if row.parameters]
    assert sum(each.deviation == 0 for each in others) == 2


def test_table_3_is_whole():
    assert len(TABLE_3) == 6 * 3
    assert {size for _, size in TABLE_3} == {"small", "medium", "large"}
    for (data, _), row in TABLE_3.items():
        assert 0 < row.baseline.mean <= row.surgeon.mean < 1  # in no row does the paper's Surgeon lose
        assert (row.parameters is None) == (data == "fashion-mnist")


def test_the_report_shows_a_figure_of_table_3():
    shown, row = PAPER["fashion-mnist", "784-10-10"], TABLE_3["fashion-mnist", "small"]
    assert (shown.baseline, shown.surgeon) == (f"{row.baseline.mean:.2f}", f"{row.surgeon.mean:.2f}")


def test_reproduced_rows_stand_beside_the_papers():
    def run(size, baseline, surgeon, parameters):
        return {
            "size": size,
            "baseline": baseline,
            "surgeon": surgeon,
            "parameters": 1000,
            "surgeon_parameters": parameters,
        }

    runs = [run("small", 0.2, 0.3, 1500), run("small", 0.4, 0.3, 1000), run("medium", 0.5, 0.6, 900)]
    _, _, small, medium = lines("cifar10", runs)
    assert small == (
        "| small, 2 seeds | 0.3000 ± 0.1000 | 0.3000 ± 0.0000 | +25.0% ± 25.0% "
        "| 0.28 ± 0.01 | 0.34 ± 0.01 | +1.12% ± 2.85% |"
    )
    assert medium.endswith("| -10.0% ± 0.0% | 0.32 ± 0.01 | 0.38 ± 0.06 | +203.87% ± 417.45% |")
    header, rule, fashion = lines("fashion-mnist", runs[2:])
    assert fashion.endswith("| 0.85 ± 0.01 | 0.85 ± 0.00 | not legible to us |")
    assert {line.count("|") for line in (header, rule, small, medium, fashion)} == {8}
    *_, unknown = lines("mnist", runs[2:])
    assert unknown.endswith("| – | – | – |")
    assert spread([1.0, 3.0]) == "2.0000 ± 1.0000"
    assert len(SEEDS) == 5
