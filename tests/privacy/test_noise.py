"""Secret random numbers: never twice the same, more than 32 bits of secret, and normal."""

from __future__ import annotations

import os
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from fedbrats.privacy import noise
from fedbrats.privacy.noise import gaussian, secret_generator, secret_stream

PARTS = [("TCIA01", 1, "noise"), ("TCIA02", 1, "noise"), ("TCIA01", 2, "noise"), ("TCIA01", 1, "patients")]


def numbers(generator: torch.Generator, count: int = 1000) -> Tensor:
    return gaussian(torch.empty(count), generator)


def no_two_equal(drawn: list[Tensor]) -> bool:
    """Whether any two draws differ everywhere but for chance."""
    return all((a == b).float().mean() < 0.01 for a, b in combinations(drawn, 2))


@pytest.fixture
def known_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operating system's bytes, the same in every run."""
    monkeypatch.setattr(os, "urandom", np.random.default_rng(0).bytes)


@pytest.mark.parametrize("seed", [None, 3])
def test_sites_rounds_and_purposes_never_share_numbers(seed: int | None) -> None:
    assert no_two_equal([numbers(secret_generator("cpu", seed, *parts)) for parts in PARTS])


def test_parts_are_kept_apart() -> None:
    drawn = [numbers(secret_generator("cpu", 3, *parts)) for parts in [("a", 11), ("a1", 1), ("a", 1, 1)]]
    assert no_two_equal(drawn)


def test_an_insecure_seed_repeats_its_numbers() -> None:
    first, second = (secret_generator("cpu", 3, *PARTS[0]) for _ in range(2))
    assert torch.equal(numbers(first), numbers(second))
    assert torch.equal(torch.rand(9, generator=first), torch.rand(9, generator=second))
    assert no_two_equal([numbers(secret_generator("cpu", seed, *PARTS[0])) for seed in (3, 4, 3 + 2**32)])


def test_without_a_seed_nothing_is_ever_repeated() -> None:
    generators = [secret_generator("cpu", None, *PARTS[0]) for _ in range(4)]
    assert no_two_equal([torch.rand(1000, generator=generator) for generator in generators])
    assert no_two_equal([numbers(generators[0]) for _ in range(4)])


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
        drawn.append(numbers(secret_generator("cpu")))
    assert no_two_equal(drawn)


def test_torch_seeds_a_cpu_generator_with_32_bits_only() -> None:
    """Why the whole state is filled: 2^32 seeds can be tried one by one."""
    small, large = (torch.Generator().manual_seed(seed) for seed in (5, 5 + 2**32))
    assert torch.equal(torch.rand(9, generator=small), torch.rand(9, generator=large))


@pytest.mark.parametrize("seed", [None, 3])
def test_the_whole_state_is_secret(monkeypatch: pytest.MonkeyPatch, seed: int | None) -> None:
    words = []
    for last in (b"\0", b"\1"):  # sources that differ in their last byte only
        filled = lambda count, last=last: b"\7" * (count - 1) + last  # noqa: E731
        monkeypatch.setattr(os, "urandom", filled)
        monkeypatch.setattr(
            noise.hashlib, "shake_256", lambda _, f=filled: type("Hash", (), {"digest": staticmethod(f)})
        )
        words.append(secret_generator("cpu", seed).get_state().numpy()[24 : 24 + 8 * 624].view(np.uint64))
    assert words[0][0] == 0x07070707
    assert (words[0] != words[1]).tolist() == [False] * 623 + [True]
    assert words[1][-1] == 0x01070707


def test_an_unknown_layout_of_the_state_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "STATE_BYTES", 5000)
    with pytest.raises(RuntimeError, match="layout"):
        secret_generator("cpu")


def test_secret_noise_does_not_come_from_a_mersenne_twister() -> None:
    generator = secret_generator("cpu")
    state = generator.get_state()
    numbers(generator)
    assert torch.equal(generator.get_state(), state)


def test_seeded_noise_is_that_of_torch() -> None:
    drawn = gaussian(torch.empty(5, 3, dtype=torch.float64), torch.Generator().manual_seed(2))
    assert torch.equal(
        drawn, torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    )


@pytest.mark.usefixtures("known_entropy")
def test_secret_noise_is_standard_normal() -> None:
    drawn = numbers(secret_generator("cpu"), 400_000).double().numpy()
    assert kstest(drawn, "norm").pvalue > 0.01
    assert drawn.std() == pytest.approx(1, abs=5 / np.sqrt(2 * len(drawn)))
    assert (drawn**4).mean() == pytest.approx(3, abs=5 * np.sqrt(96 / len(drawn)))
    assert (np.abs(drawn) > 4).mean() == pytest.approx(6.334e-5, rel=0.6)


@pytest.mark.usefixtures("known_entropy")
def test_secret_noise_is_box_muller_to_the_last_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = secret_generator("cpu")
    words = np.array([5, -(2**30), 2**31 - 1, 2**29, -(2**30), 7], dtype=np.int32)
    monkeypatch.setattr(os, "urandom", lambda count: words.tobytes()[:count])
    radius = np.sqrt(-2 * np.log((np.abs(words[:3].astype(float)) + 0.5) / 2**31))
    angle = np.pi * words[3:] / 2**31
    expected = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:5]
    assert numbers(generator, 5).numpy() == pytest.approx(expected, abs=1e-4)


def test_numbers_of_a_pair_are_independent() -> None:
    first, second = numbers(secret_generator("cpu"), 400_000).double().view(2, -1).numpy()
    for power in (1, 2):
        assert abs(np.corrcoef(first**power, second**power)[0, 1]) < 5 / np.sqrt(len(first))


@pytest.mark.parametrize("word", [b"\0\0\0\0", b"\0\0\0\x80", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff"])
def test_no_random_bytes_give_an_infinite_number(monkeypatch: pytest.MonkeyPatch, word: bytes) -> None:
    generator = secret_generator("cpu")
    monkeypatch.setattr(os, "urandom", lambda count: word * (count // 4))
    drawn = numbers(generator, 3)
    assert torch.isfinite(drawn).all()
    assert drawn.abs().max() <= 6.7  # sqrt(-2 log 2^-32)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_dtype_are_those_asked_for(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    for generator in (secret_generator("cpu"), secret_generator("cpu", 1)):
        drawn = gaussian(torch.zeros(shape, dtype=dtype), generator)
        assert (drawn.shape, drawn.dtype) == (shape, dtype)
        assert drawn.unique().numel() == drawn.numel()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_noise_of_a_gpu() -> None:
    drawn = [gaussian(torch.zeros(10_000, device="cuda"), secret_generator("cuda")).cpu() for _ in range(2)]
    assert no_two_equal(drawn)
    assert drawn[0].std() == pytest.approx(1, abs=0.05)
