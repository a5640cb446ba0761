"""The command line as a user meets it: every command, and every kind of bad input as one line and exit code 2."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from importlib.util import find_spec

import numpy as np
import onnx
import pytest

from onnxsurgeon import SurgeonSettings, create, load, save
from onnxsurgeon.choices import GROUPS
from onnxsurgeon.cli.options import ReadingOptions
from onnxsurgeon.graph.writer import to_model
from onnxsurgeon.surgeon.own_settings import OWN_SETTINGS
from onnxsurgeon.surgery import SURGERIES
from onnxsurgeon.surgery.base import usage
from tests.command_line import QUICK, SMALL, commands
from tests.conftest import MODELS, without_training


@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_every_command_has_help_with_an_example(command, cli):
    code, out, err = cli(*command, "--help")
    assert (code, err) == (0, "")
    assert f"onnxsurgeon {' '.join(command)}" in out
    assert "Example" in out


def test_every_setting_is_an_option_of_evolve(cli):
    _, out, _ = cli("evolve", "--help-all")
    flags = """
    --preset --seed --epochs --initial-epochs --epoch-step --branches --redraws --recuperation-batches
    --singular-relative --singular-absolute --selection --top-n --random-draw --no-random-draw --step-back
    --no-step-back --widen --target-accuracy --time-limit --patience --learning-rate --batch-size --engine
    --device --workers --run-dir
    --out"""
    for flag in flags.split():
        assert flag in out, flag
    for kind in (SurgeonSettings, *OWN_SETTINGS.values()):
        for entry in fields(kind):
            assert entry.name == "own" or f"--{entry.name.replace('_', '-')}" in out, entry.name


def sections(out):
    """The lines of each section of a command's help."""
    found, name = {}, ""
    for line in out.splitlines():
        if re.fullmatch(r"\S.*:", line):
            found[name := line[:-1]] = []
        elif name and line.startswith("  -"):
            found[name].append(line.split()[0].rstrip(","))
    return found


def test_the_help_of_evolve_fits_two_screens_and_is_in_groups(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = cli("evolve", "--help")
    lines = out.splitlines()
    assert len(lines) <= 2 * 50 - 2  # the prompts before and after
    assert max(map(len, lines)) <= 80
    found, everything = sections(out), sections(cli("evolve", "--help-all")[1])
    names = [*GROUPS, "Search algorithm1", "Search grow-and-shrink", "Help"]
    assert [name for name in found if name != "Arguments"] == names
    assert {"--max-parameters", "--lose", "--objective"} <= set(found["What you want"])
    assert {"--data", "--target"} <= set(found["Data"])
    assert found["Values"] == ["--layout", "--scale", "--mean", "--std"]
    assert {"-o", "-q", "--json", "--force"} <= set(found["Output"])
    assert {"--learning-rate", "--optimizer"} <= set(found["Training"])
    assert "--growth" in found["Search grow-and-shrink"]
    assert "--epoch-step" in found["Search algorithm1"]
    for name, flags in found.items():
        assert set(flags) <= set(everything[name]), name
    experts = {flag for flags in everything.values() for flag in flags} - {f for flags in found.values() for f in flags}
    assert {"--beta1", "--singular-relative", "--trial", "--from-checkpoint", "--temperature"} <= experts


def test_choices_are_shown_and_a_default_that_is_not_the_first(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = " ".join(cli("evolve", "--help")[1].split())
    for choices in ("[hwc|chw]", "[auto|loop|artifacts]", "[cpu|cuda]", "[mean|median|most-frequent]"):
        assert choices in out
    assert "[sgd|momentum|nesterov|adamw] What makes a step. [default: adamw]" in out
    assert "[default: auto]" not in out
    out = " ".join(cli("train", "--help")[1].split())
    assert "[sgd|momentum|nesterov|adamw] What makes a step. --" in out


@pytest.mark.parametrize("columns", [80, 140])
@pytest.mark.parametrize("command", list(commands()), ids=" ".join)
def test_help_fits_the_terminal_and_has_whole_words(command, columns, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    _, out, _ = cli(*command, "--help")
    more = cli(*command, "--help-all")[1] if "--help-all" in out else ""
    assert max(map(len, (out + more).splitlines())) <= columns
    flags = [flag for row in sections(out + more).values() for flag in row]
    assert "--help" in flags
    assert [flag for flag in flags if not re.fullmatch(r"-[a-z]|--[a-z0-9-]+", flag)] == []  # none is cut off


def test_training_with_an_optimizer_and_a_schedule(cli, tmp_path):
    cli("new", "64-10-10", "-o", "a.onnx", "--input-shape", "8x8")
    _, out, _ = cli("train", "--help-all")
    for flag in ("--optimizer", "--momentum", "--weight-decay", "--beta1", "--epsilon", "--schedule", "--warmup"):
        assert flag in out, flag
    arguments = ("--data", "digits", "--epochs", "4", "--json")
    losses = []
    for options in (
        ("--learning-rate", "0.02"),
        ("--learning-rate", "0.02", "--optimizer", "momentum", "--schedule", "cosine", "--warmup", "0.5"),
        ("--learning-rate", "0.005", "--optimizer", "adamw", "--weight-decay", "0.01"),
    ):
        code, out, err = cli("train", "a.onnx", *arguments, *options, "-o", "b.onnx", "--force")
        assert (code, err) == (0, "")
        losses.append(json.loads(out)["test"]["loss"])
    assert max(losses[1:]) < losses[0]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--optimizer", "adam"), "optimizer: 'adam' is unknown"),
        (("--momentum", "1.5"), "momentum: 1.5 is not between 0 and 1"),
        (("--warmup", "9"), "warmup: 9.0 epochs is not at least 0 and shorter than the run of 4"),
        (("--schedule", "sine"), "schedule: 'sine' is unknown"),
    ],
)
def test_training_settings_that_make_no_sense(options, reason, cli, tmp_path):
    cli("new", "64-10-10", "-o", "a.onnx", "--input-shape", "8x8")
    for command in (("train", "a.onnx", "-o", "b.onnx"), ("evolve", "a.onnx")):
        code, out, err = cli(*command, "--data", "digits", "--epochs", "4", *options)
        assert (code, out) == (2, "")
        assert reason in " ".join(err.split())
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["a.onnx"]


def test_new_inspect_operate_train_evaluate_evolve(cli, tmp_path):
    code, out, _ = cli("new", "64-10-10", "-o", "a.onnx", "--input-shape", "8x8", "--seed", "3")
    assert (code, out) == (0, "a.onnx: 64-10-10, 760 parameters\n")
    assert to_model(load("a.onnx")) == to_model(create((64, 10, 10), input_shape=(8, 8), seed=3))

    code, out, _ = cli("inspect", "a.onnx")
    assert code == 0
    for text in ("64-10-10, 760 parameters", "layer1/", "64 × 10", "widen:1:2", "merge:1", "neurons are"):
        assert text.rstrip("/") in out
    record = json.loads(cli("inspect", "a.onnx", "--json")[1])
    assert (record["topology"], record["parameters"]) == ("64-10-10", 760)
    assert len(record["hidden_layers"][0]["singular_values"]) == 10
    assert {c["surgery"] for c in record["candidates"]} >= {"identity", "widen:1:20", "merge:1"}

    code, out, _ = cli("operate", "a.onnx", "widen:1:8", "insert_identity:1", "merge:2", "-o", "b.onnx")
    assert code == 0
    assert load("b.onnx").topology == "64-18-10"
    assert "760 → 1,360" in out
    record = json.loads(cli("operate", "a.onnx", "narrow:1:5", "-o", "c.onnx", "--json")[1])
    assert record["topology"] == "64-5-10"
    assert record["surgeries"][0]["exact"] is False
    assert record["surgeries"][0]["deviation"] > 0.001

    arguments = ("--data", "digits", "--epochs", "3", "--learning-rate", "0.1")
    code, out, _ = cli("train", "b.onnx", *arguments, "-o", "d.onnx")
    assert code == 0
    assert out.count("training loss") == 3
    record = json.loads(cli("evaluate", "d.onnx", "--data", "digits", "--json")[1])
    assert set(record) == {"accuracy", "loss", "metric", "parameters", "rows"}
    assert record["metric"] == "accuracy"
    assert record["accuracy"] > 0.7
    assert (record["parameters"], record["rows"]) == (1360, 360)
    for split, rows in (("train", 1437), ("validation", 144)):
        assert json.loads(cli("evaluate", "d.onnx", "--data", "digits", "--split", split, "--json")[1])["rows"] == rows
    code, out, _ = cli("evaluate", "d.onnx", "--data", "digits")
    assert code == 0
    for text in ("accuracy", f"{record['accuracy']:.4f}", f"{record['loss']:.4f}", "1,360", "360"):
        assert text in out
    record = json.loads(cli("train", "b.onnx", *arguments, "-o", "d2.onnx", "--json")[1])
    assert (tmp_path / "d2.onnx").read_bytes() == (tmp_path / "d.onnx").read_bytes()
    assert record["epochs"] == 3

    code, out, err = cli("evolve", "d.onnx", "--data", "digits", *QUICK, "--out", "best.onnx")
    assert (code, err) == (0, "")
    assert "run runs/d-digits-1:" in out
    assert "epoch   2: keep" in out
    assert "result: best.onnx" in out
    assert (tmp_path / "best.onnx").read_bytes() == (tmp_path / "runs/d-digits-1/best.onnx").read_bytes()
    if find_spec("jinja2") and find_spec("matplotlib"):
        assert "report: runs/d-digits-1/report.html" in out
        (tmp_path / "runs/d-digits-1/report.html").unlink()
        assert cli("report", "runs/d-digits-1") == (0, "runs/d-digits-1/report.html\n", "")
        assert "64-" in (tmp_path / "runs/d-digits-1/report.html").read_text()
    code, out, err = cli("evolve", "--resume", "runs/d-digits-1", "--json")
    assert code == 0
    record = json.loads(out)
    assert record["run"] == "runs/d-digits-1"
    assert 0 < record["test_accuracy"] <= 1


def test_operating_by_data(cli, tmp_path):
    cli("train", SMALL, "--data", "digits", "--epochs", "3", "--learning-rate", "0.1", "-o", "a.onnx")
    surgeries = ("prune:1:8", "factorize_data:1:6", "merge_data:2", "widen:1:2", "merge_duplicates:1")
    arguments = ("operate", "a.onnx", *surgeries, "--data", "digits", "--widen", "equal")
    code, out, err = cli(*arguments, "-o", "b.onnx")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["surgery", "kind", "deviation", "predicted", "found", "parameters"]
    record = json.loads(cli(*arguments, "-o", "c.onnx", "--json")[1])
    assert record["topology"] == load("b.onnx").topology == "64-6-10"
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "c.onnx").read_bytes()
    for line, done in zip(lines[1:-1], record["surgeries"], strict=True):
        predicted, found = done["predicted"], done["found"]
        assert line[0] == done["surgery"]
        assert line[3:5] == ["–" if predicted is None else f"{predicted:.2e}", f"{found:.2e}"]
        assert (predicted is not None) == (done["surgery"] in surgeries[:3])
        if predicted is not None:
            assert 0.01 < predicted < 0.9
            assert found == pytest.approx(predicted, rel=0.5)
        else:
            assert done["exact"]
            assert found < 1e-5

    code, out, _ = cli("operate", "a.onnx", "narrow:1:5", "-o", "d.onnx")
    assert out.splitlines()[0].split() == ["surgery", "kind", "deviation", "parameters"]
    (plain,) = json.loads(cli("operate", "a.onnx", "narrow:1:5", "-o", "d.onnx", "--force", "--json")[1])["surgeries"]
    assert (plain["predicted"], plain["found"]) == (None, None)
    code, out, _ = cli("operate", "a.onnx", "narrow:1:5", "--data", "digits", "-o", "e.onnx")
    assert "–" in out.splitlines()[1]
    assert (tmp_path / "d.onnx").read_bytes() == (tmp_path / "e.onnx").read_bytes()


def test_the_help_of_operate_lists_all_surgeries(cli):
    _, out, _ = cli("operate", "--help")
    for name, kind in SURGERIES.items():
        assert (f" {usage(kind)} " in " ".join(out.split())) is kind.is_for_one, name


def test_commands_that_read_data_read_it_with_the_same_options(cli):
    flags = [f"--{field.name.replace('_', '-')}" for field in fields(ReadingOptions)]
    assert "--target" in flags
    for command in ("train", "evaluate", "evolve", "diff", "operate"):
        _, out, _ = cli(command, "--help")
        assert [flag for flag in flags if f"  {flag} " not in out] == [], command


def test_the_users_own_npz(cli, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 6)).astype("f")
    np.savez(tmp_path / "mine.npz", x=x, y=(x[:, 0] + x[:, 1] > 0).astype(int))
    cli("new", "6-8-2", "-o", "a.onnx")
    options = (*QUICK, "--learning-rate", "0.1", "--validation-fraction", "0.1")
    assert cli("evolve", "a.onnx", "--data", "mine.npz", *options)[0] == 0
    record = json.loads(cli("evaluate", "runs/a-mine-1/best.onnx", "--data", "mine.npz", "--json")[1])
    assert record["accuracy"] > 0.8


def test_data_commands(cli, tmp_path):
    code, out, _ = cli("data", "list")
    assert code == 0
    for name in ("digits", "mnist", "fashion-mnist", "emnist", "cifar10", "cifar100", "svhn", "eurosat"):
        assert name in out
    assert len(json.loads(cli("data", "list", "--json")[1])) == 8
    record = json.loads(cli("data", "info", "emnist", "--json")[1])
    assert record["rows"] == {"train": 697_932, "test": 116_323}
    assert record["classes"] == 62
    assert "byclass" in cli("data", "info", "emnist")[1]
    assert cli("data", "fetch", "digits")[1] == "digits: in the package\n"


def test_inspect_by_data(cli, tmp_path):
    """What prune would lose, and how much of it is recommended; operate then predicts the same."""
    save(create((64, 30, 20, 10), input_shape=(8, 8), seed=1), tmp_path / "a.onnx")
    code, out, err = cli("inspect", "a.onnx", "--data", "digits")
    assert (code, err) == (0, "")
    assert "Recommended by the data, for a trained network" in out
    assert "Recommended by the weights' singular values" in out
    assert "inspect --data" not in out
    record = json.loads(cli("inspect", "a.onnx", "--data", "digits", "--json")[1])
    assert [len(layer["pruning_errors"]) for layer in record["hidden_layers"]] == [30, 20]
    assert {c["surgery"].split(":")[0] for c in record["candidates"]}.isdisjoint({"narrow", "prune"})
    (first, *_) = record["by_data"]
    assert first["surgery"] in out
    assert not record["start"]["is_trained"]
    assert "the network counts as untrained" in out
    counts = [candidate["parameters"] for candidate in record["candidates"]]
    assert counts[0] > record["parameters"]
    assert first["reason"].split(": ")[1] in " ".join(out.split())
    operated = json.loads(cli("operate", "a.onnx", first["surgery"], "--data", "digits", "-o", "b.onnx", "--json")[1])
    predicted = operated["surgeries"][0]["predicted"]
    left = int(first["surgery"].split(":")[2])
    assert predicted == pytest.approx(record["hidden_layers"][0]["pruning_errors"][left - 1], rel=0.2)
    assert operated["surgeries"][0]["parameters"] == first["parameters"]

    code, out, _ = cli("inspect", "a.onnx")
    assert code == 0
    assert "prune by data is the better judge, and inspect --data shows what it would lose" in " ".join(out.split())
    assert not {"by_data", "pruning_errors"} & set(json.loads(cli("inspect", "a.onnx", "--json")[1]))
    code, out, err = cli("inspect", "a.onnx", "--data", "mnst")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "unknown data set 'mnst'" in err


def test_inspect_recommends_growth_of_a_trained_network_last(cli, tmp_path):
    cli("train", SMALL, "--data", "digits", "--epochs", "12", "--learning-rate", "0.3", "-o", "t.onnx")
    _, out, _ = cli("inspect", "t.onnx", "--data", "digits")
    record = json.loads(cli("inspect", "t.onnx", "--data", "digits", "--json")[1])
    assert record["start"]["is_trained"]
    assert "the network counts as trained: its accuracy on 1,437 rows is better than chance" in " ".join(out.split())
    larger = [candidate["parameters"] > record["parameters"] for candidate in record["candidates"]]
    assert larger == sorted(larger)
    assert any(larger)
    table = out[out.index("by the weights' singular values") :].splitlines()
    assert table[2].split()[0] == record["candidates"][0]["surgery"]
    without = " ".join(cli("inspect", "t.onnx")[1].split())
    assert "alone, for a network that is still to learn; for a trained network, prune by data is the better" in without


def bad(tmp_path):
    """Every kind of bad input, with what the one line must say."""
    (tmp_path / "text.onnx").write_text("I am a text file, and long enough to look like something.\n" * 9)
    save(create((784, 10, 10)), tmp_path / "wide.onnx")
    save(create((64, 10, 5)), tmp_path / "few.onnx")
    model = to_model(create((64, 10)))
    del model.graph.node[0]
    model.graph.node[0].input[0] = "input"
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 64
    onnx.save(model, tmp_path / "softmax.onnx")
    x = np.ones((50, 64), "f")
    x[7, 3] = np.nan
    np.savez(tmp_path / "nan.npz", x=x, y=np.arange(50) % 10)
    np.savez(tmp_path / "tiny.npz", x_train=x[:1], y_train=[0], x_test=x[:1], y_test=[0])
    (tmp_path / "run").mkdir()
    evolve = ("evolve", SMALL, "--data", "digits")
    prune = ("operate", SMALL, "prune:1:5", "-o", "o.onnx")
    by_data = (*prune, "--data", "digits")
    return {
        "no such file": (("inspect", "none.onnx"), "none.onnx: no such file"),
        "a folder": (("inspect", "run"), "run: is a directory"),
        "a text file": (("inspect", "text.onnx"), "text.onnx: not an ONNX model"),
        "no dense layers": (("inspect", "softmax.onnx"), "softmax.onnx: no dense layers found"),
        "rows that do not fit": (("evolve", "wide.onnx", "--data", "digits"), "rows of shape (8, 8) do not fit"),
        "labels outside the classes": (("evolve", "few.onnx", "--data", "digits"), "outside the 5 classes of 'few'"),
        "NaN in the data": (("evolve", SMALL, "--data", "nan.npz"), "nan.npz: 'x' holds nan in row 7, column 3"),
        "an unknown surgery": (("operate", SMALL, "cut:1", "-o", "o.onnx"), "unknown surgery 'cut'"),
        "an unknown layer": (("operate", SMALL, "merge:2", "-o", "o.onnx"), "has no hidden layer 2: it has 1 to 1"),
        "not exact": (("operate", SMALL, "merge:1", "--exact", "-o", "o.onnx"), "merge:1: is not exact"),
        "surgery by data without any": (prune, "prune:1:5: --data is needed"),
        "surgery by data, not exact": ((*by_data, "--exact"), "prune:1:5: is not exact"),
        "surgery by data, too many units": (
            ("operate", SMALL, "prune:1:11", "-o", "o.onnx", "--data", "digits"),
            "prune:1:11: the number of units that stay must be 1 to 10",
        ),
        "surgery by data that does not fit": (
            ("operate", "wide.onnx", "merge_data:1", "-o", "o.onnx", "--data", "digits"),
            "rows of shape (8, 8) do not fit",
        ),
        "surgery by labels outside the classes": (
            ("operate", "few.onnx", "merge_data:1", "-o", "o.onnx", "--data", "digits"),
            "outside the 5 classes of 'few'",
        ),
        "surgery by unknown data": ((*prune, "--data", "mnst"), "unknown data set 'mnst'"),
        "surgery by data in an unknown layout": ((*by_data, "--layout", "cwh"), "unknown layout 'cwh'"),
        "surgery into an existing file": ((*by_data[:-4], "-o", "few.onnx", "--data", "digits"), "few.onnx: exists"),
        "too few rows to hold any out": (
            ("operate", SMALL, "prune:1:5", "-o", "o.onnx", "--data", "tiny.npz"),
            "tiny.npz: 1 row is too few to hold out 25% of them",
        ),
        "no two like units": (
            ("operate", SMALL, "merge_duplicates:1", "-o", "o.onnx"),
            "merge_duplicates:1: no unit is constant or the same as another",
        ),
        "an existing run": ((*evolve, "--run-dir", "run"), "run: exists already; choose another --run-dir"),
        "no run to report": (("report", "run"), "run: not a run directory"),
        "no run": (("evolve", "--resume", "run"), "run: not a run directory"),
        "an existing file": ((*evolve, "--out", "few.onnx"), "few.onnx: exists already; --force overwrites it"),
        "a missing folder": ((*evolve, "--out", "no/where.onnx"), "no such folder: no"),
        "no CUDA": ((*evolve, "--device", "cuda"), "device 'cuda' is not available"),
        "an unknown engine": ((*evolve, "--engine", "warp"), "unknown engine 'warp'"),
        "an unknown data set": (("evolve", SMALL, "--data", "mnst"), "unknown data set 'mnst'"),
        "an unknown split": (("evaluate", SMALL, "--data", "digits", "--split", "both"), "split: 'both' is unknown"),
        "an unknown preset": ((*evolve, "--preset", "fast"), "preset: 'fast' is unknown"),
        "a wrong setting": ((*evolve, "--epoch-step", "0"), "epoch-step: 0 is too small"),
        "no workers": ((*evolve, "--workers", "0"), "workers: 0 is too small"),
        "sizes that are none": (("new", "784x10", "-o", "o.onnx"), "'784x10' is no topology"),
        "a shape that is none": (("new", "4-2", "-o", "o.onnx", "--input-shape", "2y2"), "'2y2' is no shape"),
        "numbers that are none": (("evaluate", SMALL, "--data", "digits", "--mean", "a,b"), "mean: 'a,b'"),
        "evolve without a model": (("evolve",), "evolve needs a MODEL and --data"),
        "resume with options of reading": (("evolve", "--resume", "run", "--scale", "2"), "--resume takes model, data"),
        "resume with a model": (("evolve", SMALL, "--resume", "run"), "--resume takes model, data and settings"),
        "data that is not here": (
            ("evaluate", MODELS / "fashion-mnist-small.onnx", "--data", "mnist", "--data-dir", "run"),
            "no file 'train-images-idx3-ubyte",
        ),
    }


def test_bad_input_is_one_clear_line_and_exit_code_2(cli, tmp_path):
    for name, (arguments, text) in bad(tmp_path).items():
        before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
        code, out, err = cli(*arguments)
        assert code == 2, name
        assert out == "", name
        assert err.count("\n") == 1, (name, err)
        assert err.startswith("onnxsurgeon: "), (name, err)
        assert text in err, (name, err)
        assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before, name


@without_training
def test_an_engine_that_is_not_installed(cli):
    code, out, err = cli("evolve", SMALL, "--data", "digits", "--engine", "artifacts")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "pip install 'onnxsurgeon[training]'" in err


def test_unknown_options_exit_with_2(cli):
    code, _, err = cli("evolve", SMALL, "--data", "digits", "--epoch", "3")
    assert code == 2
    assert "--epoch" in err


def test_version(cli):
    code, out, _ = cli("--version")
    assert (code, out.split()[0]) == (0, "onnxsurgeon")


def test_view_serves_the_model_on_this_machine(tmp_path):
    """Netron's own server answers with its page; no browser is opened."""
    pytest.importorskip("netron")
    import socket
    import time
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "onnxsurgeon", "view", SMALL, "--port", str(port), "--no-browser"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://localhost:{port}/", timeout=5) as answer:
                    page = answer.read().decode()
                break
            except OSError:
                assert time.monotonic() < deadline
                assert server.poll() is None
                time.sleep(0.2)
        assert "Netron" in page
    finally:
        server.kill()
        server.wait()


def test_interrupting_says_how_to_continue(tmp_path):
    import signal

    command = [
        sys.executable,
        "-m",
        "onnxsurgeon",
        "evolve",
        SMALL,
        "--data",
        "digits",
        "--preset",
        "corrected",
        "--epochs",
        "100000",
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A suite started in the background has interrupts ignored, and its children would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while "epoch  20" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "continue with: onnxsurgeon evolve --resume runs/digits-small-digits-1" in err
    assert "Traceback" not in err
    best = load(tmp_path / "runs/digits-small-digits-1/best.onnx")
    assert (best.layers[0].weight.shape[0], best.layers[-1].units) == (64, 10)
    assert best.is_finite
    assert not np.array_equal(best.layers[-1].weight, load(MODELS / "digits-small.onnx").layers[-1].weight)


def test_importing_the_package_is_cheap():
    code = (
        "import sys, onnxsurgeon\n"
        "heavy = {'typer', 'rich', 'matplotlib', 'onnxruntime', 'onnx', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(onnxsurgeon.__all__) <= set(dir(onnxsurgeon))\n"
        "for name in onnxsurgeon.__all__:\n    getattr(onnxsurgeon, name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("arguments", ["--help", "--version", "evolve --help", "data list --help"])
def test_help_waits_for_no_library_that_it_does_not_need(arguments):
    code = (
        "import sys, typer\n"
        "before = set(sys.modules)\n"
        "from onnxsurgeon.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(*set(sys.modules) - before, file=sys.stderr)\n"
    )
    heavy = {"onnx", "onnx_graphsurgeon", "onnxruntime", "numpy", "scipy", "pyarrow", "PIL", "matplotlib"}
    done = subprocess.run([sys.executable, "-c", code, *arguments.split()], check=True, capture_output=True, text=True)
    assert done.stdout.startswith(("Usage: ", "onnxsurgeon "))
    assert "onnxsurgeon.cli.learning" in done.stderr.split()
    assert not (heavy | {"rich", "pydantic", "threadpoolctl"}) & set(done.stderr.split())
