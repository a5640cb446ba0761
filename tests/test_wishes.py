"""What a user asks for: numbers with units, their ranges, and wishes that exclude one another."""

import json
from dataclasses import asdict, fields, replace

import pytest

from onnxsurgeon import SurgeonSettings
from onnxsurgeon.errors import SettingsError
from onnxsurgeon.quantities import (
    ACCURACY,
    COUNT,
    DURATION,
    LATENCY,
    SHARE,
    SIZE,
    TIMES,
    spell_count,
    spell_latency,
    spell_share,
    spell_size,
    whole,
)
from tests.command_line import SMALL

EVOLVE = ("evolve", SMALL, "--data", "digits")
READ = [
    (COUNT, "50000", 50_000),
    (COUNT, "50k", 50_000),
    (COUNT, " 50 K ", 50_000),
    (COUNT, "1.5M", 1_500_000),
    (COUNT, "50_000", 50_000),
    (COUNT, "1e5", 100_000),
    (COUNT, 50_000, 50_000),
    (COUNT, 5e4, 50_000),
    (SIZE, "6000", 6000),
    (SIZE, "6000B", 6000),
    (SIZE, "200KB", 200_000),
    (SIZE, "200 kB", 200_000),
    (SIZE, "200KiB", 204_800),
    (SIZE, "1.5MB", 1_500_000),
    (SIZE, "2MiB", 2_097_152),
    (SIZE, "1GB", 10**9),
    (LATENCY, "0.2", 0.2),
    (LATENCY, "0.2ms", 0.2),
    (LATENCY, "200us", 0.2),
    (LATENCY, "200µs", 0.2),  # the micro sign
    (LATENCY, "200μs", 0.2),  # the Greek letter
    (LATENCY, "200000ns", 0.2),
    (LATENCY, "0.001s", 1.0),
    (SHARE, "0.5%", 0.005),
    (SHARE, "0.005", 0.005),
    (SHARE, ".5 %", 0.005),
    (ACCURACY, "95%", 0.95),
    (ACCURACY, "-0.5", -0.5),
    (DURATION, "90", 90.0),
    (DURATION, "90s", 90.0),
    (DURATION, "5min", 300.0),
    (DURATION, "5m", 300.0),
    (DURATION, "1.5h", 5400.0),
    (TIMES, "10", 10.0),
    (TIMES, "2.5x", 2.5),
]


@pytest.mark.parametrize(("kind", "text", "value"), READ)
def test_quantities_are_read(kind, text, value):
    found = kind.parse(text, "name")
    assert found == value
    assert type(found) is (int if kind.is_whole else float)


@pytest.mark.parametrize("kind", [COUNT, SIZE, LATENCY, SHARE, ACCURACY, DURATION, TIMES])
def test_a_text_that_cannot_be_read_is_told_with_examples(kind):
    for text in ("", "x1", "1,000", "0,5", "1 2", "5 parsecs", "nan", "inf", "--1", "1e9999", "9" * 99, "1__2", "٣"):
        with pytest.raises(SettingsError) as told:
            kind.parse(text, "some-limit")
        assert str(told.value) == (
            f"some-limit: '{text}' is no {kind.what}: expected such as {' or '.join(kind.examples)}"
        )
    for example in kind.examples:
        assert kind.parse(example, "some-limit") > 0


@pytest.mark.parametrize(
    ("kind", "text"), [(COUNT, "1.5"), (COUNT, "0.0005k"), (SIZE, "0.3B"), (COUNT, float("nan")), (SIZE, float("inf"))]
)
def test_there_are_no_parts_of_parameters_and_bytes(kind, text):
    with pytest.raises(SettingsError, match=f"limit: '{text}' is no whole {kind.what}"):
        kind.parse(text, "limit")


@pytest.mark.parametrize("value", [True, "50 KB", "1m2"])
def test_a_truth_or_anothers_unit_is_no_number_of_parameters(value):
    with pytest.raises(SettingsError, match="is no number of parameters"):
        COUNT.parse(value, "limit")


def test_quantities_are_spelled():
    counts = {1: "1", 192_408: "192,408", 999_999: "999,999", 1_574_218: "1.57 M", 283_360_100: "283 M"}
    assert {count: spell_count(count) for count in counts} == counts
    sizes = {0: "0 B", 987: "987 B", 1000: "1 kB", 5451: "5.45 kB", 54_510: "54.5 kB", 999_900: "1 MB"}
    assert {size: spell_size(size) for size in sizes} == sizes
    assert spell_size(2_143_272) == "2.14 MB"
    latencies = {0.00123: "1.23 µs", 0.0082: "8.2 µs", 0.1234: "123 µs", 1.0: "1 ms", 12.34: "12.3 ms", 4000: "4 s"}
    assert {latency: spell_latency(latency) for latency in latencies} == latencies
    assert spell_share(0.005) == "0.5%"


def test_settings_take_texts_and_hold_numbers():
    given = {
        "max_parameters": "50k",
        "max_size": "200KiB",
        "max_latency": "200us",
        "min_accuracy": "95%",
        "tolerance": "0.5%",
        "growth": "10%",
        "target_accuracy": "99%",
        "time_limit": "5min",
    }
    values = {**dict.fromkeys(given), "max_parameters": 50_000, "max_size": 204_800, "max_latency": 0.2}
    values |= {"min_accuracy": 0.95, "tolerance": 0.005, "growth": 0.1, "target_accuracy": 0.99, "time_limit": 300.0}
    settings = SurgeonSettings.from_preset(**given)
    assert {name: getattr(settings, name) for name in values} == values
    assert SurgeonSettings(**json.loads(json.dumps(asdict(settings)))) == settings
    assert replace(settings, max_parameters=None, shrink="10x", min_accuracy=None, tolerance=None, lose="1%") == (
        replace(settings, max_parameters=None, shrink=10.0, min_accuracy=None, tolerance=None, lose=0.01)
    )
    names = [field.name for field in fields(SurgeonSettings)]
    assert names[names.index("tolerance") + 1 :][:3] == ["shrink", "lose", "start"]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("min_accuracy", 95, "95 is not at most 1: did you mean 0.95, or 95%?"),
        ("min_accuracy", "150%", "1.5 is not at most 1: did you mean 0.015, or 1.5%?"),
        ("min_accuracy", 1000, "1000 is not at most 1"),
        ("target_accuracy", 95.5, "95.5 is not at least 0 and at most 1: did you mean 0.955, or 95.5%?"),
        ("target_accuracy", -0.1, "-0.1 is not at least 0 and at most 1"),
        ("tolerance", 2, "2 is not at least 0 and at most 1: did you mean 0.02, or 2%?"),
        ("tolerance", -0.1, "-0.1 is not at least 0 and at most 1"),
        ("lose", 2, "2 is not at least 0 and at most 1: did you mean 0.02, or 2%?"),
        ("lose", -0.1, "-0.1 is not at least 0 and at most 1"),
        ("lose", float("nan"), "nan"),
        ("shrink", 1, "1 is too small: expected more than 1"),
        ("shrink", 0.1, "0.1 is too small: expected more than 1"),
        ("shrink", float("inf"), "inf is too large: expected more than 1"),
        ("max_parameters", 0, "0 is too small: expected at least 1"),
        ("max_parameters", "-5k", "-5000 is too small: expected at least 1"),
        ("max_size", 0, "0 is too small: expected at least 1"),
        ("max_latency", 0, "0 is too small: expected more than 0"),
        ("time_limit", 0.0, "0 is too small: expected more than 0"),
        ("time_limit", -1, "-1 is too small: expected more than 0"),
        ("growth", 1.5, "1.5 is not at least 0 and at most 1: did you mean 0.015, or 1.5%?"),
        ("growth", -0.1, "-0.1 is not at least 0 and at most 1"),
        ("shrinkage", 15, "15 is not at least 0 and at most 1: did you mean 0.15, or 15%?"),
        ("trial", 1.01, "1.01 is not at least 0 and at most 1"),
        ("standardised_dropout", 1, "1 is not at least 0 and below 1"),
        ("overgrowth", 0.9, "0.9 is too small: expected at least 1"),
        ("growth_factor", 1, "1 is too small: expected at least 1.1"),
        ("growth_factor", float("inf"), "inf is too large"),
        ("seed", -1, "-1 is too small: expected at least 0"),
        ("ensemble", 0, "0 is too small: expected at least 1"),
        ("start", "both", "'both' is unknown: expected one of auto, trained, untrained"),
    ],
)
def test_every_range_is_kept(name, value, reason):
    with pytest.raises(SettingsError) as told:
        SurgeonSettings.from_preset(**{name: value})
    assert str(told.value).startswith(f"{name.replace('_', '-')}: {reason}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("min_accuracy", value) for value in (-3.0, 0, 1)),  # R² may be negative
        *((name, value) for name in ("tolerance", "lose", "growth", "shrinkage", "trial") for value in (0, 1)),
        *(("start", value) for value in ("auto", "trained", "untrained")),
        ("shrink", 1.01),
        ("time_limit", 1e-9),
    ],
)
def test_the_ends_of_a_range_are_in_it(name, value):
    assert getattr(SurgeonSettings.from_preset(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"shrink": 10, "max_parameters": 900},
            "shrink: it says how many parameters the result may have, as --max-parameters does: give one of them",
        ),
        (
            {"lose": 0.01, "min_accuracy": 0.9},
            "lose: it says how accurate the result must be, as --min-accuracy does: give one of them",
        ),
        (
            {"lose": 0.01, "tolerance": 0.0},
            "lose: it says how accurate the result must be, as --tolerance does: give one of them",
        ),
        (
            {"preset": "corrected", "shrink": 10},
            "shrink: Algorithm 1 (--search algorithm1) looks for no such network",
        ),
    ],
)
def test_wishes_that_exclude_one_another(settings, reason):
    with pytest.raises(SettingsError) as told:
        SurgeonSettings.from_preset(**settings)
    assert str(told.value) == reason


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--max-size", "200q"), "max-size: '200q' is no number of bytes: expected such as 200000 or 200KB or 1.5MiB"),
        (("--min-accuracy", "95"), "min-accuracy: 95 is not at most 1: did you mean 0.95, or 95%?"),
        (("--min-accuracy", "-0.5", "--lose", "0.5%"), "lose: it says how accurate the result must be"),
        (("--time-limit", "soon"), "time-limit: 'soon' is no time in seconds: expected such as 90 or 90s or 5min"),
        (("--start", "tried"), "start: 'tried' is unknown"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_nothing_is_written(options, reason, cli, tmp_path):
    code, out, err = cli(*EVOLVE, *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"onnxsurgeon: {reason}")
    assert err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_units_on_the_command_line_reach_the_run(cli, tmp_path):
    options = ("--epochs", "1", "--max-parameters", "0.9k", "--max-latency", "1s", "--growth", "0%", "-q")
    assert cli(*EVOLVE, *options)[0] == 0
    (run,) = (tmp_path / "runs").iterdir()
    settings = json.loads((run / "settings.json").read_text())["settings"]
    assert [settings[name] for name in ("max_parameters", "max_latency", "growth")] == [900, 1000.0, 0.0]


@pytest.mark.parametrize("text", ["9" * 400, "9" * 4000, "-" + "9" * 400, "1e999", "-1e999"])
@pytest.mark.parametrize("option", ["--max-parameters", "--epochs", "--seed", "--batch-size", "--patience"])
def test_a_number_that_nothing_counts_is_told_in_a_line(option, text, cli):
    code, _, error = cli("evolve", SMALL, "--data", "digits", "--dry-run", f"{option}={text}")
    assert code == 2
    if "e" not in text and option != "--max-parameters":  # of others, the option's type tells
        assert error.count("\n") == 1
        assert "digits is too " in error
    assert "Traceback" not in error


@pytest.mark.parametrize("text", ["9" * 5000, "²", "-1"])
@pytest.mark.parametrize("option", ["--freeze", "--train-only"])
def test_what_is_no_number_of_a_layer_is_told(option, text, cli):
    code, _, error = cli("evolve", SMALL, "--data", "digits", "--dry-run", f"{option}={text}")
    assert (code, error.count("\n")) == (2, 1)
    assert "has no layer called" in error


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("12", 12), ("9" * 18, 10**18 - 1)])
def test_whole_numbers(text, value):
    assert whole(text) == value


@pytest.mark.parametrize("text", ["", "-1", "²", "٣", "1_0", " 1", "9" * 19, "9" * 5000])
def test_what_is_no_whole_number(text):
    assert whole(text) is None
