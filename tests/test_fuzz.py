"""Whatever a file holds, it ends in a result or a named error; files that once did not are kept in seeds/."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fuzzing.byte_mutations import mutate_bytes
from fuzzing.corpus import corpus
from fuzzing.data_files import run_data
from fuzzing.graph_mutations import mutate_graph
from fuzzing.moved_axes import run_moved
from fuzzing.pipeline import furnish, make_input, run_input
from fuzzing.runs import run_damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
SEEDS = sorted((ROOT / "tests" / "seeds").glob("*.onnx"))
quick = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("fuzz")
    furnish(made)
    return made


@pytest.fixture(autouse=True)
def _overflow_is_the_weights_own():
    """Weights near the largest float overflow in sums, which numpy would warn of."""
    with np.errstate(all="ignore"):
        yield


def test_the_corpus_comes_through(folder):
    endings = [run_input(content, folder) for content in corpus()]
    assert all(ending.kind != "BUG" for ending in endings), endings
    read = [ending for ending in endings if "refuses the model" not in ending.what]  # older releases know fewer opsets
    assert sum(ending.kind == "result" for ending in read) >= 0.9 * len(read) > 100


@quick
@given(rng=st.randoms(use_true_random=False))
def test_bytes(rng, folder):
    ending = run_input(mutate_bytes(rng), folder)
    assert ending.kind != "BUG", ending.what


@quick
@given(rng=st.randoms(use_true_random=False))
def test_structure(rng, folder):
    ending = run_input(mutate_graph(rng), folder)
    assert ending.kind != "BUG", ending.what


@quick
@given(content=st.binary(max_size=200))
def test_any_bytes(content, folder):
    ending = run_input(content, folder)
    assert ending.kind == "error", ending.what


@pytest.mark.parametrize("path", SEEDS, ids=lambda path: path.stem)
def test_seeds(path, folder):
    ending = run_input(path.read_bytes(), folder)
    assert ending.kind != "BUG", ending.what


@pytest.mark.parametrize("seed", range(4))
def test_models_in_which_the_batch_moves_about_compute_what_they_did(seed, tmp_path):
    endings = [run_moved(seed, index, tmp_path) for index in range(30)]
    assert [ending.what for ending in endings if ending.kind == "BUG"] == []
    assert sum(ending.kind == "result" for ending in endings) >= 10


@pytest.mark.parametrize("index", range(30))
def test_damaged_runs(index, tmp_path):
    pytest.importorskip("matplotlib")
    ending = run_damaged(1, index, tmp_path)
    assert ending.kind != "BUG", ending.what


@pytest.mark.parametrize("index", range(150))
def test_damaged_data(index, tmp_path):
    for package in ("PIL", "pyarrow"):
        pytest.importorskip(package)
    ending = run_data(1, index, tmp_path / "data")
    assert ending.kind != "BUG", ending.what


@pytest.mark.parametrize("kind", ["bytes", "structure"])
def test_inputs_depend_on_seed_and_index_alone(kind):
    code = f"from fuzzing.pipeline import *; print([make_input({kind!r}, 3, i).hex() for i in range(20)])"
    paths = {**os.environ, "PYTHONPATH": f"{ROOT / 'tools'}{os.pathsep}{ROOT}", "PYTHONHASHSEED": "5"}
    printed = subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str([make_input(kind, 3, index).hex() for index in range(20)])
