"""The user's tables: CSV and Parquet, their targets, missing values, splits, and every error."""

import csv
import os
import re
import string
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxsurgeon import DataError, create, load_dataset
from onnxsurgeon.data.sheet import matrix

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
pyarrow_csv = pytest.importorskip("pyarrow.csv")

ROWS = [(i, i * 0.5, "ab"[i % 2], i % 3) for i in range(30)]
HEADER = ("size", "weight", "colour", "y")
BODY = "".join(f"{a},{b},{c},{y}\n" for a, b, c, y in ROWS)
CSV = ",".join(HEADER) + "\n" + BODY


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def write_parquet(path, **columns):
    parquet.write_table(pyarrow.table(columns), path)
    return str(path)


def whole(data, name):
    """A column over all splits, sorted."""
    return sorted(value for split in data.splits for value in split.inputs[name].tolist())


@pytest.mark.parametrize(
    "content",
    [
        CSV,
        b"\xef\xbb\xbf" + CSV.encode(),
        CSV.replace("\n", "\r\n"),
        b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode(),
        CSV.replace("\n", "\r"),
        CSV.replace("\n", "\r\n", 9).replace("8,4.0,a,2\r\n", "8,4.0,a,2\r"),
        CSV.replace(",", ";"),
        CSV.replace(",", "\t"),
        CSV.replace("colour", '"colour"').replace(",a,", ',"a",'),
        CSV.replace("\n", "\n\n"),
        CSV.replace("\n1,", "\n+1,"),
    ],
    ids=["plain", "bom", "crlf", "bom and crlf", "cr", "mixed", "semicolons", "tabs", "quotes", "blank lines", "plus"],
)
def test_csv(content, tmp_path):
    data = load_dataset(write(tmp_path / "t.csv", content), target=("y",))
    assert (data.train.rows, data.test.rows, data.classes, data.class_labels) == (24, 6, 3, ())
    assert list(data.train.inputs) == ["size", "weight", "colour"]
    assert [column.dtype.kind for column in data.train.inputs.values()] == ["i", "f", "U"]
    for position, name in enumerate(HEADER[:3]):
        assert whole(data, name) == sorted(row[position] for row in ROWS)
    np.testing.assert_array_equal(data.train.inputs["size"] % 3, data.train.labels)
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]
    assert data.categories == {"colour": ("a", "b")}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ": the file is empty"),
        ("\n\n", ": the file is empty"),
        ("a,y\n", ": has no rows below its names"),
        ("1,2\n3,4\n", ": line 1 holds numbers only; expected the columns' names"),
        ("a,b,a,y\n1,2,3,4\n", ": column 'a' is there twice, as 1 and 3"),
        (",a,y\n1,2,3\n", ": column 1 has no name (of pandas' index? write with index=False)"),
        ("y\n1\n2\n", ": has no column beside the target; expected inputs as well"),
        ("a,b\n1,2\n", ": no column 'y' to predict; it has 'a', 'b'"),
        (CSV + "\n1,2,a\n", ": row 31 (line 33): expected 4 cells, found 3"),
        (CSV + '1,2,"a\nb",1\n1,2,a,1,5\n', ": row 32 (line 34): expected 4 cells, found 5"),
        (CSV + '1,"2,a,1\n', ": row 31 (line 32): expected 4 cells, found 2"),
        (CSV.encode() + b"1,2,\xe9,1\n", ": line 32 is not UTF-8 text (byte 0xe9); save the table as UTF-8"),
        (CSV.encode("utf-16"), ": line 1 is not UTF-8 text (byte 0xff); save the table as UTF-8"),
        ("x" * 200_000, ": column 1 has a name of 200,000 characters"),
        ("x" * (2**24 + 1), ": not a readable CSV file: field larger than field limit (16777216)"),
        (CSV + "1,abc,a,1\n", ": row 31 (line 32), column 'weight': expected a number, found 'abc'"),
        (
            CSV.replace(",", ";").replace(".", ","),
            ": row 1 (line 2), column 'weight': expected a number, found '0,0' (the decimal sign must be a point)",
        ),
        (CSV + "1,inf,a,1\n", ": row 31 (line 32), column 'weight': expected a finite number, found inf"),
        (
            CSV + '1,2,"\na",1\n1,,a,1\n',
            ": row 32 (line 34), column 'weight': expected a number, found nothing; "
            "--impute mean|median|most-frequent fills them",
        ),
        (
            CSV + "1,2,,1\n",
            ": row 31 (line 32), column 'colour': expected a text, found nothing; "
            "--impute mean|median|most-frequent fills them",
        ),
        (CSV + '1,"a\nb",a,1\n', ": row 31 (line 32), column 'weight': expected a number, found 'a\\nb'"),
        (CSV + "1,2,a,\n", ": row 31 (line 32), column 'y': expected a target, found nothing"),
        (
            "a,y\n" + "".join(f"id{i},1\n" for i in range(1001)),
            ": column 'a' holds 1001 different texts; leave it out or encode it",
        ),
        (f"a,y\n{'x' * 2000},1\n", ": column 'a' holds a text of 2000 characters; leave it out or encode it"),
        ("a,y\n1,1\n", ": 1 row is too few to hold out 20% of them"),
    ],
)
def test_csv_that_cannot_be_used(content, reason, tmp_path):
    path = write(tmp_path / "t.csv", content)
    with pytest.raises(DataError) as error:
        load_dataset(path, target=("y",))
    assert str(error.value) == path + reason


def test_a_long_line_of_names(tmp_path):
    """By other delimiters the line is one cell, which Python's reader takes for too long where nothing is said."""
    names = [f"expression of gene {number:05}" for number in range(6000)]
    lines = "".join(",".join([*("01"[(i + j) % 2] for j in range(len(names))), str(i % 2)]) + "\n" for i in range(12))
    limit = csv.field_size_limit()
    path = write(tmp_path / "t.csv", ",".join([*names, "y"]) + "\n" + lines)
    data = load_dataset(path, target=("y",))
    assert (list(data.train.inputs), data.classes) == (names, 2)
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(("begin", "line"), [(b"", 1), (b"a,y\n", 2), (b'a,y\n1,"', 2)])
def test_a_line_without_end_is_not_read_whole(begin, line, tmp_path):
    """A gigabyte of zeros, which takes no place on the disk: it was read as one text, and its copies besides."""
    path = tmp_path / "t.csv"
    path.write_bytes(begin)
    os.truncate(path, 2**30)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"t\.csv: line {line} has more than 33,554,432 characters"):
            load_dataset(path, target="y")
        assert tracemalloc.get_traced_memory()[1] < 300 * 2**20
    finally:
        tracemalloc.stop()


def test_options_that_do_not_fit_the_table(tmp_path):
    path = write(tmp_path / "t.csv", CSV)
    for options, reason in (
        ({"target": ("y", "y")}, "target 'y' is given twice"),
        ({"target": ("colour,y",)}, "target 'colour' holds texts; several targets must all be numbers"),
        (
            {"target": ("y",), "impute": "mode"},
            "impute: 'mode' is unknown: expected one of mean, median, most-freq",
        ),
        ({"target": ("y",), "validation_fraction": 1.0}, "validation-fraction: 1 does not lie between 0 and 1"),
        ({"target": ("y",), "validation_fraction": 0.0}, "validation-fraction: 0 does not lie between 0 and 1"),
    ):
        with pytest.raises(DataError, match=re.escape(reason)):
            load_dataset(path, **options)
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        load_dataset(str(tmp_path / "none.csv"), target=("y",))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_steps_grow_as_the_columns_do(kind, tmp_path, monkeypatch):
    """Blocks of a size had the fewer rows the more columns there are, and each takes some calls for each column."""
    monkeypatch.setattr("onnxsurgeon.data.delimited._BLOCK_BYTES", (1 << 14, 1 << 24))
    monkeypatch.setattr("onnxsurgeon.data.delimited._FEW_COLUMNS", 16)
    monkeypatch.setattr("onnxsurgeon.data.parquet._BATCH_BYTES", 1 << 18)
    monkeypatch.setattr("onnxsurgeon.data.dataset._CHUNK_BYTES", 1 << 14)

    def calls(columns):
        values = np.random.default_rng(0).standard_normal((100, columns)).round(3)
        table = pyarrow.table({**{f"c{i}": values[:, i] for i in range(columns)}, "y": np.arange(100) % 2})
        path = tmp_path / f"{columns}.{kind}"
        parquet.write_table(table, path) if kind == "parquet" else pyarrow_csv.write_csv(table, path)
        network, counted = create((columns, 2)), 0

        def count(frame, event, argument):
            nonlocal counted
            counted += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            data = load_dataset(path, target="y", networks=(network,))
            assert len(data.digest) == 64
        finally:
            sys.setprofile(before)
        np.testing.assert_array_equal(data.train.table[0].take(), values[data.train.numbers])
        return counted

    calls(20)  # imports
    assert calls(1600) < 9 * calls(200)


@pytest.mark.parametrize("late", ["0.5", "1e3", "text", "", "9007199254740993", "123456789012345678901", "true", "+7"])
def test_a_column_among_many_turns_out_to_be_of_another_kind(late, tmp_path, monkeypatch):
    monkeypatch.setattr("onnxsurgeon.data.delimited._BLOCK_BYTES", (200, 1 << 20))
    cells = [[str(10 * i + j) for j in range(5)] for i in range(60)]
    cells[55][3] = late
    if late in ("text", "true"):
        for i in range(40):
            cells[i][3] = "" if late == "true" else "word"
    body = "".join(",".join([*row, str(i % 2)]) + "\n" for i, row in enumerate(cells))
    path = write(tmp_path / "t.csv", "a,b,c,d,e,y\n" + body)
    if late == "true":
        with pytest.raises(DataError, match=r"row 56 \(line 57\), column 'd': expected a number, found 'true'"):
            load_dataset(path, target="y", impute="mean")
        return
    data = load_dataset(path, target="y", impute="most-frequent")
    expected = [row[3] for row in cells]
    kinds = {"text": "U", "0.5": "f", "1e3": "f", "123456789012345678901": "f"}
    assert data.train.inputs["d"].dtype.kind == kinds.get(late, "i")
    if late == "text":
        assert whole(data, "d") == sorted(expected)
    else:
        expected[55] = {"": "3"}.get(late, late)
        assert whole(data, "d") == sorted(map(float if late in kinds else int, expected))
    for position, name in ((0, "a"), (4, "e")):
        assert whole(data, name) == sorted(int(row[position]) for row in cells)


def test_many_columns_are_not_all_named(tmp_path):
    names = [f"c{i}" for i in range(25)]
    path = write(tmp_path / "t.csv", ",".join(names) + "\n" + ",".join(["1"] * 25) + "\n")
    with pytest.raises(DataError, match=r"'c19' and 5 more$"):
        load_dataset(path, target=("z",))


@pytest.mark.parametrize(
    ("cells", "dtype", "classes", "names"),
    [
        (["yes", "no"] * 10, "int64", 2, ("no", "yes")),
        (["3", "-1", "3", "7"] * 5, "int64", 3, (-1, 3, 7)),
        (["2", "0", "1", "0"] * 5, "int64", 3, ()),
        (["true", "False"] * 2, "int64", 2, ()),
        (["1.0", "2.0"] * 10, "float64", 0, ()),
        ([str(i) for i in range(20)], "float64", 0, ()),
        ([str(i % 101) for i in range(303)], "float64", 0, ()),
    ],
    ids=["texts", "gaps", "classes", "booleans", "floats", "many integers", "101 integers"],
)
def test_one_target(cells, dtype, classes, names, tmp_path):
    path = write(tmp_path / "t.csv", "a,y\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    data = load_dataset(path, target=("y",))
    assert (data.classes, data.class_labels) == (classes, names)
    for split in data.splits:
        assert split.labels.dtype == dtype
        for row, label in zip(split.inputs["a"], split.labels, strict=True):
            known = {"true": 1, "False": 0}.get(cells[row], cells[row])
            assert (names[label] if names else label) == type(names[0] if names else 0.0)(known)


def test_several_targets(tmp_path):
    rows = [(i, i % 2, i % 3, i * 0.5, -(i % 2)) for i in range(20)]
    text = 'a,p,q,r,"s,t"\n' + "".join(",".join(map(str, row)) + "\n" for row in rows)
    path = write(tmp_path / "t.csv", text)
    for target, columns, dtype in (
        (("p", "q"), (1, 2), "int64"),
        (("p,q",), (1, 2), "int64"),
        (("r,p",), (3, 1), "float64"),
        (("s,t", "p"), (4, 1), "float64"),
        (("a", "p"), (0, 1), "float64"),
    ):
        data = load_dataset(path, target=target)
        labels = np.concatenate([data.train.labels, data.test.labels])
        assert (labels.dtype, labels.shape, data.classes) == (dtype, (20, 2), 0)
        expected = sorted(tuple(float(row[column]) for column in columns) for row in rows)
        assert sorted(map(tuple, labels.tolist())) == expected


def test_missing_values_are_filled_by_the_rows_that_are_trained_on(tmp_path):
    rng = np.random.default_rng(0)
    values, lacking = rng.integers(0, 50, 200), rng.random(200) < 0.2
    texts = np.where(rng.random(200) < 0.3, "b", "a")
    path = write(
        tmp_path / "t.csv",
        "i,v,t,y\n"
        + "".join(
            f"{i},{'NA' if lack else value},{'' if lack else text},{i % 2}\n"
            for i, (value, lack, text) in enumerate(zip(values, lacking, texts, strict=True))
        ),
    )
    for impute, statistic in (
        ("mean", np.mean),
        ("median", np.median),
        ("most-frequent", lambda known: np.bincount(known).argmax()),
    ):
        data = load_dataset(path, target=("y",), impute=impute)
        train, _ = data.hold_out()
        known = train.inputs["i"][~lacking[train.inputs["i"]]]
        for split in data.splits:
            rows = split.inputs["i"]
            expected = np.where(lacking[rows], statistic(values[known]), values[rows])
            np.testing.assert_array_equal(split.inputs["v"], expected)
            assert split.inputs["v"].dtype == ("int64" if impute == "most-frequent" else "float64")
            np.testing.assert_array_equal(split.inputs["t"], np.where(lacking[rows], "a", texts[rows]))


def test_a_column_without_values_cannot_be_filled(tmp_path):
    path = write(tmp_path / "t.csv", "a,b,y\n" + "1,,0\n" * 20)
    with pytest.raises(DataError, match=r"t\.csv: column 'b': no training row has a value; leave the column out"):
        load_dataset(path, target=("y",), impute="mean")


def test_given_splits_are_kept(tmp_path):
    for part, rows in (("train", ROWS[:20]), ("test", ROWS[20:26]), ("validation", ROWS[26:])):
        write(
            tmp_path / f"{part}.csv", "size,weight,colour,y\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
        )
    data = load_dataset(str(tmp_path), target=("y",))
    for split, rows in ((data.train, ROWS[:20]), (data.test, ROWS[20:26]), (data.hold_out()[1], ROWS[26:])):
        assert split.inputs["size"].tolist() == [row[0] for row in rows]
        assert split.labels.tolist() == [row[3] for row in rows]
    with pytest.raises(DataError, match="brings validation rows of its own; --validation-fraction has nothing"):
        load_dataset(str(tmp_path), target=("y",), validation_fraction=0.2)
    for content, reason in (
        ("size,weight,y\n1,2,0\n", r"test\.csv: lacks the column 'colour' that .*train\.csv has"),
        ("size,weight,colour,y,more\n1,2,a,0,0\n", r"train\.csv: lacks the column 'more' that .*test\.csv has"),
        (
            "size,weight,colour,y\n1,2,3,0\n",
            r"'colour' must be of one kind in all splits; found texts in .*train\.csv and numbers in .*test\.csv",
        ),
        ("size,weight,colour,y\n1,,a,0\n", r"test\.csv: row 1 \(line 2\), column 'weight': expected a number"),
    ):
        write(tmp_path / "test.csv", content)
        with pytest.raises(DataError, match=reason):
            load_dataset(str(tmp_path), target=("y",))
    write(tmp_path / "test.csv", "y,colour,size,weight\n1,,7,0.5\n")  # another order, and a column without a value
    data = load_dataset(str(tmp_path), target=("y",), impute="most-frequent")
    assert {name: column.tolist() for name, column in data.test.inputs.items()} == {
        "size": [7],
        "weight": [0.5],
        "colour": ["a"],
    }
    (tmp_path / "train.csv").rename(tmp_path / "train.tsv")
    write(tmp_path / "train.csv", CSV)
    with pytest.raises(DataError, match=r"expected one table for the train split; found train\.csv, train\.tsv"):
        load_dataset(str(tmp_path), target=("y",))
    for file in ("train.csv", "train.tsv"):
        (tmp_path / file).unlink()
    with pytest.raises(DataError, match=r"holds test\.csv, but no training table beside it"):
        load_dataset(str(tmp_path), target=("y",))


def test_validation_fraction_is_stratified(tmp_path):
    path = write(tmp_path / "t.csv", CSV + BODY * 9)
    data = load_dataset(path, target=("y",), validation_fraction=0.25)
    train, validation = data.hold_out()
    assert (train.rows, validation.rows) == (180, 60)
    assert np.bincount(validation.labels).tolist() == [20, 20, 20]
    assert load_dataset("digits", validation_fraction=0.5).hold_out()[1].rows == 719


def test_types_of_parquet(tmp_path):
    rows = 12
    path = write_parquet(
        tmp_path / "t.parquet",
        half=pyarrow.array(np.arange(rows).astype(np.float16)),
        single=pyarrow.array(np.arange(rows).astype(np.float32)),
        double=np.arange(rows) / 3,
        byte=pyarrow.array(np.arange(rows), pyarrow.uint8()),
        exact=np.arange(rows) + 2**60,
        yes=np.arange(rows) % 2 == 0,
        text=["ä", "b"] * 6,
        category=pyarrow.array(["u", "v", "w"] * 4).dictionary_encode(),
        decimal=pyarrow.array(np.arange(rows)).cast(pyarrow.decimal128(21, 2)),
        y=["no", "yes"] * 6,
    )
    data = load_dataset(path, target=("y",))
    kinds = {name: column.dtype.str[1:] for name, column in data.train.inputs.items()}
    assert kinds == {
        **{"half": "f4", "single": "f4", "double": "f8", "byte": "i8", "exact": "i8", "yes": "i8"},
        **{"text": "U1", "category": "U1", "decimal": "f8"},
    }
    assert whole(data, "exact") == [2**60 + i for i in range(rows)]
    assert whole(data, "yes") == [0] * 6 + [1] * 6
    assert data.categories == {"text": ("b", "ä"), "category": ("u", "v", "w")}
    assert data.class_labels == ("no", "yes")


def test_parquet_that_cannot_be_used(tmp_path):
    path = tmp_path / "t.parquet"
    for content, reason in ((b"", "Parquet file size is 0 bytes"), (b"PAR1" + b"x" * 50, "Parquet magic bytes")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"t\.parquet: not a readable Parquet file: {reason}"):
            load_dataset(str(path), target=("y",))
    for columns, reason in (
        ({"a": [[1], [2]], "y": [0, 1]}, "column 'a' holds list<.*>; expected numbers or texts"),
        ({"a": np.array([1, 2], "datetime64[s]"), "y": [0, 1]}, r"column 'a' holds timestamp\[ms\]; expected numbers"),
        ({"a": [], "y": []}, "has no rows"),
        ({"a": [1.0, None, 3.0], "y": [0, 1, 0]}, "row 2, column 'a': expected a number, found nothing; --impute"),
        ({"a": [1.0, 2.0, np.nan], "y": [0, 1, 0]}, "row 3, column 'a': expected a number, found nothing; --impute"),
        ({"a": ["x", None, "x"], "y": [0, 1, 0]}, "row 2, column 'a': expected a text, found nothing; --impute"),
        ({"a": [1, 2, 3], "y": [0, None, 0]}, "row 2, column 'y': expected a target, found nothing"),
    ):
        write_parquet(path, **columns)
        with pytest.raises(DataError, match=rf"t\.parquet: {reason}"):
            load_dataset(str(path), target=("y",))
    parquet.write_table(pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], ["a", "a"]), path)
    with pytest.raises(DataError, match=r"t\.parquet: column 'a' is there twice, as 1 and 2"):
        load_dataset(str(path), target=("y",))


# A column's damaged sizes end the process in pyarrow, and a damaged index lies outside of the dictionary.
DAMAGED = """
import sys
from pathlib import Path
from onnxsurgeon.data.parquet import ParquetFile
from onnxsurgeon.errors import DataError

path = Path(sys.argv[1])
whole, refused = path.read_bytes(), 0
footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
for position in range(len(whole)):
    damaged = bytearray(whole)
    damaged[position] ^= 255 if position < footer else 1 << position % 8
    path.write_bytes(damaged)
    try:
        file = ParquetFile(path, lambda *_: None)
        list(file.pieces(file.columns))
    except DataError:
        refused += 1
print(len(whole), refused)
"""


def test_parquet_with_any_byte_damaged_is_read_or_refused(tmp_path):
    columns = pyarrow.table({"a": [0.5, None, 1.0, 2.0], "t": ["a", "b", "c", "a"]})
    parquet.write_table(columns, tmp_path / "t.parquet", compression="none")
    command = [sys.executable, "-c", DAMAGED, str(tmp_path / "t.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    size, refused = map(int, done.stdout.split())
    assert size // 2 < refused < size


def test_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    for name, what in (("t.csv", "CSV"), ("t.parquet", "Parquet")):
        path = write(tmp_path / name, CSV)
        with pytest.raises(DataError) as error:
            load_dataset(path, target=("y",))
        assert str(error.value) == f"{path}: reading {what} files needs pip install 'onnxsurgeon[data]'"


def test_matrix():
    columns = {"n": np.array([1, 2, 3]), "t": np.array(["b", "a", "b"]), "f": np.array([0.5, 1, 2], np.float32)}
    values, names = matrix(columns, {"t": ("a", "b", "c")})
    assert names == ["n", "t=a", "t=b", "t=c", "f"]
    assert values.tolist() == [[1, 0, 1, 0, 0.5], [2, 1, 0, 0, 1], [3, 0, 1, 0, 2]]
    assert values.dtype == np.float64
    del columns["n"]
    assert matrix(columns, {"t": ("a", "b")})[0].dtype == np.float32
    for texts in (("a",), ("a", "c")):
        with pytest.raises(DataError, match="column 't' holds 'b' in row 1; known are 'a'"):
            matrix(columns, {"t": texts})
    with pytest.raises(DataError, match=r"'f' has shape \(3, 2\); expected a column"):
        matrix({"f": np.zeros((3, 2))}, {})


TEXT = st.text(string.ascii_letters + ' ,;"\näß', min_size=1, max_size=8).map(lambda text: "t" + text)
CELLS = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "string": TEXT,
}


@st.composite
def tables(draw):
    rows = draw(st.integers(5, 12))
    kinds = draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=2, max_size=5))
    present = draw(st.sampled_from((1.0, 0.8)))
    columns = {}
    for position, kind in enumerate(kinds):
        cell = CELLS[kind]
        if present < 1 and position and kind != "bool":
            cell = st.one_of(cell, cell, cell, st.none())
        cells = draw(st.lists(cell, min_size=rows, max_size=rows))
        cells[: rows - 2] = [draw(CELLS[kind]) if value is None else value for value in cells[: rows - 2]]
        columns[f"c{position}"] = pyarrow.array(cells, kind)
    return columns


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(",;\t"))
def test_csv_and_parquet_of_one_table_are_the_same_data_set(tmp_path_factory, columns, delimiter):
    folder = tmp_path_factory.mktemp("tables")
    written = write_parquet(folder / "t.parquet", **columns)
    cells = [["" if cell is None else cell for cell in column.to_pylist()] for column in columns.values()]
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*cells, strict=True))
    first, second = (
        load_dataset(path, target=("c0",), impute="most-frequent") for path in (written, str(folder / "t.csv"))
    )
    assert first.digest == second.digest
    assert (first.classes, first.class_labels, first.categories) == (
        second.classes,
        second.class_labels,
        second.categories,
    )
    for name, column in first.train.inputs.items():
        assert column.dtype == second.train.inputs[name].dtype


@pytest.mark.parametrize("is_dictionary", [False, True])
def test_integers_beyond_int64_are_floats_in_parquet_as_in_csv(is_dictionary, tmp_path):
    large = [1, 2**63 + 12345, 3, 2**64 - 1] * 5
    column = pyarrow.array(large, pyarrow.uint64())
    write_parquet(tmp_path / "t.parquet", a=column.dictionary_encode() if is_dictionary else column, y=[0, 1] * 10)
    (tmp_path / "t.csv").write_text("a,y\n" + "".join(f"{a},{i % 2}\n" for i, a in enumerate(large)))
    found = [load_dataset(str(tmp_path / f"t.{kind}"), target=("y",)) for kind in ("parquet", "csv")]
    for data in found:
        values = np.concatenate([split.inputs["a"] for split in data.splits])
        assert values.dtype == np.float64
        assert sorted(values.tolist()) == sorted(map(float, large))


def test_splits_of_a_folder_are_known_in_any_case_and_what_else_lies_there_is_told(tmp_path):
    for name in ("Train.CSV", "test.csv", "val.tsv"):
        write(tmp_path / name, "a,y\n1,0\n2,1\n")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "extra.csv").touch()
    data = load_dataset(tmp_path, target="y")
    assert (data.train.rows, data.test.rows, data.validation.rows) == (2, 2, 2)
    (told,) = data.remarks
    assert told == f"left out of {tmp_path}: 2 beside Train.CSV and test.csv and val.tsv, such as extra.csv"
    write(tmp_path / "validation.csv", "a,y\n1,0\n2,1\n")
    with pytest.raises(DataError, match=r"one table for the validation split; found val\.tsv, validation\.csv"):
        load_dataset(tmp_path, target="y")
