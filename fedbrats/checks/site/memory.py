"""How much memory a process may take: that of the machine, or less where its container has a limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fedbrats.checks.site.finding import FIX, OK, WARNING, Finding

LEAST, USUAL = (
    2 * 2**30,
    8 * 2**30,
)  # bytes: to read cases and build a network at all, and to train the usual ones
# limit, what is taken, and of it what the kernel gives back: files that were read
VERSION_2 = ("memory.max", "memory.current", "inactive_file")
VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@dataclass(frozen=True)
class Memory:
    """Bytes. limited: whether they are those of a container rather than of the machine."""

    total: int
    free: int
    limited: bool


def memory_of(root: Path = Path("/")) -> Memory:
    """What this process may take, by the files of Linux below `root`: cgroup version 2 and 1, else the machine's.

    The tightest limit counts, as the groups that hold this one have theirs.

    Raises:
        OSError: no /proc/meminfo.
    """
    machine = {}
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        machine[name] = int(value.split()[0]) * 1024
    total, free = machine["MemTotal"], machine.get("MemAvailable", machine["MemFree"])
    limited = False
    for folder, names in _groups(root):
        limit, used = _number(folder / names[0]), _number(folder / names[1]) or 0
        if limit is None or limit >= total:
            continue
        total, limited = limit, True
        free = min(free, max(0, limit - used + _given_back(folder, names[2])))
    return Memory(total, free, limited)


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Folders of the groups of this process, with the names of their files, the widest first."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            base, names = mounted, VERSION_2
        elif "memory" in controllers.split(","):
            base, names = mounted / "memory", VERSION_1
        else:
            continue
        steps = [part for part in path.split("/") if part and part != ".."]
        for depth in range(len(steps) + 1):  # inside a container the own group is mounted as the root
            yield base.joinpath(*steps[:depth]), names


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _given_back(folder: Path, name: str) -> int:
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)


def check_memory(root: Path = Path("/")) -> Finding:
    """Whether there is memory to train in; the training step tells how much it really takes."""
    try:
        found = memory_of(root)
    except (OSError, KeyError, ValueError, IndexError):
        return Finding("memory", WARNING, "cannot be told here: /proc/meminfo is missing")
    facts = {
        "GB": round(found.total / 1e9, 1),
        "free GB": round(found.free / 1e9, 1),
        "container": found.limited,
    }
    of = "the limit of the container" if found.limited else "the machine"
    said = f"{found.free / 1e9:.1f} GB free of {found.total / 1e9:.1f} GB of {of}"
    more = (
        "; give the container more (SITE_MEMORY in docker/.env)" if found.limited else "; end other programs"
    )
    if found.free < LEAST:
        return Finding("memory", FIX, f"{said}, at least {LEAST / 1e9:.1f} are needed{more}.", "", facts)
    if found.free < USUAL:
        return Finding("memory", WARNING, f"{said}: enough for small networks only{more}.", "", facts)
    return Finding("memory", OK, said, "", facts)
