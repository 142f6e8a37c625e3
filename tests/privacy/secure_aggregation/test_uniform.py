"""What the server sees of one site looks like nothing; a scheme that only seems to mask is caught by the same test."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from scipy import stats

from fedbrats.privacy.noise import AT_ONCE, SecretNumbers
from fedbrats.privacy.secure_aggregation.masks import add_mask
from fedbrats.privacy.secure_aggregation.ring import FixedPoint
from tests.privacy.secure_aggregation.toy import play

N, CASES = 20_000, 40
CHANCE = 1e-7  # that one of the tests calls uniform numbers something else


def update() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1e-3, N)


def told_apart(seen: list[np.ndarray], sent: np.ndarray) -> set[str]:
    """By what the vectors (uint64, [n] each) that a server saw in several rounds differ from uniform ones."""
    found = set()
    for vector in seen:
        counts = np.bincount(vector.view(np.uint8), minlength=256)
        if not CHANCE < stats.chisquare(counts).pvalue < 1 - CHANCE:
            found.add("bytes")
        # Differences cancel whatever was added to all elements alike.
        for order in (lambda v: v, np.diff):
            if stats.pearsonr(order(vector.view(np.int64)).astype(float), order(sent)).pvalue < CHANCE:
                found.add("correlation")
        # Of 20,000 numbers of 64 bits two are equal by chance once in 10^11.
        if len(np.unique(vector)) < len(vector):
            found.add("equal elements")
    for one, two in itertools.pairwise(seen):
        if (one == two).any() or (np.diff(one - two) == 0).any():
            found.add("equal masks")
    return found


def coded(values: np.ndarray) -> np.ndarray:
    return FixedPoint.of(3 * CASES, 65536.0).encode("w", values, CASES)


@pytest.mark.parametrize("values", [update(), np.zeros(N), np.ones(N)], ids=["update", "zeros", "ones"])
def test_a_masked_vector_is_uniform(values: np.ndarray) -> None:
    rounds = [play(dict.fromkeys("ABC", coded(values)), session=f"{r}:x") for r in (1, 2, 3)]
    sent = values if values.std() else update()
    for site in "ABC":
        assert told_apart([found.masked[site] for found in rounds], sent) == set()


def test_so_it_is_to_one_who_knows_all_pairwise_masks() -> None:
    """The own mask alone hides a site whose arrays come late, when its key has been put together by the others."""
    found = play(dict.fromkeys("ABC", coded(np.zeros(N))))
    others = found.masked["B"] + found.masked["C"]
    assert told_apart([found.masked["A"] + others], update()) == set()


def test_the_same_mask_serves_no_two_sites() -> None:
    found = play(dict.fromkeys("ABC", coded(np.zeros(N))))
    assert told_apart([found.masked[site] for site in "ABC"], update()) == set()


def test_a_long_mask_does_not_repeat() -> None:
    long = np.zeros(2 * AT_ONCE + 5, np.uint64)
    add_mask(long, bytes(range(32)))
    assert len(np.unique(long)) == len(long)
    assert (long == SecretNumbers(bytes(range(32))).words(len(long))).all()


def test_one_random_number_added_to_each_element_is_told_apart() -> None:
    """Such as `random.random()` once before the first round, for all elements and all rounds."""
    once = np.uint64(random.Random(1).getrandbits(64))
    seen = [coded(update()) + once for _ in range(2)]
    assert told_apart(seen, update()) >= {"bytes", "correlation", "equal masks"}


def test_other_void_schemes_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    fresh = [coded(update()) + rng.integers(0, 2**64, 1, np.uint64) for _ in range(2)]
    assert told_apart(fresh, update()) >= {"bytes", "correlation"}  # one number, fresh per round
    pad = rng.integers(0, 2**64, N, np.uint64)
    again = [coded(update()) + pad, coded(update()) + pad]
    assert "equal masks" in told_apart(again, update())  # good masks, but the same in two rounds
    short = [np.resize(rng.integers(0, 2**64, 100, np.uint64), N) for _ in range(2)]
    assert "equal elements" in told_apart(short, update())  # a mask that repeats
