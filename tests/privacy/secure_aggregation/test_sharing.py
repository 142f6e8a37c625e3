"""Shamir's sharing against the printed example, and what fewer shares than the threshold say."""

from __future__ import annotations

import itertools
import os
from collections import Counter

import pytest

from fedbrats.privacy.secure_aggregation.sharing import (
    SHARE_BYTES,
    BadShares,
    secret_bytes,
    secret_of,
    share,
    share_bytes,
)

# Wikipedia, "Shamir's secret sharing", second example: f(x) = 1234 + 166 x + 94 x^2 modulo 1613
PRINTED = {1: 1494, 2: 329, 3: 965, 4: 176, 5: 1188, 6: 775}


def test_printed_example() -> None:
    drawn = iter([166, 94])
    assert share(1234, 3, 6, 1613, lambda prime: next(drawn)) == list(PRINTED.values())
    for three in itertools.combinations(PRINTED, 3):
        assert secret_of({x: PRINTED[x] for x in three}, 1613) == 1234


def test_fewer_shares_than_the_threshold_fit_every_secret_equally_often() -> None:
    prime, seen = 5, dict[int, Counter[tuple[int, ...]]]()
    for secret in range(prime):
        seen[secret] = Counter()
        for coefficients in itertools.product(range(prime), repeat=2):
            drawn = iter(coefficients)
            seen[secret][tuple(share(secret, 3, 4, prime, lambda p, d=drawn: next(d))[1:3])] += 1
    assert len(seen[0]) == prime**2
    assert all(counts == seen[0] for counts in seen.values())


def test_any_threshold_of_real_secrets() -> None:
    for secret in (bytes(32), b"\xff" * 32, os.urandom(32)):
        shares = dict(enumerate(share_bytes(secret, 4, 7), start=1))
        assert {len(s) for s in shares.values()} == {SHARE_BYTES}
        for four in itertools.combinations(shares, 4):
            assert secret_bytes({x: shares[x] for x in four}) == secret
        with pytest.raises(BadShares, match="do not belong together"):
            secret_bytes({x: shares[x] for x in (1, 2, 3)})


def test_what_cannot_be_shared_or_put_together() -> None:
    for threshold, points in ((0, 3), (4, 3)):
        with pytest.raises(ValueError, match="threshold"):
            share(1, threshold, points)
    with pytest.raises(ValueError, match="too large"):
        share(1613, 2, 3, 1613)
    with pytest.raises(BadShares, match="two shares"):
        secret_of({0: 3, 1: 2})
