"""Recuperation: train a network's dense chain with ONNX Runtime, by either of two engines."""
