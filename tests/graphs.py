"""Small models under construction: nodes in few words, and a graph that collects them."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def node(op, inputs, output, name="", **attributes):
    """A node; names are separated by spaces, and "-" is an input that is not given."""
    names = ["" if i == "-" else i for i in inputs.split()]
    return helper.make_node(op, names, output.split(), name=name or f"{op}_{output.split()[0]}", **attributes)


class Graph:
    """Collects nodes and constants of a model under construction; dense layers get random weights."""

    def __init__(self):
        self.nodes, self.constants, self.rng = [], {}, np.random.default_rng(5)
        self.inputs, self.outputs, self.opset = {"x": ("batch", 4)}, {"y": ("batch", "n")}, 17

    def op(self, op, inputs, outputs, **attributes):
        name = attributes.pop("name", f"{op}_{outputs.split()[0]}")
        self.nodes.append(helper.make_node(op, inputs.split(), outputs.split(), name=name, **attributes))

    def const(self, **values):
        self.constants |= {name: np.asarray(value) for name, value in values.items()}

    def weight(self, *shape):
        return (self.rng.standard_normal(shape) * 0.5).astype("f")

    def dense(self, name, x, y, n_in, n_out):
        self.const(**{f"{name}.W": self.weight(n_in, n_out), f"{name}.b": self.weight(n_out)})
        self.op("Gemm", f"{x} {name}.W {name}.b", y, name=name)

    def dense3(self, name, x, y, n_in, n_out):
        """For inputs of three axes."""
        self.const(**{f"{name}.W": self.weight(n_in, n_out), f"{name}.b": self.weight(n_out)})
        self.op("MatMul", f"{x} {name}.W", f"{y}_product", name=name)
        self.op("Add", f"{y}_product {name}.b", y, name=f"{name}.add")

    def model(self):
        def declare(values):
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]

        constants = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "net", declare(self.inputs), declare(self.outputs), constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        model.metadata_props.add(key="author", value="someone")
        model.doc_string, graph.doc_string = "a model", "its graph"
        onnx.checker.check_model(model)
        return model
