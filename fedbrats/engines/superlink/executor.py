"""What a SuperExec starts for a task: a program that is installed here. The app of the run is not unpacked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from fedbrats.engines.superlink.handed import READY, Where
from fedbrats.engines.superlink.tasks import tell_failed


class Executor:
    """Flower's executor for one type of task; anything else is never asked for.

    A resident program does one task after the other and keeps what it has loaded (data, network, kernels). It is
    started before there is a task and started anew when it has died, and no task is taken before it is ready: Flower
    gives a task up that shows no sign of life for a minute, and importing what a site needs may take as long on a busy
    machine. Otherwise every task has a process of its own.

    A process that has died is seen at once, and Flower is told that its task has failed: by itself it would learn that
    from the missing sign of life a minute later.
    """

    def __init__(self, task: str, program: Sequence[str], resident: bool) -> None:
        """`task`: Flower's name of the type; `program`: module and arguments for `python -m`."""
        self.task, self.program, self.resident = task, tuple(program), resident
        self._running: list[subprocess.Popen[bytes]] = []
        self._doing: dict[int, Where] = {}  # process -> its task
        self._ready = False

    def get_eligible_capacity(self, supported: set[Any], **ignored: Any) -> tuple[set[Any], set[str]]:
        """The types of tasks that are taken now."""
        return {kind for kind in supported if str(kind) == self.task and self._free()}, set()

    def wait_for_capacity(self, *ignored: Any, **ignored_too: Any) -> None:
        """Nobody waits: without capacity no task is asked for."""

    def launch(self, spec: Any) -> Any:
        """Hand a task to its program."""
        from flwr.supercore.superexec.executor import LaunchResult

        if str(spec.task_type) != self.task:
            return LaunchResult.failed(f"{spec.task_type} is not done here")
        where = Where(spec.runtime_api_address, spec.token, spec.insecure, spec.root_certificates_path)
        try:
            process = self._running[-1] if self.resident else self._start()
            self._ready = False
            assert process.stdin is not None
            process.stdin.write(where.to_line().encode())
            process.stdin.flush()
            self._doing[process.pid] = where
            if not self.resident:
                process.stdin.close()
        except (OSError, IndexError) as error:
            return LaunchResult.failed(f"{self.program[0]}: {error}")
        return LaunchResult.accepted()

    def reconcile(self) -> None:
        """Collect what has ended, tell of a task that it left, and see to it that a resident program is there."""
        ended = [process for process in self._running if process.poll() is not None]
        self._running = [process for process in self._running if process not in ended]
        for process in ended:
            where = self._doing.pop(process.pid, None)
            if where and process.returncode:
                tell_failed(where, f"its process ended with {process.returncode}")
        if self.resident and not self._running:
            self._start()

    def close(self) -> None:
        """End the programs, and tell of the tasks that they were at."""
        for process in self._running:
            process.terminate()
        while self._doing:
            tell_failed(self._doing.popitem()[1], "its SuperExec ended")

    def _free(self) -> bool:
        if self.resident and not self._ready and self._running:
            output = self._running[-1].stdout
            assert output is not None
            self._ready = READY in (output.read() or b"")
            if self._ready:
                self._doing.clear()
        return self._ready or not self.resident

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", *self.program]
        output = subprocess.PIPE if self.resident else None
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, bufsize=0)
        if process.stdout is not None:
            os.set_blocking(process.stdout.fileno(), False)
        self._running.append(process)
        self._ready = False
        return process
