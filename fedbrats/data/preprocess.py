"""From the files of a case to arrays for the network: cropped to the brain and z-scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fedbrats.data.annotators import read_file
from fedbrats.data.brain import background_share
from fedbrats.data.cases import MODALITIES, Case, ImageFile
from fedbrats.data.nifti import USUAL, Source, spacing_of
from fedbrats.data.regions import REGIONS, LabelSystem, regions_from_labels, to_canonical
from fedbrats.data.stream import Bounds

MAX_CENTRES = 20_000  # tumour voxels kept as patch centres


def files_of(case: Case) -> dict[str, ImageFile]:
    """Return the files of a case by modality, and the label as "seg" if there is one.

    Raises:
        ValueError: a modality is missing.
    """
    missing = [name for name in MODALITIES if name not in case.images]
    if missing:
        raise ValueError(
            f"{case.name}: missing modality {', '.join(missing)}, expected {', '.join(MODALITIES)}"
        )
    files = {name: case.images[name] for name in MODALITIES}
    return files if case.label is None else files | {"seg": case.label}


def preprocess(
    case: Case, system: LabelSystem, bounds: Bounds = USUAL
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a case, crop it to the brain (bounding box over the modalities) and z-score it.

    Returns:
        The arrays of an entry by file name: `image.npy` float16 [4, X, Y, Z] in the order of `MODALITIES`,
        z-scored over the non-zero voxels of each modality, 0 elsewhere; `label.npy` canonical uint8 [X, Y, Z]
        if there is a label; `tumour.npy` int16 [n, 3], tumour voxels of the crop, n <= `MAX_CENTRES`. And
        what meta.json says about them.

    Raises:
        ValueError: as `cache.prepare_case`.
    """
    files = files_of(case)
    volumes: dict[str, np.ndarray] = {}
    sources: dict[str, Source] = {}
    for name, file in files.items():
        volumes[name], sources[name] = read_file(file, bounds)
        if volumes[name].shape != volumes[MODALITIES[0]].shape:
            raise ValueError(
                f"{file.path}: shape {volumes[name].shape} differs from {volumes[MODALITIES[0]].shape} of "
                f"{files[MODALITIES[0]].path} (both in canonical order)"
            )
    label = _canonical_label(volumes.pop("seg"), files["seg"].path, system) if "seg" in volumes else None
    # The label counts too, so that no tumour is cut off where the images are 0.
    crop = _bounding_box([*volumes.values()] if label is None else [*volumes.values(), label])
    inside = slices_of(crop)
    image = np.zeros((len(MODALITIES), *(high - low for low, high in crop)), np.float16)
    intensity = {}
    for index, name in enumerate(MODALITIES):
        intensity[name] = _normalise(volumes[name][inside], image[index], files[name].path)
    arrays = {"image.npy": image, "tumour.npy": np.zeros((0, 3), np.int16)}
    if label is not None:
        arrays["label.npy"] = np.ascontiguousarray(label[inside])
        arrays["tumour.npy"] = _patch_centres(arrays["label.npy"])
    source = sources[MODALITIES[0]]
    meta = _describe(source, crop, arrays.get("label.npy"), volumes[MODALITIES[0]].shape)
    background = background_share(list(volumes.values()))
    return arrays, meta | {"intensity": intensity, "background": background}


def _describe(
    source: Source, crop: list[list[int]], label: np.ndarray | None, shape: tuple[int, ...]
) -> dict[str, Any]:
    """Return the part of meta.json that follows from geometry and label; `spacing` in mm, volumes in mL."""
    spacing = spacing_of(source)
    volumes_ml, labels = None, None
    if label is not None:
        counts = regions_from_labels(label).sum(axis=(1, 2, 3))
        volumes_ml = {name: float(n * np.prod(spacing) / 1000) for name, n in zip(REGIONS, counts)}
        labels = [int(v) for v in np.unique(label)]
    return {
        "source": asdict(source),
        "crop": crop,
        "full_shape": list(shape),
        "spacing": list(spacing),
        "volumes_ml": volumes_ml,
        "labels": labels,
    }


def _canonical_label(label: np.ndarray, path: Path, system: LabelSystem) -> np.ndarray:
    try:
        return to_canonical(label, system)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _bounding_box(volumes: Sequence[np.ndarray]) -> list[list[int]]:
    """Return [[low, high] * 3] around all non-zero voxels of the volumes."""
    mask = np.zeros(volumes[0].shape, bool)
    for volume in volumes:
        mask |= volume != 0
    box = []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append([int(filled[0]), int(filled[-1]) + 1] if len(filled) else [0, 0])
    return box


def _normalise(volume: np.ndarray, out: np.ndarray, path: Path) -> dict[str, float]:
    """Write the z-scores of the non-zero voxels into `out` (zeros, float16); return their raw mean and std.

    The standard deviation is the population's. A z-score cannot exceed the root of the number of voxels, so
    it always fits float16.
    """
    brain = volume != 0
    values = volume[brain].astype(np.float64)
    if len(values) == 0:
        raise ValueError(f"{path}: every voxel is 0, expected a brain")
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: NaN or infinite voxels, expected finite intensities")
    if values.min() == values.max():
        raise ValueError(
            f"{path}: all non-zero voxels equal {values[0]:g}, expected an image to z-score (std 0)"
        )
    mean, std = float(values.mean()), float(values.std())
    out[brain] = (values - mean) / std
    return {"mean": mean, "std": std}


def _patch_centres(label: np.ndarray) -> np.ndarray:
    """Return up to `MAX_CENTRES` tumour voxels int16 [n, 3], evenly spaced in memory order."""
    found = np.flatnonzero(label)
    if len(found) > MAX_CENTRES:
        found = found[np.linspace(0, len(found) - 1, MAX_CENTRES).astype(np.int64)]
    return np.stack(np.unravel_index(found, label.shape), axis=1).astype(np.int16)


def slices_of(crop: Sequence[Sequence[int]]) -> tuple[slice, ...]:
    """Return the slices of a crop [[low, high] * 3]."""
    return tuple(slice(low, high) for low, high in crop)
