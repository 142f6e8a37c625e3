"""What a site remembers between rounds, kept in its own storage and nowhere else.

One safetensors file per arm and round, named by the round that made it. A site that starts round r loads the newest
file older than r: after a crash, a restart or a resume this is the state that belongs to the round, and files of
rounds that are computed again are simply overwritten.
"""

from __future__ import annotations

import os
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


def _file(folder: Path, round_: int) -> Path:
    return folder / f"round_{round_:05d}.safetensors"


def _rounds(folder: Path) -> list[int]:
    return sorted(int(f.stem.removeprefix("round_")) for f in folder.glob("round_*.safetensors"))


def save_state(folder: Path, round_: int, tensors: dict[str, Tensor], *, keep_from: int) -> None:
    """Write the state that round `round_` leaves, atomically, and drop what no resume can ask for again.

    Args:
        folder: of one site and one arm.
        round_: the round that made the state.
        tensors: by name.
        keep_from: round of the server's newest checkpoint; the newest state at or before it is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".round_{round_:05d}.{os.getpid()}"
    save_file(tensors, unfinished)
    os.replace(unfinished, _file(folder, round_))
    resumable = [r for r in _rounds(folder) if r <= keep_from]
    for old in resumable[:-1]:
        _file(folder, old).unlink(missing_ok=True)


def load_state(folder: Path, before_round: int) -> dict[str, Tensor]:
    """The newest state of a round older than `before_round`; empty if there is none."""
    older = [r for r in _rounds(folder) if r < before_round]
    return load_file(_file(folder, older[-1])) if older else {}
