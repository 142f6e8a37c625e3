"""Processes that must run on: started, watched, started again when they end, and ended together."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from fedbrats.config.targets import ConfigError
from fedbrats.files import locked, private_folder, read_json, write_json

AGAIN = 5.0  # seconds before what has ended is started again
LOOK = 2.0  # seconds between two calls of what is done meanwhile
HEALTH = "127.0.0.1:8082"  # where a program that runs alone answers Flower's question for its health
# Of glibc: memory of a message is used again for the next one, whatever its size and its thread. Asked of the kernel
# anew each time, it has to be mapped page by page, which for large models takes longer than all copying.
HEAP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": str(2**30)}
# Of Flower: bytes of an array in one request, each of which takes some milliseconds at both ends whatever its size.
PIECES = {"FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": str(2**24)}
GRACE = 20.0  # seconds that a process has to end by itself

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Program:
    """One of Flower's programs, by `flower.py`, with its arguments.

    What it says goes to `log`; None: to where this process says what it has to say.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path | None

    def start(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Begin it in a group of its own, so that Ctrl-C at a terminal reaches this process alone."""
        command = [sys.executable, "-m", "fedbrats.engines.superlink.flower", *self.arguments]
        with self._log() as stream:
            return subprocess.Popen(
                command,
                env={**HEAP, **PIECES, **os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def _log(self) -> AbstractContextManager[IO[bytes] | None]:
        if self.log is None:
            return nullcontext()
        private_folder(self.log.parent)
        return self.log.open("ab")


def alone(programs: Sequence[Program], name: str) -> list[Program]:
    """The program of that name, for a supervisor that watches each by itself and collects what it says."""
    return [
        replace(p, arguments=(*p.arguments, "--health-server-address", HEALTH), log=None)
        for p in programs
        if p.name == name
    ]


def run_all(
    programs: Sequence[Program],
    environment: Mapping[str, str],
    file: Path | None,
    meanwhile: Callable[[], None] = lambda: None,
    ended: Callable[[str], None] = lambda name: None,
) -> int:
    """Run `programs` until this process is told to end (SIGTERM, SIGINT); returns 0.

    What ends meanwhile is started again: a SuperNode, for one, is refused by the server for a minute after it was
    killed. Their process ids stand in `file`, if there is one, for `stop`. `meanwhile` is called every `LOOK` seconds,
    `ended` with the name of a program that has ended by itself; what that raises ends all.

    Raises:
        ConfigError: they run already, by that file.
    """
    with held(file) if file else nullcontext():
        return _run(programs, environment, file, meanwhile, ended)


def _run(
    programs: Sequence[Program],
    environment: Mapping[str, str],
    file: Path | None,
    meanwhile: Callable[[], None],
    ended: Callable[[str], None],
) -> int:
    end = list[int]()  # no Event: set by a handler while this thread waits for it, it can wait for ever
    before = {
        number: signal.signal(number, lambda *_: end.append(1)) for number in (signal.SIGTERM, signal.SIGINT)
    }
    running: dict[Program, subprocess.Popen[bytes]] = {}
    due, look = dict.fromkeys(programs, 0.0), time.monotonic() + LOOK
    try:
        while not end:
            for program in programs:
                process = running.get(program)
                if process is not None and process.poll() is not None:
                    log.warning("%s ended (%s), again in %g s", program.name, process.returncode, AGAIN)
                    del running[program]
                    ended(program.name)
                    due[program] = time.monotonic() + AGAIN
                if program not in running and time.monotonic() >= due[program]:
                    running[program] = program.start(environment)
                    if file is None:
                        continue
                    pids = {one.name: p.pid for one, p in running.items()}
                    write_json(file, {"pid": os.getpid(), "programs": pids}, private=True)
            if time.monotonic() >= look:
                meanwhile()
                look = time.monotonic() + LOOK
            time.sleep(0.2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _end(list(running.values()))
        if file:
            file.unlink(missing_ok=True)
    return 0


def stop(file: Path) -> bool:
    """End what `run_all` runs by `file`, and wait until it has ended; returns whether it ran."""
    owner = running_by(file)
    if not owner:
        return False
    os.kill(owner, signal.SIGTERM)
    end = time.monotonic() + 2 * GRACE
    while _alive(owner) and time.monotonic() < end:
        time.sleep(0.1)
    return True


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask them to end, the last one first, and make those end that do not."""
    for process in reversed(processes):
        with suppress(ProcessLookupError):
            process.terminate()
    end = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold `file` for as long as the context lasts, or the process. Raises ConfigError: another one holds it."""
    private_folder(file.parent)
    with locked(_lock_of(file)) as ours:
        if not ours:
            owner = f"process {number}" if (number := running_by(file)) else "another process"
            raise ConfigError(f"{owner} runs them already ({file}); `stop` ends it")
        yield


def _lock_of(file: Path) -> Path:
    return file.with_suffix(".lock")


def running_by(file: Path) -> int:
    """The process that runs by `file`, 0 if none does.

    A number that is left of one that was killed may be that of any process by now: what runs holds the file, too.
    """
    try:
        with locked(_lock_of(file), alone=False) as nobody_has_it:
            if nobody_has_it:
                return 0
        pid = int(read_json(file)["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return pid if pid != os.getpid() and _alive(pid) else 0


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.is_file() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z")
