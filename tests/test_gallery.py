"""The gallery of reports: its pictures are there, small, and as large as the tool takes them."""

import struct

import gallery
import pytest

SECTIONS = list(gallery.sections())
PICTURES = [picture for section in SECTIONS for picture in section.pictures]


def test_every_section_says_how_its_pictures_came_about():
    assert len(SECTIONS) >= 4
    for section in SECTIONS:
        assert section.pictures
        assert all(command.startswith("onnxsurgeon ") for command in section.commands)
        assert section.commands[-1].startswith("onnxsurgeon report ")  # which prints the page's path


def test_every_picture_is_of_the_page():
    taken = {path.relative_to(gallery.DOCS).as_posix() for path in (gallery.DOCS / "gallery").iterdir()}
    assert taken | {"report.png"} == set(PICTURES)
    assert len(set(PICTURES)) == len(PICTURES)


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_is_small_and_as_it_is_taken(picture):
    content = (gallery.DOCS / picture).read_bytes()
    assert len(content) < 300_000
    size = gallery.PHONE if picture.endswith("-phone.png") else gallery.DESKTOP
    scale = 2 if picture.endswith("-phone.png") else 1
    assert struct.unpack(">II", content[16:24]) == (scale * size["width"], scale * size["height"])
