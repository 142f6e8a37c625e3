"""The files below a folder of cases, without what is hidden and without what fedbrats itself has written there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from fedbrats.data.phantom import FINISHED, UNFINISHED


def visible_files(root: Path, say: Callable[[str], object]) -> list[Path]:
    """Every file below `root` in the order of its path.

    Args:
        root: the folder. It is walked even where it is itself something of fedbrats, as it was asked for by name.
        say: told once which folders were passed over.
    """
    found, own = list[Path](), list[str]()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        what = written_here([*subfolders, *names]) if Path(folder) != root else None
        if what:
            own.append(f"{folder} ({what})")
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
        found += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    if own:
        more = f" and {len(own) - 3} more" if len(own) > 3 else ""
        say(f"passed over, as fedbrats wrote it: {', '.join(own[:3])}{more}")
    return found


def written_here(content: Iterable[str]) -> str | None:
    """What of fedbrats a folder with these names in it is: "run", "predictions", "cache", "phantom", or None."""
    names = set(content)
    if "config.yaml" in names and names & {"environment.json", "summary.json"}:
        return "run"
    if {"cases.csv", "summary.json"} <= names:
        return "predictions"
    if {"cases", "hashes", "building"} <= names:
        return "cache"
    return "phantom" if names & {FINISHED, UNFINISHED} else None
