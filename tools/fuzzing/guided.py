"""The same pipeline under atheris, which lets coverage choose the mutations."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path


def guided(folder: Path) -> int:
    """Run atheris until it finds a bug or is interrupted; inputs that reach new code are added to ``folder``."""
    try:
        import atheris
    except ImportError:
        print("atheris is not installed: pip install atheris (CPython 3.11 and later, Linux)", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["onnxsurgeon"]):
        from fuzzing.corpus import corpus
        from fuzzing.pipeline import furnish, run_input

    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(corpus()):
        (folder / f"model-{number:02d}").write_bytes(content)
    with tempfile.TemporaryDirectory() as name:
        furnish(Path(name))

        def target(content: bytes) -> None:
            ending = run_input(content, Path(name))
            if ending.kind == "BUG":
                raise RuntimeError(ending.what)

        atheris.Setup([sys.argv[0], str(folder), "-timeout=10", "-rss_limit_mb=2048"], target)
        atheris.Fuzz()
    return 0
