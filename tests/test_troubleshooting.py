"""The page on refusals quotes messages that exist, and what it links to."""

import re

import onnxsurgeon
from tests.conftest import MODELS

PAGE = (MODELS.parent / "docs" / "troubleshooting.md").read_text()
ROWS = re.findall(r"^\| (.*?) \| (.*?) \| (.*?) \|$", PAGE.replace("|median|", "/median/"), re.MULTILINE)


def source():
    """The package's text, with strings that go on in the next line put together."""
    package = MODELS.parent / "onnxsurgeon"
    whole = "\n".join(path.read_text() for path in sorted(package.rglob("*.py")))
    return re.sub(r'"\s*\n\s*f?"', "", whole)


def test_every_message_that_is_quoted_is_one():
    code, quoted = source(), [row[0].strip("`") for row in ROWS if row[0].startswith("`")]
    assert len(quoted) >= 35
    missing = [text for text in quoted for part in text.split(" … ") if part.strip("… ") not in code]
    assert missing == []


def test_the_cure_is_said_of_each():
    assert all(cure.strip() for _, _, cure in ROWS)
    assert issubclass(onnxsurgeon.ModelError, onnxsurgeon.OnnxSurgeonError)
