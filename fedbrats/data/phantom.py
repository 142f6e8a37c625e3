"""A synthetic BraTS: brain-tumour cases of several institutions, written as real NIfTI files.

The phantom serves demonstrations, tests and benchmarks where no patient data may go. It imitates what makes
federated segmentation hard (unequal institutions, other scanners, other patients), not pathology: numbers
measured on it say nothing about patients.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import math
import multiprocessing
import os
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from fedbrats.config.names import check_institutions
from fedbrats.config.targets import ConfigError
from fedbrats.data.file_names import MOST_ANNOTATORS
from fedbrats.data.phantom_anatomy import annotated, draw_anatomy, make_grid
from fedbrats.data.phantom_scanner import draw_scanner, random_stream, scan
from fedbrats.devices import left_to_parent
from fedbrats.files import read_json, write_csv, write_text

FETS2022_SIZES = (511, 382, 47, 35, 35, 34, 33, 30, 22, 15, 14, 13, 12, 11, 9, 8, 8, 7, 6, 6, 5, 4, 4)
PRESETS: dict[str, dict[str, int]] = {
    # Seven unequal institutions; TCIA13 is meant for partition.holdout.
    "demo": {"CBICA": 20, "TCIA02": 14, "TCIA01": 10, "TCIA08": 8, "TCIA03": 6, "TMC": 5, "TCIA13": 5},
    # Sizes of FeTS 2022 partitioning_1; the names only stand for its institutions 1 to 23.
    "fets2022": {f"TCIA{number:02d}": size for number, size in enumerate(FETS2022_SIZES, start=1)},
}
LARGEST = (240, 240, 155)
SMALLEST = 24  # voxels along each axis; below, tumours are too few voxels to have parts
GENERATOR = 1  # raised whenever the same settings give other voxels
PHANTOM_LABELS = "labels.csv"
FINISHED, UNFINISHED, LOCK = "phantom.json", "phantom.unfinished.json", ".phantom.lock"


@dataclass(frozen=True)
class Settings:
    """Everything that decides the voxels of a phantom; stored beside it."""

    sites: dict[str, int]  # institution -> cases
    shape: tuple[int, int, int]  # voxels
    shift: float
    seed: int
    generator: int = GENERATOR
    label_strength: float | None = None
    annotators: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of `phantom.json`."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def write_phantom(
    root: Path | str,
    *,
    sites: str | Mapping[str, int] = "demo",
    shape: Sequence[int] = (64, 64, 48),
    shift: float = 1.0,
    seed: int = 0,
    label_strength: float | None = None,
    annotators: int | None = None,
    workers: int = 1,
) -> list[Path]:
    """Write a phantom data set in BraTS 2019 naming, or complete one that was interrupted.

    Each case is a folder `BraTS19_<institution>_<number>_1` with `_t1`, `_t1ce`, `_t2`, `_flair` (int16) and
    `_seg` (uint8: 0, 1 necrosis or solid tumour, 2 oedema, 4 enhancing tumour). Axes are L, P, S as in BraTS;
    voxels are cubes of 1 mm at 240x240x155 and larger in smaller volumes, because the head keeps its size.
    `phantom.json` is written last, and a finished data set is left as it is. A file depends on seed, shape,
    shift, strength, institution and case number alone, byte for byte.

    With annotators there is also `_annotator1` and so on (uint8, 0 and 1): the whole tumour as each of them outlines
    it, as `phantom_anatomy.annotated` says. Their number changes no other file.

    With a strength s, `labels.csv` has a label of every case, of every two in a row of an institution one 0 and one 1.
    With probability s it decides whether the tumour enhances (high grade, 1) or not (0); else the image knows nothing
    of it. Whoever sees the grade alone has an AUC of (1 + s) / 2 where the grades are balanced.

    Args:
        root: folder of the data set; created, or empty, or holding this very phantom.
        sites: "demo", "fets2022" or institution -> number of cases.
        shape: voxels along the three axes, 24 each to 240x240x155.
        shift: strength of the differences between institutions; 0 gives all the same scanner and case mix.
        seed: of every random choice.
        label_strength: of the link between label and image, from 0 to 1; None: no labels.
        annotators: 2 to 9 of them; None: none.
        workers: processes; at most 1 means this process.

    Returns:
        The case folders, institution by institution.

    Raises:
        ConfigError: a setting is out of range, or `root` holds anything else.
    """
    settings = _check(sites, shape, shift, seed, label_strength, annotators)
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    cases = [(site, number) for site, count in settings.sites.items() for number in range(1, count + 1)]
    folders = [root / case_name(site, number) for site, number in cases]
    if _claimed(root, settings) == FINISHED and all(folder.is_dir() for folder in folders):
        return folders  # nothing to write, and perhaps no right to
    # Several runs may ask for the same phantom at once: the first one writes, the others wait.
    with open(root / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _claim(root, settings)
        missing = [case for case, folder in zip(cases, folders) if not folder.is_dir()]
        _write_cases(root, settings, missing, workers)
        if label_strength is not None:
            rows = ({"case": case_name(*case), "label": label_of(seed, *case)} for case in cases)
            write_csv(root / PHANTOM_LABELS, ("case", "label"), rows)
        for leftover in root.glob(".writing-*"):
            shutil.rmtree(leftover)
        if (root / UNFINISHED).exists():
            os.replace(root / UNFINISHED, root / FINISHED)
    return folders


def case_name(institution: str, number: int) -> str:
    """Name of an institution's case; numbers start at 1."""
    return f"BraTS19_{institution}_{number}_1"


def label_of(seed: int, institution: str, number: int) -> int:
    """The label of a case, 0 or 1: of two in a row, at random, one of each."""
    first = int(random_stream(seed, institution, "label", (number - 1) // 2).integers(2))
    return first if number % 2 else 1 - first


def _check(
    sites: Any,
    shape: Sequence[int],
    shift: float,
    seed: int,
    strength: float | None = None,
    annotators: int | None = None,
) -> Settings:
    if isinstance(sites, str):
        if sites not in PRESETS:
            raise ConfigError(
                f"data.phantom.sites: no preset {sites!r}; have {', '.join(PRESETS)}, or give a mapping"
            )
        sites = PRESETS[sites]
    if not isinstance(sites, Mapping) or not sites:
        raise ConfigError(
            f"data.phantom.sites must be a preset or map institutions to case numbers, not {sites!r}"
        )
    check_institutions(map(str, sites), "rename it in data.phantom.sites")
    for name, count in sites.items():
        if not re.fullmatch(r"[A-Za-z0-9]+", str(name)):
            raise ConfigError(
                f"data.phantom.sites: {name!r} must consist of letters and digits to fit a BraTS name"
            )
        if not _whole(count) or count < 1:
            raise ConfigError(f"data.phantom.sites.{name} must be a positive number of cases, not {count!r}")
    if len(shape) != 3 or not all(_whole(n) and SMALLEST <= n <= top for n, top in zip(shape, LARGEST)):
        raise ConfigError(
            f"data.phantom.shape must be three sizes from {SMALLEST} to 240, 240, 155, not {list(shape)}"
        )
    if not isinstance(shift, int | float) or not math.isfinite(shift) or not 0 <= shift <= 5:
        raise ConfigError(f"data.phantom.shift must be a number from 0 to 5, not {shift!r}")
    if not _whole(seed):
        raise ConfigError(f"data.phantom.seed must be a whole number, not {seed!r}")
    if strength is not None and not (isinstance(strength, int | float) and 0 <= strength <= 1):
        raise ConfigError(
            f"data.phantom.label_strength must be a number from 0 (chance) to 1, or null, not {strength!r}"
        )
    if annotators is not None and not (_whole(annotators) and 2 <= annotators <= MOST_ANNOTATORS):
        raise ConfigError(
            f"data.phantom.annotators must be a whole number from 2 to {MOST_ANNOTATORS}, or null, not {annotators!r}"
        )
    counts = {str(name): int(count) for name, count in sites.items()}
    sides = (int(shape[0]), int(shape[1]), int(shape[2]))
    said = None if strength is None else float(strength)
    return Settings(counts, sides, float(shift), int(seed), label_strength=said, annotators=annotators)


def _whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _claimed(root: Path, settings: Settings) -> str | None:
    """Which note of these settings `root` holds, None if it is empty; ConfigError for anything else."""
    wanted = json.loads(json.dumps(settings.to_json()))
    for note in (root / FINISHED, root / UNFINISHED):
        if not note.exists():
            continue
        try:
            found = dict(read_json(note))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{note}: not readable ({error}); delete {root} to write it again") from error
        differ = [key for key in {**wanted, **found} if found.get(key) != wanted.get(key)]
        if differ:
            raise ConfigError(
                f"{root} holds a phantom with other settings ({', '.join(differ)} differ, see {note.name}); "
                "choose another data.root or delete that folder"
            )
        return note.name
    strangers = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    if strangers:
        raise ConfigError(
            f"{root} holds {strangers[0]!r} but no phantom; data.source=phantom needs a data.root of its own"
        )
    return None


def _claim(root: Path, settings: Settings) -> None:
    """Leave a note of the settings in `root` before the first case is written there."""
    if _claimed(root, settings) is None:
        write_text(root / UNFINISHED, json.dumps(settings.to_json(), indent=2) + "\n")


def _write_cases(root: Path, settings: Settings, cases: list[tuple[str, int]], workers: int) -> None:
    workers = min(workers, len(cases))
    if workers <= 1:
        for site, number in cases:
            write_case(root, settings, site, number)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        with left_to_parent():  # while it starts its processes
            jobs = [pool.submit(write_case, root, settings, site, number) for site, number in cases]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """A worker whose parent was killed would otherwise wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def write_case(root: Path, settings: Settings, institution: str, number: int) -> Path:
    """Write one case; its folder appears under `root` only when it is complete."""
    scanner = draw_scanner(settings.seed, institution, settings.shift)
    rng = random_stream(settings.seed, institution, number)
    # Spread evenly instead of drawn, so that small institutions get their share as well.
    start = random_stream(settings.seed, institution, "grades").random()
    high_grade = (start + number * (math.sqrt(5) - 1) / 2) % 1 < scanner.high_grade
    grid = make_grid(settings.shape)
    if settings.label_strength is not None:
        link = random_stream(settings.seed, institution, number, "link").random()
        label = label_of(settings.seed, institution, number)
        high_grade = bool(label) if link < settings.label_strength else high_grade
    anatomy = draw_anatomy(grid, rng, high_grade, scanner.tumour_size)
    boxes: dict[str, np.ndarray] = {**scan(anatomy, grid, scanner, rng), "seg": anatomy.labels}
    for one in range(1, (settings.annotators or 0) + 1):
        own = random_stream(settings.seed, institution, number, "annotator", one)
        boxes[f"annotator{one}"] = annotated(grid, own, anatomy).astype(np.uint8)
    name = case_name(institution, number)
    draft = root / f".writing-{name}"
    draft.mkdir(exist_ok=True)
    for kind, box in boxes.items():
        volume = np.zeros(settings.shape, box.dtype)
        volume[grid.window] = box
        (draft / f"{name}_{kind}.nii.gz").write_bytes(_nifti(volume, grid.spacing))
    os.rename(draft, root / name)
    return root / name


def _nifti(volume: np.ndarray, spacing: float) -> bytes:
    """A .nii.gz with the orientation and codes of BraTS; no time or name in the gzip header."""
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    affine[1, 3] = (volume.shape[1] - 1) * spacing
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)
