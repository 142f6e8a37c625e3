"""Arrays as whole numbers modulo 2^64, in which sums are exact and a uniform mask hides everything.

A site with n training cases sends round(n x 2^f) for every element x, the same f for all. The sum over the sites,
divided by 2^f and by their cases together, is the weighted mean; K sites with N cases together move it by at most

    K / (2 N) 2^-f

per element, and f is the largest for which no sum of allowed values leaves half of the ring: with 2040 cases and values
up to 65536 it is 35, and the error below 1.5e-11, less than the last digit of float32 of any weight above 1.3e-4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

ROOM = 62  # bits of a sum; the sign takes one, and one stays free so that a wrong sum shows
LEAST_BITS = 20  # after the point; fewer would be coarser than float16


class OutOfRange(ValueError):
    """A value that the ring has no room for, or a sum that no allowed values can give."""


@dataclass(frozen=True)
class FixedPoint:
    """How numbers stand in the ring."""

    bits: int  # after the point, f
    largest: float  # absolute value of an element before it is weighted

    @classmethod
    def of(cls, cases: int, largest: float) -> FixedPoint:
        """The finest for sites with so many `cases` together.

        Raises:
            OutOfRange: nothing fine enough is left.
        """
        mantissa, exponent = math.frexp(cases * largest)
        bits = ROOM - exponent + (mantissa == 0.5)
        if cases < 1 or bits < LEAST_BITS:
            raise OutOfRange(
                f"{cases} cases with values up to {largest:g} leave {bits} bits after the point, fewer than "
                f"{LEAST_BITS}; lower privacy.secure_range"
            )
        return cls(bits, largest)

    def encode(self, name: str, array: np.ndarray, cases: int) -> np.ndarray:
        """`array` (any float dtype), weighted by `cases`, as uint64 of the same shape.

        Raises:
            OutOfRange: an element is no number, or beyond `largest`; the message does not say by how much.
        """
        values = array.astype(np.float64)
        if not (np.abs(values) <= self.largest).all():
            raise OutOfRange(
                f"{name} holds a value that is no number or beyond {self.largest:g}, which secure aggregation has no "
                "room for; raise privacy.secure_range"
            )
        # Exact for float32: 24 + 14 bits of value and weight fit the 53 of float64.
        weighted = np.ldexp(values * cases, self.bits)
        return np.rint(weighted, out=weighted).astype(np.int64).view(np.uint64)

    def error(self, sites: int, cases: int) -> float:
        """By how much rounding moves an element of the mean of so many `sites` with so many `cases` at most."""
        return math.ldexp(sites / (2 * cases), -self.bits)

    def mean(self, total: np.ndarray, cases: int, dtype: str = "float32") -> np.ndarray:
        """What a sum (uint64) of sites with so many `cases` together stands for.

        Raises:
            OutOfRange: no allowed values have this sum, so that something else was added.
        """
        signed = total.view(np.int64)
        # Each site may round by half an element.
        most = int(math.ldexp(self.largest * cases, self.bits)) + cases
        if (signed > most).any() or (signed < -most).any():
            raise OutOfRange(
                "the sum is larger than what the sites can have sent, so a reply was none of theirs"
            )
        return (np.ldexp(signed.astype(np.float64), -self.bits) / cases).astype(dtype)
