"""The differences between two models: layer by layer, and in their outputs."""
