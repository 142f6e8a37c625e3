"""What one check of a site found: all right, to be looked at, or to be put right, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OK, WARNING, FIX = "ok", "warning", "fix"


@dataclass(frozen=True)
class Finding:
    """One line of `fedbrats site preflight`.

    check: what was looked at; verdict: OK, WARNING or FIX; said: what was found and what to do, a text that may be sent
    to somebody, so it names no case, patient or path; here: what is named only on the site's own screen; facts:
    numbers and versions behind it, for support.
    """

    check: str
    verdict: str
    said: str
    here: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What may be sent: all but `here`."""
        return {"check": self.check, "verdict": self.verdict, "said": self.said, "facts": dict(self.facts)}


def reason_of(error: OSError) -> str:
    """Why the system refused, without the path that `str(error)` would name."""
    return error.strerror or type(error).__name__
