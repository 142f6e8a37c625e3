"""Where a site writes: whether it may, and whether there is room."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from fedbrats.checks.site.finding import FIX, OK, WARNING, Finding, reason_of
from fedbrats.data.sentences import plural

GB = 1e9
SHARED_LEAST, SHARED_USUAL = (
    64 * 2**20,
    2**30,
)  # bytes of /dev/shm: what Docker gives, and what is comfortable


def check_writable(check: str, folder: Path) -> Finding:
    """Whether a file, removed at once, can be written to `folder`, or where it would be made."""
    there = nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        said = (
            f"cannot be written: {reason_of(error)}. Let the user of fedbrats write there, mount it so, or set "
            f"{check} in site.yaml to another folder."
        )
        return Finding(check, FIX, said, str(folder))
    free = shutil.disk_usage(there).free / GB
    said = f"can be written, {free:.1f} GB free on its disk"
    return Finding(check, OK, said, f"{folder}, on {mount_of(there)}", {"free GB": round(free, 1)})


def nearest(folder: Path) -> Path:
    """`folder`, or while it is missing the first folder above it that is there."""
    return next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())


def mount_of(folder: Path) -> Path:
    """Where the disk of `folder`, which is there, is mounted."""
    folder = folder.resolve()
    return next(parent for parent in (folder, *folder.parents) if os.path.ismount(parent))


def check_room(storage: Path, cache: Path, cases: int, entry: float, wanted: float) -> Finding:
    """Whether the disks of `storage` and `cache` hold what a study will put there.

    Args:
        storage: of the site, there or yet to be made, as the cache.
        cache: of its preprocessed cases.
        cases: that can be used.
        entry: bytes of one of them in the cache.
        wanted: GB that stay free for everything else, `limits.free_disk_gb`.
    """
    known = sum(1 for _ in (cache / "cases").iterdir()) if (cache / "cases").is_dir() else 0
    needed = max(0, cases - known) * entry / GB
    storage, cache = nearest(storage), nearest(cache)
    same = os.stat(storage).st_dev == os.stat(cache).st_dev
    lacks, facts = [], {"cache needs GB": round(needed, 2), "limits.free_disk_gb": wanted}
    rooms = [("cache", cache, needed + (wanted if same else 0.0))]
    rooms += [] if same else [("storage", storage, wanted)]
    for name, folder, needs in rooms:
        free = shutil.disk_usage(folder).free / GB
        facts[f"{name} free GB"] = round(free, 1)
        if free < needs:
            lacks.append(
                (name, folder, f"{needs:.1f} GB are needed on the disk of {name}, {free:.1f} GB are free")
            )
    estimate = f"the cache of {plural(cases, 'case')} will take about {needed:.1f} GB more"
    if lacks:
        said = f"{'; '.join(text for *_, text in lacks)} ({estimate}). Free some, or set {lacks[0][0]} to another disk."
        return Finding("room", FIX, said, ", ".join(str(mount_of(folder)) for _, folder, _ in lacks), facts)
    return Finding("room", OK, f"{estimate}, and {wanted:g} GB stay free (limits.free_disk_gb)", "", facts)


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Whether processes of this machine can pass arrays to each other in memory."""
    try:
        size = shutil.disk_usage(folder).total
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as error:
        said = f"cannot be used: {reason_of(error)}. Let the container have one (SHM_SIZE=1g in docker/.env)."
        return Finding("/dev/shm", FIX, said, str(folder))
    facts = {"MB": size // 2**20}
    if size < SHARED_LEAST:
        said = f"has {size / 2**20:.0f} MB, at least {SHARED_LEAST // 2**20} are needed: SHM_SIZE=1g in docker/.env."
        return Finding("/dev/shm", FIX, said, "", facts)
    if size < SHARED_USUAL:
        said = f"has {size / 2**20:.0f} MB; large networks want 1 GB: SHM_SIZE=1g in docker/.env."
        return Finding("/dev/shm", WARNING, said, "", facts)
    return Finding("/dev/shm", OK, f"{size / 2**30:.1f} GB", "", facts)
