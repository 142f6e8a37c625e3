"""How names and numbers stand in the sentences that are said of a data set."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 3  # names in a sentence


def some(names: Iterable[object]) -> str:
    """The first few of `names`, and how many more there are."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:SHOWN]) + (f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else "")


def plural(count: int, one: str, many: str | None = None) -> str:
    """Such as "1 case", "2 cases"."""
    return f"{count} {one if count == 1 else many or one + 's'}"
