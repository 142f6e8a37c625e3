"""Preprocessed volumes on disk, uncompressed, so that a random patch reads only its own bytes.

Layout of a cache folder, shared by any number of runs and processes:

    cases/<key>/       one entry: image.npy, label.npy (unless there is no label), tumour.npy, meta.json
    hashes/<path>      memo of a source file's SHA-256, valid for one size, mtime and ctime
    building/          entries that are being written; what a killed process leaves here is never read

The key is the SHA-256 of the source files' contents, the label system and `FORMAT`, never of a name.
"""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fedbrats.data.brain import brain_mask, is_stripped
from fedbrats.data.cases import Case
from fedbrats.data.entries import (
    CacheError,
    file_digest,
    file_stamp,
    is_intact,
    make_layout,
    map_array,
    read_meta,
    write_entry,
)
from fedbrats.data.nifti import USUAL, Source
from fedbrats.data.preprocess import files_of, preprocess, slices_of
from fedbrats.data.regions import LabelSystem
from fedbrats.data.stream import Bounds, check_file

FORMAT = 3  # raise it whenever the contents of an entry change


@dataclass(frozen=True)
class CachedCase:
    """One entry of the cache, opened on demand; only name and folder travel between processes.

    Arrays are mapped anew at each access (some 0.05 ms), as a mapping kept for every case would exhaust the
    file descriptors of a process with a thousand cases. Raises `CacheError` if the entry was damaged since.
    """

    name: str
    folder: Path

    @property
    def image(self) -> np.memmap:
        """Voxels float16 [4, X, Y, Z] in the order of `MODALITIES`, z-scored, background exactly 0."""
        return map_array(self.folder / "image.npy", np.float16, 4)

    @property
    def label(self) -> np.memmap:
        """Canonical labels uint8 [X, Y, Z]. Raises ValueError for a case without label."""
        if self.meta["labels"] is None:
            raise ValueError(f"{self.name}: the case has no label, it can only be predicted")
        return map_array(self.folder / "label.npy", np.uint8, 3)

    @property
    def tumour(self) -> np.memmap:
        """Tumour voxels int16 [n, 3] of the crop, at most 20 000; empty without tumour or label."""
        return map_array(self.folder / "tumour.npy", np.int16, 2)

    @property
    def brain(self) -> np.ndarray | None:
        """Where the brain is, bool [X, Y, Z]; None where the image is not skull-stripped."""
        return brain_mask(np.asarray(self.image)) if is_stripped(self.meta["background"]) else None

    @property
    def source(self) -> Source:
        """The space of the case's own images on disk."""
        stored = self.meta["source"]
        return Source(**{**stored, "shape": tuple(stored["shape"])})

    @cached_property
    def meta(self) -> dict[str, Any]:
        """What `preprocess` found (space on disk, crop, volumes in mL, raw intensities) and the digests."""
        return read_meta(self.folder)

    def __reduce__(self) -> tuple[type[CachedCase], tuple[str, Path]]:
        return CachedCase, (self.name, self.folder)


def prepare_case(case: Case, system: LabelSystem, cache: Path, bounds: Bounds = USUAL) -> CachedCase:
    """Return the cache entry of a case; build it first if it is missing or damaged.

    Any number of processes may do this at once for the same case; one build wins, the others are discarded.

    Args:
        case: files of the case; without label the entry serves prediction only.
        system: its label numbers.
        cache: cache folder, made if missing.
        bounds: how large a file may be and where it may lie.

    Raises:
        ValueError: the case cannot be used (missing modality, unreadable file, shapes that differ, constant
            or non-finite intensities, unexpected labels, files that change meanwhile); the file is named.
        CacheError: the cache folder cannot be written.
    """
    files = files_of(case)
    paths = [path for file in files.values() for path in file.paths]
    for path in paths:
        check_file(path, bounds)  # before an endless one is hashed
    stamps = {path: file_stamp(path) for path in paths}
    make_layout(cache)
    digests = {path: file_digest(path, stamp, cache) for path, stamp in stamps.items()}
    sha256 = {name: " ".join(digests[path] for path in file.paths) for name, file in files.items()}
    settings = {
        "format": FORMAT,
        "files": [[name, sha256[name], files[name].channel] for name in sorted(files)],
        "label_system": system.to_json(),
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    folder = cache / "cases" / key
    if not is_intact(folder):
        arrays, meta = preprocess(case, system, bounds)
        changed = [str(path) for path, stamp in stamps.items() if file_stamp(path) != stamp]
        if changed:
            raise ValueError(f"{', '.join(changed)}: changed while the case {case.name} was read")
        write_entry(folder, arrays, meta | settings | {"sha256": sha256}, cache)
    return CachedCase(case.name, folder)


def prepare_cases(
    cases: Sequence[Case],
    systems: Mapping[str, LabelSystem],
    cache: Path,
    workers: int,
    progress: Callable[[int, int], object] | None = None,
    bounds: Bounds = USUAL,
) -> dict[str, CachedCase | Exception]:
    """Prepare many cases, in the order given; a case that fails is returned as its exception.

    Args:
        systems: label numbers by case.
        workers: threads. Decompression, hashing and NumPy run outside Python's lock, so that two threads take
            half the time of one, while processes would first spend seconds on their imports.
        progress: called in this thread with (cases done, all cases) after each case.
        bounds: how large a file may be and where it may lie.

    Raises:
        ValueError: two cases have the same name.
        CacheError: the cache cannot be written.
    """
    names = [case.name for case in cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"case names must be unique, found more than once: {', '.join(twice)}")
    results: dict[str, CachedCase | Exception] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        futures = {
            pool.submit(prepare_case, case, systems[case.name], cache, bounds): case.name for case in cases
        }
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                results[futures[future]] = _outcome(future)
                if progress:
                    progress(done, len(cases))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return {name: results[name] for name in names}


def _outcome(future: Future[CachedCase]) -> CachedCase | Exception:
    try:
        return future.result()
    except (CacheError, MemoryError):
        raise  # the other cases would fail alike, and nothing is wrong with this one
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # whose locals are the volumes of the case
        return error


def restore(prediction: np.ndarray, cached: CachedCase) -> np.ndarray:
    """Put labels [X, Y, Z] of the crop back into the full canonical volume, zero elsewhere (same dtype).

    Raises:
        ValueError: the shape is not that of the crop.
    """
    crop = cached.meta["crop"]
    expected = tuple(high - low for low, high in crop)
    if prediction.shape != expected:
        raise ValueError(f"{cached.name}: expected labels of shape {expected}, got {prediction.shape}")
    full = np.zeros(cached.meta["full_shape"], prediction.dtype)
    full[slices_of(crop)] = prediction
    return full
