"""Read and write ONNX models, and view them as segments of layers in a frame that stays as it is."""
