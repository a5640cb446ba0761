"""The order in which a trunk's steps are computed in training graphs.

The file's, except where a cheaper one is equal.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from onnxsurgeon.graph.glue import Glue
from onnxsurgeon.graph.network import Network


def steps_of(network: Network) -> list[int | Glue]:
    """The trunk's steps with MaxPool(φ(x)) as φ(MaxPool(x)), where φ never falls: this is exact, and on fewer values.

    It is only done where nothing else reads φ(x).
    """
    trunk = network.frame.trunk
    glue = [step for step in trunk.steps if not isinstance(step, int)]
    read = Counter(name for step in glue for name in step.inputs)
    read.update(segment.input_name for segment in network.segments)
    read.update(head.tensor for head in trunk.heads)
    rising = {step.output: step for step in glue if _never_falls(step) and read[step.output] == 1}
    moved = {step.inputs[0] for step in glue if step.op == "MaxPool"} & rising.keys()
    steps: list[int | Glue] = []
    for step in trunk.steps:
        if isinstance(step, int) or (step.output not in moved and step.inputs[0] not in moved):
            steps.append(step)
        elif step.output not in moved:
            activation, pooled = rising[step.inputs[0]], f"{step.output}/pooled"
            steps.append(replace(step, inputs=activation.inputs, output=pooled))
            steps.append(
                replace(activation, inputs=(pooled,), output=step.output, shapes=(step.shape,), shape=step.shape)
            )
    return steps


def _never_falls(step: Glue) -> bool:
    """Whether it is an activation that rounds nothing and never falls."""
    if step.op != "Activation":
        return False
    activation = step.attributes["activation"]
    if activation.op_type == "LeakyRelu":
        return bool(activation.attribute("alpha") >= 0)
    return activation.op_type in ("Relu", "Clip")
