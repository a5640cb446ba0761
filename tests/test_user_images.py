"""The user's folder of images, one folder a class, and every error."""

import numpy as np
import pytest
from typer.testing import CliRunner

from onnxsurgeon import DataError, create, load_dataset
from onnxsurgeon import save as write
from onnxsurgeon.cli import app

Image = pytest.importorskip("PIL.Image")

RNG = np.random.default_rng(0)


def save(path, shape=(5, 4), suffix=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path):
    """Two classes of ten greyscale images, and files that are none."""
    root = tmp_path / "pictures"
    for name in ("dog", "cat"):
        for i in range(10):
            save(root / name / f"{i}.png")
    (root / ".hidden").mkdir()
    (root / "dog" / ".0.png").write_text("hidden")
    (root / "dog" / "notes.txt").write_text("no image")
    (root / "readme.md").write_text("no class")
    return root


def test_one_folder_a_class(folder):
    data = load_dataset(str(folder))
    assert (data.train.inputs.shape, data.train.inputs.dtype) == ((16, 5, 4), "uint8")
    assert (data.classes, data.class_labels, data.maximum) == (2, ("cat", "dog"), 255.0)
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    own = {np.asarray(Image.open(path)).tobytes(): path.parent.name for path in folder.glob("*/[0-9].png")}
    for split in data.splits:
        for image, label in zip(split.inputs, split.labels, strict=True):
            assert own[image.tobytes()] == data.class_labels[label]
    assert data.digest == load_dataset(f"{folder}/").digest


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "ppm", "PNG"])
def test_formats_without_loss(suffix, tmp_path):
    pixels = [save(tmp_path / "a" / f"{i}.{suffix}", (3, 2, 3)) for i in range(5)]
    data = load_dataset(str(tmp_path))
    rows = np.concatenate([data.train.inputs, data.test.inputs])
    assert rows.shape == (5, 3, 2, 3)
    assert {row.tobytes() for row in rows} == {image.tobytes() for image in pixels}


def test_given_splits(tmp_path):
    expected = {part: save(tmp_path / part / "a" / "0.png") for part in ("train", "test", "val")}
    save(tmp_path / "train" / "b" / "0.jpg")
    data = load_dataset(str(tmp_path))
    assert (data.train.rows, data.test.rows, data.validation.rows, data.class_labels) == (2, 1, 1, ("a", "b"))
    np.testing.assert_array_equal(data.train.inputs[0], expected["train"])
    np.testing.assert_array_equal(data.test.inputs[0], expected["test"])
    np.testing.assert_array_equal(data.hold_out()[1].inputs[0], expected["val"])
    save(tmp_path / "validation" / "a" / "0.png")
    with pytest.raises(DataError, match=r"validation: expected the folders train, test and validation \(or val\)"):
        load_dataset(str(tmp_path))


def test_a_class_may_be_called_train(tmp_path):
    for name in ("car", "train"):
        for i in range(5):
            save(tmp_path / name / f"{i}.png")
    assert load_dataset(str(tmp_path)).class_labels == ("car", "train")


def test_links_inside_are_followed_and_links_out_are_refused(folder):
    (folder / "dog" / "link.png").symlink_to(folder / "dog" / "0.png")
    assert sum(split.rows for split in load_dataset(str(folder)).splits) == 21
    (folder / "dog" / "loop").symlink_to(folder / "dog" / "loop")  # no image, whatever it leads to
    load_dataset(str(folder))
    outside = folder.parent / "outside.png"
    save(outside)
    (folder / "cat" / "out.png").symlink_to(outside)
    with pytest.raises(DataError, match=r"cat/out\.png: is a link that leads out of .*pictures; put the file itself"):
        load_dataset(str(folder))
    (folder / "cat" / "out.png").unlink()
    (folder / "bird").symlink_to(folder.parent)
    with pytest.raises(DataError, match="bird: is a link that leads out of"):
        load_dataset(str(folder))


def test_images_that_cannot_be_used(folder, monkeypatch):
    path = folder / "dog" / "x.png"

    def fails(reason):
        with pytest.raises(DataError, match=reason):
            load_dataset(str(folder))

    save(path, (4, 5))
    fails(r"dog/x\.png: expected 4 × 5 pixels, greyscale as .*cat/0\.png is; found 5 × 4 pixels, greyscale")
    save(path, (5, 4, 3))
    fails(r"dog/x\.png: expected 4 × 5 pixels, greyscale as .*cat/0\.png is; found 4 × 5 pixels, RGB")
    save(path, (5, 4, 4))
    fails(r"dog/x\.png: expected a greyscale \(L\) or RGB image; found mode RGBA: save it anew, with Pillow image")
    for content in (b"", b"no image", (folder / "dog" / "0.png").read_bytes()[:60]):
        path.write_bytes(content)
        fails(r"dog/x\.png: not a readable image: ")
    path.unlink()
    path.mkdir()
    load_dataset(str(folder))
    path.rmdir()
    for pixels in (15, 8):  # Pillow warns of more than its limit, and raises at twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
        fails(rf"cat/0\.png: has more than {pixels} pixels; refused")


def test_folders_that_cannot_be_used(folder):
    with pytest.raises(DataError, match="pictures: takes no --target, its folders are its classes; found 'y'"):
        load_dataset(str(folder), target=("y",))
    with pytest.raises(DataError, match="pictures: --impute fills missing values of tables; this is none"):
        load_dataset(str(folder), impute="mean")
    (folder / "bird").mkdir()
    with pytest.raises(DataError, match=r"bird: holds no images; expected files such as \.png or \.jpg"):
        load_dataset(str(folder))
    with pytest.raises(DataError, match="bird: expected a folder of images for each class; found none"):
        load_dataset(str(folder / "bird"))
    with pytest.raises(DataError, match=r"unknown data set '.*none': expected one of .*, or a folder of images"):
        load_dataset(str(folder / "none"))


def test_without_pillow(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(DataError, match=r"cat/0\.png: reading images needs pip install 'onnxsurgeon\[data\]'"):
        load_dataset(str(folder))


def test_folders_inside_of_a_class_are_of_that_class(folder):
    inner = [save(folder / "dog" / place / "1.PNG") for place in ("puppy", "puppy/small", "old")]
    data = load_dataset(str(folder))
    rows = np.concatenate([split.inputs[split.labels == 1] for split in data.splits])
    assert len(rows) == 13
    assert {image.tobytes() for image in inner} < {row.tobytes() for row in rows}
    assert data.remarks[0] == "images in folders inside of a class's folder are of that class: 3, such as dog/old/1.PNG"


def test_what_is_left_out_is_told(folder):
    save(folder / "stray.png")
    (folder / "dog" / "photo.heic").write_bytes(b"x")
    (folder / "dog" / "gone").symlink_to(folder / "dog" / "nowhere")
    (told,) = load_dataset(str(folder)).remarks
    assert told == (
        f"left out of {folder}: 2 hidden ones, such as .hidden; "
        "1 link that leads nowhere, such as dog/gone; 3 without an image's ending, such as dog/notes.txt; "
        "1 image outside of the classes' folders, such as stray.png"
    )


def test_a_name_that_is_no_text_is_shown(folder):
    (folder / "dog" / ("\x1b[2J" + "x" * 200)).write_bytes(b"x")
    (told,) = load_dataset(str(folder)).remarks
    assert told.isprintable()
    assert len(told) < 400


def test_nothing_to_tell_is_not_told(tmp_path):
    for i in range(5):
        save(tmp_path / "a" / f"{i}.png")
    assert load_dataset(str(tmp_path)).remarks == ()


def test_splits_are_known_in_any_case_and_what_lies_beside_them_is_told(tmp_path):
    for part in ("Train", "Testing", "valid"):
        save(tmp_path / part / "a" / "0.png")
        save(tmp_path / part / "stray.png") if part == "valid" else None
    save(tmp_path / "stray.png")
    data = load_dataset(str(tmp_path))
    assert (data.train.rows, data.test.rows, data.validation.rows) == (1, 1, 1)
    assert data.remarks == (f"left out of {tmp_path}: 2 images outside of the classes' folders, such as stray.png",)


def test_images_alone_beside_those_of_splits_are_told(tmp_path):
    for part in ("train", "test"):
        save(tmp_path / part / "0.png")
    save(tmp_path / "0.png")
    data = load_dataset(str(tmp_path))
    assert (data.is_labelled, data.train.rows, data.test.rows) == (False, 1, 1)
    assert data.remarks == (f"left out of {tmp_path}: 1 image outside of the classes' folders, such as 0.png",)


def test_a_folder_too_high_is_refused(tmp_path):
    for name in ("cat", "dog"):
        for i in range(5):
            save(tmp_path / "data" / name / f"{i}.png")
    with pytest.raises(
        DataError, match=r"found one, which holds folders itself: name .*data where its folders are the"
    ):
        load_dataset(str(tmp_path))
    assert load_dataset(str(tmp_path / "data")).class_labels == ("cat", "dog")


def test_links_to_folders_above_or_beside_are_read_once(folder):
    """Twenty folders, each with two links to the next, are a million paths."""
    save(folder / "dog" / "0" / "x.png")
    for i in range(20):
        for name in "ab":
            (folder / "dog" / str(i)).mkdir(exist_ok=True)
            (folder / "dog" / str(i) / name).symlink_to(folder / "dog" / str((i + 1) % 20), target_is_directory=True)
    data = load_dataset(str(folder))
    assert sum(split.rows for split in data.splits) == 21
    assert any("folders that were read under other names, such as dog/" in told for told in data.remarks)


def test_frames_and_turned_images_are_told(tmp_path):
    frames = [Image.fromarray(RNG.integers(0, 256, (5, 4), dtype=np.uint8)) for _ in range(2)]
    (tmp_path / "a").mkdir()
    for i in range(5):
        frames[0].save(tmp_path / "a" / f"{i}.tif", save_all=i == 3, append_images=frames[1:] if i == 3 else [])
    turned = Image.Exif()
    turned[0x0112] = 6
    frames[1].save(tmp_path / "a" / "5.png", exif=turned)
    data = load_dataset(str(tmp_path))
    assert sum(split.rows for split in data.splits) == 6
    assert data.remarks == (
        "images of several frames or pages, of which the first is read: 1, such as a/3.tif",
        "images whose EXIF data say that a viewer turns them, which are read as they are stored: 1, such as a/5.png",
    )


def test_the_command_line_tells_what_was_left_out(folder):
    model = str(folder.parent / "m.onnx")
    write(create((20, 3, 2), seed=1), model)
    for more in ((), ("--teacher", model)):
        done = CliRunner().invoke(app, ["evaluate", model, "--data", str(folder), *more])
        assert done.exit_code == 0, done.output
        assert f"left out of {folder}: 2 hidden ones" in done.output
