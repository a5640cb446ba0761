"""The tool that compares CUDA with the processor: tried with the processor in both places."""

import check_cuda as tool
import numpy as np
import onnxruntime
import pytest

from onnxsurgeon import EngineError


@pytest.mark.parametrize("name", list(tool.NETWORKS))
@pytest.mark.parametrize("optimizer", tool.OPTIMIZERS)
def test_the_processor_computes_the_same_as_itself(name, optimizer):
    row = tool.compare(name, "loop", optimizer, "cpu", 6)
    assert row.weights == 0
    assert row.losses[0] == row.losses[1] > 0
    assert row.is_right
    assert row.ratio > 0
    assert not row._replace(losses=(1.0, 1.011)).is_right


def test_weights_that_are_apart_are_seen(monkeypatch):
    train = tool.make_engine("loop").__class__.train
    moved = []

    def trained(self, network, examples, batches, spec):
        done = train(self, network, examples, batches, spec)
        moved.append(done)
        if len(moved) < 4:  # two of each device
            return done
        values = [value.copy() for _, value in done.network.parameters()]
        values[0].flat[np.abs(values[0]).argmax()] *= 1.5
        return done.__class__(done.network.with_parameters(values), done.mean_loss, done.steps, done.seconds)

    monkeypatch.setattr(tool.make_engine("loop").__class__, "train", trained)
    assert tool.compare("small", "loop", "sgd", "cpu", 2).weights == pytest.approx(0.5)


def test_the_table_has_a_row_for_each(capsys):
    assert tool.main(["--device", "cpu", "--networks", "small", "--steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[1:3] for line in lines[2:]] == [
        [engine, optimizer] for engine in tool.ENGINES for optimizer in tool.OPTIMIZERS
    ]


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is a GPU")
def test_without_cuda_a_line_says_so(capsys):
    assert tool.main(["--steps", "1"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("check_cuda: device 'cuda' is not available")
    assert told.count("\n") == 1
    with pytest.raises(EngineError, match="not available"):
        tool.compare("small", "loop", "sgd", "cuda", 1)
