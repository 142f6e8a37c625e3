"""Words of a command line as the commands read them."""

from __future__ import annotations

from pathlib import Path


def path(text: str) -> Path:
    """A path as it was typed; `~` is the home folder even where no shell has seen it."""
    return Path(text).expanduser()
