"""``new --data``: the widths of inputs and outputs are those that the rows need."""

import numpy as np
import pytest

from onnxsurgeon import load


@pytest.fixture
def made(cli):
    def make(*options):
        code, _, err = cli("new", *options, "-o", "start.onnx", "--force")
        assert (code, err) == (0, "")
        network = load("start.onnx")
        return network.topology, [head.squash for head in network.heads]

    return make


def table(folder):
    rows = [f"{20 + i},{'ab'[i % 2] if i % 5 else 'c'},{'yes' if i % 3 else 'no'},{1.5 * i}" for i in range(60)]
    (folder / "t.csv").write_text("\n".join(["size,place,answer,price", *rows]) + "\n")
    return folder / "t.csv"


def test_of_a_table(made, cli, tmp_path):
    path = str(table(tmp_path))
    assert made("--data", path, "--target", "answer") == ("5-32-2", ["Softmax"])  # size, three places, price
    assert made("64-16", "--data", path, "--target", "price") == ("6-64-16-1", [""])  # size, places, no and yes
    assert made("8", "--data", path, "--target", "price,size") == ("5-8-2", [""])
    assert made("--data", path, "--target", "answer", "--no-softmax") == ("5-32-2", [""])
    code, _, err = cli("evaluate", "start.onnx", "--data", path, "--target", "answer")
    assert (code, err.count("refused")) == (0, 0)


def test_what_is_missing_is_filled(made, tmp_path, cli):
    text = table(tmp_path).read_text().replace("\n25,", "\n,")
    (tmp_path / "t.csv").write_text(text)
    assert cli("new", "--data", str(tmp_path / "t.csv"), "--target", "answer", "-o", "o.onnx")[0] == 2
    assert made("--data", str(tmp_path / "t.csv"), "--target", "answer", "--impute", "mean")[0] == "5-32-2"


def test_of_arrays_and_images(made, tmp_path):
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "a.npz", x=rng.random((50, 7)), y=np.arange(50) % 4)
    assert made("--data", str(tmp_path / "a.npz")) == ("7-32-4", ["Softmax"])
    np.savez(tmp_path / "r.npz", x=rng.random((50, 7)), y=rng.random((50, 3)))
    assert made("--data", str(tmp_path / "r.npz")) == ("7-32-3", [""])
    assert made("--data", "digits") == ("64-32-10", ["Softmax"])
    assert [dim.dim_value for dim in load("start.onnx").frame.model.graph.input[0].type.tensor_type.shape.dim] == [
        0,
        8,
        8,
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "new needs SIZES, such as 784-10-10, or --data"),
        (("--data", "digits", "--input-shape", "8x8"), "--input-shape: with --data the rows say what goes in"),
        (("8x8x1-c4-10", "--data", "digits"), "'8x8x1-c4-10': with --data the rows say what goes in"),
        (("4-2", "--target", "answer"), "--target: is for --data, and there is none"),
        (("--data", "x.npz"), "x.npz: its rows have no labels, which say how many outputs there are"),
        (("--data", "two.npz"), "two.npz: a new network has one input; found the arrays 'left', 'right'"),
        (("--data", "digits", "a-b"), "SIZES: 'a-b' is no number of units"),
    ],
)
def test_what_cannot_be_made(options, said, cli, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.ones((20, 3)))
    np.savez(tmp_path / "two.npz", left=np.ones((20, 3, 2)), right=np.ones((20, 3)), y=np.arange(20) % 2)
    code, out, err = cli("new", *options, "-o", "o.onnx")
    assert (code, out) == (2, "")
    assert err.startswith(f"onnxsurgeon: {said}")
    assert not (tmp_path / "o.onnx").exists()
