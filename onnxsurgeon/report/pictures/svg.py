"""A figure as an <svg> element of a page, whose marks are links, or as a file of its own."""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.text import Text

from onnxsurgeon.printable import without_controls
from onnxsurgeon.report.pictures.style import INK

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_REFERENCE = re.compile(r"url\(#([^)]*)\)")
_LONG = re.compile(r"(\d+\.\d\d)\d+")
_NOTHING = {"Date": None, "Creator": None, "Format": None, "Type": None}


def page_svg(figure: Figure, picture: str, titles: Mapping[int, str], label: str = "") -> str:
    """The figure as an element whose ids start with ``picture``, so that several can share a page.

    Parts called "mark-N" become links to the row of branch N, with the text in ``titles``; parts called "trail-N" (its
    lines, its name) belong to it as well. ``label`` describes the picture for those who do not see it.
    """
    root = ET.fromstring(_saved(figure, "svg"))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):  # the latter would style the whole page
                parent.remove(child)
    for element in root.iter():
        _name(element, picture, titles)
        for key, value in list(element.attrib.items()):
            if key == f"{_XLINK}href":
                del element.attrib[key]
                element.set("href", f"#{picture}-{value[1:]}")
            elif key != "href":
                value = _REFERENCE.sub(rf"url(#{picture}-\1)", value).replace(INK, "currentColor")
                element.set(key, value if key == "id" else _LONG.sub(r"\1", value))
    for key in ("width", "height"):
        root.attrib.pop(key, None)
    root.set("class", "picture")
    root.set("style", f"--points: {figure.get_figwidth() * 72:.0f}")  # so that a wide one is scrolled, not shrunk
    root.attrib |= {"role": "group", "aria-label": label} if label else {"aria-hidden": "true"}
    ET.register_namespace("", _SVG[1:-1])
    return ET.tostring(root, encoding="unicode")


def file_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as the content of a file, "svg" or "png", on white."""
    return _saved(figure, kind, facecolor="white", **({"dpi": 200} if kind == "png" else {}))


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    metadata = _NOTHING if kind == "svg" else {"Software": None}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # names may be written in any script
        for text in figure.findobj(Text):
            text.set_text(without_controls(text.get_text()))  # XML has no way to write most of them
        if figure.get_layout_engine() is not None:
            # The layout of a first drawing is made before the final ticks are known.
            figure.draw_without_rendering()
        figure.savefig(buffer, format=kind, transparent=not options, metadata=metadata, **options)
    return buffer.getvalue()


def _name(element: ET.Element, picture: str, titles: Mapping[int, str]) -> None:
    """Mark an element as a branch's, or leave it an id only where others refer to it."""
    own = element.attrib.pop("id", "")
    kind, _, number = own.partition("-")
    if kind in ("mark", "trail") and number.isdigit():
        element.attrib |= {"class": kind, "data-branch": number}
        if kind == "mark":
            element.tag = f"{_SVG}a"
            element.set("href", f"#branch-{number}")
            title = ET.Element(f"{_SVG}title")
            title.text = titles.get(int(number), "")
            element.insert(0, title)
    elif own and element.tag != f"{_SVG}g":
        element.set("id", f"{picture}-{own}")
