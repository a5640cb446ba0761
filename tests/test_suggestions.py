"""What is mistyped is answered with what may have been meant: options, columns, data sets, layers, choices."""

import pytest

from onnxsurgeon import SettingsError, SurgeonSettings
from onnxsurgeon.suggestions import MANY, did_you_mean, nearest
from tests.conftest import MODELS

SMALL = str(MODELS / "digits-small.onnx")


def test_the_likeliest_come_first_and_far_ones_not_at_all():
    assert nearest("mnst", ["emnist", "mnist", "digits"]) == ["mnist", "emnist"]
    assert did_you_mean("RELU", ["Relu", "Tanh"]) == ": did you mean 'Relu'?"
    assert did_you_mean("zzz", ["Relu", "Tanh"]) == ""
    assert did_you_mean("a" * 101, ["a" * 101]) == ""
    assert nearest("x1", (f"x{number}" for number in range(1, 10 * MANY)))[0] == "x1"


@pytest.fixture
def table(tmp_path, cli):
    cli("new", "2-4-1", "-o", "a.onnx")
    (tmp_path / "t.csv").write_text("age,size,label\n" + "1,2,0.5\n3,4,1.5\n" * 20)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("evolve a.onnx --data digits --epoch 3", "No such option: --epoch: did you mean --epochs?"),
        ("evolve a.onnx --data digits --learnin-rate 3", "did you mean --learning-rate?"),
        ("evolve a.onnx --data digits --memry", "--memry: did you mean --max-memory?\n"),  # and not an old name
        ("new --sofmax", "did you mean --softmax?"),
        ("evaluate a.onnx --data t.csv --target labl", "it has 'age', 'size', 'label': did you mean 'label'?"),
        ("evaluate a.onnx --data digts", "or a folder of images: did you mean 'digits'?"),
        ("evaluate a.onnx --data t.cvs", "or a folder of images: did you mean 't.csv'?"),
        ("data info emnist:digts", "byclass, bymerge, balanced, letters, digits, mnist: did you mean 'digits'?"),
        ("operate a.onnx widdn:1:2 -o b.onnx", "prune, remove_block, remove_block_data, widen: did you mean 'widen'?"),
        (
            "operate a.onnx widen:layr1:2 -o b.onnx",
            "'widen:layr1:2': expected widen:LAYER:UNITS; 'layer1' is layer 1: did you mean 'widen:1:2'?",
        ),
        ("operate a.onnx widen:zzzz:2 -o b.onnx", "'widen:zzzz:2': expected widen:LAYER:UNITS\n"),
        ("new 2-3-2 -o b.onnx --activation relu", "unknown activation 'relu': did you mean 'Relu' or 'Elu'?"),
        ("evaluate a.onnx --data digits --engine lop", "did you mean 'loop'?"),
        ("evaluate a.onnx --data digits --device cud", "did you mean 'cuda'?"),
        ("evaluate a.onnx --data digits --loss squared", "did you mean 'squared-error'?"),
        ("evaluate a.onnx --data digits --metric balanced", "did you mean 'balanced-accuracy'?"),
        ("evolve a.onnx --data digits --search shrink_trained", "did you mean 'shrink-trained'?"),
        ("evolve a.onnx --data digits --track mlfow", "did you mean 'mlflow'?"),
        ("train a.onnx --data digits --schedule cosin -o b.onnx", "did you mean 'cosine'?"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(command, expected, cli, table, tmp_path):
    before = sorted(tmp_path.iterdir())
    code, out, err = cli(*command.split())
    assert (code, out) == (2, "")
    assert expected in err
    assert sorted(tmp_path.iterdir()) == before


def test_settings_from_python_are_suggested_too():
    with pytest.raises(SettingsError, match=r"^unknown setting 'epoch': did you mean 'epochs'\?$"):
        SurgeonSettings.from_preset(epoch=3)
