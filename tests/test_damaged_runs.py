"""A run directory that is damaged, or a stranger's: one line says what is wrong, and nothing outside it is touched."""

import json
import os
import shutil
import zipfile

import numpy as np
import onnx
import pytest

from onnxsurgeon import RunError, SurgeonSettings, create, diff, evolve, read_run, resume, save
from onnxsurgeon.graph.files import read_parts, write_parts
from onnxsurgeon.graph.writer import to_parts
from onnxsurgeon.report import write_plots, write_report
from onnxsurgeon.runs.branch import file_of, read_branch
from onnxsurgeon.runs.journal import RunDirectory, file_digest
from onnxsurgeon.runs.lines import sealed

SETTINGS = {"epochs": 8, "seed": 3, "objective": "pareto"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with a front, on 120 rows."""
    folder = tmp_path_factory.mktemp("finished")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 6)).astype("f")
    np.savez(folder / "data.npz", x=x, y=(x[:, 0] * x[:, 1] > 0).astype(int))
    save(create((6, 8, 2), seed=1), folder / "model.onnx")
    settings = SurgeonSettings(**SETTINGS)
    return evolve(folder / "model.onnx", str(folder / "data.npz"), settings=settings, run_dir=folder / "run").run


@pytest.fixture
def run(finished, tmp_path):
    """A copy of it, in a folder of its own, to damage."""
    return shutil.copytree(finished, tmp_path / "inside" / "run")


def lines_of(run):
    return (run / "journal.jsonl").read_bytes().splitlines(keepends=True)


def checkpoints(run):
    """Numbers of the lines of the checkpoints."""
    kinds = [json.loads(line)["event"] for line in lines_of(run)]
    return [number for number, kind in enumerate(kinds, start=1) if kind in ("started", "decided")]


def replace_line(run, number, content):
    lines = lines_of(run)
    lines[number - 1] = content
    (run / "journal.jsonl").write_bytes(b"".join(lines))


def change(run, number, seal=False, **changes):
    """Change entries of a line as damage does, its checksum kept; or as an older version or a stranger wrote it."""
    event = json.loads(lines_of(run)[number - 1])
    event.pop("checksum", None)
    event |= changes
    replace_line(run, number, sealed(event) if seal else json.dumps(event).encode() + b"\n")


def contents(folder):
    """Every file below a folder, links not followed."""
    return {
        path.relative_to(folder): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


DAMAGED = [
    (b"\xff\x00\xff\n", "it is no JSON"),
    (b"[" * 100_000 + b"\n", "it is no JSON"),
    (b"[]\n", "it tells of no event"),
    (b"\n", "it is no JSON"),
    (b'{"event": "decidee"}\n', "it tells of an unknown event"),
]
ENTRIES = [
    ({"epoch": None}, "'epoch' is None, not an integer"),
    ({"epoch": True}, "'epoch' is True, not an integer"),
    ({"epoch": 10**30}, "'epoch' is too large"),
    ({"epoch": -1}, "'epoch' makes no sense"),
    ({"mpoch": 3}, "'mpoch' is not known"),
    ({"branches": "x"}, "'branches' is 'x', not a list"),
    ({"branches": []}, "'branches' makes no sense"),
    ({"branches": [["a"]]}, r"'branches\[0\]' is a list, not an integer"),
    ({"files": None}, "'files' is None, not a record"),
    ({"files": {"r0": ["0001-grow.onnx", "0" * 64]}}, "'files' makes no sense"),
    ({"files": {"1": ["../../x", "0" * 64]}}, r"'files.1' is '../../x', not the name of a branch's file"),
    ({"files": {"1": ["/etc/passwd", "0" * 64]}}, "'files.1' is '/etc/passwd', not the name of a branch's file"),
    ({"files": {"1": [3, 4]}}, r"'files.1\[0\]' is 3, not a text"),
    ({"best": 99}, "'best' makes no sense"),
    ({"next_number": 0}, "'next_number' makes no sense"),
    ({"states": {"1": 4}}, "'states.1' is 4, not a text"),
    ({"steps": "many"}, "'steps' is 'many', not an integer"),
    ({"seconds": float("nan")}, "'seconds' makes no sense"),
    ({"search": 3}, "'search' is 3, not a record"),
    ({"search": {"rhase": "grow"}}, "'search.rhase' is not known"),
    ({"search": {"phase": "gorw"}}, "'search.phase' makes no sense"),
    ({"search": {"begin": 5, "end": 2}}, "'search.end' makes no sense"),
    ({"front": [[]]}, r"'front\[0\]' is a list, not a record"),
]


@pytest.mark.parametrize(("content", "reason"), DAMAGED)
@pytest.mark.parametrize("place", [1, 2, -1])
def test_a_damaged_line_is_told_before_anything_is_given_up(content, reason, place, run, cli):
    where = range(1, len(lines_of(run)) + 1)[place]
    replace_line(run, where, content)
    before = contents(run.parent)
    code, _, err = cli("evolve", "--resume", run, "--quiet")
    assert (code, err.count("\n")) == (2, 1)
    assert f"journal.jsonl: line {where} is damaged: {reason}; the last whole checkpoint is in line " in err
    assert contents(run.parent) == before


@pytest.mark.parametrize(("changes", "reason"), ENTRIES)
def test_types_and_sense_of_a_checkpoint_are_checked(changes, reason, run):
    number = checkpoints(run)[-1]
    change(run, number, **changes)
    before = contents(run.parent)
    with pytest.raises(RunError, match=f"line {number} is damaged: {reason}"):
        resume(run)
    assert contents(run.parent) == before


@pytest.mark.parametrize("phase", [None, "settle"])
@pytest.mark.parametrize("place", [0, -1])
def test_more_branches_than_the_search_has_are_told(place, phase, run):
    number = checkpoints(run)[place]
    event = json.loads(lines_of(run)[number - 1])
    search = event["search"] if phase is None else {**event["search"], "phase": phase, "end": event["epoch"]}
    change(run, number, seal=True, branches=event["branches"] * 2, search=search)
    before = contents(run.parent)
    reason = f"line {number} is damaged: 2 branches go on from it, where this search has one"
    onward = (
        f"--from-checkpoint {checkpoints(run)[-2]} goes on from there" if place else "--from-checkpoint 0 begins anew"
    )
    with pytest.raises(RunError, match=f"{reason}; .*{onward}$"):
        resume(run, from_checkpoint=number)
    assert contents(run.parent) == before


def test_a_value_that_is_only_another_is_found_by_the_checksum(run, finished):
    number = checkpoints(run)[-1]
    line = lines_of(run)[number - 1]
    assert json.loads(line)["checksum"]
    replace_line(run, number, line.replace(b'"stale": ', b'"stale": 1', 1))
    with pytest.raises(RunError, match=f"line {number} is damaged: its checksum does not fit it"):
        resume(run)
    assert read_run(run).damaged == (number,)


TEXTS = {
    "crlf": lambda text: text.replace(b"\n", b"\r\n"),
    "cr": lambda text: text.replace(b"\n", b"\r"),
    "mixed": lambda text: text.replace(b"\n", b"\r\n", 3),
    "mark": lambda text: b"\xef\xbb\xbf" + text,
    "mark and crlf": lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"),
    "utf-16": lambda text: text.decode().replace("\n", "\r\n").encode("utf-16"),
}


@pytest.mark.parametrize("form", TEXTS)
def test_a_run_whose_texts_windows_has_rewritten_is_read_and_goes_on(form, run, finished):
    """As git does with core.autocrlf, editors with a mark of byte order, PowerShell with UTF-16."""
    for path in run.rglob("*.json*"):
        path.write_bytes(TEXTS[form](path.read_bytes()))
    assert repr(read_run(run)).replace(str(run), "") == repr(read_run(finished)).replace(str(finished), "")
    write_report(run)
    resume(run)
    upto = checkpoints(finished)[-1]
    assert lines_of(run)[:upto] == lines_of(finished)[:upto]
    assert (run / "best.onnx").read_bytes() == (finished / "best.onnx").read_bytes()


def test_damage_in_a_journal_with_other_line_ends_is_told_by_the_same_line(run):
    number = checkpoints(run)[-1]
    line = lines_of(run)[number - 1]
    replace_line(run, number, line.replace(b'"stale": ', b'"stale": 1', 1))
    journal = run / "journal.jsonl"
    journal.write_bytes(TEXTS["crlf"](journal.read_bytes()))
    with pytest.raises(RunError, match=f"line {number} is damaged: its checksum does not fit it"):
        resume(run)
    resume(run, from_checkpoint=checkpoints(run)[0])
    assert b"\r" not in journal.read_bytes()


def test_another_checkpoint_is_gone_on_from_to_the_same_bytes(run, finished, cli):
    *_, earlier, last = checkpoints(run)
    replace_line(run, last, b"?\n")
    code, _, err = cli("evolve", "--resume", run)
    assert code == 2
    assert f"(epoch {json.loads(lines_of(run)[earlier - 1])['epoch']}): --from-checkpoint {earlier} goes on" in err
    assert cli("evolve", "--resume", run, "--from-checkpoint", earlier, "--quiet")[0] == 0
    assert (run / "best.onnx").read_bytes() == (finished / "best.onnx").read_bytes()
    assert read_run(run).damaged == ()
    assert cli("evolve", "--resume", run, "--from-checkpoint", 0, "--quiet")[0] == 0
    assert (run / "best.onnx").read_bytes() == (finished / "best.onnx").read_bytes()


def test_damage_behind_the_chosen_checkpoint_is_cut_off_and_before_it_left_out(run, finished):
    last = checkpoints(run)[-1]
    replace_line(run, 2, b"?\n")
    resume(run, from_checkpoint=last)
    assert read_run(run).damaged == ()
    assert (run / "best.onnx").read_bytes() == (finished / "best.onnx").read_bytes()
    resume(run)


def test_a_checkpoint_that_is_none_is_told(run, cli):
    code, _, err = cli("evolve", "--resume", run, "--from-checkpoint", 2)
    assert (code, err.count("\n")) == (2, 1)
    assert "line 2 is no checkpoint; the last ones are in lines " in err
    assert (
        "from-checkpoint: is for a run that goes on"
        in cli("evolve", "m.onnx", "--data", "d", "--from-checkpoint", 1)[2]
    )


@pytest.mark.parametrize("content", [None, b"", b'{"event": "st'])
def test_a_journal_that_is_gone_does_not_give_up_what_was_trained(content, run):
    (run / "journal.jsonl").unlink()
    if content is not None:
        (run / "journal.jsonl").write_bytes(content)
    with pytest.raises(
        RunError, match=r"holds no checkpoint, though branches were trained; .*--from-checkpoint 0 begins"
    ):
        resume(run)


def test_a_run_without_checksums_is_still_read(run, finished):
    lines = [json.loads(line) for line in lines_of(run)]
    assert sum("checksum" in event for event in lines) == len(checkpoints(run))
    plain = [{key: value for key, value in event.items() if key != "checksum"} for event in lines]
    (run / "journal.jsonl").write_bytes(b"".join(json.dumps(event).encode() + b"\n" for event in plain))
    resume(run)
    assert (run / "best.onnx").read_bytes() == (finished / "best.onnx").read_bytes()


def test_the_report_names_damaged_lines(run, cli):
    pytest.importorskip("matplotlib")
    last = checkpoints(run)[-1]
    change(run, last, files=None)
    replace_line(run, 2, b"?\n")
    code, out, err = cli("report", run)
    assert (code, out.split()) == (2, [str(run / "report.html")])
    assert err == f"onnxsurgeon: {run}/journal.jsonl: lines 2, {last}: damaged, and left out of the report\n"


SETTINGS_DAMAGE = [
    (("settings", "epochs"), "x"),
    (("settings", "epochs"), 3.5),
    (("settings", "step_back"), 1),
    (("settings", "optimizer"), []),
    (("settings",), []),
    (("data", "name"), 4),
    (("data", "folder"), {}),
    (("data", "options"), None),
    (("data", "options", "mean"), "0"),
    (("data", "target"), "y"),
    (("data", "validation_fraction"), "0.1"),
    (("model", "file"), None),
    (("model", "size"), "large"),
    (("engine",), 1),
    (("teacher",), "t.onnx"),
    (("start", "is_trained"), "yes"),
    (("tasks",), {}),
    (("versions", "numpy"), 2),
]


@pytest.mark.parametrize(("path", "value"), SETTINGS_DAMAGE)
def test_entries_of_the_settings_are_checked_where_they_are_read(path, value, run):
    record = json.loads((run / "settings.json").read_text())
    place = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (run / "settings.json").write_text(json.dumps(record))
    before = contents(run.parent)
    named = r"\.".join(path)
    for read in (resume, write_report):
        with pytest.raises(RunError, match=rf"settings.json: lacks or misnames an entry: '{named}"):
            read(run)
    assert contents(run.parent) == before


OUTSIDE = ["../../x", "../../../outside/secret.onnx", "/etc/passwd", "..", "a/b.onnx", "0001-grow.onnx\0", "x" * 5000]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("seal", [False, True])
def test_a_journal_that_names_a_file_outside_is_refused(name, seal, run):
    number = checkpoints(run)[-1]
    front = json.loads(lines_of(run)[number - 1])["front"]
    change(run, number, seal, front=[front[0] | {"file": name}, *front[1:]])
    before = contents(run.parent.parent)
    with pytest.raises(RunError, match=rf"line {number} is damaged: 'front\[0\]\.file'"):
        resume(run)
    assert contents(run.parent.parent) == before


def test_a_branch_file_that_was_exchanged_is_not_copied_to_the_front(run):
    number = checkpoints(run)[-1]
    event = json.loads(lines_of(run)[number - 1])
    entry = next(each for each in event["front"] if str(each["branch"]) not in event["files"])
    (run / "branches" / entry["file"]).write_bytes((run / "branches" / "0000-start.onnx").read_bytes() + b"\x80")
    with pytest.raises(RunError, match=f"{entry['file']}: was changed since the run wrote it"):
        resume(run)
    (run / "branches" / entry["file"]).unlink()
    with pytest.raises(RunError, match=f"{entry['file']}: is gone"):
        resume(run)


def test_a_given_model_that_was_exchanged_is_told(run, finished):
    save(create((6, 8, 2), seed=2), run / "branches" / "0000-start.onnx", overwrite=True)
    with pytest.raises(RunError, match=r"0000-start\.onnx: was changed since the run wrote it"):
        resume(run)


LINKS = [
    *("journal.jsonl", "settings.json", "best.onnx", "report.html", "front", "branches", "plots", "teacher"),
    *("tensorboard", "branches/0001-*.onnx", "branches/0000-start.onnx", "branches/0009-x.artifacts", "front/*.onnx"),
    *("best.onnx.more", "mlflow.json"),
]


@pytest.mark.parametrize("name", LINKS)
def test_links_in_a_run_are_refused_and_what_they_point_to_is_left_alone(name, run):
    outside = run.parent.parent / "outside"
    place = next(iter(run.glob(name)), run / name.replace("*", "x"))
    place.parent.mkdir(exist_ok=True)
    if place.is_dir():
        shutil.copytree(place, outside)
        shutil.rmtree(place)
    elif place.exists():
        shutil.copy(place, outside)
        place.unlink()
    else:
        outside.mkdir()
    place.symlink_to(outside)
    before = contents(run.parent.parent)
    for use in (resume, write_report, write_plots, read_run, lambda run: diff(f"{run}#0", run)):
        with pytest.raises(RunError, match=r"is a link; expected a .* of the run's own"):
            use(run)
    assert contents(run.parent.parent) == before


def test_external_data_of_a_branch_belongs_to_its_digest(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 16)).astype("f")
    np.savez(tmp_path / "data.npz", x=x, y=(x[:, 0] > 0).astype(int))
    parts = to_parts(create((16, 128, 2), seed=1))
    write_parts(type(parts)(parts.skeleton, parts.arrays, True, parts.headers), tmp_path / "model.onnx")
    assert read_parts(tmp_path / "model.onnx").external
    settings = SurgeonSettings(epochs=2, seed=3)
    run = evolve(tmp_path / "model.onnx", str(tmp_path / "data.npz"), settings=settings, run_dir=tmp_path / "run").run
    event = json.loads(lines_of(run)[checkpoints(run)[-1] - 1])
    name, digest = event["files"][str(event["best"])]
    assert digest != file_digest(run / "branches" / name)
    (data,) = (run / "branches").glob(f"{name}*.data")
    kept = data.read_bytes()
    data.write_bytes(kept[:-4] + bytes(4))
    with pytest.raises(RunError, match=f"{name}: was changed since the run wrote it"):
        resume(run)
    data.write_bytes(kept)
    change(run, checkpoints(run)[-1], files={str(event["best"]): [name, file_digest(run / "branches" / name)]})
    resume(run)  # an earlier version's digests left external data out
    (run / "elsewhere").write_bytes(kept)
    data.unlink()
    data.symlink_to("../elsewhere")
    with pytest.raises(RunError, match="is a link"):
        resume(run)


def test_what_is_no_file_is_told(run):
    os.mkfifo(run / "fifo")
    for name in ("journal.jsonl", "branches/0000-start.onnx"):
        kept = (run / name).read_bytes()
        (run / name).unlink()
        os.mkfifo(run / name)
        with pytest.raises(RunError, match=r"no regular file|is gone"):
            resume(run)
        (run / name).unlink()
        (run / name).write_bytes(kept)
    for name in ("journal.jsonl", "settings.json"):
        kept = (run / name).read_bytes()
        (run / name).unlink()
        (run / name).mkdir()
        with pytest.raises(RunError, match=r"no regular file|not a run directory"):
            resume(run)
        (run / name).rmdir()
        (run / name).write_bytes(kept)
    resume(run)


def test_a_leftover_in_the_place_of_a_temporary_file_is_not_followed(run, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("kept")
    from onnxsurgeon.graph.files.atomic import temporary_beside

    temporary_beside(run / "best.onnx").symlink_to(outside)
    RunDirectory.open(run).write_best("0000-start.onnx")
    assert outside.read_text() == "kept"
    assert not (run / "best.onnx").is_symlink()


@pytest.mark.parametrize("damage", ["compressed", "header", "pickle"])
def test_a_state_that_could_become_anything_is_not_read(damage, run):
    path = next(run.glob("branches/*.state.npz"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if damage == "compressed" else zipfile.ZIP_STORED) as archive:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }" % (10**15 if damage == "header" else 10)
        if damage == "pickle":
            header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
        padded = header.ljust(117) + b"\n"
        archive.writestr("steps.npy", b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + bytes(40))
    with pytest.raises(RunError, match="holds no optimizer's state"):
        read_branch(path.with_name(path.name.replace(".state.npz", ".onnx")))


def test_a_branch_without_measurements_or_under_another_name_is_not_gone_on_from(run):
    number = checkpoints(run)[-1]
    event = json.loads(lines_of(run)[number - 1])
    name = event["files"][str(event["best"])][0]
    path = run / "branches" / name
    for key, value, reason in (
        ("history", "[]", "is another branch's file"),
        ("branch", "0", "is another branch's file"),
        ("surgery", "../../x:1", "carries no branch's metadata"),
        ("history", "[4]", "carries no branch's metadata"),
        ("lineage", "{}", "carries no branch's metadata"),
        ("branch", "-1", "carries no branch's metadata"),
    ):
        kept = path.read_bytes()
        model = onnx.load(path)
        next(entry for entry in model.metadata_props if entry.key == f"onnxsurgeon.{key}").value = value
        path.write_bytes(model.SerializeToString())
        files = event["files"] | {str(event["best"]): [name, file_digest(path)]}
        front = [each | {"digest": file_digest(path)} if each["file"] == name else each for each in event["front"]]
        change(run, number, True, files=files, front=front)
        with pytest.raises(RunError, match=reason):
            resume(run)
        path.write_bytes(kept)


def test_a_branch_is_told_by_one_file(tmp_path):
    for name in ("0003-widen.onnx", "0012-widen.onnx"):
        (tmp_path / name).touch()
    assert file_of(tmp_path, 3) == tmp_path / "0003-widen.onnx"
    with pytest.raises(RunError, match="the file of branch 4 is gone; the run cannot be resumed"):
        file_of(tmp_path, 4)
    (tmp_path / "0003-prune.onnx").touch()
    with pytest.raises(RunError, match=r"branch 3 has several files, '0003-prune.onnx', '0003-widen.onnx'; the run"):
        file_of(tmp_path, 3)


def test_a_journal_larger_than_any_run_makes_is_refused_before_it_is_read(tmp_path):
    """Three gigabytes of zeros, which take no place on the disk: they were read whole, and more than once."""
    run = tmp_path / "run"
    (run / "branches").mkdir(parents=True)
    (run / "settings.json").write_text("{}")
    (run / "journal.jsonl").touch()
    os.truncate(run / "journal.jsonl", 3 * 2**30)
    with pytest.raises(RunError, match=r"journal\.jsonl: 3,221,225,472 bytes are more than such a file has"):
        RunDirectory.open(run).lines()
    with pytest.raises(RunError, match=r"journal\.jsonl: 3,221,225,472 bytes are more than such a file has"):
        repr(read_run(run))
