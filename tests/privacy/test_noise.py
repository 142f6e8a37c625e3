"""Secret random numbers: never twice the same, 256 bits of secret, and normal to the digits of float64."""

from __future__ import annotations

import os
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from fedbrats.privacy import noise
from fedbrats.privacy.noise import AT_ONCE, SecretNumbers, secret_numbers, secret_stream

PARTS = [("TCIA01", 1, "noise"), ("TCIA02", 1, "noise"), ("TCIA01", 2, "noise"), ("TCIA01", 1, "patients")]


def no_two_equal(drawn: list[Tensor]) -> bool:
    """Whether any two draws differ everywhere but for chance."""
    return all((a == b).float().mean() < 0.01 for a, b in combinations(drawn, 2))


@pytest.mark.parametrize("seed", [None, 3])
def test_sites_rounds_and_purposes_never_share_numbers(seed: int | None) -> None:
    assert no_two_equal([secret_numbers(seed, *parts).normal(1000) for parts in PARTS])


def test_parts_are_kept_apart() -> None:
    drawn = [secret_numbers(3, *parts).normal(1000) for parts in [("a", 11), ("a1", 1), ("a", 1, 1)]]
    assert no_two_equal(drawn)


def test_an_insecure_seed_repeats_its_numbers() -> None:
    first, second = (secret_numbers(3, *PARTS[0]) for _ in range(2))
    assert torch.equal(first.normal(100_000), second.normal(100_000))  # more than are made at once
    assert torch.equal(first.uniform(9), second.uniform(9))
    assert no_two_equal([secret_numbers(seed, *PARTS[0]).normal(1000) for seed in (3, 4, 3 + 2**32)])


def test_without_a_seed_nothing_is_ever_repeated() -> None:
    streams = [secret_numbers(None, *PARTS[0]) for _ in range(4)]
    assert no_two_equal([stream.uniform(1000) for stream in streams])
    assert no_two_equal([stream.normal(1000) for stream in streams])
    assert no_two_equal([streams[0].normal(1000) for _ in range(4)])


def stream_numbers(seed: int | None, *parts: object) -> list[Tensor]:
    """What a private round draws for its patients: patches from NumPy, dropout from torch."""
    found = secret_stream(seed, *parts)
    return [torch.from_numpy(found.random(1000)), torch.rand(1000, dtype=torch.float64)]


def test_patches_and_dropout_are_as_secret_as_the_draw() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn += stream_numbers(None, *PARTS[0])
    assert no_two_equal(drawn)


def test_patches_and_dropout_repeat_with_an_insecure_seed() -> None:
    first, second = (stream_numbers(3, *PARTS[0]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert no_two_equal([drawn for parts in PARTS for drawn in stream_numbers(3, *parts)])


def test_all_of_torchs_own_state_is_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two streams whose first 64 bits agree, more than torch itself would take."""
    others = np.random.default_rng(0).bytes
    monkeypatch.setattr(os, "urandom", lambda count: bytes(8) + others(count - 8))
    assert no_two_equal([numbers for _ in range(2) for numbers in stream_numbers(None)])


def test_seeds_of_torch_do_not_reach_the_noise() -> None:
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        drawn.append(secret_numbers().normal(1000))
    assert no_two_equal(drawn)


def test_torch_seeds_a_cpu_generator_with_32_bits_only() -> None:
    """Why the whole state is filled: 2^32 seeds can be tried one by one."""
    small, large = (torch.Generator().manual_seed(seed) for seed in (5, 5 + 2**32))
    assert torch.equal(torch.rand(9, generator=small), torch.rand(9, generator=large))


def test_torch_makes_normal_numbers_of_float32_from_a_grid() -> None:
    """Why it makes none of ours: two that were made together give their uniform number back, a multiple of 2^-24."""
    drawn = torch.randn(16, generator=torch.Generator().manual_seed(1)).double()
    uniform = torch.exp(-(drawn[:8].square() + drawn[8:].square()) / 2)
    steps = 2.0**24 * uniform[uniform > 0.9]
    assert len(steps)
    assert float((steps - steps.round()).abs().max()) < 0.25


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("bit", [0, 100, 255])
def test_every_bit_of_the_key_is_secret(monkeypatch: pytest.MonkeyPatch, seed: int | None, bit: int) -> None:
    drawn = []
    for key in (0, 1 << bit):
        filled = lambda count, key=key: key.to_bytes(count, "little")  # noqa: E731
        monkeypatch.setattr(os, "urandom", filled)
        monkeypatch.setattr(
            noise.hashlib, "shake_256", lambda _, f=filled: type("Hash", (), {"digest": staticmethod(f)})
        )
        drawn.append(secret_numbers(seed).normal(1000))
    assert no_two_equal(drawn)


def test_an_unknown_layout_of_torchs_state_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "STATE_BYTES", 5000)
    with pytest.raises(RuntimeError, match="layout"):
        secret_stream()


def test_the_words_are_those_of_aes_256_in_counter_mode() -> None:
    """The block that is known for the key 0 and the counter 0 (AES known answers, CAVP)."""
    words = SecretNumbers(bytes(32)).words(2)
    assert words.tobytes().hex() == "dc95c078a2408989ad48a21492842087"


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    return secret_numbers(0).normal(400_001).numpy()


def test_noise_is_standard_normal(many: np.ndarray) -> None:
    assert kstest(many, "norm").pvalue > 0.01
    assert many.std() == pytest.approx(1, abs=5 / np.sqrt(2 * len(many)))
    assert (many**4).mean() == pytest.approx(3, abs=5 * np.sqrt(96 / len(many)))
    assert (np.abs(many) > 4).mean() == pytest.approx(6.334e-5, rel=0.6)


def words_of(monkeypatch: pytest.MonkeyPatch, words: np.ndarray) -> SecretNumbers:
    monkeypatch.setattr(SecretNumbers, "words", lambda _, count: words.astype(np.int64).view("<u8")[:count])
    return secret_numbers()


def test_noise_is_a_sum_of_four_box_muller_numbers_to_the_last_digits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = np.random.default_rng(0).integers(-(2**63), 2**63, (2, 4, 3))
    radius = np.sqrt(-2 * np.log((np.abs(words[0].astype(float)) + 0.5) / 2.0**63))
    angle = np.pi * words[1] / 2.0**63
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1).sum(0)[:5] / 2
    drawn = words_of(monkeypatch, words.ravel()).normal(5)
    assert drawn.dtype == torch.float64
    assert drawn.numpy() == pytest.approx(expected, rel=1e-13)


def test_noise_has_the_digits_of_float64(many: np.ndarray) -> None:
    assert (many.astype(np.float32) == many).mean() < 1e-4
    for bits in (24, 32, 40):
        assert (many * 2.0**bits % 1 == 0).mean() < 1e-3


def test_numbers_that_are_made_together_are_independent(many: np.ndarray) -> None:
    made_of = AT_ONCE // 2
    first, second = many[:made_of], many[made_of:AT_ONCE]
    for power in (1, 2):
        assert abs(np.corrcoef(first**power, second**power)[0, 1]) < 5 / np.sqrt(made_of)


def test_uniform_numbers_are_words_of_53_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = words_of(monkeypatch, np.array([0, -1, 2**11, 2**11 - 1, -(2**63)])).uniform(5)
    assert drawn.tolist() == [0.0, 1 - 2.0**-53, 2.0**-53, 0.0, 0.5]


def test_uniform_numbers_are_uniform() -> None:
    assert kstest(secret_numbers(0).uniform(100_000).numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("word", [0, 1, -1, 2**63 - 1, -(2**63)])
def test_no_words_give_an_infinite_number(monkeypatch: pytest.MonkeyPatch, word: int) -> None:
    drawn = words_of(monkeypatch, np.full(100, word)).normal(3)
    assert torch.isfinite(drawn).all()
    assert drawn.abs().max() <= 18.9  # twice sqrt(-2 log 2^-64)


@pytest.mark.parametrize("count", [0, 1, 2, 7, AT_ONCE, AT_ONCE + 1])
def test_as_many_as_were_asked_for(count: int) -> None:
    for secret in (secret_numbers(), secret_numbers(1)):
        assert secret.normal(count).unique().numel() == count
        assert secret.uniform(count).unique().numel() == count
