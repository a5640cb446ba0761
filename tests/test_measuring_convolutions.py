"""The tool that makes trained convolutional networks smaller, and what it does in PyTorch and with onnxsim."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import shrink_convolutions
from shrink_convolutions import Images, Rules

from onnxsurgeon import Split, create_convolutional, load, load_dataset, save


@pytest.fixture(scope="module")
def images():
    """A hundred rows of each part, digits made as large as what the tool is for."""
    dataset = load_dataset("digits")
    train, deciding = dataset.hold_out()

    def large(split):
        few = split.take(np.arange(100))
        pixels = np.asarray(few.inputs).reshape(100, 8, 8)
        pixels = (pixels / pixels.max() * 255).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)[:, 2:30, 2:30]
        return Split(pixels, few.labels)

    return Images(large(train), large(deciding), large(dataset.test))


@pytest.fixture
def rules(tmp_path):
    return Rules(tmp_path, None, 1, 1, 1)


@pytest.fixture
def start(tmp_path):
    path = tmp_path / "start.onnx"
    save(create_convolutional("28x28x1-c8s2-c8s2-g-10", seed=1), path)
    return path


def test_a_network_is_measured_beside_the_given_one(start, images):
    same = shrink_convolutions.measured(start, start, images)
    network = load(start)
    assert same["agreement"] == 1
    assert (same["parameters"], same["macs"], same["bytes"]) == (
        network.parameter_count,
        network.multiplications,
        start.stat().st_size,
    )
    assert same["latency"] > 0
    assert same["given_latency"] > 0


def test_what_is_asked_for_is_a_part_of_what_is_given(start):
    assert shrink_convolutions.limits(start, "shrink-4") == {"shrink": 4}
    assert shrink_convolutions.limits(start, "macs-4") == {"max_macs": load(start).multiplications // 4}
    assert 0 < shrink_convolutions.limits(start, "latency-2")["max_latency"] < 1


@pytest.mark.parametrize(
    ("wish", "method"), [("shrink-4", "straight"), ("shrink-4", "onnxsurgeon"), ("macs-4", "onnxsurgeon")]
)
def test_a_run_is_within_its_limit(rules, start, images, wish, method):
    run = shrink_convolutions.measure(rules, images, start, wish, method, 1)
    given = load(start)
    assert (run["method"], run["wish"], run["seed"]) == (method, wish, 1)
    if wish == "shrink-4":
        assert run["parameters"] <= given.parameter_count // 4
    else:
        assert run["macs"] <= given.multiplications // 4
    assert run["parameters"] == load(rules.folder / f"{wish}-{method}-1.onnx").parameter_count


def fake(method, seed, test, wish=None, agreement=0.99, shortfall=""):
    figures = {
        "parameters": 25,
        "macs": 250,
        "bytes": 900,
        "given_latency": 0.02,
        "latency": 0.01,
        "topology": "c1-c2-10",
    }
    if method == "given":
        figures |= {"parameters": 100, "macs": 1000, "bytes": 1800}
    same = {
        "method": method,
        "seed": seed,
        "test": test,
        "agreement": agreement,
        "seconds": 5.0,
        "shortfall": shortfall,
    }
    return {**same, **figures} if wish is None else {**same, **figures, "wish": wish}


def test_what_is_there_is_not_measured_again(rules, tmp_path, monkeypatch, capsys):
    asked = []

    def measure(rules, images, start, wish, method, seed):
        asked.append((wish, method))
        return fake(method, seed, 0.88 if method == "straight" else 0.9, wish)

    monkeypatch.setattr(shrink_convolutions, "measure", measure)
    monkeypatch.setattr(shrink_convolutions, "measured", lambda *_: fake("given", 1, 0.91))
    monkeypatch.setattr(shrink_convolutions, "given_network", lambda rules, images, seed: tmp_path / "given.onnx")
    monkeypatch.setattr(shrink_convolutions, "hold_cores", lambda cores: None)
    monkeypatch.setattr(Images, "of", classmethod(lambda cls, rows: None))
    methods = ["straight", "onnxsurgeon"]
    for _ in range(2):
        shrink_convolutions.compare(rules, list(shrink_convolutions.WISHES), methods, [1], tmp_path / "results.json")
    assert asked == [
        ("shrink-4", "straight"),
        ("shrink-4", "onnxsurgeon"),
        ("latency-2", "onnxsurgeon"),
        ("macs-4", "onnxsurgeon"),
    ]
    printed = capsys.readouterr().out
    assert "| straight pruning by data, no training | 0.9100 | 0.8800 | 0.0300 | 0.9900 | 100 → 25 (4.0×) |" in printed
    assert "0.020 → 0.010 (2.0×)" in printed
    with pytest.raises(SystemExit, match=r"begun with epochs 1"):
        shrink_convolutions.compare(replace(rules, epochs=2), [], methods, [1], tmp_path / "results.json")


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (fake("onnxsurgeon", 1, 0.9, "shrink-4"), "the limit is met; +0.0100 of accuracy lost"),
        (fake("onnxsurgeon", 1, 0.9, "macs-4", 0.97), "agreement 0.9700, not at least 0.98"),
        (fake("onnxsurgeon", 1, 0.9, "latency-2", shortfall="missed"), "missed"),
    ],
)
def test_what_has_to_be(run, expected):
    assert shrink_convolutions.verdict(run["wish"], run, {1: 0.91}) == expected


def test_onnxsim_prunes_to_the_size_and_recovers(start, images, tmp_path):
    pytest.importorskip("onnxsim")
    from measuring.onnxsim_pruning import prune_by_onnxsim

    most = load(start).parameter_count // 2
    rows = np.concatenate([shrink_convolutions.pixels(images.train)] * 6)
    for recovers in (False, True):
        out = tmp_path / f"{recovers}.onnx"
        prune_by_onnxsim(start, rows, most, out, recovers=recovers)
        assert load(out).parameter_count <= most


def test_the_residual_network_is_trained_and_written(images, tmp_path):
    pytest.importorskip("torch")
    from measuring.torch_convolutions import Residual, folded_count, train_network

    out = tmp_path / "residual.onnx"
    train_network("residual", shrink_convolutions.pictures(images.train), images.train.labels, 1, 1, 1, out)
    network = load(out)
    assert network.topology == "c1-c16+c16-c16-c16+c16-c32+c32-c32-c32+32-10"
    assert network.parameter_count == folded_count(Residual())
    assert out.with_suffix(".pt").exists()


def test_torch_pruning_prunes_to_the_size(images, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("torch_pruning")
    from measuring.torch_convolutions import prune_groups, train_network

    given, out, pictures = (
        tmp_path / "residual.onnx",
        tmp_path / "pruned.onnx",
        shrink_convolutions.pictures(images.train),
    )
    train_network("residual", pictures, images.train.labels, 1, 1, 1, given)
    told = prune_groups("residual", given, pictures, images.train.labels, 7000, 1, 1, 1, out)
    assert told["importance"] in ("norms", "Taylor terms")
    assert 5000 < load(out).parameter_count <= 7000


def test_more_cores_than_there_are(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tool", "--cores", "5000", "--wishes", "shrink-4"])
    with pytest.raises(SystemExit) as raised:
        shrink_convolutions.main()
    assert raised.value.code == 2
    assert "--cores 5000: this machine has" in capsys.readouterr().err
