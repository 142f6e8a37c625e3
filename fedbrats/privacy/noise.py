"""Random numbers that nobody outside a site may know: the noise of a private step and who takes part in it."""

from __future__ import annotations

import hashlib
import math
import os

import numpy as np
import torch
from torch import Tensor

# Of the state of a CPU generator: its size, the words of the Mersenne Twister and where they begin.
STATE_BYTES, WORDS, FIRST_WORD = 5056, 624, 3


class SecretGenerator(torch.Generator):
    """A generator seeded by the operating system; `gaussian` knows by its type that noise has to stay secret."""


def secret_generator(
    device: torch.device | str, insecure_seed: int | None = None, *parts: object
) -> torch.Generator:
    """Generator on `device` whose stream an outsider cannot guess; never twice the same.

    Args:
        device: where the numbers are needed.
        insecure_seed: for tests and demonstrations only, because who knows the seed can take the noise off again: the
            stream then depends on this number and on `parts` alone.
        parts: what the stream is for, such as site, round and purpose; another for each.

    Raises:
        RuntimeError: this torch lays out the state of a CPU generator in another way than is known here.
    """
    device = torch.device(device)
    generator = torch.Generator(device) if insecure_seed is not None else SecretGenerator(device=device)
    entropy = _entropy(8 + 4 * WORDS, insecure_seed, parts)
    generator.manual_seed(int.from_bytes(entropy[:8], "little", signed=True))
    if device.type == "cpu":
        _fill_state(generator, entropy[8:])
    return generator


def secret_stream(insecure_seed: int | None = None, *parts: object) -> np.random.Generator:
    """Generator for what happens to a patient once drawn (patches, augmentation); torch itself is seeded too (dropout).

    These numbers have to be as secret as the draw: if they followed from the public seed of the run, one more patient
    in a step would change the patches of all after it in a way that anybody can work out, and the sum would move by
    more than C.

    Args:
        insecure_seed: as in `secret_generator`.
        parts: likewise.

    Raises:
        RuntimeError: as there.
    """
    entropy = _entropy(40 + 4 * WORDS, insecure_seed, parts)
    torch.manual_seed(int.from_bytes(entropy[:8], "little", signed=True))
    _fill_state(torch.default_generator, entropy[40:])
    return np.random.default_rng(int.from_bytes(entropy[8:40], "little"))


def _entropy(count: int, insecure_seed: int | None, parts: tuple[object, ...]) -> bytes:
    if insecure_seed is None:
        return os.urandom(count)
    text = "\x1f".join(str(part) for part in (insecure_seed, *parts))
    return hashlib.shake_256(text.encode()).digest(count)


def _fill_state(generator: torch.Generator, entropy: bytes) -> None:
    """Put `entropy` in the whole state: torch seeds the Mersenne Twister of a CPU with 32 bits only."""
    state = generator.get_state()
    if state.numel() != STATE_BYTES:
        raise RuntimeError(
            f"torch {torch.__version__}: a generator's state has another layout than expected."
        )
    words = state.numpy().view(np.uint64)
    words[FIRST_WORD : FIRST_WORD + WORDS] = np.frombuffer(entropy, dtype="<u4")
    generator.set_state(state)


def gaussian(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of the shape, dtype and device of `like`."""
    if isinstance(generator, SecretGenerator) and generator.device.type == "cpu":
        return _from_system(like.numel()).view(like.shape).to(like.device, like.dtype)
    drawn = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=generator.device)
    return drawn.to(like.device)


def _from_system(count: int) -> Tensor:
    """`count` standard normal numbers, float32, from the operating system's random bytes (Box and Muller, 1958)."""
    pairs = -(-count // 2)
    words = torch.frombuffer(bytearray(os.urandom(8 * pairs)), dtype=torch.int32).view(2, pairs)
    # In [2^-32, 1]: fine near 0, where the tail of the normal comes from.
    radius = words[0].float().abs_().add_(0.5).mul_(2.0**-31).clamp_(max=1.0).log_().mul_(-2).sqrt_()
    angle = words[1].float().mul_(math.pi * 2.0**-31)
    return torch.cat([radius * angle.cos(), radius * angle.sin()])[:count]
