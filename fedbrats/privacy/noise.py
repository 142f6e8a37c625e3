"""Random numbers that nobody outside a site may know: the noise of a private step and who takes part in it.

They come from the keystream of AES-256 in counter mode under a key of the operating system, 256 bits. A generator of
torch would not do: on a GPU it has a seed of 64 bits, on a CPU one of 32, and its normal numbers in float32 are made of
uniform ones on a grid of 2^-24 or 2^-32 that shows in what is released.
"""

from __future__ import annotations

import hashlib
import math
import os

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor

# Of the state of a CPU generator: its size, the words of the Mersenne Twister and where they begin.
STATE_BYTES, WORDS, FIRST_WORD = 5056, 624, 3
KEY_BYTES = 32
DRAWS = 4  # normal numbers in the sum that makes one
AT_ONCE = 1 << 16  # numbers; what they are made of then fits the cache


class SecretNumbers:
    """A stream of random numbers that follows from its key, and from which the key cannot be found."""

    def __init__(self, key: bytes) -> None:
        """`key`: 32 bytes, for this stream only."""
        self._stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def uniform(self, count: int) -> Tensor:
        """Multiples of 2^-53 in [0, 1), float64 [count] on the CPU."""
        return torch.from_numpy((self.words(count) >> np.uint64(11)) * 2.0**-53)

    def normal(self, count: int) -> Tensor:
        """Standard normal numbers, float64 [count] on the CPU.

        Each is the sum of four independent ones over 2 (Holohan and Braghin, ESORICS 2021, section 5.1), and these are
        made of two 64-bit words each (Box and Muller, 1958). Who looks for the words of one number has 2^159 to try.
        The time it takes does not depend on the words.
        """
        found = torch.empty(count, dtype=torch.float64)
        for part in found.split(AT_ONCE) if count else ():
            pairs = -(-len(part) // 2)
            words = torch.from_numpy(self.words(2 * DRAWS * pairs).view(np.int64))
            drawn = words.view(2, DRAWS, pairs).double()
            # In (0, 1]: fine near 0, where the tail of the normal comes from.
            radius = drawn[0].abs_().add_(0.5).mul_(2.0**-63).log_().mul_(-2).sqrt_()
            angle = drawn[1].mul_(math.pi * 2.0**-63)
            both = torch.cat([(radius * angle.cos()).sum(0), radius.mul_(angle.sin_()).sum(0)])
            torch.div(both[: len(part)], math.sqrt(DRAWS), out=part)
        return found

    def words(self, count: int) -> np.ndarray:
        """Uniform 64-bit words, uint64 [count]."""
        return np.frombuffer(bytearray(self._stream.update(bytes(8 * count))), dtype="<u8")


def secret_numbers(insecure_seed: int | None = None, *parts: object) -> SecretNumbers:
    """Numbers that an outsider cannot guess; never twice the same.

    Args:
        insecure_seed: for tests and demonstrations only, because who knows the seed can take the noise off again: the
            stream then depends on this number and on `parts` alone.
        parts: what the stream is for, such as site, round and purpose; another for each.
    """
    return SecretNumbers(_entropy(KEY_BYTES, insecure_seed, parts))


def secret_stream(insecure_seed: int | None = None, *parts: object) -> np.random.Generator:
    """Generator for what happens to a patient once drawn (patches, augmentation); torch itself is seeded too (dropout).

    These numbers have to be as secret as the draw: if they followed from the public seed of the run, one more patient
    in a step would change the patches of all after it in a way that anybody can work out, and the sum would move by
    more than C. The dropout of a GPU gets the 64 bits that its seed has room for.

    Args:
        insecure_seed: as in `secret_numbers`.
        parts: likewise.

    Raises:
        RuntimeError: this torch lays out the state of a CPU generator in another way than is known here.
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
