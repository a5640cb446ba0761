"""What the paper states and can be worked out by hand: eq. 16, and the starting topologies of Table 2."""

import math

import pytest

from onnxsurgeon import create, load
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
    """+865 % and +470 %: exactly the merge of the only hidden layer."""
    for sizes, percent in (((3072, 10, 100), 865), ((784, 10, 62), 470)):
        before = create(sizes).parameter_count
        after = (sizes[0] + 1) * sizes[-1]
        assert round(100 * (after / before - 1)) == percent
