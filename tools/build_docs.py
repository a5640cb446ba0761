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
    """Build; returns the exit code: 1 where anything was warned of or left unresolved."""
    shutil.copyfile(ROOT / "CHANGELOG.md", DOCS / "changelog.md")
    (DOCS / "commands.md").write_text(commands())
    shutil.rmtree(SITE, ignore_errors=True)
    # A module, not the script beside the interpreter: both must be of this environment.
    build = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(build, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout, end="")
    faults = warnings(done.stdout) + unresolved(SITE)
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return int(bool(done.returncode or faults))


def commands() -> str:
    """The commands, as Typer describes them in Markdown."""
    typer = [sys.executable, "-m", "typer", "onnxsurgeon.cli", "utils", "docs", "--name", "onnxsurgeon"]
    text = subprocess.run([*typer, "--title", "Commands"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return re.sub(r"^(Examples?): (.*)$", _example, text, flags=re.MULTILINE)


def _example(match: re.Match[str]) -> str:
    lines = match[2].split("; ")
    return f"{match[1]}:\n\n```console\n" + "".join(f"$ {line}\n" for line in lines) + "```"


def warnings(output: str) -> list[str]:
    """What mkdocstrings and its parser of docstrings warned of: Zensical's strict mode knows only its own warnings."""
    return [line for line in output.splitlines() if re.search(r"\b(warning|error)\b", line, re.IGNORECASE)]


def unresolved(site: Path) -> list[str]:
    """Cross references that came to nothing."""
    found = []
    for page in sorted(site.rglob("*.html")):
        text = page.read_text()
        found += [f"{page.relative_to(site)}: unresolved {tag}" for tag in re.findall(r"<autoref[^>]*>", text)]
    return found


if __name__ == "__main__":
    sys.exit(main())
