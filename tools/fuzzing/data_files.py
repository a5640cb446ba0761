"""Damaged data files: tables, arrays and images must end in a result or a named error, in bounded memory and time."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzzing.pipeline import Ending, judged
from onnxsurgeon import InputOptions, Network, create, evaluate

COLUMNS, SIDE, ROWS, CLASSES = 4, 5, 40, 3
TABLES = (".csv", ".tsv", ".parquet")
FORMATS = ("png", "bmp", "gif", "jpeg", "tiff", "webp", "ppm")
NAMES = (
    "a\nb",
    "\x1b[2J",
    "a\u202eb",
    "a\u2028b",
    " ",
    "y",
    "é" * 200,
    "a,b",
    '"',
    "a\0b",
    "\ufeffa",
    "=1+1",
    "\u0085",
)
CELLS = (
    *("", "NaN", "inf", "-inf", "1e999", "1e-999", "9" * 400, "0x10", "1_000", "1,5", "true", "\x1b[31m", "a\u202eb"),
    *(
        '"',
        '""',
        '"a\nb"',
        "\x00",
        "\ud7ff",
        "é" * 5000,
        "1e308",
        str(2**63),
        str(-(2**63) - 1),
        " 1 ",
        "+1",
        "--1",
        "\u2028",
    ),
)
DTYPES = (
    "<f4",
    "<f8",
    "<f2",
    ">f4",
    "<i8",
    "|u1",
    "|b1",
    "<U3",
    "|O",
    "<c8",
    "<M8[s]",
    "|V8",
    "|S4",
    "<f16",
    "|S0",
    "<U0",
)
SHAPES = (
    "(40, 4)",
    "(40,)",
    "()",
    "(0, 4)",
    "(40, 0)",
    "(-1, 4)",
    "(10**15, 4)",
    "(2**63, 4)",
    "(40, 4",
    "(True, 4)",
    "40",
    "(40, 4, 1)",
)


@cache
def network(kind: str) -> Network:
    """What the rows of a kind are evaluated with."""
    return create((SIDE * SIDE if kind in ("images", "idx") else COLUMNS, 6, 10 if kind == "idx" else CLASSES), seed=1)


def run_data(seed: int, index: int, folder: Path) -> Ending:
    """Damage a data set, the same for the same arguments, in ``folder``, and evaluate a network on it."""
    rng = Random(f"data {seed} {index}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kind = rng.choice(tuple(_KINDS))
    name, options = _KINDS[kind](rng, folder)
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        _damage(rng, folder)
    impute = rng.choice((None, None, "mean", "most-frequent")) if kind == "table" else None
    split = rng.choice(("test", "train", "validation"))
    try:
        evaluate(network(kind), name, split=split, impute=impute, options=InputOptions(), **options)
    except Exception as error:
        return judged(error)
    return Ending("result")


# Data sets, damaged in what they say.


def _table(rng: Random, folder: Path) -> tuple[str, dict[str, Any]]:
    suffix = rng.choice(TABLES)
    names = [f"c{i}" for i in range(COLUMNS)] + ["y"]
    rows: list[list[Any]] = [[rng.gauss(0, 1) for _ in range(COLUMNS)] + [i % CLASSES] for i in range(ROWS)]
    if rng.random() < 0.3:
        rows = [[*row[:-1], "abc"[row[-1]]] for row in rows]
    for _ in range(rng.choice((0, 0, 1, 1, 3))):
        if rng.random() < 0.3:
            names[rng.randrange(len(names))] = rng.choice(NAMES)
        else:
            rows[rng.randrange(ROWS)][rng.randrange(len(names))] = rng.choice(CELLS)
    target = rng.choice(("y", "y", "y", names[-1], "c0", "z", "c0,y", "\x1b[2J")) if rng.random() < 0.9 else ""
    path = folder / f"rows{suffix}"
    if suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        columns = [[row[i] for row in rows] for i in range(len(names))]
        arrays = [_arrow(rng, column) for column in columns]
        parquet.write_table(
            pyarrow.table(arrays, names=names), path, compression=rng.choice(("none", "snappy", "gzip", "zstd"))
        )
    else:
        delimiter = "\t" if suffix == ".tsv" else rng.choice(",,;")
        lines = [delimiter.join(map(str, line)) for line in (names, *rows)]
        path.write_bytes(rng.choice(("\n", "\n", "\r\n")).join(lines).encode(errors="replace"))
    if rng.random() < 0.2:
        shutil.copy(path, folder / f"test{suffix}")
        path.rename(folder / f"train{suffix}")
        path = folder
    return str(path), {"target": (target,) if target else ()}


def _arrow(rng: Random, column: list[Any]) -> Any:
    import pyarrow

    if any(isinstance(value, str) for value in column):
        array = pyarrow.array([str(value) for value in column])
        return array.dictionary_encode() if rng.random() < 0.5 else array
    kinds = (pyarrow.float64(), pyarrow.float32(), pyarrow.int8(), pyarrow.string(), pyarrow.list_(pyarrow.float32()))
    kind = rng.choice(kinds) if rng.random() < 0.2 else pyarrow.float64()
    if pyarrow.types.is_list(kind):
        return pyarrow.array([[value] for value in column], kind)
    return pyarrow.array(
        [str(v) if kind == pyarrow.string() else int(v) if kind == pyarrow.int8() else v for v in column], kind
    )


def _arrays(rng: Random, folder: Path) -> tuple[str, dict[str, Any]]:
    x = np.array([[rng.gauss(0, 1) for _ in range(COLUMNS)] for _ in range(ROWS)], np.float32)
    y = np.arange(ROWS) % CLASSES
    given = {"x": _npy(rng, x), "y": _npy(rng, y)}
    if rng.random() < 0.3:
        for name, content in given.items():
            (folder / f"{name}.npy").write_bytes(content)
        return str(folder / "x.npy"), {"target": (str(folder / "y.npy"),)}
    if rng.random() < 0.3:
        given = {f"{key}_{part}": content for key, content in given.items() for part in ("train", "test")}
    if rng.random() < 0.2:
        given[rng.choice(("z", "", "../x", "x", "y_test", "x\n", "\x1b[2J", "a/b"))] = given[
            "x" if "x" in given else "x_train"
        ]
    kind = zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED
    with zipfile.ZipFile(folder / "rows.npz", "w", rng.choice((kind, kind, kind, zipfile.ZIP_LZMA))) as archive:
        for name, content in given.items():
            archive.writestr(f"{name}.npy", content)
    return str(folder / "rows.npz"), {}


def _npy(rng: Random, array: Any) -> bytes:
    """An array's file; in some its header says something else."""
    stream = io.BytesIO()
    np.save(stream, array)
    content = stream.getvalue()
    if rng.random() < 0.7:
        return content
    kind = rng.random()
    if kind < 0.1:  # a bomb: as much as it says, all zero
        rows = rng.choice((10**5, 10**6))
        return _header("<f4", f"({rows}, 4)") + bytes(rows * 16)
    shape = rng.choice(SHAPES) if kind < 0.6 else str(array.shape)
    dtype = rng.choice(DTYPES) if kind > 0.4 else array.dtype.str
    return _header(dtype, shape) + content[128:]


def _header(dtype: str, shape: str) -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text = text.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _images(rng: Random, folder: Path) -> tuple[str, dict[str, Any]]:
    from PIL import Image

    kind, root = rng.choice(FORMATS), folder / "images"
    for label in range(CLASSES):
        place = root / (rng.choice(NAMES).replace("\0", "")[:100] or "z") if rng.random() < 0.05 else root / f"c{label}"
        place.mkdir(parents=True, exist_ok=True)
        for number in range(6):
            pixels = np.frombuffer(rng.randbytes(SIDE * SIDE), np.uint8).reshape(SIDE, SIDE)
            Image.fromarray(pixels).convert("L").save(place / f"{number}.{kind}")
    if rng.random() < 0.5:
        path = rng.choice(sorted(path for path in root.rglob("*") if path.is_file()))
        path.write_bytes(_huge(rng, path.read_bytes()))
    return str(root), {}


def _huge(rng: Random, content: bytes) -> bytes:
    """An image whose header says that it is far larger; what else there is stays."""
    size = rng.choice((0, 1, 6, 30_000, 2**16 - 1, 2**31 - 1, 2**32 - 1))
    changed = bytearray(content)
    if content[:4] == b"\x89PNG":
        changed[16:24] = struct.pack(">II", size, size)
        changed[29:33] = struct.pack(">I", zlib.crc32(changed[12:29]))
    elif content[:2] == b"BM":
        changed[18:26] = struct.pack("<II", size, rng.choice((size, 2**32 - 5)))
    elif content[:3] == b"GIF":
        changed[6:10] = struct.pack("<HH", size % 2**16, size % 2**16)
    elif content[:2] in (b"P5", b"P6"):
        return content[:2] + f"\n{size} {size}\n255\n".encode() + content[-25:]
    elif content[:2] == b"\xff\xd8" and b"\xff\xc0" in content:
        at = content.index(b"\xff\xc0") + 5
        changed[at : at + 4] = struct.pack(">HH", size % 2**16, size % 2**16)
    else:
        at = rng.randrange(len(changed))
        changed[at : at + 4] = struct.pack("<I", size)
    return bytes(changed)


def _idx(rng: Random, folder: Path) -> tuple[str, dict[str, Any]]:
    for part in ("train", "t10k"):
        images = struct.pack(">4BIII", 0, 0, 8, 3, ROWS, SIDE, SIDE) + rng.randbytes(ROWS * SIDE * SIDE)
        labels = struct.pack(">4BI", 0, 0, 8, 1, ROWS) + bytes(i % 10 for i in range(ROWS))
        for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
            if rng.random() < 0.3:
                at = rng.choice((3, 4, 8, 12)) if kind == "images-idx3" else rng.choice((3, 4))
                number = rng.choice((0, 1, 41, 255, 2**31, 2**32 - 1))
                size = struct.pack(">I", number) if at > 3 else bytes([number % 256])
                content = content[:at] + size + content[at + len(size) :]
            if rng.random() < 0.05:
                content += bytes(2**27)
            (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content, 1, mtime=0))
    return rng.choice(("mnist", "fashion-mnist")), {"data_dir": folder}


_KINDS: dict[str, Callable[[Random, Path], tuple[str, dict[str, Any]]]] = {
    "table": _table,
    "arrays": _arrays,
    "images": _images,
    "idx": _idx,
}


# Damage to the files as they lie.


def _damage(rng: Random, folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if not files:
        return
    path = rng.choice(files)
    content = bytearray(path.read_bytes())
    kind = rng.randrange(9)
    if kind in (0, 1, 2) and content:
        for _ in range(rng.choice((1, 1, 3, 20))):
            content[rng.randrange(len(content))] = rng.choice((0, 255, 10, 34, rng.randrange(256)))
    elif kind == 3:
        del content[rng.randrange(len(content) + 1) :]
    elif kind == 4 and content:
        begin = rng.randrange(len(content))
        content += content[begin : begin + 1000] * rng.choice((1, 1, 50))
    elif kind == 5 and content:
        begin = rng.randrange(len(content))
        del content[begin : begin + rng.choice((1, 4, 100))]
    elif kind == 6:
        content = bytearray(
            rng.choice((b"", b"\0" * 50, b"\xff\xfe" + b"a\0" * 20, b"PK\x05\x06" + bytes(18), b"\x1f\x8b\x08"))
        )
    else:
        _exchange(rng, path)
        return
    path.write_bytes(content)


def _exchange(rng: Random, path: Path) -> None:
    path.unlink()
    kind = rng.randrange(5)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to("/etc/passwd")
    elif kind == 3:
        path.symlink_to(path)
