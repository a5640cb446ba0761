"""``evolve --dry-run``: what would be done, how small, how long, in how much memory; and nothing is written."""

import json
import time

import pytest

from onnxsurgeon import create, load, save
from onnxsurgeon.cli.plan import spell_seconds
from tests.conftest import MODELS

SMALL = str(MODELS / "digits-small.onnx")
COMMAND = ("evolve", SMALL, "--data", "digits", "--dry-run")


def planned(cli, *options):
    code, out, err = cli(*COMMAND, "--json", *options)
    assert (code, err) == (0, "")
    return json.loads(out)


def test_it_says_what_would_be_done_and_writes_nothing(cli, tmp_path):
    before = sorted(tmp_path.iterdir())
    code, out, err = cli(*COMMAND)
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    for part in ("search grow-and-shrink", "64-10-10, 760 parameters", "least reachable 85 parameters", "100 epochs"):
        assert part in text
    assert out.endswith("nothing was written\n")
    assert sorted(tmp_path.iterdir()) == before


def test_its_figures(cli, tmp_path):
    found = planned(cli)
    assert (found["rows"], found["deciding_rows"]) == (1293, 144)
    assert found["least_parameters"] == 64 * 1 + 1 + 1 * 10 + 10  # one hidden unit
    assert found["size"] == pytest.approx((MODELS / "digits-small.onnx").stat().st_size, rel=0.05)
    assert found["least_size"] == found["size"] - 4 * (760 - 85)
    assert found["largest"] == 5 * 1293  # parameters for each row, of an untrained start
    assert 0 < found["seconds"][0] < found["seconds"][1]
    assert 30e6 < found["memory"] < 10e9
    save(create((64, 1, 10), input_shape=(8, 8)), tmp_path / "least.onnx")
    assert load(tmp_path / "least.onnx").parameter_count == found["least_parameters"]


def test_searches_and_limits(cli):
    found = planned(cli, "--preset", "corrected", "--epochs", "7")
    assert (found["search"], found["largest"], found["epochs"]) == ("algorithm1", 760, 7)
    found = planned(cli, "--start", "trained", "--shrink", "2")
    assert (found["search"], found["limit"], found["largest"]) == ("shrink-trained", 380, 760)
    assert found["start"] == "trained: --start trained"
    assert planned(cli, "--epochs", "100000", "--time-limit", "7s")["seconds"] == [7, 7]


@pytest.mark.usefixtures("own_time")
def test_the_time_is_of_the_right_size(cli, tmp_path):
    """Within a factor of ten of what the run takes: small runs have more besides training."""
    options = ("--epochs", "40", "--growth", "0", "--shrinkage", "0", "--workers", "1")
    found = planned(cli, *options)
    begun = time.perf_counter()
    assert cli("evolve", SMALL, "--data", "digits", *options, "-q", "--run-dir", "run")[0] == 0
    taken = time.perf_counter() - begun
    assert found["seconds"][0] < 10 * taken
    events = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    training = next(event for event in reversed(events) if event["event"] == "decided")["training_seconds"]
    assert training / 10 < found["seconds"][1] < 10 * training


@pytest.mark.usefixtures("own_time")
def test_the_time_before_training(cli, tmp_path):
    """Of a trained start most of a short run is pruning and measuring: that is told apart, and of the right size."""
    model = str(tmp_path / "trained.onnx")
    options = ("--data", "digits", "--epochs", "6", "--workers", "1")
    assert cli("new", "64-96-10", "-o", "large.onnx")[0] == 0
    assert cli("train", "large.onnx", "--data", "digits", "--optimizer", "adamw", "--epochs", "4", "-o", model)[0] == 0
    code, out, _ = cli("evolve", model, *options, "--shrink", "4", "--dry-run", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["search"] == "shrink-trained"
    assert cli("evolve", model, *options, "--shrink", "4", "-q", "--run-dir", "run")[0] == 0
    events = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    first = next(event["seconds"] for event in events if event["event"] == "decided" and not event["epoch"])
    begun = next(event["seconds"] for event in events if event["event"] == "started")
    assert (first - begun) / 10 < found["search_seconds"] < 10 * (first - begun)
    code, out, _ = cli("evolve", model, *options, "--shrink", "4", "--dry-run")
    assert "time before it about" in " ".join(out.split())
    assert planned(cli)["search_seconds"] == 0  # of an untrained start


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--resume", "run"), "dry-run: is for a run that begins"),
        (("--max-parameters", "50"), "max-parameters: 50 cannot be reached: 'digits-small' has at least 85 parameters"),
        (("--search", "none"), "search: 'none' is unknown"),
        (("--optimizer", "adam"), "optimizer: 'adam' is unknown"),
    ],
)
def test_what_evolve_refuses_it_refuses(options, reason, cli):
    code, out, err = cli(*COMMAND, *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"onnxsurgeon: {reason}")


def test_times_are_spelled_without_exponents():
    assert [spell_seconds(each) for each in (0.0123, 1.26, 42.4, 90, 4000, 1e6)] == [
        "12 ms",
        "1.3 s",
        "42 s",
        "1.5 min",
        "1.1 h",
        "278 h",
    ]
