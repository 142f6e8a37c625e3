"""Commands of `fedbrats`, each in a process of its own that need not import its libraries, which takes the longest.

A process that has imported them forks for every command; run as a script, this file is that process.
"""

from __future__ import annotations

import atexit
import gc
import json
import multiprocessing.util
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

MODULES = ("fedbrats.federation.site.app", "fedbrats.commands.run.run", "torch._dynamo", "sympy")


@dataclass(frozen=True)
class Said:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """All of it, without the terminal's line breaks."""
        return " ".join((self.out + " " + self.err).split())


class Warm:
    """The process that has all imported, of an interpreter that has fedbrats; it ends with this one."""

    def __init__(self, python: Path, env: Mapping[str, str]) -> None:
        """`env`: of the process and so of all commands."""
        self._process = subprocess.Popen(
            [python, "-P", __file__],
            cwd=tempfile.gettempdir(),
            env={**env, "OMP_NUM_THREADS": "1"},  # threads that exist before a fork are lost in it
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self._process.kill)

    def fedbrats(self, *words: object, cwd: Path, more: Mapping[str, str] | None = None) -> Said:
        """Run `fedbrats` with `words` in the folder `cwd`, with `more` in its environment."""
        with tempfile.TemporaryDirectory() as name:
            return self.start(*words, cwd=cwd, said=Path(name), more=more).wait()

    def start(self, *words: object, cwd: Path, said: Path, more: Mapping[str, str] | None = None) -> Started:
        """The same, not waited for; what it prints is kept in the folder `said`."""
        asked = {"words": [*map(str, words)], "cwd": str(cwd), "said": str(said), "more": dict(more or {})}
        return Started(self, self.ask(asked), said)

    def ask(self, what: object) -> int:
        """One line to that process, one number back."""
        pipes = self._process.stdin, self._process.stdout
        assert pipes[0]
        assert pipes[1]
        print(json.dumps(what), file=pipes[0], flush=True)
        return int(pipes[1].readline())


@dataclass(frozen=True)
class Started:
    """A command that runs."""

    by: Warm
    pid: int
    said: Path

    def wait(self) -> Said:
        """Wait for its end, which is told once."""
        return Said(self.by.ask(self.pid), *((self.said / stream).read_text() for stream in ("1", "2")))


@cache
def _own() -> Warm:
    return Warm(Path(sys.executable), os.environ)


def started(*words: object, cwd: Path, said: Path) -> Started:
    """A `fedbrats` of this interpreter that is not waited for; what it prints is kept in the folder `said`."""
    return _own().start(*words, cwd=cwd, said=said)


def fedbrats(*words: object, cwd: Path, more: Mapping[str, str] | None = None) -> Said:
    """Run `fedbrats` of this interpreter with `words` in the folder `cwd`, with `more` in its environment."""
    return _own().fedbrats(*words, cwd=cwd, more=more)


def main() -> None:
    """Fork for every command on standard input and say its number; for a number, say its status once it has ended."""
    from fedbrats.__main__ import COMMANDS
    from fedbrats.commands.compose import compose_config

    for module in (*MODULES, *(module for module, _ in COMMANDS.values())):
        import_module(module)
    compose_config([])  # its parser learns from what it reads
    gc.freeze()  # or a child copies all that is looked at
    while line := sys.stdin.readline():
        if isinstance(asked := json.loads(line), int):
            print(os.waitstatus_to_exitcode(os.waitpid(asked, 0)[1]), flush=True)
            continue
        child = os.fork()
        if not child:
            _command(**asked)
        print(child, flush=True)


def _command(words: list[str], cwd: str, more: dict[str, str], said: str) -> None:
    """In the new process: what a shell does before it hands over to a program."""
    for number in (1, 2):
        os.dup2(os.open(Path(said) / str(number), os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(cwd)
    os.environ.update(more)
    sys.argv = ["fedbrats", *words]
    from fedbrats.__main__ import main

    status = 1
    try:
        status = main()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    multiprocessing.util._exit_function()  # type: ignore[attr-defined]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # taking down what the parent has imported takes seconds


if __name__ == "__main__":
    main()
