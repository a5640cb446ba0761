"""The model file that a path stands for: a model, a run, or a branch of a run."""

from __future__ import annotations

import os
import re
from pathlib import Path

from onnxsurgeon.errors import RunError
from onnxsurgeon.runs.journal import RunDirectory

_BRANCH_FILE = re.compile(r"(\d{4,})-[a-z_]+\.onnx")
_BRANCH_OF_RUN = re.compile(r"(.+)#(\d+)")


def model_file(path: str | os.PathLike[str], branch: int | None = None) -> Path:
    """The model file that ``path`` stands for.

    Args:
        path: a model file; a run directory, for its best.onnx; or RUN#7, for that run's branch 7.
        branch: number of a branch of the run at ``path``.

    Raises:
        RunError: the run has no such branch, or no best.onnx yet; the path is a folder but no run, or, with a branch
            asked for, no run.
    """
    try:
        return _model_file(path, branch)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}", "cannot-read") from error


def _model_file(path: str | os.PathLike[str], branch: int | None) -> Path:
    given = Path(path)
    suffix = _BRANCH_OF_RUN.fullmatch(str(path))
    if suffix and not given.exists():
        if branch is not None:
            raise RunError(f"{path}: names a branch already; --branch {branch} asks for another", "no-such-branch")
        given, branch = Path(suffix[1]), int(suffix[2])
    if branch is None and not given.is_dir():
        return given
    if not given.is_dir():
        raise RunError(
            f"{given}: {'is a file' if given.exists() else 'no such folder'}; only a run has branches", "not-a-run"
        )
    run = RunDirectory.open(given)
    files = branch_files(run)
    if branch is None:
        if not run.best.is_file():
            raise RunError(f"{given}: has no best.onnx yet; it has {_listed(files)}", "no-such-branch")
        return run.best
    if branch not in files:
        raise RunError(f"{given}: has no branch {branch}; it has {_listed(files)}", "no-such-branch")
    return files[branch]


def branch_files(run: RunDirectory) -> dict[int, Path]:
    """The run's branch files by the branch's number, ascending."""
    found = ((_BRANCH_FILE.fullmatch(path.name), path) for path in run.branches.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def _listed(numbers: dict[int, Path]) -> str:
    """Spell numbers, such as "branches 0 to 3, 7"."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][-1] == number - 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    texts = [str(span[0]) if len(span) == 1 else f"{span[0]} to {span[1]}" for span in spans]
    return f"branch{'es' if len(numbers) > 1 else ''} {', '.join(texts)}" if texts else "no branches"
