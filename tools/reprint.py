"""Run the commands that pages show, and put what they print now in the places of what is there.

    python tools/reprint.py README.md docs/tutorial/scikit-learn.md

Each page is worked through in an empty folder of its own, with the repository's models/ in it. A page's scripts are
written there first. A line … stands for lines that are left out; as many as are shown before and after it stay.
Tutorials need the extra ``tutorial``.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
LEFT_OUT = "…"
COLUMNS = "100"


def main() -> None:
    """Reprint the pages that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    for page in parser.parse_args().pages:
        page.write_text(reprinted(page.read_text()))
        print(page)


def reprinted(text: str) -> str:
    """The page with fresh output.

    Raises:
        SystemExit: a command failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models").symlink_to(ROOT / "models")

        def block(match: re.Match[str]) -> str:
            language, title, body = match.groups()
            if title:
                (folder / title).write_text(body)
            if language != "console":
                return match[0]
            return f"```console\n{COMMAND.sub(lambda found: command(found[1], found[2], folder), body)}```"

        return BLOCK.sub(block, text)


def command(line: str, shown: str, folder: Path) -> str:
    """A command with what it prints."""
    printed, before = run(line, folder), shown.splitlines()
    if LEFT_OUT in before:
        at = before.index(LEFT_OUT)
        behind = len(before) - at - 1
        printed = [*printed[:at], LEFT_OUT, *printed[len(printed) - behind :]]
    return "\n".join([f"$ {line}", *printed]) + "\n"


def run(line: str, folder: Path) -> list[str]:
    """The lines that a command prints.

    Raises:
        SystemExit: it failed, or is none of those that pages may show.
    """
    program, *arguments = shlex.split(line)
    if program not in ("python", "onnxsurgeon"):
        raise SystemExit(f"{line}: expected python or onnxsurgeon")
    done = subprocess.run(
        [sys.executable, *(arguments if program == "python" else ["-m", program, *arguments])],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": COLUMNS, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        raise SystemExit(f"{line}: {done.stderr.strip()}")
    return [text.rstrip() for text in done.stdout.splitlines()]


if __name__ == "__main__":
    main()
