"""Shamir's secret sharing (Communications of the ACM, 1979): any t of n shares give a secret, fewer say nothing of it.

A secret is the value at 0 of a polynomial of degree t - 1 over the integers modulo a prime, whose other coefficients
are drawn at random; share i is its value at i.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

PRIME = 2**521 - 1  # the smallest Mersenne prime that has room for 32 bytes
SECRET_BYTES, SHARE_BYTES = 32, 66


class BadShares(ValueError):
    """Shares that do not give what they should."""


def share(
    secret: int,
    threshold: int,
    points: int,
    prime: int = PRIME,
    draw: Callable[[int], int] = secrets.randbelow,
) -> list[int]:
    """Shares at 1 to `points`, of which `threshold` give the secret.

    Raises:
        ValueError: no threshold of 1 to `points`, or a secret that the prime has no room for.
    """
    if not 1 <= threshold <= points < prime:
        raise ValueError(f"threshold {threshold} of {points} shares")
    if not 0 <= secret < prime:
        raise ValueError("the secret is too large for the prime")
    coefficients = [secret, *(draw(prime) for _ in range(threshold - 1))]
    return [_value(coefficients, x, prime) for x in range(1, points + 1)]


def _value(coefficients: list[int], x: int, prime: int) -> int:
    found = 0
    for coefficient in reversed(coefficients):
        found = (found * x + coefficient) % prime
    return found


def at_zero(points: list[int], prime: int = PRIME) -> list[int]:
    """Weights with which shares at `points` add up to the secret (Lagrange).

    Raises:
        BadShares: two shares of one point, or one at 0.
    """
    if len(set(points)) < len(points) or 0 in points:
        raise BadShares("two shares of one site")
    weights = []
    for x in points:
        over, under = 1, 1
        for other in points:
            if other != x:
                over, under = over * other % prime, under * (other - x) % prime
        weights.append(over * pow(under, -1, prime) % prime)
    return weights


def secret_of(shares: Mapping[int, int], prime: int = PRIME) -> int:
    """The secret, from shares by point; as many as the threshold, or more."""
    weights = at_zero(list(shares), prime)
    return sum(w * value for w, value in zip(weights, shares.values(), strict=True)) % prime


def share_bytes(secret: bytes, threshold: int, points: int) -> list[bytes]:
    """Shares (66 bytes each) of 32 secret bytes, at 1 to `points`."""
    assert len(secret) == SECRET_BYTES
    shares = share(int.from_bytes(secret, "big"), threshold, points)
    return [value.to_bytes(SHARE_BYTES, "big") for value in shares]


def secret_bytes(shares: Mapping[int, bytes]) -> bytes:
    """The 32 secret bytes, from shares by point.

    Raises:
        BadShares: they give no 32 bytes.
    """
    found = secret_of({x: int.from_bytes(value, "big") for x, value in shares.items()})
    if found.bit_length() > 8 * SECRET_BYTES:
        raise BadShares("the shares do not belong together")
    return found.to_bytes(SECRET_BYTES, "big")
