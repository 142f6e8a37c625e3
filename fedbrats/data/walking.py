"""The files below a folder of cases, without what is hidden and without what fedbrats itself has written there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from fedbrats.data.decathlon import IMAGE_FOLDERS
from fedbrats.data.phantom import FINISHED, UNFINISHED
from fedbrats.data.sentences import some
from fedbrats.data.stream import Bounds

INSIDE, FOLLOW = "inside", "follow"  # data.links


def visible_files(root: Path, say: Callable[[str], object], links: str = INSIDE) -> list[Path]:
    """Every file below `root` in the order of its path.

    Args:
        root: the folder. It is walked even where it is itself something of fedbrats, as it was asked for by name.
        say: told once which folders were passed over.
        links: as in `find_cases`. A linked folder is searched once, so that no circle of links is walked for ever.
    """
    found, own, outside = list[Path](), list[str](), list[Path]()
    linked = {root.resolve()}
    for folder, subfolders, names in os.walk(root, followlinks=True):
        what = written_here([*subfolders, *names]) if Path(folder) != root else None
        if what:
            own.append(f"{folder} ({what})")
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
        for link in [path for path in (Path(folder, name) for name in subfolders) if path.is_symlink()]:
            there = link.resolve()
            if leaves := links != FOLLOW and not there.is_relative_to(root.resolve()):
                outside.append(link)
            if leaves or there in linked:
                subfolders.remove(link.name)
            linked.add(there)
        found += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    if own:
        say(f"passed over, as fedbrats wrote it: {some(own)}")
    if outside:
        say(f"passed over, links that leave {root}: {some(outside)}")
    return found


def links_outside(root: Path) -> list[Path]:
    """The linked folders that `visible_files` passes over."""
    found = []
    for folder, subfolders, _ in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
        links = [path for path in (Path(folder, name) for name in subfolders) if path.is_symlink()]
        found += [link for link in links if not link.resolve().is_relative_to(root.resolve())]
    return found


def bounds_of(root: Path, max_voxels: int, links: str, group: str = "data.") -> Bounds:
    """The bounds of the files of the data set below `root`; max_voxels and links: options of `group`."""
    whole = root.resolve()
    if whole.name in IMAGE_FOLDERS and (whole.parent / "dataset.json").is_file():
        whole = whole.parent  # the labels of the Decathlon lie beside its images
    return Bounds(max_voxels, None if links == FOLLOW else whole, group)


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
