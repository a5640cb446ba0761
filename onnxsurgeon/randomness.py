"""Random generators, keyed by what they are for."""

from __future__ import annotations

import zlib

import numpy as np


def generator(seed: int, purpose: str, *keys: int) -> np.random.Generator:
    """A generator keyed by what it is for, never by the order in which workers finish."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(purpose.encode()), *keys)))
