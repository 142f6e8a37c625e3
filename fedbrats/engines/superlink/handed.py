"""How a SuperExec hands a task to its program.

The program is told over its standard input where the task is and the token for it, one line of JSON for each, so that
no token stands in the list of processes. A resident one says over its standard output when it is ready for a task.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

READY = b"\n"  # of a resident program, for one task


@dataclass(frozen=True)
class Where:
    """How to reach a task: of the runtime API address, token and, with TLS, the file of the authority."""

    address: str
    token: str
    insecure: bool
    ca: str | None

    def to_line(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Where:
        """What `to_line` was given."""
        return cls(**json.loads(line))
