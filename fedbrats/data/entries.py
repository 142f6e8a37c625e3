"""Cache entries on disk: written whole or not at all, checked before use, never taken from a killed build.

An entry is a folder of `.npy` arrays and a `meta.json` that holds the SHA-256 of every array and of itself.
The layout of the cache folder is described in `fedbrats.data.cache`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from fedbrats.files import read_json

STALE_SECONDS = 24 * 3600  # age of an abandoned build; generous, as a suspended computer may resume one
YOUNG_NS = 2_000_000_000  # a file changed this recently may change again within one tick of its time stamp

log = logging.getLogger(__name__)

Stamp = tuple[int, int, int]


class CacheError(RuntimeError):
    """The cache itself fails (cannot be written, damaged during a job), not the case that was asked for."""


@contextmanager
def writing(cache: Path) -> Iterator[None]:
    """Turn an OSError within the block into a CacheError that names the cache folder."""
    try:
        yield
    except OSError as error:
        raise CacheError(f"{cache}: the cache cannot be written ({error})") from error


def make_layout(cache: Path) -> None:
    """Make the folders of a cache.

    Raises:
        CacheError: they cannot be made.
    """
    with writing(cache):
        for folder in ("cases", "hashes", "building"):
            (cache / folder).mkdir(parents=True, exist_ok=True)


def file_stamp(path: Path) -> Stamp:
    """Return size, mtime and ctime (ns); ctime also tells a file that was replaced with its times preserved.

    Raises:
        ValueError: the file does not exist or cannot be looked up.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read, expected a NIfTI file ({error.strerror})") from error
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def file_digest(path: Path, stamp: Stamp, cache: Path) -> str:
    """Return the SHA-256 of a file's bytes, from the memo in the cache if the file still has this stamp."""
    memo = cache / "hashes" / hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    expected = " ".join(map(str, stamp))
    with suppress(OSError, ValueError):
        known, digest = memo.read_text().rsplit(" ", 1)
        if known == expected and len(bytes.fromhex(digest)) == 32:
            return digest
    try:
        digest = _sha256(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    if time.time_ns() - max(stamp[1:]) > YOUNG_NS:
        temporary = cache / "building" / uuid.uuid4().hex
        with writing(cache):
            temporary.write_text(f"{expected} {digest}")
            os.replace(temporary, memo)
    return digest


def read_meta(folder: Path) -> dict[str, Any]:
    """Return the meta.json of an entry.

    Raises:
        CacheError: it is missing, not JSON, or not what was written.
    """
    path = folder / "meta.json"
    try:
        meta = read_json(path)
        checksum = meta.pop("checksum")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CacheError(f"{path}: missing or damaged cache entry ({error!r}), prepare it again") from error
    if checksum != _checksum(meta):
        raise CacheError(f"{path}: damaged cache entry (checksum), prepare it again")
    return meta


def map_array(path: Path, dtype: type[np.generic], ndim: int) -> np.memmap:
    """Map an array of an entry read-only after a look at its header and size; no voxel is read.

    Raises:
        CacheError: it is missing, or its header or size is not that of a whole array of this kind.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        size = path.stat().st_size
    except (OSError, ValueError, EOFError) as error:
        raise CacheError(f"{path}: missing or damaged cache entry ({error}), prepare it again") from error
    if array.dtype != dtype or array.ndim != ndim or array.offset + array.nbytes != size:
        raise CacheError(
            f"{path}: damaged cache entry, expected a whole {ndim}D array of {np.dtype(dtype).name}, found "
            f"{array.dtype} of shape {array.shape} in {size} bytes, prepare it again"
        )
    return array


def is_intact(folder: Path) -> bool:
    """Tell whether an entry exists and every byte of it is as written; damage is logged as a warning."""
    if not folder.is_dir():
        return False
    try:
        for name, sha256 in read_meta(folder)["arrays"].items():
            if _sha256(folder / name) != sha256:
                raise CacheError(f"{folder / name}: damaged cache entry (checksum)")
    except (CacheError, OSError) as error:
        log.warning("building a cache entry again: %s", error)
        return False
    return True


def write_entry(folder: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any], cache: Path) -> None:
    """Write an entry beside its place and rename it there, unless an intact one has appeared meanwhile.

    Args:
        folder: the entry, in `cache/cases`.
        arrays: by file name (`image.npy`).
        meta: anything JSON holds; the checksums are added.

    Raises:
        CacheError: the cache cannot be written.
    """
    _remove_stale(cache / "building")
    temporary = cache / "building" / f"{folder.name[:16]}-{uuid.uuid4().hex}"
    try:
        with writing(cache):
            temporary.mkdir()
            for name, array in arrays.items():
                np.save(temporary / name, array, allow_pickle=False)
            meta = meta | {"arrays": {name: _sha256(temporary / name) for name in arrays}}
            meta["checksum"] = _checksum(meta)
            (temporary / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
            _install(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _install(temporary: Path, folder: Path, attempts: int = 5) -> None:
    """Rename a finished entry into its place; a few attempts, as others may do the same at this moment."""
    for attempt in range(attempts):
        try:
            os.rename(temporary, folder)
            return
        except OSError:
            if is_intact(folder):
                return  # another process was faster, its entry is as good as this one
            if attempt == attempts - 1:
                raise
        # Moved away rather than deleted in place: jobs that still read the old files keep them.
        discarded = temporary.with_name(f"{temporary.name}-discarded")
        with suppress(FileNotFoundError):
            os.rename(folder, discarded)
        shutil.rmtree(discarded, ignore_errors=True)


def _remove_stale(building: Path) -> None:
    for path in building.iterdir():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
