"""Limits on what is computed for a row: multiplications and memory told from widths, met by both searches, refused."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import (
    SurgeonSettings,
    calibrate,
    create,
    create_convolutional,
    evolve,
    load,
    operate,
    prepare,
    read_run,
    save,
)
from onnxsurgeon.graph.memory import liveness, peak_memory
from onnxsurgeon.recommend.growth import growths
from onnxsurgeon.recommend.resources import Bounds, Budget, memory_of, multiplications_of
from onnxsurgeon.recommend.shrinking import count_of, widened_within, widths_for
from onnxsurgeon.runs.entry import Entry
from onnxsurgeon.runs.journal import RunDirectory, file_digest
from onnxsurgeon.surgeon.objective import Limits, shortfall
from onnxsurgeon.surgeon.start import grows
from onnxsurgeon.surgery.apply import cut_to
from onnxsurgeon.surgery.prune import pruning_errors
from tests.conftest import MODELS, branch_digests, killed_and_resumed

CNN, PERCEPTRON = "8x8x1-c6-p-c8-10", (64, 20, 10, 10)
# Of the CNN: 64 positions of 1 · 9 · 6 weights, 16 of 6 · 9 · 8, and a dense layer of 128 · 10.
CNN_MACS, CNN_MEMORY = 64 * 54 + 16 * 432 + 1280, 4 * (6 * 64 + 6 * 16)
EXPORTS = [
    *("torch-dynamo-cnn", "torch-legacy-cnn-excite", "torch-dynamo-residual", "tf2onnx-residual"),
    *("keras-torch-residual", "sklearn-zipmap", "torch-legacy-dropout-opset9"),
]


def cnn(seed=1):
    return create_convolutional(CNN, seed=seed)


def start_of(kind, folder):
    path = folder / "start.onnx"
    save(cnn() if kind == "cnn" else create(PERCEPTRON, seed=1, input_shape=(8, 8)), path)
    return path


def settings(**changes):
    return SurgeonSettings.from_preset(**{"epochs": 8, "seed": 2, "batch_size": 32, **changes})


def run(model, folder, workers=1, **changes):
    return evolve(model, "digits", settings=settings(**changes), run_dir=folder, workers=workers)


def of(done, kind):
    return [event for event in RunDirectory.open(done.run).read_journal() if event["event"] == kind]


# What is told of a network.


def test_memory_of_a_small_network_by_hand():
    """The first layer's maps and what is pooled from them; a Relu is written over its input."""
    assert (cnn().multiplications, peak_memory(cnn())) == (CNN_MACS, CNN_MEMORY)
    assert liveness(cnn()).at == "pool1"
    perceptron = create((64, 20, 10, 10), input_shape=(8, 8))
    assert (perceptron.multiplications, peak_memory(perceptron)) == (64 * 20 + 200 + 100, 4 * (64 + 20))


def test_what_is_read_again_stays_in_memory(tmp_path):
    """Of x + f(x): both branches are in memory, and the Add is written over one of them; a Transpose over nothing."""
    values = {
        "a": np.ones((3, 2, 3, 3), np.float32),
        "b": np.ones((5, 3, 3, 3), np.float32),
        "c": np.ones((3, 5, 1, 1), np.float32),
        "w": np.ones((3 * 16, 4), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"], "first", pads=[1] * 4),
        helper.make_node("Conv", ["h", "b"], ["i"], "wide", pads=[1] * 4),
        helper.make_node("Relu", ["i"], ["j"], "relu"),
        helper.make_node("Conv", ["j", "c"], ["k"], "narrow"),
        helper.make_node("Add", ["h", "k"], ["s"], "add"),
        helper.make_node("Transpose", ["s"], ["t"], "turn", perm=[0, 2, 3, 1]),
        helper.make_node("Flatten", ["t"], ["f"], "flat"),
        helper.make_node("MatMul", ["f", "w"], ["y"], "last"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "r.onnx")
    network = load(tmp_path / "r.onnx")
    found = liveness(network)
    maps = 4 * 16  # bytes of one channel
    at_each = dict(zip(found.where, found.at_nodes(found.sizes).tolist(), strict=True))
    wanted = {"first": 5, "wide": 8, "relu": 8, "narrow": 11, "add": 6, "turn": 6, "flat": 3}
    assert {name: size / maps for name, size in at_each.items() if name != "last"} == wanted
    assert at_each["last"] == 3 * maps + 16
    assert (found.peak, found.at) == (11 * maps, "narrow")


@pytest.mark.parametrize("name", EXPORTS)
def test_widths_alone_tell_what_a_network_of_them_takes(name):
    network = load(MODELS / "exports" / f"{name}.onnx")
    widths = {i: max(1, network.group(i).units // (i + 1)) for i in range(1, network.group_count + 1)}
    smaller = network
    for i, units in widths.items():
        smaller = cut_to(smaller, i, units)
    assert smaller.parameter_count < network.parameter_count
    assert multiplications_of(network, {}) == network.multiplications
    assert multiplications_of(network, widths) == smaller.multiplications
    assert memory_of(network, {}) == peak_memory(network)
    assert memory_of(network, widths) == peak_memory(smaller)
    one = dict.fromkeys(widths, 1)
    for i in widths:
        smaller = cut_to(smaller, i, 1)
    assert memory_of(smaller, widths) == memory_of(network, widths)  # of one unit each, told from two
    assert memory_of(smaller, {}) == memory_of(network, one)


def test_what_the_file_leaves_open_is_not_told():
    network = load(MODELS / "exports" / "converted-float16.onnx")
    assert peak_memory(network) is None
    assert memory_of(network, {}) is None
    assert Budget(network, Bounds(memory=1)).excess({}) == 0


# What plans go by.


def test_layers_shrink_where_what_is_limited_is():
    """Where every unit is worth the same: the first layer's have most positions, the second's most parameters."""
    network = cnn()
    losses = {i: -np.arange(1.0, network.group(i).units + 1) for i in (1, 2)}
    by_parameters = widths_for(network, losses, 1000)
    by_macs = widths_for(network, losses, None, Bounds(multiplications=6000))
    by_memory = widths_for(network, losses, None, Bounds(memory=1000))
    assert by_parameters == {1: 6, 2: 4}
    assert by_macs == {1: 2, 2: 8}
    assert by_memory == {1: 2, 2: 8}
    assert multiplications_of(network, by_macs) <= 6000 < multiplications_of(network, {**by_macs, 1: 3})
    # Of three units 768 bytes, beside the input's 256.
    assert memory_of(network, by_memory) <= 1000 < memory_of(network, {**by_memory, 1: 3})
    # Both at once, and as many steps on that way as leave so many parameters.
    both = widths_for(network, losses, None, Bounds(6000, 1000))
    assert multiplications_of(network, both) <= 6000
    assert memory_of(network, both) <= 1000
    part = widths_for(network, losses, 1600, Bounds(multiplications=6000))
    assert count_of(network, part) <= 1600
    assert multiplications_of(network, part) > 6000


def test_less_is_lost_at_the_same_multiplications(digits):
    """Of what pruning is foretold to lose in each layer, beside the choice by parameters that goes as far."""
    network = create_convolutional("8x8x1-c12-c12s2-p-10", seed=3)
    moments = calibrate(network, prepare(network, digits, digits.train), np.arange(200))
    losses = {i: pruning_errors(network, i, moments) ** 2 for i in (1, 2)}
    limit = network.multiplications // 3
    chosen = widths_for(network, losses, None, Bounds(multiplications=limit))
    most = network.parameter_count
    while multiplications_of(network, by_parameters := widths_for(network, losses, most)) > limit:
        most -= 1

    def lost(widths):
        return sum(losses[i][units - 1] for i, units in widths.items())

    assert multiplications_of(network, chosen) <= limit
    assert lost(chosen) < lost(by_parameters)


def test_of_several_peaks_all_go_down():
    """Two pairs of layers of the same widths: what takes from one peak alone leaves the most as it is."""
    network = create((4, 30, 30, 30, 4), seed=0)
    losses = {i: -np.arange(1.0, 31) for i in (1, 2, 3)}
    widths = widths_for(network, losses, None, Bounds(memory=4 * 40))
    assert widths[2] < widths[1] == widths[3]
    assert memory_of(network, widths) <= 4 * 40


def test_a_network_is_widened_up_to_its_bounds():
    network = cnn()
    bounds = Bounds(4 * CNN_MACS, 2 * CNN_MEMORY)
    most = widened_within(network, bounds)
    assert most == count_of(network, {1: 12, 2: 17})  # memory ends it: 13 of the first layer take more
    found = growths(network, 10 * most, mode="split", bounds=bounds)
    peaks = []
    for candidate in found:
        grown = network
        for surgery in candidate.surgeries:
            grown = operate(grown, surgery, np.random.default_rng(0)).network
        peaks.append(peak_memory(grown))
        assert CNN_MEMORY <= peaks[-1] <= bounds.memory  # a convolution more may take none
        assert CNN_MACS < grown.multiplications <= bounds.multiplications
    assert max(peaks) > CNN_MEMORY


@pytest.mark.parametrize(
    ("limit", "is_larger"),
    [({"max_macs": 10_000}, False), ({"max_macs": 20_000}, True), ({"max_memory": 1000}, False), ({}, False)],
)
def test_what_is_limited_says_whether_a_trained_network_grows(limit, is_larger):
    assert grows(cnn(), settings(**limit), 0.9, 10_000) is is_larger


def test_limits_and_what_is_said_of_them():
    entry = Entry(1, "0001-x.onnx", "", "", 0.9, 0.1, 1000, 4000, multiplications=5000, memory=300)
    assert Limits.of(settings(max_macs="5k", max_memory="300B")).admits(entry)
    assert Limits.of(settings(max_macs="4k", max_memory="1KB")).excess(entry) == pytest.approx(1.25)
    assert Limits.of(settings(max_memory=200)).excess(entry) == pytest.approx(1.5)
    text = shortfall(entry, settings(max_macs="4k", max_memory=200))
    assert text == "no network was found with --max-macs 4,000 (it has 5,000) and --max-memory 200 (it has 300)"


# Runs.


@pytest.mark.parametrize(
    ("kind", "start", "limit"),
    [
        ("cnn", "untrained", {"max_macs": 9000}),
        ("cnn", "untrained", {"max_memory": "1.5kB"}),
        ("cnn", "untrained", {"max_macs": "20k", "max_memory": "2.5kB"}),
        ("cnn", "trained", {"max_macs": "6k"}),
        ("cnn", "trained", {"max_memory": 1000}),
        ("perceptron", "untrained", {"max_macs": 1000}),
        ("perceptron", "untrained", {"max_memory": 300}),
        ("perceptron", "trained", {"max_macs": 800, "max_memory": 300}),
        ("perceptron", "trained", {"max_macs": 800, "objective": "pareto"}),
    ],
)
def test_both_searches_meet_the_limits(kind, start, limit, tmp_path):
    done = run(start_of(kind, tmp_path), tmp_path / "run", start=start, **limit)
    asked = settings(**limit)
    written = load(done.run / "best.onnx")
    assert not done.shortfall
    assert written.multiplications <= (asked.max_macs or np.inf)
    assert peak_memory(written) <= (asked.max_memory or np.inf)
    entries = of(done, "decided")[-1]["front"]
    (best,) = [entry for entry in entries if entry["branch"] == done.branch.number]
    assert best["multiplications"] == (written.multiplications if asked.max_macs else None)
    assert best["memory"] == (peak_memory(written) if asked.max_memory else None)
    after = of(done, "finished")[-1]["after"]
    assert (after["multiplications"], after["memory"]) == (best["multiplications"], best["memory"])


@pytest.mark.parametrize("start", ["untrained", "trained"])
def test_the_least_is_reached(start, tmp_path):
    """88 weights remain of the CNN with one unit in each layer: 880 multiplications; and its input, 256 bytes."""
    done = run(start_of("cnn", tmp_path), tmp_path / "run", start=start, max_macs=880, max_memory=512, epochs=3)
    assert done.network.topology == "c1-c1+c1-c1+16-10"
    assert (done.network.multiplications, peak_memory(done.network)) == (880, 512)


def test_a_short_run_is_pruned_without_training(tmp_path):
    done = run(start_of("perceptron", tmp_path), tmp_path / "run", max_macs=300, epochs=1)
    assert done.network.multiplications <= 300


@pytest.mark.parametrize(
    ("kind", "option", "value", "least"),
    [
        ("cnn", "max-macs", "879", "at least 880 multiplications a row"),
        ("cnn", "max-memory", "511B", "at least 512 bytes of tensors in memory at once"),
        ("perceptron", "max-macs", "74", "at least 75 multiplications a row"),
        ("perceptron", "max-memory", "259", "at least 260 bytes of tensors in memory at once"),
    ],
)
def test_what_cannot_be_reached_is_refused(cli, tmp_path, kind, option, value, least):
    start = start_of(kind, tmp_path)
    code, out, err = cli("evolve", start, "--data", "digits", f"--{option}", value, "--run-dir", "run")
    assert (code, out) == (2, "")
    assert err.startswith(f"onnxsurgeon: {option}: {value.rstrip('B')} cannot be reached: 'start' has {least}")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_told_is_refused(cli):
    model = MODELS / "exports" / "converted-float16.onnx"
    code, _, err = cli("evolve", model, "--data", "digits", "--max-memory", "1KB", "--run-dir", "run")
    assert code == 2
    assert "max-memory: what 'converted-float16' takes cannot be told" in err


@pytest.mark.parametrize(("start", "count"), [("untrained", 6), ("trained", 5)])
def test_a_killed_run_ends_alike(start, count, tmp_path):
    changes = replace(settings(start=start, max_macs=800, max_memory=300), epochs=9)
    model = tmp_path / "start.onnx"
    save(create(PERCEPTRON, seed=1, input_shape=(8, 8)), model)
    whole = evolve(model, "digits", settings=changes, run_dir=tmp_path / "whole", workers=1)
    resumed = killed_and_resumed("training", count, tmp_path / "run", changes)
    assert branch_digests(resumed.run) == branch_digests(whole.run)
    assert file_digest(resumed.run / "best.onnx") == file_digest(whole.run / "best.onnx")


# What is shown.


def test_inspect_shows_them(cli, tmp_path):
    start = start_of("cnn", tmp_path)
    code, out, _ = cli("inspect", start)
    assert code == 0
    assert f"{CNN_MACS:,} MACs a row" in " ".join(out.split())
    assert f"memory: at most {CNN_MEMORY:,} bytes of tensors at once for a row, at pool1" in " ".join(out.split())
    record = json.loads(cli("inspect", start, "--json")[1])
    assert (record["multiplications"], record["memory"]) == (CNN_MACS, CNN_MEMORY)


def test_a_front_shows_what_is_limited(cli, tmp_path):
    start = start_of("cnn", tmp_path)
    options = ("--data", "digits", "--epochs", "3", "--max-macs", "9k", "--objective", "pareto", "--run-dir", "run")
    code, out, _ = cli("evolve", start, *options, "--json")
    assert code == 0
    for entry in json.loads(out)["front"]:
        network = load(tmp_path / "run" / entry["file"])
        assert entry["multiplications"] == network.multiplications <= 9000
    assert [model.multiplications for model in read_run(tmp_path / "run").front] == [
        entry["multiplications"] for entry in json.loads(out)["front"]
    ]


def test_the_end_shows_what_is_limited(cli, tmp_path):
    start = start_of("perceptron", tmp_path)
    options = ("--data", "digits", "--epochs", "2", "--max-macs", "1k", "--max-memory", "320B", "--run-dir", "run")
    code, out, _ = cli("evolve", start, *options)
    assert code == 0
    assert all(title in out for title in ("MACs a row", "memory"))
    code, out, _ = cli("evolve", start, "--data", "digits", "--epochs", "2", "--shrink", "2", "--run-dir", "other")
    assert code == 0
    assert "MACs a row" not in out
