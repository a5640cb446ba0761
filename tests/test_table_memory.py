"""Tables are read some rows at a time into the array that they become; what is too large is refused before."""

import json
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from onnxsurgeon import DataError, create, evolve, load_dataset, save
from onnxsurgeon.data import foreseen
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.prepare import prepare
from onnxsurgeon.data.sheet import SheetRows
from onnxsurgeon.data.told import data_notes
from tests.foreseen import refused

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

# In a process of its own: Arrow tells only the most that its memory has ever been.
MEASURE = """
import json, sys, tracemalloc
import numpy as np, pyarrow
from onnxsurgeon import create, load_dataset
from onnxsurgeon.data.prepare import prepare
network = create((int(sys.argv[2]), 8, 2))
for is_counted in (False, True):  # at first, what is imported on the way takes memory as well
    if is_counted:
        tracemalloc.start()
    data = load_dataset(sys.argv[1], target=("y",), networks=(network,))
    examples = prepare(network, data, data.train)
print(json.dumps({
    "numpy": tracemalloc.get_traced_memory()[1],
    "arrow": pyarrow.default_memory_pool().max_memory(),
    "array": data.train.sheet.values.nbytes,
    "is_one": np.shares_memory(examples.stored[0].source, data.train.sheet.values),
}))
"""
# The same of a whole run, in pieces that are as small beside this table as those of a run are beside a large one.
MEASURE_RUN = """
import json, sys, tracemalloc
import onnxsurgeon.surgeon.significance, onnxsurgeon.training.loop, onnxsurgeon.training.schedule
from onnxsurgeon import SurgeonSettings, evolve
onnxsurgeon.surgeon.significance.PIECE = 4096
onnxsurgeon.training.loop.MOST_ROWS = onnxsurgeon.training.schedule.PIECE = 4096
model, small, path, run = sys.argv[1:]
def done(path, number):
    settings = SurgeonSettings(epochs=1, batch_size=1024)
    evolve(model, path, target=("y",), settings=settings, workers=1, run_dir=f"{run}{number}")
done(small, 0)
tracemalloc.start()
done(path, 1)
print(json.dumps(tracemalloc.get_traced_memory()[1]))
"""
MB = 2**20


def table(rows, columns=20, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns))
    found = {f"c{i}": x[:, i] for i in range(columns)}
    return {**found, "k": rng.integers(0, 1000, rows), "y": (x[:, 0] > 0).astype(int)}


def write_csv(path, columns, repeats=1):
    lines = "".join(",".join(map(str, row)) + "\n" for row in zip(*(c.tolist() for c in columns.values()), strict=True))
    with path.open("w") as file:
        file.write(",".join(columns) + "\n")
        for _ in range(repeats):
            file.write(lines)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_takes_little_more_than_the_array_it_becomes(kind, tmp_path):
    columns = table(2000)
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        write_csv(path, columns, repeats=60)
        assert path.stat().st_size > 40 * MB
    else:
        parquet.write_table(pyarrow.table({name: np.tile(c, 60) for name, c in columns.items()}), path)
    done = subprocess.run([sys.executable, "-c", MEASURE, path, "21"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["array"] == 120_000 * 21 * 8
    assert found["is_one"]  # nothing has been copied on the way to the network
    # Row numbers and labels of a narrow table are some of its width; a block's cells are the rest.
    assert found["numpy"] < 1.2 * found["array"] + 12 * MB
    assert found["arrow"] < 64 * MB  # whatever the size of the file


def test_a_run_takes_little_more_than_the_array(tmp_path):
    columns = table(2000)
    path, small = write_csv(tmp_path / "t.csv", columns, repeats=60), write_csv(tmp_path / "s.csv", columns)
    save(create((21, 8, 2), seed=1), tmp_path / "m.onnx")
    command = [sys.executable, "-c", MEASURE_RUN, tmp_path / "m.onnx", small, path, tmp_path / "run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # Per row: labels twice, and its number in the table, in a split, in all that is trained on, and in two orders.
    assert int(done.stdout.splitlines()[-1]) < 1.5 * 120_000 * 21 * 8


def texts(rows):
    rng = np.random.default_rng(1)
    return {
        "n": rng.integers(0, 50, rows),
        "t": np.array(["b", "a", "ccc"])[rng.integers(0, 3, rows)],
        "f": rng.standard_normal(rows),
        "y": np.array(["no", "yes"])[rng.integers(0, 2, rows)],
    }


@pytest.mark.parametrize("impute", [None, "mean", "median", "most-frequent"])
def test_a_matrix_is_the_same_table_as_its_columns(impute, tmp_path):
    columns = {name: [str(v) for v in values.tolist()] for name, values in texts(200).items()}
    if impute:
        for name, row in (("n", 3), ("n", 150), ("t", 4), ("f", 7)):
            columns[name][row] = ""
    rows = zip(*columns.values(), strict=True)
    path = tmp_path / "t.csv"
    path.write_text("n,t,f,y\n" + "".join(",".join(row) + "\n" for row in rows))
    network = create((5, 4, 2), seed=1)
    whole = load_dataset(str(path), target=("y",), impute=impute, networks=(network,))
    apart = load_dataset(str(path), target=("y",), impute=impute)
    assert isinstance(whole.train, SheetRows)
    assert not isinstance(apart.train, SheetRows)
    assert whole.digest == apart.digest
    assert whole.categories == apart.categories == {"t": ("a", "b", "ccc")}
    for first, second in zip((*whole.hold_out(), whole.test), (*apart.hold_out(), apart.test), strict=True):
        for name, column in second.inputs.items():
            assert first.inputs[name].dtype == column.dtype
            np.testing.assert_array_equal(first.inputs[name], column)
        one, other = prepare(network, whole, first), prepare(network, apart, second)
        np.testing.assert_array_equal(one.features[0], other.features[0])
        np.testing.assert_array_equal(one.labels[0], other.labels[0])


def test_integers_that_floats_do_not_hold_stay_as_they_are(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b,y\n" + "".join(f"{2**60 + i},{i},{i % 2}\n" for i in range(20)))
    data = load_dataset(str(path), target=("y",), networks=(create((2, 3, 2)),))
    assert sorted(v for split in data.splits for v in split.inputs["a"].tolist()) == [2**60 + i for i in range(20)]


def test_columns_by_name_stay_columns(tmp_path):
    path = write_csv(tmp_path / "t.csv", {"input": np.arange(20), "y": np.arange(20) % 2})
    data = load_dataset(str(path), target=("y",), networks=(create((1, 3, 2)),))
    assert not isinstance(data.train, SheetRows)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_are_compared_with_the_model_before_they_are_read(kind, tmp_path, monkeypatch):
    path = tmp_path / f"t.{kind}"
    if kind == "csv":
        write_csv(path, table(10))
        monkeypatch.setattr("onnxsurgeon.data.delimited.CsvFile._blocks", None)
    else:
        parquet.write_table(pyarrow.table(table(10)), path)
        monkeypatch.setattr("onnxsurgeon.data.parquet.ParquetFile._batches", None)
    refused(path, "expected 5 columns for the input 'input' of .*, found 21: 'c0', ", create((5, 2)), target=("y",))


def test_a_parquet_file_of_few_bytes_is_bounded(tmp_path):
    rows = 40_000_000
    path = tmp_path / "t.parquet"
    schema = pyarrow.schema([("a", pyarrow.int64()), ("b", pyarrow.int64()), ("y", pyarrow.int8())])
    with parquet.ParquetWriter(path, schema) as writer:
        batch = pyarrow.table({name: np.zeros(10_000_000, np.int8) for name in "aby"}).cast(schema)
        for _ in range(rows // 10_000_000):
            writer.write_table(batch)
    assert path.stat().st_size < MB
    refused(path, r"t\.parquet: 0\.\d MB on the disk would take \d+ MB of memory", create((2, 2)), target=("y",))
    refused(path, r"t\.parquet: 0\.\d MB on the disk would take \d+ MB of memory", create((2, 2)), target=("a",))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_texts_are_bounded_before_there_is_room_for_them(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(foreseen, "MAX_DATA_BYTES", 4 * MB)
    monkeypatch.setattr(foreseen, "MAX_DATA_EXPANSION", 4)
    rows = 6000
    words = ["x" * 900, *(f"w{i}" for i in range(200))]
    columns = {"t": np.array([words[i % 201] for i in range(rows)]), "y": np.arange(rows) % 2}
    path = tmp_path / f"t.{kind}"
    write_csv(path, columns) if kind == "csv" else parquet.write_table(pyarrow.table(columns), path)
    refused(path, "would take 4.6 MB of memory", create((201, 2)), target=("y",))  # one column a text, of float32
    with pytest.raises(DataError, match=r"would take 20\.6 MB of memory"):
        load_dataset(str(path), target=("y",))  # texts as wide as the longest


def test_a_long_row_fits_into_a_larger_block(tmp_path):
    cell = "0." + "125" * 400
    rows = [",".join([cell] * 1000) + f",{i % 2}\n" for i in range(6)]
    path = tmp_path / "t.csv"
    path.write_text(",".join([f"c{i}" for i in range(1000)] + ["y"]) + "\n" + "".join(rows))
    assert len(rows[0]) > MB
    data = load_dataset(str(path), target=("y",), networks=(create((1000, 2)),))
    np.testing.assert_array_equal(data.train.table[0].take(), np.full((4, 1000), float(cell)))


def test_kinds_that_show_late(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxsurgeon.data.delimited._BLOCK_BYTES", (64, 1 << 20))
    late = {
        "i": [*map(str, range(30))],
        "f": [*map(str, range(29)), "0.5"],
        "b": ["true"] * 15 + ["False"] * 15,
        "t": ["1", "2", "3"] * 3 + ["a", "NA", "b"] * 7,
        "e": [""] * 14 + ["x"] * 16,
        "y": ["0", "1"] * 15,
    }
    path = tmp_path / "t.csv"
    path.write_text(",".join(late) + "\n" + "".join(",".join(row) + "\n" for row in zip(*late.values(), strict=True)))
    data = load_dataset(str(path), target=("y",), impute="most-frequent")
    kinds = {name: column.dtype.str[1:] for name, column in data.train.inputs.items()}
    assert kinds == {"i": "i8", "f": "f8", "b": "i8", "t": "U2", "e": "U1"}
    assert data.categories == {"t": ("1", "2", "3", "NA", "a", "b"), "e": ("x",)}
    path.write_text("a,y\n" + "".join(f"{i},0\n" for i in range(40)) + "12a,0\n")
    with pytest.raises(DataError, match=r"row 41 \(line 42\), column 'a': expected a number, found '12a'"):
        load_dataset(str(path), target=("y",))


def test_a_table_that_changes_while_it_is_read_is_told(tmp_path, monkeypatch):
    path = write_csv(tmp_path / "t.csv", table(20, 2))
    from onnxsurgeon.data import tables

    def opened(path, expect):
        file = tables.CsvFile(path, expect)
        write_csv(path, table(25, 2))
        return file

    monkeypatch.setitem(tables.READERS, ".csv", opened)
    with pytest.raises(DataError, match=r"t\.csv: was changed while it was read"):
        load_dataset(str(path), target=("y",))


def test_a_run_on_a_matrix_resumes(tmp_path):
    path = write_csv(tmp_path / "t.csv", table(120, 4))
    save(create((5, 6, 2), seed=1), tmp_path / "m.onnx")
    done = evolve(tmp_path / "m.onnx", str(path), target=("y",), run_dir=tmp_path / "run", workers=1)
    record = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert record["data"]["digest"] == load_dataset(str(path), target=("y",)).digest
    assert done.test.rows == 24


def test_classes_take_a_byte_a_row_and_a_run_keeps_no_training_rows_twice(tmp_path):
    path = write_csv(tmp_path / "t.csv", table(120, 4))
    network = create((5, 6, 2), seed=1)
    data = load_dataset(str(path), target=("y",), networks=(network,))
    examples = prepare(network, data, data.train)
    assert examples.labels[0].dtype == np.uint8
    np.testing.assert_array_equal(examples.labels[0], data.train.labels)
    rest = data.but_test_rows()
    assert (rest.train.rows, rest.validation, rest.test) == (0, None, data.test)
    np.testing.assert_array_equal(prepare(network, rest, rest.test, tasks=examples.tasks).labels[0], rest.test.labels)


def test_labels_and_numbers_of_rows_of_a_narrow_table_take_little(tmp_path, monkeypatch):
    """Of five columns, labels in 64 bits were a fifth of the table in each split, and in each step that copied them."""
    for name, size in (
        ("dataset._LOOKED_AT", 1 << 11),
        ("dataset._CHUNK_BYTES", 1 << 14),
        ("distinct._PIECE_BYTES", 1 << 14),
        ("delimited._BLOCK_BYTES", (1 << 16, 1 << 24)),
        ("cells._BUNDLE", 1 << 12),
    ):
        monkeypatch.setattr(f"onnxsurgeon.data.{name}", size)
    rows = 50_000
    columns = {name: np.tile(c, 25) for name, c in table(2000, 4).items()}
    path, small = write_csv(tmp_path / "t.csv", columns), write_csv(tmp_path / "s.csv", table(200, 4))
    network = create((5, 2))
    tracemalloc.start()
    try:
        for each in (small, path):  # the first imports what is needed
            data = load_dataset(each, target="y", networks=(network,))
            tracemalloc.reset_peak()
            data = None
            before = tracemalloc.get_traced_memory()[0]
            data = load_dataset(each, target="y", networks=(network,))
            held, loading = (size - before for size in tracemalloc.get_traced_memory())
            tracemalloc.reset_peak()
            data_notes(network, data, InputOptions())
            noting = tracemalloc.get_traced_memory()[1] - before
            tracemalloc.reset_peak()
            _, deciding = data.hold_out()
            halves = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert data.train.labels.dtype == np.int64
    assert deciding.labels.dtype == np.int64
    array = 40 * rows
    # A number of four bytes and a class of one a row beside the array; then a row's label in 64 bits, for a moment.
    assert held < array + 5.5 * rows
    assert loading < array + 14 * rows
    assert noting < array + 14 * rows
    assert halves < array + 15 * rows


MEASURE_WIDE = """
import resource, sys
from onnxsurgeon import load_dataset
def most(path):
    load_dataset(path, target=("y",))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(most(sys.argv[1]), most(sys.argv[2]))
"""


def test_very_many_columns_of_few_rows_take_little(tmp_path):
    """Ten kilobytes a column were Arrow's tables of texts that mean null or true, which are not asked for."""
    for name, columns in (("s", 10), ("t", 20_000)):
        lines = [",".join([*(f"c{i}" for i in range(columns)), "y"])]
        lines += [",".join([*map(str, range(columns)), str(row % 2)]) for row in range(4)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-c", MEASURE_WIDE, tmp_path / "s.csv", tmp_path / "t.csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after - before < 200 * MB
