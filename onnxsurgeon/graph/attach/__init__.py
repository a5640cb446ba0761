"""New heads on trained backbones: the tensor they read, their operators, and the names of their classes in the file."""

from onnxsurgeon.graph.attach.head import NewHead, attach_head, read_classes

__all__ = ["NewHead", "attach_head", "read_classes"]
