"""Build the site of docs/ into site/, warnings as errors.

    python tools/build_docs.py

The reference of the command line is written by Typer from the commands themselves, and the changelog is the one at the
top of the repository; neither is kept in docs/.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS, SITE = ROOT / "docs", ROOT / "site"


def main() -> int:
    """Build; returns the exit code: 1 where anything was warned of."""
    shutil.copyfile(ROOT / "CHANGELOG.md", DOCS / "changelog.md")
    (DOCS / "commands.md").write_text(commands())
    shutil.rmtree(SITE, ignore_errors=True)
    build = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(build, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout, end="")
    shutil.rmtree(SITE / "demo", ignore_errors=True)  # sources of a page that `make demo-page` builds
    faults = warnings(done.stdout)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return int(bool(done.returncode or faults))


def commands() -> str:
    """The commands, as Typer describes them in Markdown."""
    typer = [sys.executable, "-m", "typer", "onnxsurgeon.cli", "utils", "docs", "--name", "onnxsurgeon"]
    text = subprocess.run([*typer, "--title", "Commands"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    text = re.sub(r"^(Examples?): (.*)$", _example, text, flags=re.MULTILINE)
    # In the list at the top, Typer cuts descriptions off: take those of the sections below.
    whole = dict(re.findall(r"^#+ `onnxsurgeon ((?:\w+ )*\w+)`\n\n(.*)", text, flags=re.MULTILINE))
    return _in_lists(text, whole)


def _in_lists(text: str, whole: dict[str, str]) -> str:
    group, lines = "", []
    for line in text.splitlines():
        if heading := re.match(r"#+ `onnxsurgeon (.+)`", line):
            group = f"{heading[1]} "
        if (entry := re.match(r"\* `(\w+)`: ", line)) and group + entry[1] in whole:
            name = group + entry[1]
            line = f"* [`{entry[1]}`](#onnxsurgeon-{name.replace(' ', '-')}): {whole[name]}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _example(match: re.Match[str]) -> str:
    lines = match[2].split("; ")
    return f"{match[1]}:\n\n```console\n" + "".join(f"$ {line}\n" for line in lines) + "```"


def warnings(output: str) -> list[str]:
    """What mkdocstrings and its parser of docstrings warned of: Zensical's strict mode knows only its own warnings."""
    return [line for line in output.splitlines() if line.startswith(("griffe:", "mkdocstrings:"))]


if __name__ == "__main__":
    sys.exit(main())
