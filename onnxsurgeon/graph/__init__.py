"""Read and write ONNX models, and view them as prefix | dense chain | suffix."""
