"""All activation functions, each as one record: its function, its form in older operators, its gradient."""

from __future__ import annotations

import numpy as np

from onnxsurgeon.graph import activation_gradients as gradients
from onnxsurgeon.graph import decompose as forms
from onnxsurgeon.graph.activation import ACTIVATIONS, Activation, ActivationType, prelu, register
from onnxsurgeon.graph.activation_functions import gelu, hard_sigmoid, sigmoid, softplus

__all__ = ["ACTIVATIONS", "Activation", "ActivationType", "prelu", "register"]

register(ActivationType("Relu", lambda x, _: np.maximum(x, 0), gradient=gradients.relu, idempotent=True))
# Clip's bounds are inputs from opset 11 on; here they are attributes, like those of every other operator.
register(
    ActivationType(
        "Clip",
        lambda x, a: np.clip(x, a["min"], a["max"]),
        forms.clip,
        gradients.clip,
        attributes={"min": -np.inf, "max": np.inf},
        idempotent=True,
    )
)
register(ActivationType("PRelu", None, forms.prelu, gradients.prelu, slope=True))
register(
    ActivationType(
        "LeakyRelu",
        lambda x, a: np.where(x >= 0, x, a["alpha"] * x),
        forms.leaky_relu,
        gradients.leaky_relu,
        attributes={"alpha": 0.01},
    )
)
register(
    ActivationType(
        "Elu",
        lambda x, a: np.where(x > 0, x, a["alpha"] * np.expm1(np.minimum(x, 0))),
        forms.elu,
        gradients.elu,
        attributes={"alpha": 1.0},
    )
)
register(
    ActivationType(
        "Selu",
        lambda x, a: a["gamma"] * np.where(x > 0, x, a["alpha"] * np.expm1(np.minimum(x, 0))),
        forms.selu,
        gradients.selu,
        attributes={"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    )
)
register(ActivationType("Tanh", lambda x, _: np.tanh(x), gradient=gradients.tanh))
register(ActivationType("Sigmoid", lambda x, _: sigmoid(x), gradient=gradients.sigmoid))
register(
    ActivationType(
        "HardSigmoid",
        lambda x, a: hard_sigmoid(x, a["alpha"], a["beta"]),
        forms.hard_sigmoid,
        gradients.hard_sigmoid,
        attributes={"alpha": 0.2, "beta": 0.5},
    )
)
register(ActivationType("Softplus", lambda x, _: softplus(x), forms.softplus, gradients.softplus))
register(ActivationType("Softsign", lambda x, _: x / (1 + np.abs(x)), forms.softsign, gradients.softsign))
register(
    ActivationType(
        "HardSwish", lambda x, _: x * hard_sigmoid(x, 1 / 6, 0.5), forms.hard_swish, gradients.hard_swish, since=14
    )
)
register(ActivationType("Mish", lambda x, _: x * np.tanh(softplus(x)), forms.mish, gradients.mish, since=18))
register(
    ActivationType(
        "Gelu",
        lambda x, a: gelu(x, a["approximate"]),
        forms.gelu,
        gradients.gelu,
        since=20,
        attributes={"approximate": "none"},
    )
)
register(
    ActivationType(
        "Swish",
        lambda x, a: x * sigmoid(a["alpha"] * x),
        forms.swish,
        gradients.swish,
        since=24,
        attributes={"alpha": 1.0},
    )
)
