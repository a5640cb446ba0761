"""What is said at the end of a run: before and after, whether the result is worse, and the exit code."""

import json
import logging
import re
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest

from onnxsurgeon import SurgeonSettings, create, evolve, load_dataset, make_engine, prepare, resume, save
from onnxsurgeon.cli import console
from onnxsurgeon.runs.footprint import Figure, Footprint, figures, measured_figure
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.surgeon import latency
from onnxsurgeon.surgeon.dry_run import dry_run
from onnxsurgeon.surgeon.ending import ITSELF
from onnxsurgeon.surgeon.latency import latencies_of, latency_of
from onnxsurgeon.surgeon.log import log_event
from onnxsurgeon.surgeon.remarks import Outcome, remarks
from onnxsurgeon.surgeon.significance import Both, RowScores, unseen_loss
from onnxsurgeon.task import CROSS_ENTROPY, Task
from onnxsurgeon.training.fit import fit
from onnxsurgeon.training.settings import TrainingSettings
from tests.conftest import MODELS

SMALL = MODELS / "digits-small.onnx"
# Nothing can be better than a network that is right on all rows that decide.
STAYS = {"epochs": 2, "growth": 0, "ensemble": 1, "refit": False}
# Two hidden units are too few for ten digits.
TOO_SMALL = {"max_parameters": 170, "epochs": 8, "growth": 0, "shrink_step": 1}
MISSES = ("--max-parameters", "170", "--lose", "0", "--epochs", "2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that is right on all digits that decide; it has seen them."""
    path = tmp_path_factory.mktemp("trained") / "trained.onnx"
    dataset = load_dataset("digits")
    settings = TrainingSettings(optimizer="adamw", learning_rate=0.003)
    network = create((64, 40, 10), seed=3, input_shape=(8, 8))
    fitted, _ = fit(network, dataset, make_engine("loop"), epochs=40, settings=settings)
    rows = prepare(fitted.network, dataset, dataset.hold_out()[1])
    assert make_engine("loop").evaluate(fitted.network, rows).accuracy == 1
    save(fitted.network, path)
    return path


def run(model, folder, data="digits", **settings):
    wanted = SurgeonSettings.from_preset(**{"seed": 6, **settings})
    return evolve(model, data, settings=wanted, run_dir=folder, workers=1)


@pytest.fixture(scope="module")
def worse(trained, tmp_path_factory):
    return run(trained, tmp_path_factory.mktemp("worse") / "run", **TOO_SMALL)


@pytest.fixture(scope="module")
def given(trained, tmp_path_factory):
    return run(trained, tmp_path_factory.mktemp("given") / "run", **STAYS)


def test_figures_tell_the_ratio_in_words():
    before, after = Footprint(535_818, 2_143_956, 0.0412), Footprint(53_581, 215_000, 0.0091)
    assert figures(before, after) == [
        Figure("parameters", "535,818", "53,581", "10× fewer"),
        Figure("file", "2.14 MB", "215 kB", "9.97× smaller"),
        Figure("one row takes", "41.2 µs", "9.1 µs", "4.53× faster"),
    ]
    assert [figure.change for figure in figures(after, before)] == ["10× more", "9.97× larger", "4.53× slower"]
    near = Footprint(535_818, 2_143_957, 0.0412 * 1.09)
    assert [figure.change for figure in figures(before, near)] == ["the same", "about the same", "about the same"]
    assert [figure.name for figure in figures(before, replace(after, latency=None))] == ["parameters", "file"]
    assert figures(Footprint(2_000_000, 10), Footprint(1_574_218, 10))[0].after == "1.57 M"
    assert figures(Footprint(100_000, 9), Footprint(10, 9))[0].change == "10,000× fewer"
    given = figures(Footprint(500, 2100, 0.01), Footprint(500, 2289, 0.01), is_given=True)
    assert [(figure.before, figure.after, figure.change) for figure in given[:2]] == [
        ("500", "500", "the same"),
        ("2.1 kB", "2.29 kB", "the same network"),  # whose file tells where it comes from
    ]
    assert measured_figure("R²", -12.3456, 0.5) == Figure("test R²", "-12.3", "0.5000", "+12.8456")


def test_the_box_fits_into_eighty_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    before, after = Footprint(999_999, 2_140_000, 99.9), Footprint(888_888, 1_230_000, 0.0111)
    found = [*figures(before, after), measured_figure("accuracy", 0.9876, 0.9876)]
    console.figures_box(found)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert {len(line) for line in lines} == {len(lines[0])}
    assert 70 < len(lines[0]) <= 80
    for text in ("999,999 → 888,888", "2.14 MB → 1.23 MB", "99.9 ms → 11.1 µs", "0.9876 → 0.9876"):
        assert text in lines[2]
    assert re.findall(r"[\d.,]+× \w+", lines[3]) == ["1.12× fewer", "1.74× smaller", "9,000× faster"]


def test_before_and_after_are_the_files(worse, trained):
    record = worse.record()
    assert record["before"] == asdict(worse.before)
    assert record["after"] == asdict(worse.after)
    assert worse.before.parameters == 64 * 40 + 40 + 40 * 10 + 10
    assert worse.before.size == trained.stat().st_size
    assert worse.after.parameters == worse.network.parameter_count < 400
    assert worse.after.size == (worse.run / "best.onnx").stat().st_size
    assert 0 < worse.after.latency < 100
    assert 0 < worse.before.latency < 100
    finished = RunDirectory(worse.run).read_journal()[-1]
    assert {key: finished[key] for key in record} == json.loads(json.dumps(record))


def test_a_resumed_run_knows_the_size_of_the_given_file(given, trained, tmp_path):
    folder = shutil.copytree(given.run, tmp_path / "run")
    assert resume(folder).before.size == trained.stat().st_size
    settings = folder / "settings.json"
    record = json.loads(settings.read_text())
    del record["model"]["size"]  # as in runs from before it was told
    settings.write_text(json.dumps(record))
    assert resume(folder).before.size == (folder / "branches" / "0000-start.onnx").stat().st_size


def test_a_result_that_is_worse_by_more_than_chance_is_told_first(worse):
    assert worse.is_worse
    assert worse.remarks[0] == (
        f"WORSE than the given model by more than chance: accuracy {worse.test.accuracy:.4f} on the 360 test rows, "
        f"where the given model has {worse.start.accuracy:.4f}; try a larger limit, --lose 0.5% in its place, "
        f"more --epochs than {TOO_SMALL['epochs']}, or more rows to decide by (--validation-fraction)"
    )
    assert not worse.is_given


@pytest.mark.parametrize(
    ("asked", "tries"),
    [
        ({"shrink": 10}, "try --shrink 5, --lose 0.5% in its place, or more --epochs than 20"),
        ({"shrink": 3}, "try --shrink 2, --lose 0.5% in its place, or more --epochs than 20"),
        ({"shrink": 2}, "try a larger limit, --lose 0.5% in its place, or more --epochs than 20"),
        ({"lose": 0.01}, "try a smaller --lose, or more --epochs than 20"),
        ({"min_accuracy": 0.9}, "try a higher --min-accuracy, or more --epochs than 20"),
        ({"epochs": 200}, "try more rows to train on"),
    ],
)
def test_what_to_try_where_the_result_is_worse(asked, tries):
    settings = SurgeonSettings(**{"epochs": 20, **asked})
    (worse,) = remarks(
        replace(OUTCOME, settings=settings, is_given=False, is_worse=True, rows=5000, after=0.95, before=0.955)
    )
    assert worse.endswith(f"has 0.9550; {tries}")


def test_the_given_model_as_result_is_told_with_what_to_try(given):
    assert given.is_given
    assert not given.is_worse
    assert given.remarks[0] == (
        "best.onnx is the given model: nothing was better by more than chance on 144 rows; try --lose 0.5% or "
        "--shrink 2 for a smaller one, more --epochs than 2, or more rows to decide by (--validation-fraction)"
    )
    assert given.before.latency == given.after.latency is not None


def test_that_the_rows_that_decide_may_flatter_is_said_once_and_only_where_they_may(given, trained, tmp_path):
    def flattered(evolved):
        return sum("flatters it" in remark for remark in evolved.remarks)

    assert flattered(given) == 1
    assert flattered(run(trained, tmp_path / "untrained", start="untrained", **STAYS)) == 0
    assert flattered(run(SMALL, tmp_path / "chance", **STAYS)) == 0
    assert flattered(run(SMALL, tmp_path / "trained", start="trained", **STAYS)) == 1
    rng = np.random.default_rng(0)
    rows = {"train": 200, "validation": 20, "test": 20}
    x = {f"x_{part}": rng.random((count, 8, 8), np.float32) for part, count in rows.items()}
    y = {f"y_{part}": rng.integers(0, 10, count) for part, count in rows.items()}
    np.savez(tmp_path / "own.npz", **x, **y)
    own = run(trained, tmp_path / "own", data=str(tmp_path / "own.npz"), start="trained", **STAYS)
    assert flattered(own) == 0
    assert "more validation rows" in own.remarks[0]


def test_a_teacher_is_not_said_to_be_better_than_who_imitates_it(trained, tmp_path):
    x = np.random.default_rng(0).random((400, 8, 8), np.float32)
    np.savez(tmp_path / "rows.npz", x=x)
    done = run(trained, tmp_path / "run", data=str(tmp_path / "rows.npz"), **TOO_SMALL)
    assert done.start.accuracy >= ITSELF
    assert done.test.accuracy < 0.9
    assert not done.is_worse
    assert done.remarks == ()


OUTCOME = Outcome(SurgeonSettings(), True, False, False, True, 5000, 900, "R²", 0.5, 0.25)


@pytest.mark.parametrize(
    ("settings", "rows", "why", "hints"),
    [
        ({}, 5000, "better by more than chance on 5,000", "--lose 0.5% or --shrink 2 for a smaller one"),
        ({"max_size": 9000}, 5000, "better by more than chance on 5,000", "a smaller limit"),
        ({"shrink": 1.5, "epochs": 9}, 5000, "better by more", "a smaller limit, or more --epochs than 9"),
        ({"lose": 0.01}, 5000, "smaller was accurate enough on 5,000", "--lose 2%"),
        ({"lose": 0.0}, 5000, "smaller was accurate enough", "--lose 0.5%"),
        ({"tolerance": 0.002}, 5000, "smaller was accurate enough", "--tolerance 0.4%"),
        ({"min_accuracy": 0.5}, 5000, "smaller was accurate enough", "a lower --min-accuracy"),
        ({"time_limit": 9, "max_size": 9}, 50, "better by", "a smaller limit, a longer --time-limit, or more rows to"),
        ({"objective": "pareto"}, 5000, "better by more than chance on 5,000", "one of RUN/front"),
        ({"preset": "corrected"}, 5000, "more accurate on 5,000", "more rows to train on"),
    ],
)
def test_what_is_tried_next_follows_from_what_was_asked_for(settings, rows, why, hints):
    (said,) = remarks(replace(OUTCOME, settings=SurgeonSettings.from_preset(**settings), rows=rows))
    assert said.startswith(f"best.onnx is the given model: nothing {'was ' if why[:7] != 'smaller' else ''}{why}")
    assert f"; try {hints}" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"objective": "pareto", "time_limit": 9}, "nothing can be better than what is imitated; try one of RUN/front"),
        ({"max_size": 10**6}, "nothing can be better than what is imitated; try a smaller limit"),
        ({"lose": 0.01, "epochs": 9}, "nothing smaller was accurate enough on 50 rows; try --lose 2%, more --epochs"),
    ],
)
def test_who_is_imitated_is_not_said_to_be_equalled(settings, said):
    settings = SurgeonSettings.from_preset(**settings)
    (told,) = remarks(replace(OUTCOME, settings=settings, rows=50, is_teacher=True))
    assert told.startswith(f"best.onnx is the given model: {said}")
    assert "accurate" in told or "rows" not in told


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lose": 0.005}, "lost 0.0200 of R², more than --lose 0.5% allows"),
        ({"min_accuracy": 0.95}, "R² 0.9400, less than --min-accuracy 0.95"),
    ],
)
def test_what_was_kept_on_the_rows_that_decide_alone_is_told(settings, said):
    settings = SurgeonSettings.from_preset(**settings)
    outcome = replace(OUTCOME, settings=settings, is_given=False, rows=144, before=0.96, after=0.94)
    (told,) = remarks(outcome)
    assert said in told
    assert told.endswith("on the 144 rows that decide it kept to that; more of these would tell better")
    assert remarks(replace(outcome, before=0.965, after=0.962)) == ()
    assert remarks(replace(outcome, shortfall="no network was found with that")) == ()  # that is said already


def test_of_a_trained_network_that_stays_it_is_told_that_nothing_smaller_was_as_good():
    told = remarks(replace(OUTCOME, is_trained=True))[0]
    assert "better by more than chance on 5,000 rows, and nothing smaller surely as good; try --lose 0.5%" in told
    assert "surely as good" not in remarks(OUTCOME)[0]  # of an untrained one the most accurate is wanted


def test_where_a_wish_was_missed_the_given_model_is_not_said_to_be_unbeaten():
    settings = SurgeonSettings.from_preset(max_latency=0.001)
    (told,) = remarks(replace(OUTCOME, settings=settings, shortfall="no network was found with --max-latency 0.001"))
    assert told.startswith("best.onnx is the given model: nothing came nearer to what is asked for")
    assert "a smaller limit" not in told
    assert "a larger limit" in told


def test_remarks_come_in_order():
    (worse, flattered) = remarks(replace(OUTCOME, is_given=False, is_worse=True, is_trained=True))
    assert worse.endswith("R² 0.2500 on the 900 test rows, where the given model has 0.5000; try more rows to train on")
    assert "flatters" in flattered
    assert remarks(replace(OUTCOME, is_given=False)) == ()
    assert remarks(replace(OUTCOME, is_given=False, is_trained=True, is_held_out=False)) == ()


def test_the_end_on_the_terminal(trained, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TOO_SMALL.items()]
    _, out, _ = cli("evolve", trained, "--data", "digits", "--seed", "6", *options)
    lines = out.splitlines()
    top = next(i for i, line in enumerate(lines) if line.startswith("╭"))
    assert all(len(line) <= 80 for line in lines[top : top + 5])
    names = [cell.strip() for cell in lines[top + 1].strip("│").split("│")]
    assert names == ["parameters", "file", "one row takes", "test accuracy"]
    assert lines[top + 5].startswith("WORSE than the given model by more than chance: accuracy ")
    assert out.count("WORSE") == out.count("flatters it") == 1
    assert lines.index(next(line for line in lines if "flatters it" in line)) > top + 5


@pytest.mark.parametrize("silence", [(), ("-q",), ("--json",)])
def test_a_missed_limit_is_exit_code_three_and_a_line_on_standard_error(silence, trained, cli):
    code, out, err = cli("evolve", trained, "--data", "digits", *MISSES, *silence)
    assert code == 3
    assert re.fullmatch(
        r"onnxsurgeon: no network was found with --lose 0 \(it has [\d.]+, the given 1.0000\): "
        r"the result comes nearest\n",
        err,
    )
    if silence == ("-q",):
        assert out == "runs/trained-digits-1/best.onnx\n"
    elif silence:
        assert json.loads(out)["shortfall"] in err
    else:
        assert "no network was found" not in out
        assert out.splitlines()[-1] == "result: runs/trained-digits-1/best.onnx"


def test_a_wish_that_is_met_is_exit_code_zero(trained, cli):
    code, out, err = cli("evolve", trained, "--data", "digits", "--max-latency", "10s", "--epochs", "2", "--json")
    assert (code, err) == (0, "")
    assert "shortfall" not in json.loads(out)


def test_what_a_user_should_look_at_is_logged_as_a_warning(worse, caplog):
    caplog.set_level(logging.INFO, "onnxsurgeon")
    finished = RunDirectory(worse.run).read_journal()[-1]
    log_event({**finished, "shortfall": "no network was found with all that"})
    told = {"WARNING": [], "INFO": []}
    for record in caplog.records:
        told[record.levelname].append(record.getMessage())
    assert told["WARNING"] == ["no network was found with all that", worse.remarks[0]]
    assert told["INFO"][1:] == list(worse.remarks[1:])


def test_the_report_begins_with_the_same_figures(worse, given):
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    from onnxsurgeon.report import write_report

    for evolved in (worse, given):
        page = write_report(evolved.run).read_text(encoding="utf-8")
        head = " ".join(re.sub(r"<[^>]+>", " ", page.partition("<header")[2].partition("</header>")[0]).split())
        for figure in (
            *figures(evolved.before, evolved.after, is_given=evolved.is_given),
            measured_figure("accuracy", evolved.start.accuracy, evolved.test.accuracy),
        ):
            is_said = evolved is worse or figure.name != "file"  # the same network needs no sizes of files
            assert (f"{figure.before} → {figure.after}" in head) == is_said
        said = [f"{each if each.startswith('best.onnx') else each[0].upper() + each[1:]}." for each in evolved.remarks]
        for remark in said:
            assert remark in head
        assert (f'<p class="notice">{said[0]}' in page) == evolved.is_worse


def test_latencies_are_measured_in_turns_and_only_where_that_is_quick(trained, tmp_path, monkeypatch):
    save(create((64, 4000, 10), seed=1, input_shape=(8, 8)), tmp_path / "large.onnx")
    small, large = latencies_of([trained, tmp_path / "large.onnx"])
    assert 0 < small < large < 100
    assert small < 5 * latency_of(trained)
    assert latencies_of([trained, trained], seconds=1e-6) == [None, None]
    (tmp_path / "none.onnx").write_bytes(b"no model")
    assert latencies_of([trained, tmp_path / "none.onnx"]) == [None, None]
    monkeypatch.setattr(latency, "LARGEST", trained.stat().st_size - 1)
    assert latencies_of([trained]) == [None]


def test_two_watchers_see_the_same():
    task = Task(CROSS_ENTROPY, 2)
    first, second, alone = RowScores(task), RowScores(task), RowScores(task)
    output, labels = np.array([[0.0, 1.0], [2.0, 1.0], [0.0, 3.0]]), np.array([1, 1, 1])
    both = Both(first, second)
    for watch in (both, alone):
        watch.add(output[:2], labels[:2])
        watch.add(output[2:], labels[2:])
    assert both.record()["scores"].tolist() == second.record()["scores"].tolist() == [1, 0, 1]
    assert alone.record()["scores"].tolist() == [1, 0, 1]


def test_few_rows_that_decide_are_said_to_tell_little_of_a_loss(trained, tmp_path):
    """None of 30 rows lost: with a true loss of 0.095 that happens once in 20 times."""
    assert (1 - unseen_loss(30)) ** 30 == pytest.approx(0.05)
    few, enough = {"lose": 0.01}, {"lose": 0.1}
    kept = replace(OUTCOME, is_given=False, metric="accuracy", before=0.9, after=0.9, rows=30)
    (told,) = remarks(replace(kept, settings=SurgeonSettings(**few)))
    assert told.startswith("only 30 rows decide whether --lose 1% is kept: one of them is 3.3%, and what loses none of")
    assert "may have lost up to 9.5% (19 times of 20); more rows to decide by (--validation-fraction)" in told
    assert remarks(replace(kept, settings=SurgeonSettings(**enough))) == ()
    assert remarks(replace(kept, settings=SurgeonSettings(**few), rows=3000)) == ()
    assert remarks(replace(kept, settings=SurgeonSettings(**few), metric="R²")) == ()
    found = dry_run(trained, "digits", settings=SurgeonSettings(lose=0.01, epochs=2))
    assert any(note.startswith("only 144 rows decide whether --lose 1% is kept") for note in found.notes)
    found = dry_run(trained, "digits", settings=SurgeonSettings(lose=0.05, epochs=2))
    assert not any("rows decide" in note for note in found.notes)
