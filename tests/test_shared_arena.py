"""Sessions of a run on images take turns in the same memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from onnxsurgeon import create_convolutional, make_engine
from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.runtime import session_options
from onnxsurgeon.training.fit import fit

# Trains networks of equally large maps, each by a session of its own, and prints the peak of memory after each, in MB.
SCRIPT = """
import json, resource
import numpy as np
from onnxsurgeon import create_convolutional, make_engine
from onnxsurgeon.data.dataset import Dataset, Split
from onnxsurgeon.training.fit import fit

rng = np.random.default_rng(0)
split = Split(rng.integers(0, 256, (128, 28, 28, 1), np.uint8), (np.arange(128) % 10).astype(np.uint8))
data = Dataset("images", split, split, 10)
engine, peaks = make_engine("loop"), []
for units in range(10):
    network = create_convolutional(f"28x28x1-c48-c48-p-{20 + units}-10", seed=0)
    fit(network, data, engine, epochs=1, batch_size=64)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(json.dumps(peaks))
"""


def test_networks_of_a_run_take_their_memory_in_turns():
    """Ten topologies, whose sessions are all kept: each would keep some 110 MB of its own."""
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]))
    command, environment = [sys.executable, "-c", SCRIPT], {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    peaks = json.loads(done.stdout)
    assert peaks[-1] - peaks[0] < 300


def test_memory_in_common_changes_no_bit(monkeypatch):
    """Two topologies in turns, in common memory and each in its own."""
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (96, 12, 12, 1), np.uint8), (np.arange(96) % 10).astype(np.uint8))
    data = Dataset("images", split, split, 10)

    def trained():
        engine, found = make_engine("loop"), []
        for units in (4, 6, 4):
            network = create_convolutional(f"12x12x1-c{units}-p-10", seed=0)
            network = fit(network, data, engine, epochs=2)[0].network
            found += [values.tobytes() for _, values in network.parameters()]
        return found

    def own(threads=1, *, shares=False):
        asked.append(shares)
        return session_options(threads)

    together, asked = trained(), []
    monkeypatch.setattr("onnxsurgeon.runtime.session_options", own)
    assert trained() == together
    assert asked.count(True) == 4  # two to train, two to evaluate
