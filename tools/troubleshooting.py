"""Write the tables of docs/troubleshooting.md anew, from onnxsurgeon/refusals.toml.

    python tools/troubleshooting.py

What stands between the tables is the page's own, and stays.
"""

from __future__ import annotations

import re
from pathlib import Path

from onnxsurgeon.refusals import Refusal, refusals

PAGE = Path(__file__).resolve().parent.parent / "docs" / "troubleshooting.md"
TABLE = re.compile(r"(<!-- refusals ([A-Z]) -->\n\n).*?(<!-- end -->)", re.DOTALL)
HEADINGS = ("code", "what is said", "what it means", "cure")


def main() -> None:
    """Write the page."""
    PAGE.write_text(with_tables(PAGE.read_text()))
    print(PAGE)


def with_tables(page: str) -> str:
    """The page, its tables made anew."""
    return TABLE.sub(lambda found: f"{found[1]}{table(found[2])}\n{found[3]}", page)


def table(letter: str) -> str:
    """The table of the codes that begin with a letter."""
    rows = [row(entry) for entry in refusals().values() if entry.code.startswith(letter)]
    lines = [HEADINGS, ("---",) * len(HEADINGS), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def row(entry: Refusal) -> tuple[str, ...]:
    """An entry's cells; links to it lead to its code."""
    said = ", ".join(f"`{text}`" for text in entry.says)
    named = f"**{entry.heading}**" + (f": {said}" if said else "")
    return f'<a id="{entry.code}"></a>{entry.code}', named, entry.means, entry.cure


if __name__ == "__main__":
    main()
