"""Rows without labels: every reader, how they are split, and what is said where labels are needed."""

import re

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import DataError, EngineError, create, diff, from_model, load_dataset, make_engine, prepare, save
from onnxsurgeon.data.dataset import Selection, Split, unlabelled
from onnxsurgeon.data.more import more_rows
from onnxsurgeon.data.options import InputOptions
from onnxsurgeon.data.prepare import prepare_rows
from onnxsurgeon.operating.perform import draw_sample, perform
from onnxsurgeon.randomness import generator
from onnxsurgeon.surgery import parse

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 4)).astype("f")
PARTS = ("train", "test", "validation")


def npz(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return str(folder / "a.npz")


def joined(split):
    """All inputs of a split side by side."""
    inputs = split.inputs
    return np.column_stack(list(inputs.values())) if isinstance(inputs, dict) else inputs


def whole(data):
    """Every row of a set, sorted by the first value."""
    rows = np.concatenate([joined(split) for split in data.splits])
    return rows[np.argsort(rows[:, 0])]


def test_all_rows_are_there_and_are_split_as_those_of_a_regression(tmp_path):
    plain = load_dataset(npz(tmp_path, x=X))
    targets = load_dataset(npz(tmp_path, x=X, y=np.arange(50) + 0.5))
    assert (plain.is_labelled, targets.is_labelled) == (False, True)
    assert (plain.classes, plain.class_labels, plain.train.labels.shape, plain.test.rows) == (0, (), (40, 0), 10)
    for own, other in zip((*plain.hold_out(), plain.test), (*targets.hold_out(), targets.test), strict=True):
        np.testing.assert_array_equal(own.inputs, other.inputs)
    assert plain.digest != targets.digest
    assert plain.digest == load_dataset(npz(tmp_path, x=X)).digest
    assert plain.digest != load_dataset(npz(tmp_path, x=X + 1)).digest


@pytest.mark.parametrize("name", ["x", "obs", "X"])
def test_one_array_of_any_name(name, tmp_path):
    data = load_dataset(npz(tmp_path, **{name: X}))
    np.testing.assert_array_equal(whole(data), X[np.argsort(X[:, 0])])
    assert prepare_rows(create((4, 3)), data, data.train).rows == 40
    data = load_dataset(npz(tmp_path, **{f"{name}_train": X, f"{name}_test": X[:7], f"{name}_validation": X[:3]}))
    assert [split.rows for split in (data.train, data.test, data.hold_out()[1])] == [50, 7, 3]
    np.testing.assert_array_equal(joined(data.test), X[:7])


def test_several_inputs_by_their_names(tmp_path):
    colour = np.array(["r", "g"])[np.arange(50) % 2]
    data = load_dataset(npz(tmp_path, colour=colour, size=X[:, 0]))
    assert {name: values.shape for name, values in data.train.inputs.items()} == {"colour": (40,), "size": (40,)}
    data = load_dataset(npz(tmp_path, a_train=X, b_train=X, a_test=X[:5], b_test=X[5:10]))
    assert (data.train.rows, data.test.rows, list(data.test.inputs)) == (50, 5, ["a", "b"])
    with pytest.raises(DataError, match="inputs of one split must have the same number of rows; found 50 of 'a'"):
        load_dataset(npz(tmp_path, a=X, b=X[:3]))
    with pytest.raises(DataError, match="'a' holds nan in row 2"):
        load_dataset(npz(tmp_path, a=np.where(np.arange(50) == 2, np.nan, 0), b=X))


def test_a_single_npy_stays_in_its_file(tmp_path):
    np.save(tmp_path / "x.npy", X)
    data = load_dataset(str(tmp_path / "x.npy"))
    assert not data.is_labelled
    assert isinstance(data.train.source, np.memmap)
    np.testing.assert_array_equal(whole(data), X[np.argsort(X[:, 0])])


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_tables_of_the_input_columns(suffix, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="," if suffix == "csv" else "\t")
    data = load_dataset(str(path))
    assert (data.is_labelled, data.classes, list(data.train.inputs)) == (False, 0, list("abcd"))
    np.testing.assert_allclose(whole(data), X[np.argsort(X[:, 0])], rtol=1e-6)
    assert prepare_rows(create((4, 3)), data, data.train).features[0].shape == (40, 4)
    with pytest.raises(DataError, match=r"expected 3 columns .* found 4: 'a', .*; --target says which are labels"):
        prepare_rows(create((3, 3)), data, data.train)


def test_tables_of_given_splits_and_missing_values(tmp_path):
    for part, rows in zip(PARTS, ("1,2\n,4\n5,7\n", "7,8\n", "9,1\n"), strict=True):
        (tmp_path / f"{part}.csv").write_text("a,b\n" + rows)
    with pytest.raises(DataError, match="column 'a': expected a number, found nothing; --impute"):
        load_dataset(str(tmp_path))
    data = load_dataset(str(tmp_path), impute="mean")
    assert (data.is_labelled, data.train.inputs["a"].tolist(), data.test.inputs["b"].tolist()) == (
        False,
        [1, 3, 5],
        [8],
    )
    assert data.hold_out()[1].inputs["a"].tolist() == [9]


def two_inputs():
    """y = [a, b] W, a and b of one column each."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in "ab"]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["x"], axis=1, name="c"),
        helper.make_node("MatMul", ["x", "W"], ["y"], name="m"),
    ]
    weight = numpy_helper.from_array(RNG.standard_normal((2, 3)).astype("f"), "W")
    graph = helper.make_graph(nodes, "g", values, [y], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_column_that_is_no_input_may_be_the_labels(tmp_path):
    """With several inputs, columns of other names are left out elsewhere: here that would forget the labels."""
    network = from_model(two_inputs())
    (tmp_path / "t.csv").write_text("a,b,price\n" + "1,2,3\n" * 20)
    data = load_dataset(str(tmp_path / "t.csv"))
    with pytest.raises(DataError, match="'price' is no input of 'model', which takes 'a', 'b'; if it is the labels"):
        prepare_rows(network, data, data.train)
    labelled = load_dataset(str(tmp_path / "t.csv"), target=("price",))
    assert prepare_rows(network, labelled, labelled.train).rows == 16


def test_images_without_classes(tmp_path):
    image = pytest.importorskip("PIL.Image")

    def write(folder, count):
        folder.mkdir(parents=True)
        pixels = RNG.integers(0, 256, (count, 5, 4), dtype=np.uint8)
        for number, each in enumerate(pixels):
            image.fromarray(each).save(folder / f"{number}.png")
        return pixels

    pixels = write(tmp_path / "p", 10)
    (tmp_path / "p" / "notes.txt").write_text("no image")
    data = load_dataset(str(tmp_path / "p"))
    assert (data.is_labelled, data.train.inputs.shape, data.test.rows) == (False, (8, 5, 4), 2)
    found = {each.tobytes() for split in data.splits for each in split.inputs}
    assert found == {each.tobytes() for each in pixels}
    pixels = {
        part: write(tmp_path / "q" / part, count)
        for part, count in zip(("train", "test", "val"), (6, 3, 2), strict=True)
    }
    data = load_dataset(str(tmp_path / "q"))
    assert not data.is_labelled
    np.testing.assert_array_equal(data.train.inputs, pixels["train"])
    np.testing.assert_array_equal(data.test.inputs, pixels["test"])
    np.testing.assert_array_equal(data.hold_out()[1].inputs, pixels["val"])
    (tmp_path / "q" / "car").mkdir()
    image.fromarray(pixels["val"][0]).save(tmp_path / "q" / "car" / "0.png")
    assert load_dataset(str(tmp_path / "q")).class_labels == ("car", "test", "train", "val")


def test_commands_that_need_labels_say_so_in_one_line(cli, tmp_path):
    save(create((4, 8, 3), seed=1), tmp_path / "a.onnx")
    npz(tmp_path, x=X)
    for command, *options in (("train", "-o", "b.onnx"), ("evaluate",)):
        code, out, err = cli(command, "a.onnx", "--data", "a.npz", *options)
        assert (code, out) == (2, "")
        assert err == (
            "onnxsurgeon: a.npz: its rows have no labels, which this needs: give them (--target, or y in an .npz), or "
            "let a teacher give the targets (evolve; evaluate --teacher MODEL)\n"
        )
    with pytest.raises(DataError, match="its rows have no labels"):
        diff(tmp_path / "a.onnx", tmp_path / "a.onnx", data=str(tmp_path / "a.npz"))
    assert not (tmp_path / "b.onnx").exists()


def test_surgeries_that_go_by_data_need_no_labels(tmp_path):
    data, network = load_dataset(npz(tmp_path, x=X)), create((4, 8, 6, 3), seed=1)
    sample = draw_sample(network, data, InputOptions())
    pruned, (performed,) = perform(network, [parse("prune:1:5")], sample)
    assert pruned.topology == "4-5-6-3"
    assert performed.found is not None
    labelled = load_dataset(npz(tmp_path, x=X, y=np.arange(50) + 0.5))
    regression = create((4, 8, 6, 1), seed=1, softmax=False)
    by_labels, _ = perform(regression, [parse("prune:1:5")], draw_sample(regression, labelled, InputOptions()))
    without, _ = perform(regression, [parse("prune:1:5")], draw_sample(regression, data, InputOptions()))
    for (_, one), (_, other) in zip(by_labels.parameters(), without.parameters(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_labels_are_not_asked_of_examples_without(tmp_path):
    data, network = load_dataset(npz(tmp_path, x=X)), create((4, 3))
    examples = prepare_rows(network, data, data.train)
    assert (examples.rows, examples.labels, examples.tasks) == (40, (), ())
    with pytest.raises(EngineError, match="'model': the rows have no labels"):
        make_engine("loop").evaluate(network, examples)
    with pytest.raises(DataError, match=re.escape("give them (--target, or y in an .npz)")):
        prepare(network, data, data.train)


# More rows.


def made(inputs, count=20_000):
    rows = len(next(iter(inputs.values()))) if isinstance(inputs, dict) else len(inputs)
    return more_rows(Split(inputs, unlabelled(rows)), count, generator(0, "more rows"))


def test_made_rows_have_the_mean_and_covariance_of_the_given_ones():
    mixing = RNG.standard_normal((4, 4))
    rows = (RNG.standard_normal((3000, 4)) @ mixing + [5, 0, -3, 1]).astype("f")
    found = made(rows)
    assert (found.inputs.shape, found.inputs.dtype, found.labels.shape) == ((20_000, 4), np.float32, (20_000, 0))
    np.testing.assert_allclose(found.inputs.mean(0), rows.mean(0), atol=0.08)
    expected = np.cov(rows.T)
    np.testing.assert_allclose(np.cov(found.inputs.T), expected, atol=0.06 * np.abs(expected).max())
    assert (found.inputs >= rows.min(0)).all()
    assert (found.inputs <= rows.max(0)).all()
    given = {row.tobytes() for row in rows}
    assert sum(row.tobytes() in given for row in found.inputs) < 20
    np.testing.assert_array_equal(made(rows).inputs, found.inputs)


def test_inputs_of_one_row_are_mixed_in_keeping():
    a = RNG.standard_normal((500, 3))
    found = made(
        {
            "a": a,
            "b": 2 * a[:, 0],
            "kind": (a[:, 0] > 0).astype(np.int64),
            "name": np.array(["n", "p"])[(a[:, 0] > 0) * 1],
        }
    )
    np.testing.assert_allclose(found.inputs["b"], 2 * found.inputs["a"][:, 0], rtol=1e-9, atol=1e-12)
    assert found.inputs["kind"].dtype == np.int64
    np.testing.assert_array_equal(found.inputs["name"], np.array(["n", "p"])[found.inputs["kind"]])


def test_pixels_stay_pixels_and_whole_columns_whole():
    pixels = RNG.integers(0, 2, (60, 4, 4), dtype=np.uint8) * 200
    found = made(pixels, 500).inputs
    assert (found.dtype, found.max(), found.min()) == (np.uint8, 200, 0)
    assert len(np.unique(found)) > 50
    columns = np.stack([RNG.integers(0, 3, 400), RNG.random(400)], axis=1)
    found = made(columns, 500).inputs
    assert set(np.unique(found[:, 0])) == {0, 1, 2}
    assert len(np.unique(found[:, 1])) > 400  # but for those kept within the range
    with pytest.raises(DataError, match="no more rows can be made: all inputs are integers or texts"):
        made({"a": np.arange(50)})


def test_rows_of_a_selection_alone_are_mixed():
    source = np.concatenate([np.zeros((50, 2)), RNG.random((50, 2)) + 1])
    found = more_rows(Selection(source, np.arange(50, 100), unlabelled(50)), 300, generator(0, "more rows"))
    assert found.inputs.min() >= 1
