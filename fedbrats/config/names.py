"""One rule for names that come from files, folders, tables and other machines, and how foreign text is printed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from fedbrats.config.schema import POOLED
from fedbrats.config.targets import ConfigError

LONGEST, BYTES = 100, 200  # a file name of 255 bytes keeps room for endings
SEPARATORS = "/\\:"
RESERVED = (POOLED, "server", "all")  # institutions that the results have of their own


def fault(name: str) -> str:
    """Why `name` cannot name an institution, a patient, a case, an arm or a run; "" if it can."""
    if not name.strip():
        return "is empty"
    if name != name.strip():
        return "begins or ends with a blank"
    if any(_unprintable(c) for c in name):
        return "holds a line end or another character that is not printed"
    if any(c in name for c in SEPARATORS):
        return "holds a slash or a colon"
    if name.startswith("."):
        return "begins with a dot"
    if len(name) > LONGEST or len(name.encode()) > BYTES:
        return f"is longer than {LONGEST} characters or {BYTES} bytes"
    return ""


def check_names(what: str, names: Iterable[str], fix: str) -> None:
    """Check names of one kind.

    Args:
        what: they name, such as "institution".
        names: in any order.
        fix: what to do about a bad one.

    Raises:
        ConfigError: one cannot be a name.
    """
    for name in names:
        if reason := fault(name):
            raise ConfigError(f"{what} {name[:LONGEST]!r} {reason}; {fix}")


def check_institutions(names: Iterable[str], fix: str = "rename it in partition.table") -> None:
    """Check names of institutions, which are folders in a run folder, too.

    Raises:
        ConfigError: one cannot be a name, or the results use it for something else.
    """
    names = list(names)
    check_names("institution", names, fix)
    for name in names:
        if name.casefold() in RESERVED:
            raise ConfigError(f"institution {name!r} is a word of the results ({', '.join(RESERVED)}); {fix}")


def shown(text: str) -> str:
    """Foreign text for a terminal, a log or a page: line ends and tabs stay, anything else unprinted is spelled out."""
    return "".join(c if c in "\n\t" or not _unprintable(c) else ascii(c)[1:-1] for c in text)


def _unprintable(c: str) -> bool:
    # controls, formatting such as a change of direction, halves of pairs, private and unassigned; line separators
    return unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
