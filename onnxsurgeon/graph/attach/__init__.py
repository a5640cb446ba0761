"""New heads on trained backbones: where, in which operators, and what the file says of its classes."""

from onnxsurgeon.graph.attach.head import NewHead, attach_head, read_classes

__all__ = ["NewHead", "attach_head", "read_classes"]
