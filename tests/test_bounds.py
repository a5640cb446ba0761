"""Whatever a stranger's model asks for is bounded as a whole, and refused with one line."""

import gc
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxsurgeon import ModelError, bounds
from onnxsurgeon.data.features import compute_features
from onnxsurgeon.graph import allowance, residual, sizes
from onnxsurgeon.graph.declared import inputs_of
from onnxsurgeon.graph.importing import without_collecting
from onnxsurgeon.graph.reader import from_model
from onnxsurgeon.graph.sizes import largest_tensor, rows_that_fit
from onnxsurgeon.graph.work import work

N = helper.make_node
ROOT = Path(__file__).resolve().parent.parent


def model(nodes, constants, *, feature="i", shape=("batch", 8), outputs=("y",), dtype=np.float32):
    """8-6-3 behind the ``nodes``, which write x where ``feature`` is the input."""
    rng = np.random.default_rng(0)
    weights = {"W1": rng.standard_normal((8, 6)), "W2": rng.standard_normal((6, 3))}
    tensors = {**{name: values.astype(dtype) for name, values in weights.items()}, **constants}
    chain = [N("MatMul", ["x", "W1"], ["a"]), N("Relu", ["a"], ["h"]), N("MatMul", ["h", "W2"], ["y"])]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [*nodes, *chain],
        "g",
        [helper.make_tensor_value_info(feature, kind, shape)],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(*arguments, timeout=60):
    """The command line in a process of its own: its exit code, and what it printed."""
    command = [sys.executable, "-m", "onnxsurgeon", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    return done.returncode, done.stdout, done.stderr


def write(made, folder, name="m.onnx"):
    path = folder / name
    path.write_bytes(made.SerializeToString())
    return path


# --- Constants that fold ------------------------------------------------------------------------------------------


def chained(op, count, *others, start="c", **attributes):
    """``count`` nodes in a row, each reading the last one's result; "<" stands for it among ``others``."""
    names = [start, *(f"{op}{k}" for k in range(count))]
    return [
        N(op, [name, *(name if each == "<" else each for each in others)], [following], **attributes)
        for name, following in pairwise(names)
    ]


def read_by_x(name):
    """Nodes that add the first element of the constant ``name`` to the input."""
    return [
        N("Gather", [name, "first"], ["some"]),
        N("Mul", ["some", "zero"], ["none"]),
        N("Add", ["i", "none"], ["x"]),
    ]


KB = np.zeros(1024, np.float32)
FEW = {"c": KB, "first": np.array([0]), "zero": np.float32(0), "many": np.zeros(2**18, np.int64)}
FOLDING = {
    "Concat with itself": (chained("Concat", 12, "<", axis=0), {}),
    "Concat of many": ([N("Concat", ["c"] * 2000, ["Concat0"], axis=0), *chained("Identity", 1, start="Concat0")], {}),
    "Gather of the same": ([N("Gather", ["c", "many"], ["g"]), *chained("Exp", 40, start="g")], {}),
    "a sum of a row and a column": (
        [N("Add", ["row", "column"], ["s"]), *chained("Neg", 40, start="s")],
        {"row": np.zeros((1, 1024), "f"), "column": np.zeros((512, 1), "f")},
    ),
    "casts there and back": (
        [
            node
            for k in range(2000)
            for node in (
                N("Cast", [f"k{k}" if k else "c"], [f"d{k}"], to=11),
                N("Cast", [f"d{k}"], [f"k{k + 1}"], to=1),
            )
        ],
        {},
    ),
    "arithmetic without end": (chained("Mul", 3000, "c"), {}),
}


@pytest.mark.parametrize("case", FOLDING)
def test_folding_is_bounded_as_a_whole(case, monkeypatch):
    monkeypatch.setattr(allowance, "MAX_FOLDED_BYTES", 2**22)
    nodes, constants = FOLDING[case]
    used = {name for node in nodes for name in node.input} | {"first", "zero"}
    constants = {name: values for name, values in {**FEW, **constants}.items() if name in used}
    if "many" in used:  # what a file holds itself may be folded several times
        monkeypatch.setattr(allowance, "MAX_FOLDED_SHARE", 1)
    made = model([*nodes, *read_by_x(nodes[-1].output[0])], constants)
    with pytest.raises(ModelError, match=r"^model: node '\w+' \(\w+\): .* more than [\d,]+ bytes in all; --trust"):
        from_model(made)
    with bounds.lifted():
        assert from_model(made).topology == "8-6-3"


def test_folding_into_weights_is_bounded(monkeypatch):
    """A weight that many nodes scale is written anew for each."""
    monkeypatch.setattr(allowance, "MAX_FOLDED_BYTES", 2**20)
    nodes = [N("MatMul", ["i", "W0"], ["m0"]), *[N("Mul", [f"m{k}", "two"], [f"m{k + 1}"]) for k in range(200)]]
    made = model(
        [*nodes, N("Identity", ["m200"], ["x"])],
        {"W0": np.full((100, 8), 1e-9, "f"), "two": np.full(8, 1.5, np.float32)},
        shape=("batch", 100),
    )
    from_model(made)
    monkeypatch.setattr(allowance, "MAX_FOLDED_SHARE", 0)
    monkeypatch.setattr(allowance, "MAX_FOLDED_BYTES", 2**18)
    with pytest.raises(ModelError, match=r"bytes in all; --trust"):
        from_model(made)


def test_layers_that_each_make_their_own_of_a_weight_are_bounded(monkeypatch):
    """Of which a small file may ask for any number; layers that share a weight as it is have one."""
    monkeypatch.setattr(allowance, "MAX_FOLDED_BYTES", 2**18)

    def made(**scaled):
        nodes = [
            N("Gemm", [f"m{k}" if k else "i", "W0"], [f"m{k + 1}"], **dict.fromkeys(scaled, 1 + k / 64))
            for k in range(60)
        ]
        weights = {"W0": np.zeros((64, 64), np.float32), "W1": np.zeros((64, 6), "f")}
        return model([*nodes, N("Identity", ["m60"], ["x"])], weights, shape=("n", 64))

    network = from_model(made())
    assert network.parameter_count < 2 * 64 * 64
    with pytest.raises(ModelError, match=r"bytes in all; --trust"):
        from_model(made(alpha=True))
    with bounds.lifted():
        from_model(made(alpha=True))


def test_a_file_of_five_kilobytes_is_refused_within_a_gigabyte(tmp_path):
    made = model(
        [*chained("Concat", 28, "<", axis=0), *read_by_x("Concat27")], {k: FEW[k] for k in ("c", "first", "zero")}
    )
    command = [sys.executable, "-m", "onnxsurgeon", "inspect", str(write(made, tmp_path))]
    # The second row of bounds, that of shape inference, has to hold as well: onnx writes down what it follows.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, err = process.stdout.read(), process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "Concat" in err
    assert used.ru_maxrss < 2**20  # in kB


# --- Names --------------------------------------------------------------------------------------------------------

EVIL = "g\x1b]0;title\x07\x9b31m\u202egnp\u2028\nFAKE: line\r[red]"


def evil_model(op="Mystery" + EVIL, domain="com.example"):
    """Every name that can be is evil; the width of layer 1 stays, which is said with the name of an output."""
    nodes = [
        helper.make_node(op, ["x"], ["p"], name="m" + EVIL, domain=domain),
        helper.make_node("Gemm", ["p", "W1" + EVIL], ["a"], name="g1" + EVIL),
        helper.make_node("Relu", ["a"], ["h" + EVIL]),
        helper.make_node("Gemm", ["h" + EVIL, "W2"], ["y" + EVIL], name="g2" + EVIL),
    ]
    rng = np.random.default_rng(0)
    weights = {"W1" + EVIL: rng.standard_normal((8, 6)), "W2": rng.standard_normal((6, 3))}
    graph = helper.make_graph(
        nodes,
        "g" + EVIL,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n" + EVIL, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y" + EVIL, "h" + EVIL)],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


COMMANDS = {
    "inspect": ("{m}",),
    "operate": ("{m}", "widen:1:2", "-o", "{o}"),
    "operate a layer that is not there": ("{m}", "widen:7:2", "-o", "{o}"),
    "diff": ("{m}", "{m}"),
    "evaluate": ("{m}", "--data", "{d}"),
    "evolve": ("{m}", "--data", "{d}", "--epochs", "1", "--run-dir", "{r}", "--log-file", "{l}"),
    "view": ("{o}",),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_control_characters_are_shown_and_not_sent(case, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.random((40, 8), np.float32), y=np.arange(40) % 3)
    made = evil_model() if case == "inspect" else evil_model("Tanh", "")  # the former cannot be run
    places = {"m": write(made, tmp_path), "o": tmp_path / "o.onnx", "d": tmp_path / "d.npz"}
    places |= {"r": tmp_path / "run", "l": tmp_path / "log"}
    code, out, err = run(case.split()[0], *(word.format(**places) for word in COMMANDS[case]))
    assert code in (0, 2)
    for text in (out, err, (tmp_path / "log").read_text() if case == "evolve" else ""):
        assert all(line.isprintable() for line in text.split("\n"))
        assert "\nFAKE" not in text
    if case == "inspect":
        assert "\\x1b]0;title\\x07\\x9b31m\\u202egnp\\u2028\\n" in (out + err).replace("\n", "")


def test_json_holds_names_as_escapes(tmp_path):
    code, out, _ = run("inspect", write(evil_model(), tmp_path), "--json")
    assert code == 0
    assert out.isascii()
    assert all(line.isprintable() for line in out.splitlines())


def test_a_terminal_gets_no_control_character_that_was_not_escaped():
    from onnxsurgeon.cli.console import Terminal

    screen = Terminal(highlight=False, record=True, force_terminal=False)
    with screen.capture() as caught:
        screen.print("a\x1b[31mb\n\u202ec", markup=False)
    assert caught.get() == "a\\x1b[31mb\n\\u202ec\n"


# --- What the model's own nodes compute ---------------------------------------------------------------------------


def value(name, shape=None, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def body(nodes, states, scanned=(), *, shape=None, mark=""):
    """A body that reads v, and writes ``states`` (of which v is carried) and what is collected."""
    inputs = [value("n" + mark, [], TensorProto.INT64), value("c" + mark, [], TensorProto.BOOL)]
    outputs = [value("go" + mark, [], TensorProto.BOOL), *(value(name, shape) for name in states)]
    nodes = [N("Identity", ["c" + mark], ["go" + mark]), *nodes]
    outputs += [value(name) for name in scanned]
    return helper.make_graph(nodes, "body", [*inputs, value("v" + mark, shape)], outputs)


def scan_body(nodes):
    return helper.make_graph(nodes, "body", [value("v"), value("e")], [value("v2")])


SUM = [N("ReduceSum", ["b"], ["s"], keepdims=0), N("Mul", ["s", "f"], ["t"]), N("Add", ["i", "t"], ["x"])]
EXPANDS = [
    node
    for k in range(40)
    for node in (
        N("ReduceSum", ["i"], [f"s{k}"], keepdims=0),
        N("Expand", [f"s{k}", "wide"], [f"e{k}"]),
    )
]
WIDE = [N("ReduceSum", ["i"], ["s0"], keepdims=0), N("Expand", ["s0", "wide"], ["e0"])]
PRODUCT_OF_WIDE = [
    N("Slice", ["e0", "none", "thousand"], ["part"]),
    N("MatMul", ["part", "e0"], ["m"]),
    N("ReduceSum", ["m"], ["sm"], keepdims=0),
    N("Add", ["v", "sm"], ["v2"]),
]
DEEPER = body([N("Add", ["v'", "i"], ["v2'"])], ["v2'"], mark="'")
INSIDE = body([N("Add", ["v", "i"], ["v2"])], ["v2"])
NUMBERS = {
    "f": np.float32(0),
    "wide": np.array([8192, 8192]),
    "long": np.array([2**24]),
    "thousand": np.array([1024]),
    "axis": np.array([0]),
    "column": np.array([-1, 1]),
    "line": np.array([1, -1]),
    "million": np.int64(2**21),
    "forty": np.int64(40),
    "six": np.int64(6),
    "all": np.array([8192]),
    "none": np.array([0]),
    "image": np.array([1, 1, 8192, 8192]),
    "kernel": np.array([1, 1, 512, 512]),
    "yes": np.bool_(True),
    "three": np.int64(3),
}
NON_ZERO = [
    N("Abs", ["i"], ["size"]),
    N("Exp", ["size"], ["o"]),
    N("NonZero", ["o"], ["z"]),
    N("Cast", ["z"], ["z0"], to=1),
]
DOUBLED = [N("Concat", [f"z{k}", f"z{k}"], [f"z{k + 1}"], axis=1) for k in range(30)]
LIMITLESS = {
    "many tensors at once": [*EXPANDS, N("Sum", [f"e{k}" for k in range(40)], ["b"]), *SUM],
    "NonZero, joined with itself": [*NON_ZERO, *DOUBLED, N("Identity", ["z30"], ["b"]), *SUM],
    "Compress, joined with itself": [
        N("Greater", ["i", "f"], ["g"]),
        N("Reshape", ["g", "minus"], ["flat"]),
        N("Compress", ["i", "flat"], ["z0"]),
        *[N("Concat", [f"z{k}", f"z{k}"], [f"z{k + 1}"], axis=0) for k in range(30)],
        N("Identity", ["z30"], ["b"]),
        *SUM,
    ],
    "Unique, a row by a column": [
        N("Unique", ["i"], ["u0"]),
        *[
            node
            for k in range(4)
            for node in (
                N("Reshape", [f"u{k}", "column"], [f"c{k}"]),
                N("Reshape", [f"u{k}", "line"], [f"l{k}"]),
                N("Mul", [f"c{k}", f"l{k}"], [f"m{k}"]),
                N("Reshape", [f"m{k}", "minus"], [f"u{k + 1}"]),
            )
        ],
        N("Identity", ["u4"], ["b"]),
        *SUM,
    ],
    "a product of what NonZero makes": [
        *NON_ZERO,
        *DOUBLED[:10],
        N("Transpose", ["z10"], ["tall"]),
        N("MatMul", ["tall", "z10"], ["wide0"]),
        N("MatMul", ["wide0", "wide0"], ["b"]),
        *SUM,
    ],
    "NonZero of a large tensor, which collects in a list that doubles": [
        *WIDE,
        N("NonZero", ["e0"], ["z"]),
        N("Cast", ["z"], ["b"], to=1),
        *SUM,
    ],
    "MatMul of wide matrices": [*WIDE, N("MatMul", ["e0", "e0"], ["m"]), N("MatMul", ["m", "e0"], ["b"]), *SUM],
    "Einsum of wide matrices": [*WIDE, N("Einsum", ["e0", "e0"], ["b"], equation="ij,kj->ik"), *SUM],
    "Unique of a large tensor": [*WIDE, N("Unique", ["e0"], ["b"], axis=0), *SUM],
    "a sorted large tensor": [*WIDE, N("TopK", ["e0", "all"], ["b", "places"]), *SUM],
    "texts of a large tensor": [*WIDE, N("Cast", ["e0"], ["texts"], to=8), N("Cast", ["texts"], ["b"], to=1), *SUM],
    "MaxPool over large patches": [
        *WIDE,
        N("Reshape", ["e0", "image"], ["im"]),
        N("MaxPool", ["im"], ["b"], kernel_shape=[512, 512]),
        *SUM,
    ],
    "Conv with a large kernel": [
        *WIDE,
        N("Reshape", ["e0", "image"], ["im"]),
        N("Expand", ["s0", "kernel"], ["k"]),
        N("Conv", ["im", "k"], ["b"]),
        *SUM,
    ],
    "Loop whose body takes long": [
        N("Loop", ["six", "", "i"], ["b"], body=body([*WIDE, *PRODUCT_OF_WIDE], ["v2"])),
        *SUM,
    ],
    "Scan over a long axis": [
        N("ReduceSum", ["i"], ["s0"], keepdims=0),
        N("Expand", ["s0", "long"], ["e0"]),
        N("Scan", ["f", "e0"], ["b"], body=scan_body([N("Add", ["v", "e"], ["v2"])]), num_scan_inputs=1),
        *SUM,
    ],
    "Scan in Scan": [
        N("ReduceSum", ["i"], ["s0"], keepdims=0),
        N("Expand", ["s0", "thousand"], ["e0"]),
        N(
            "Scan",
            ["f", "e0"],
            ["b"],
            body=scan_body(
                [N("Scan", ["v", "e0"], ["v2"], body=scan_body([N("Add", ["v", "e"], ["v2"])]), num_scan_inputs=1)]
            ),
            num_scan_inputs=1,
        ),
        *SUM,
    ],
    "Loop that runs a million times": [N("Loop", ["million", "", "i"], ["b"], body=INSIDE), *SUM],
    "Loop that runs as often as values say": [
        N("ReduceSum", ["i"], ["s0"], keepdims=0),
        N("Cast", ["s0"], ["trips"], to=7),
        N("Loop", ["trips", "", "i"], ["b"], body=INSIDE),
        *SUM,
    ],
    "Loop until a condition": [N("Loop", ["", "yes", "i"], ["b"], body=INSIDE), *SUM],
    "Loop that doubles": [
        N("Loop", ["forty", "", "i"], ["b"], body=body([N("Concat", ["v", "v"], ["v2"], axis=0)], ["v2"])),
        *SUM,
    ],
    "Loop that doubles and says that it does not": [
        N(
            "Loop",
            ["forty", "", "i"],
            ["b"],
            body=body([N("Concat", ["v", "v"], ["v2"], axis=0)], ["v2"], shape=["k", 8]),
        ),
        *SUM,
    ],
    "Loop that doubles until a condition": [
        N("ReduceSum", ["i"], ["sum"], keepdims=0),
        N("Greater", ["sum", "f"], ["some"]),
        N("Loop", ["three", "some", "i"], ["b"], body=body([N("Concat", ["v", "v"], ["v2"], axis=0)], ["v2"])),
        *SUM,
    ],
    "Loop that joins what NonZero makes": [
        *NON_ZERO,
        N("Loop", ["forty", "", "z0"], ["b"], body=body([N("Concat", ["v", "v"], ["v2"], axis=1)], ["v2"])),
        *SUM,
    ],
    "If whose branches differ": [
        *NON_ZERO,
        *[
            N(
                "If",
                ["yes"],
                [f"z{k + 1}"],
                then_branch=helper.make_graph(
                    [N("Concat", [f"z{k}", f"z{k}", f"z{k}"], [f"d{k}"], axis=1)], "then", [], [value(f"d{k}")]
                ),
                else_branch=helper.make_graph([N("Neg", [f"z{k}"], [f"n{k}"])], "else", [], [value(f"n{k}")]),
            )
            for k in range(20)
        ],
        N("Identity", ["z20"], ["b"]),
        *SUM,
    ],
    "Loop that collects": [
        N("Expand", ["f", "wide"], ["e0"]),
        N("Loop", ["forty", "", "i"], ["w", "b"], body=body([N("Identity", ["v"], ["v2"])], ["v2"], ["e0"])),
        *SUM,
    ],
    "what is constant": [
        N("ConstantOfShape", ["wide"], ["w0"]),
        N("NonZero", ["w0"], ["z"]),
        N("Cast", ["z"], ["z0"], to=1),
        *DOUBLED,
        N("Identity", ["z30"], ["b"]),
        *SUM,
    ],
}


def constants_for(nodes, more=()):
    numbers = {**NUMBERS, "minus": np.array([-1]), **dict(more)}
    read = {name for node in nodes for name in inputs_of(node)} | {"f", "wide", "axis"}
    return {name: values for name, values in numbers.items() if name in read}


def test_work_is_told_from_shapes():
    """Of products, convolutions and sorting, and twice what is read and written of all others."""
    shape = helper.make_tensor_type_proto
    a, b = (shape(1, [30, 40]), 1200), (shape(1, [40, 160]), 6400)
    plain = 2 * (1200 + 6400 + 4800)
    assert work(N("MatMul", ["a", "b"], ["c"]), [a, b], 4800) == plain + 30 * 40 * 160 // 16
    assert work(N("Gemm", ["b", "a"], ["c"], transA=1, transB=1), [b, a], 4800) == plain + 30 * 40 * 160 // 16
    assert work(N("Einsum", ["a", "b"], ["c"], equation="ij,jk->ik"), [a, b], 4800) == plain + 30 * 40 * 160 // 16
    x, w = (shape(1, [1, 3, 8, 8]), 192), (shape(1, [5, 3, 3, 3]), 135)
    assert work(N("Conv", ["x", "w"], ["y"]), [x, w], 180) == 2 * (192 + 135 + 180) + 180 * 27 // 4
    assert work(N("Add", ["a", "a"], ["c"]), [a, a], 1200) == 2 * 3600
    assert work(N("Reshape", ["a", "s"], ["c"]), [a, (shape(7, [2]), 2)], 1200) == 0
    assert work(N("TopK", ["a", "k"], ["c"]), [a, (shape(7, [1]), 1)], 1200) > 1200 * 10 * 10


def test_work_in_proportion_to_weights_and_rows_is_not_refused(monkeypatch):
    """A backbone of 10 million weights at 196 places of an image takes its 2 · 10⁹ multiplications for each row."""
    monkeypatch.setattr(sizes, "MAX_WORK", 0)
    graph = helper.make_graph(
        [N("MatMul", ["i", "w"], ["m"]), N("ReduceMean", ["m"], ["x"], axes=[1], keepdims=0)],
        "backbone",
        [value("i", ["rows", 196, 1024])],
        [value("x", ["rows", 10240])],
        [numpy_helper.from_array(np.zeros((1024, 10240), np.float32), "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert rows_that_fit(made, {"i": (196, 1024)}, 64) == 64


@pytest.mark.parametrize("case", LIMITLESS)
def test_what_a_prefix_may_compute_is_told_before_it_runs(case):
    made = model(LIMITLESS[case], constants_for(LIMITLESS[case]))
    with pytest.raises(ModelError, match=r"^m: node .*--trust lifts this bound$"):
        rows_that_fit(made, {"i": (8,)}, 1024, name="m")
    with bounds.lifted():
        assert rows_that_fit(made, {"i": (8,)}, 1024, name="m") == 1024


RUNNING = {
    "Loop": [N("Loop", ["three", "", "i"], ["x"], body=INSIDE)],
    "Loop with a condition": [N("Loop", ["three", "yes", "i"], ["x"], body=INSIDE)],
    "Loop that collects": [
        N("Loop", ["three", "", "i"], ["w", "e0"], body=body([N("Add", ["v", "i"], ["v2"])], ["v2"], ["v"])),
        N("ReduceSum", ["e0", "axis"], ["x"], keepdims=0),
    ],
    "Loop that doubles": [
        N("Loop", ["three", "", "i"], ["b"], body=body([N("Concat", ["v", "v"], ["v2"], axis=0)], ["v2"])),
        *SUM,
    ],
    "Loop in Loop": [
        N(
            "Loop",
            ["three", "", "i"],
            ["x"],
            body=body([N("Loop", ["three", "", "v"], ["v2"], body=DEEPER)], ["v2"]),
        )
    ],
    "Scan": [
        N("Unsqueeze", ["i", "axis"], ["u"]),
        N("Concat", ["u", "u", "u"], ["e0"], axis=0),
        N("Scan", ["i", "e0"], ["x"], body=scan_body([N("Add", ["v", "e"], ["v2"])]), num_scan_inputs=1),
    ],
    "NonZero": [*NON_ZERO, *DOUBLED[:3], N("Identity", ["z3"], ["b"]), *SUM],
}


@pytest.mark.parametrize("case", RUNNING)
def test_loops_of_few_runs_are_run(case):
    made = model(RUNNING[case], constants_for(RUNNING[case], {"three": np.int64(3)}))
    network = from_model(made)
    rows = np.random.default_rng(0).random((50, 8), np.float32)
    (found,) = compute_features(network, {"i": rows}, 50).values()
    factor = {"Loop in Loop": 10, "Loop that doubles": 1, "NonZero": 1, "Loop that collects": 6}.get(case, 4)
    np.testing.assert_allclose(found.take(), factor * rows, rtol=1e-5)


def test_rows_are_run_in_pieces_where_all_at_once_are_too_much():
    tiles = [N("Tile", ["i", "many"], ["t"]), N("Slice", ["t", "from", "to", "one"], ["x"])]
    many = {"many": np.array([1, 2**15]), "from": np.array([0]), "to": np.array([8]), "one": np.array([1])}
    made = model(tiles, many)
    assert 64 <= rows_that_fit(made, {"i": (8,)}, 1024) < 1024


@pytest.mark.parametrize("first", ["Scaler", "Normalizer", "Imputer", "Binarizer"])
def test_a_network_behind_a_scaler_computes_no_more_than_its_widest_layer(first):
    """As scikit-learn's converter writes it; onnx tells the type of what such an operator makes, and no shape."""
    options = {"Scaler": {"offset": [0.0], "scale": [1.0]}, "Imputer": {"imputed_value_floats": [0.0]}}.get(first, {})
    nodes = [N(first, ["i"], ["s"], domain="ai.onnx.ml", **options), N("Cast", ["s"], ["h0"], to=TensorProto.FLOAT)]
    widths, weights = (8, 256, 128, 10), {}
    for i, (have, made) in enumerate(pairwise(widths)):
        nodes += [N("MatMul", [f"h{i}", f"w{i}"], [f"m{i}"]), N("Add", [f"m{i}", f"b{i}"], [f"a{i}"])]
        nodes += [N("Relu", [f"a{i}"], [f"h{i + 1}"])]
        weights |= {f"w{i}": np.zeros((have, made), np.float32), f"b{i}": np.zeros(made, np.float32)}
    made = model([*nodes, N("Softmax", ["h3"], ["x"])], weights)
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    assert largest_tensor(made, {"i": (1024, 8)}) == 1024 * 256
    assert rows_that_fit(made, {"i": (8,)}, 1024) == 1024


# --- Ctrl-C -----------------------------------------------------------------------------------------------------

STUCK = {
    "many small nodes": [
        N("Loop", ["many", "", "i"], ["x"], body=body([N("Abs", ["v"], ["v2"])], ["v2"])),
    ],
    "one large node": [
        N("ReduceSum", ["i"], ["s0"], keepdims=0),
        N("Expand", ["s0", "square"], ["e0"]),
        *[N("MatMul", [f"e{k}", f"e{k}"], [f"e{k + 1}"]) for k in range(40)],
        N("Identity", ["e40"], ["b"]),
        *SUM,
    ],
}


@pytest.mark.parametrize("command", ["evaluate", "evolve"])
@pytest.mark.parametrize("case", STUCK)
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_ends_what_onnx_runtime_computes_within_a_second(case, command, tmp_path):
    numbers = {"many": np.int64(2**40), "square": np.array([6000, 6000]), "f": np.float32(0)}
    read = {name for node in STUCK[case] for name in node.input}
    made = model(STUCK[case], {name: values for name, values in numbers.items() if name in read})
    np.savez(tmp_path / "d.npz", x=np.ones((40, 8), np.float32), y=np.arange(40) % 3)
    code = (
        "import sys, onnxsurgeon.runtime as r; plain = r._run_stoppable\n"
        "def told(*a): print('running', flush=True); return plain(*a)\n"
        "r._run_stoppable = told; from onnxsurgeon.cli import main; main()"
    )
    words = [command, write(made, tmp_path), "--data", tmp_path / "d.npz", "--trust"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            assert any("running" in line for line in process.stdout), process.stderr.read()
            time.sleep(0.5)
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert time.monotonic() - start < 1.5  # a second, and what a busy machine adds
    assert process.returncode == 130
    assert len(err.splitlines()) == 1
    assert "interrupted" in err


# --- Time -------------------------------------------------------------------------------------------------------


def many_ifs(count):
    """If nodes in a row; each body reads the last one's result."""
    nodes = []
    for k in range(count):
        read = f"t{k - 1}" if k else "i"
        bodies = [
            helper.make_graph([N(op, [read], [f"{op}{k}"])], op, [], [value(f"{op}{k}")]) for op in ("Abs", "Neg")
        ]
        nodes.append(N("If", ["yes"], [f"t{k}"], then_branch=bodies[0], else_branch=bodies[1]))
    return model([*nodes, N("Identity", [f"t{count - 1}"], ["x"])], {"yes": np.bool_(True)})


def many_layers(count):
    """Layers in a row that share a weight: each gets its own, under a name of its own."""
    nodes = [N("MatMul", [f"m{k}" if k else "i", "W1"], [f"m{k + 1}"]) for k in range(count)]
    return model([*nodes, N("Identity", [f"m{count}"], ["x"])], {"W1": np.eye(8, dtype=np.float32)})


def many_gates(count):
    """Sigmoids behind the layers, each of which another tensor is multiplied by."""
    nodes = []
    for k in range(count):
        nodes += [N("Sigmoid", [f"g{k}"], [f"s{k}"]), N("Mul", [f"s{k}", "y"], [f"g{k + 1}"])]
    made = model([N("Identity", ["i"], ["x"])], {}, outputs=("y", f"g{count}"))
    made.graph.node.extend([N("Exp", ["y"], ["g0"]), *nodes])
    return made


def many_readers(count):
    nodes = [N("Relu", ["i"], [f"r{k}"]) for k in range(count)]
    return model([*nodes, N("Sum", [f"r{k}" for k in range(count)], ["x"])], {})


@pytest.mark.parametrize("make", [many_ifs, many_layers, many_gates, many_readers])
def test_time_to_read_grows_with_the_number_of_nodes_and_not_its_square(make):
    """Eight times as many nodes take at most some sixteen times as long; were it the square, it would be 64."""
    small, large = make(250), make(2000)
    from_model(make(20))

    def shortest(made):  # other processes take from caches and from the clock of a core
        times = []
        for _ in range(3):
            start = time.process_time()
            from_model(made)
            times.append(time.process_time() - start)
        return min(times)

    assert shortest(large) < 20 * max(shortest(small), 0.02)


def test_blocks_are_sought_in_no_more_steps_than_there_is_time_for(monkeypatch):
    """Ways of two thousand sums that are each as long as the trunk would be four million steps."""
    looked_at, read = [0], residual._Search._read

    def counted(self, place):
        looked_at[0] += 1
        return read(self, place)

    body = [N("MatMul", ["i", "W0"], ["s"]), *(N("Relu", ["s"], [f"r{k}"]) for k in range(2000))]
    nodes = [*body, N("Sum", [f"r{k}" for k in range(2000)], ["x"])]
    weights = np.random.default_rng(0).standard_normal((8, 8)).astype("f")
    network = from_model(model(nodes, {"W0": weights}))
    assert sum(getattr(step, "op", "") == "Add" for step in network.frame.trunk.steps) == 1999
    monkeypatch.setattr(residual._Search, "_read", counted)
    assert network.blocks == ()
    assert 2000 < looked_at[0] < 2**19


def test_what_was_made_without_collecting_is_new():
    """What is old is hardly ever searched: a process that reads many files would keep those it is done with."""
    with without_collecting():
        made = []
        made.append(made)
    assert not any(each is made for each in gc.get_objects(generation=2))


def test_shape_inference_follows_no_more_than_a_few_numbers(tmp_path):
    """Many vectors, none of which is long: onnx would write down every number of each."""
    spread = [N("Concat", [f"c{k}", f"c{k}"], [f"c{k + 1}"], axis=0) for k in range(10)]
    many = [N("Concat", ["c10", "c0"], [f"d{k}"], axis=0) for k in range(300)]
    constants = {"c0": np.zeros(64, np.int64), "zero": np.float32(0)}
    nodes = [*spread, *many, N("Cast", ["d0"], ["e"], to=1), N("ReduceSum", ["e"], ["s"], keepdims=0)]
    made = model([*nodes, N("Mul", ["s", "zero"], ["t"]), N("Add", ["i", "t"], ["x"])], constants)
    command = [sys.executable, "-m", "onnxsurgeon", "inspect", str(write(made, tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode in (0, 2)
    assert used.ru_maxrss < 2**19 + 2**18  # in kB


def test_a_name_for_each_class_is_no_amplification():
    """ZipMap writes a dictionary a row, with an entry a class: as much as it reads."""
    zipped = helper.make_node("ZipMap", ["y"], ["map"], domain="ai.onnx.ml", classlabels_int64s=list(range(5000)))
    made = model([N("Identity", ["i"], ["x"])], {"W2": np.zeros((6, 5000), np.float32)})
    made.graph.node.append(zipped)
    made.opset_import.add(domain="ai.onnx.ml", version=1)
    assert rows_that_fit(made, {"i": (8,)}, 64) == 64
