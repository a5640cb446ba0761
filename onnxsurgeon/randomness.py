"""Random generators, each keyed by its purpose."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, purpose: str, *keys: int) -> np.random.Generator:
    """Return a generator keyed by its purpose, so that it does not depend on the order in which workers finish."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(purpose.encode()), *keys)))
