"""A command of `fedbrats` in a process of its own that need not import its libraries, which takes longer than most."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedbrats.engines.warm import warm_up, worker_context


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


def fedbrats(*words: str, cwd: Path, more: Mapping[str, str]) -> Said:
    """Run `fedbrats` with `words` in the folder `cwd`, with `more` in its environment."""
    warm_up()
    with tempfile.TemporaryDirectory() as name:
        out, err = Path(name) / "out", Path(name) / "err"
        process = worker_context().Process(target=_command, args=(words, cwd, dict(more), out, err))
        process.start()
        process.join()
        assert process.exitcode is not None
        return Said(process.exitcode, out.read_text(), err.read_text())


def _command(words: tuple[str, ...], cwd: Path, more: Mapping[str, str], out: Path, err: Path) -> None:
    """In the new process: what a shell does before it hands over to a program."""
    for file, number in ((out, 1), (err, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.update(more)
    sys.argv = ["fedbrats", *words]
    from fedbrats.__main__ import main

    sys.exit(main())
