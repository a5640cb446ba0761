"""The page: what a run tells, put into the template beside this file."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from functools import cache
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from onnxsurgeon.report.history import RECUPERATED, TRAINED, History, Member, read_history
from onnxsurgeon.report.invocation import Invocation, read_invocation
from onnxsurgeon.report.pictures import accuracy_picture, size_picture
from onnxsurgeon.surgeon.branch import START
from onnxsurgeon.surgeon.journal import RunDirectory

NOTHING = "–"


def render(run: RunDirectory) -> str:
    """The page about ``run``, complete in itself: no script, nothing loaded from elsewhere.

    Raises:
        RunError: settings.json is damaged.
    """
    invocation = read_invocation(run)
    history = read_history(run)
    metric = invocation.metric
    accuracy_name = f"test {metric}" if invocation.value("validation") == "test" else f"held-out {metric}"
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            invocation=invocation,
            history=history,
            metric=metric,
            accuracy_name=accuracy_name,
            given=history.members.get(0),
            result=_result(history),
            has_best=run.best.is_file(),
            last=history.decisions[-1] if history.decisions else None,
            surgeries=[member.surgery for member in history.lineage() if member.operation not in (START, "identity")],
            groups=_groups(history),
            status=_status(run, history, invocation),
            pictures=_pictures(history, accuracy_name),
            resume=shlex.join(["onnxsurgeon", "evolve", "--resume", str(run.path)]),
            RECUPERATED=RECUPERATED,
            TRAINED=TRAINED,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("onnxsurgeon.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"fixed": _fixed, "signed": _signed, "thousands": _thousands, "plain": _plain}
    return environment


def _result(history: History) -> Member | None:
    return None if history.result is None else history.members.get(history.result)


def _status(run: RunDirectory, history: History, invocation: Invocation) -> str:
    """How far the run is, in words."""
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


def _pictures(history: History, accuracy_name: str) -> dict[str, Markup]:
    """The pictures by name; none where nothing was measured.

    They hold no text from outside, and are safe as they are.
    """
    if not any(member.points for member in history.members.values()):
        return {}
    return {
        "accuracy": Markup(accuracy_picture(history, accuracy_name)),
        "size": Markup(size_picture(history, accuracy_name)),
    }


def _fixed(value: float | None, places: int = 4) -> str:
    return NOTHING if value is None else f"{value:.{places}f}".replace("-", "−")


def _signed(value: float | None, places: int = 4) -> str:
    return NOTHING if value is None else f"{value:+.{places}f}".replace("-", "−")


def _thousands(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def _plain(value: float) -> str:
    """A number without needless digits: epochs are whole but for those right after a surgery."""
    return f"{value:g}"
