"""What a job of a sweep is called: by what tells it from the others."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence

LONGEST = 120  # signs of a name
LONGEST_VALUE = 48
SEED = "seed"
_UNSAFE = re.compile(r"[^\w.+-]+")


def job_name(overrides: Sequence[str], same: Collection[str], number: int | str) -> str:
    """Name of a job, and of its folder: "strategy=fedprox__mu=0.01__seed=1".

    Args:
        overrides: of the job, `key=value`.
        same: keys that are the same in all jobs of the sweep; they are left out.
        number: of the job, its name where nothing else tells it from others.

    Returns:
        Keys in the order given, seeds last, without the groups before them where that is clear. A value with signs that
        a path must not hold, or too long, is shortened and followed by the first digits of its SHA-256.
    """
    pairs = [_pair(override) for override in overrides]
    pairs = [(key, value) for key, value in pairs if key not in same]
    pairs.sort(key=lambda pair: pair[0].rsplit(".", 1)[-1] == SEED)
    ends = [key.rsplit(".", 1)[-1] for key, _ in pairs]
    keys = [end if ends.count(end) == 1 else key for end, (key, _) in zip(ends, pairs, strict=True)]
    name = "__".join(f"{key}={_value(value)}" for key, (_, value) in zip(keys, pairs, strict=True))
    return _short(name, LONGEST, name) or str(number)


def _pair(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def _value(value: str) -> str:
    """`value` as a part of a path."""
    plain = value.strip("'\"")
    return _short(_UNSAFE.sub("_", plain).strip("_"), LONGEST_VALUE, plain)


def _short(text: str, longest: int, whole: str) -> str:
    """`text` where it is short and says the whole."""
    if text == whole and len(text) <= longest:
        return text
    return f"{text[:longest]}-{hashlib.sha256(whole.encode()).hexdigest()[:6]}"
