"""Masks: one independent element of the ring for every element of every array, from a seed of 32 bytes.

The elements are the keystream of AES-256 in counter mode under the seed (`privacy.noise`). A seed serves once: it is
derived of keys that are made for one round.
"""

from __future__ import annotations

import numpy as np

from fedbrats.privacy.noise import AT_ONCE, SecretNumbers


def add_mask(vector: np.ndarray, seed: bytes, *, subtract: bool = False) -> None:
    """Add the mask of `seed` to `vector` (uint64, [n]) in place, modulo 2^64, or take it off again."""
    stream = SecretNumbers(seed)
    for start in range(0, len(vector), AT_ONCE):
        part = vector[start : start + AT_ONCE]
        change = np.subtract if subtract else np.add
        change(part, stream.words(len(part)), out=part)
