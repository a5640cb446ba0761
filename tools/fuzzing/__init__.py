"""Fuzzing of everything that touches a model file: corpus, mutations, the pipeline, and processes that survive it."""
