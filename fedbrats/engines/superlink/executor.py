"""What a SuperExec starts for a task: a program that is installed here. The app that came with the run is not unpacked.

The program is told over its standard input where the task is and the token for it, one line of JSON for each, so that
no token stands in the list of processes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any


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


class Executor:
    """Flower's executor for one type of task; anything else is never asked for.

    A resident program does one task after the other and keeps what it has loaded (data, network, kernels); when it
    has died, the next task starts it anew. Otherwise every task has a process of its own.
    """

    def __init__(self, task: str, module: str, resident: bool) -> None:
        """`task`: Flower's name of the type; `module`: run with `python -m`."""
        self.task, self.module, self.resident = task, module, resident
        self._running: list[subprocess.Popen[str]] = []
        if resident:
            self._process()  # loads what it needs before the first task comes, whose token is good for a minute

    def get_eligible_capacity(self, supported: set[Any], **ignored: Any) -> tuple[set[Any], set[str]]:
        """The types of tasks that are taken now."""
        return {kind for kind in supported if str(kind) == self.task}, set()

    def wait_for_capacity(self, *ignored: Any, **ignored_too: Any) -> None:
        """There is always room: a SuperNode hands out one message at a time."""

    def launch(self, spec: Any) -> Any:
        """Hand a task to its program."""
        from flwr.supercore.superexec.executor import LaunchResult

        if str(spec.task_type) != self.task:
            return LaunchResult.failed(f"{spec.task_type} is not done here")
        where = Where(spec.runtime_api_address, spec.token, spec.insecure, spec.root_certificates_path)
        try:
            process = self._process()
            assert process.stdin is not None
            process.stdin.write(where.to_line())
            process.stdin.flush()
            if not self.resident:
                process.stdin.close()
        except OSError as error:
            return LaunchResult.failed(f"{self.module}: {error}")
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Collect what has ended."""
        self._running = [process for process in self._running if process.poll() is None]

    def close(self) -> None:
        """End the programs."""
        for process in self._running:
            process.terminate()

    def _process(self) -> subprocess.Popen[str]:
        self.reconcile()
        if not self.resident or not self._running:
            command = [sys.executable, "-m", self.module]
            self._running.append(subprocess.Popen(command, stdin=subprocess.PIPE, text=True))
        return self._running[-1]
