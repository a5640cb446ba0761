"""Training of a network's layers with ONNX Runtime, by either of two engines."""
