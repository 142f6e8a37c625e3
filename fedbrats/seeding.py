"""Random numbers that depend on what is done, not on when or where: one stream per seed, purpose, arm, site, round."""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def _entropy(seed: int, *purpose: str | int) -> int:
    digest = hashlib.sha256("\x1f".join(str(part) for part in (seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def generator(seed: int, *purpose: str | int) -> np.random.Generator:
    """NumPy generator of the stream named by `purpose`."""
    return np.random.default_rng(_entropy(seed, *purpose))


def seed_torch(seed: int, *purpose: str | int) -> None:
    """Seed torch's global generators (dropout, initial weights) from the stream named by `purpose`."""
    torch.manual_seed(_entropy(seed, *purpose) >> 1)
