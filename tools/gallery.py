"""Take the pictures of docs/gallery.md anew, and docs/report.png, which is one of them.

    python tools/gallery.py                 # all of them: some two minutes
    python tools/gallery.py front           # those whose names have this in them

Each section of the page is worked through in an empty folder of its own. Its last command prints the path of a page,
whose head is taken as its pictures' names say: -dark is dark, -phone is 390 pixels wide; where the page has a section
of that name, such as front, this is what is taken. Needs the extras report, data and dev, and a Chromium.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reprint import BLOCK, COMMAND, run

if TYPE_CHECKING:
    from playwright.sync_api import ViewportSize

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "gallery.md"
PICTURE = re.compile(r"!\[[^]]*\]\(([\w/-]+\.png)\)")
DESKTOP: ViewportSize = {"width": 1280, "height": 860}
PHONE: ViewportSize = {"width": 390, "height": 844}
COLOURS = 128  # of a picture's palette: a page has few


@dataclass(frozen=True)
class Section:
    """A section of the page: what is run, and the pictures below it, by their paths from docs/."""

    commands: tuple[str, ...]
    pictures: tuple[str, ...]


def main() -> None:
    """Take the pictures that are named, or all."""
    names = sys.argv[1:]
    for section in sections():
        wanted = [picture for picture in section.pictures if not names or any(name in picture for name in names)]
        if wanted:
            with tempfile.TemporaryDirectory() as name:
                page = shown(section, Path(name))
                for picture in wanted:
                    take(page, DOCS / picture)
                    print(f"{picture}: {(DOCS / picture).stat().st_size:,} bytes", flush=True)


def sections() -> Iterator[Section]:
    """What the page shows."""
    for text in PAGE.read_text().split("\n## ")[1:]:
        lines = [
            line
            for language, _, body in BLOCK.findall(text)
            if language == "console"
            for line, _ in COMMAND.findall(body)
        ]
        yield Section(tuple(lines), tuple(PICTURE.findall(text)))


def shown(section: Section, folder: Path) -> Path:
    """The page that a section's commands come to.

    Raises:
        SystemExit: a command failed.
    """
    printed: list[str] = []
    for line in section.commands:
        printed = run(line, folder)
    return folder / printed[-1]


def take(page: Path, picture: Path) -> None:
    """A picture of the page's head, or of the section that the picture is called after."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    is_phone = picture.stem.endswith("-phone")
    with sync_playwright() as playwright:
        # --no-sandbox: for root, Chromium's sandbox does not start.
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(
            viewport=PHONE if is_phone else DESKTOP,
            device_scale_factor=2 if is_phone else 1,
            color_scheme="dark" if "-dark" in picture.stem else "light",
        )
        tab.goto(page.as_uri())
        section = tab.locator(f"h2#{picture.stem.partition('-')[0]}")
        if section.count():
            section.evaluate("each => each.scrollIntoView()")
        content = tab.screenshot(animations="disabled")
        browser.close()
    image = Image.open(io.BytesIO(content)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.parent.mkdir(exist_ok=True)
    image.save(picture, optimize=True)


if __name__ == "__main__":
    main()
