"""The page: the contents of a run, put into the template beside this file."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from onnxsurgeon.printable import without_controls
from onnxsurgeon.report.choice import choices
from onnxsurgeon.report.deployment import snippets
from onnxsurgeon.report.headline import headline
from onnxsurgeon.report.invocation import Invocation, read_invocation
from onnxsurgeon.report.pictures import MOST, others, page_key, page_pictures
from onnxsurgeon.report.pictures.outcome import DRAWN
from onnxsurgeon.report.pictures.style import Scene
from onnxsurgeon.report.scene import make_scene
from onnxsurgeon.runs.branch import START
from onnxsurgeon.runs.family import History, Member
from onnxsurgeon.runs.history import RECUPERATED, TRAINED, read_history
from onnxsurgeon.runs.journal import RunDirectory
from onnxsurgeon.runs.predictions import Classes, Labels, Values

NOTHING = "–"
_MISTAKES = 10  # of a confusion matrix, named one by one


def render(run: RunDirectory) -> str:
    """The page about ``run``, complete in itself: nothing is loaded from elsewhere, and all of it works without script.

    Raises:
        RunError: settings.json is damaged.
    """
    invocation = read_invocation(run)
    history = read_history(run)
    scene = make_scene(history, invocation)
    script = resources.files("onnxsurgeon.report").joinpath("report.js").read_text(encoding="utf-8")
    return without_controls(
        environment()
        .get_template("report.html.jinja")
        .render(
            invocation=invocation,
            history=history,
            scene=scene,
            metric=invocation.metric,
            accuracy_name=scene.accuracy_name,
            given=history.members.get(0),
            result=_result(history),
            has_best=run.best.is_file(),
            last=history.decisions[-1] if history.decisions else None,
            surgeries=[member.surgery for member in history.lineage() if member.operation not in (START, "identity")],
            groups=_groups(history),
            headline=headline(history, invocation, scene.accuracy_name),
            choices=choices(history, run.path),
            snippets=snippets(run.best) if history.finish else [],
            status=status(run, history, invocation),
            pictures=_pictures(scene),
            key=[(name, words, Markup(svg)) for name, words, svg in page_key(scene)],
            sketched=(min(MOST, len(others(scene))), len(others(scene))),
            outcomes=[_outcome(each) for each in scene.predictions],
            resume=shlex.join(["onnxsurgeon", "evolve", "--resume", str(run.path)]),
            script=Markup(script),
            script_hash=_hash(script),
            RECUPERATED=RECUPERATED,
            TRAINED=TRAINED,
        )
    )


@cache
def environment() -> Environment:
    """The environment of the pages' templates: everything is escaped, and numbers are spelled."""
    environment = Environment(
        loader=PackageLoader("onnxsurgeon.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "fixed": fixed,
        "signed": _signed,
        "thousands": _thousands,
        "plain": _plain,
        "capitalised": _capitalised,
        "breakable": _breakable,
    }
    return environment


def _hash(script: str) -> str:
    """The hash by which the content security policy knows the script; no other script on the page may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _result(history: History) -> Member | None:
    return None if history.result is None else history.members.get(history.result)


def status(run: RunDirectory, history: History, invocation: Invocation) -> str:
    """The state of the run, in words."""
    if history.finish is not None:
        return "Finished"
    if not history.decisions:
        return "Not finished: nothing is decided yet"
    reached = f"Not finished: at epoch {_plain(history.decisions[-1].epoch)} of {invocation.value('epochs')}"
    written = datetime.fromtimestamp(run.journal.stat().st_mtime, UTC)
    return f"{reached}, journal last written {written:%Y-%m-%d %H:%M} UTC"


def _groups(history: History) -> list[tuple[str, list[Member]]]:
    """The family by decision point and draw, each with its heading."""
    members = sorted(history.members.values(), key=_order)
    groups = []
    for (later, epoch, draw), group in groupby(members, key=lambda member: _order(member)[:3]):
        heading = "Given" if not later else f"At epoch {_plain(epoch)}" + (f", redraw {draw}" if draw else "")
        groups.append((heading, list(group)))
    return groups


def _order(member: Member) -> tuple[bool, float, int, int]:
    return member.surgery != START, member.epoch, member.draw, member.number


def _pictures(scene: Scene) -> dict[str, Markup]:
    """The pictures by name; none where nothing was measured."""
    titles = {number: _title(scene, member) for number, member in scene.history.members.items()}
    return {name: Markup(svg) for name, svg in page_pictures(scene, titles).items()}


def _title(scene: Scene, member: Member) -> str:
    """What is known about a branch, for the card at its marks; one fact a line."""
    came = "" if member.parent is None else f" from {member.parent}"
    lines = [f"branch {member.number}: {member.surgery or 'surgery not known'}{came}"]
    if member.topology:
        size = "" if member.parameters is None else f", {_thousands(member.parameters)} parameters"
        lines.append(f"{member.topology}{size}")
    if member.latest is not None:
        gain = "" if member.gain is None else f", gain {_signed(member.gain)}"
        lines.append(f"{scene.accuracy_name} {fixed(member.latest.accuracy)}{gain}")
    if member.score is not None:
        lines.append(f"score {fixed(member.score)}")
    return "\n".join([*lines, scene.history.fate(member)])


def _outcome(predictions: Classes | Labels | Values) -> dict[str, object]:
    """The texts beside the picture of a head's predictions."""
    if isinstance(predictions, Labels):
        names = [*predictions.names, *map(str, range(len(predictions.names), len(predictions.counts)))]
        return {"kind": "labels", "rows": list(zip(names, predictions.counts, strict=False))}
    if isinstance(predictions, Values):
        return {"kind": "values", "rows": len(predictions.targets[0]) if predictions.targets else 0}
    wrong = [(predictions.name(true), predictions.name(told), rows) for true, told, rows in predictions.mistakes]
    drawn = predictions.count <= DRAWN
    return {
        "kind": "classes",
        "drawn": drawn,
        "classes": predictions.count,
        "mistakes": wrong[:_MISTAKES],
        "recalls": _recalls(predictions),
    }


def _recalls(classes: Classes) -> list[tuple[str, int, int, float]]:
    """For each class its name, its rows, how many of them are predicted right, and the share of those.

    It is empty where the journal holds only the mistakes, as for very many classes.
    """
    totals, right = Counter[int](), Counter[int]()
    for true, told, rows in classes.cells:
        totals[true] += rows
        right[true] += rows if true == told else 0
    if not any(right.values()):
        return []
    return [(classes.name(each), totals[each], right[each], right[each] / totals[each]) for each in sorted(totals)]


def fixed(value: float | None, places: int = 4) -> str:
    """A number with that many places and a true minus sign; a dash where there is none."""
    return NOTHING if value is None else f"{value:.{places}f}".replace("-", "−")


def _signed(value: float | None, places: int = 4) -> str:
    return NOTHING if value is None else f"{value:+.{places}f}".replace("-", "−")


def _thousands(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def _plain(value: float) -> str:
    """A number without needless digits: epochs are whole except for those right after a surgery."""
    return f"{value:g}"


def _capitalised(text: str) -> str:
    """The text with a capital at its beginning, unless that is a file's name."""
    return text if "." in text.partition(" ")[0] else text[:1].upper() + text[1:]


def _breakable(topology: str) -> Markup:
    """A topology that may be broken behind each part, not inside a number."""
    return Markup("").join(Markup("{}<wbr>").format(part) for part in re.split(r"(?<=[-+])", topology))
