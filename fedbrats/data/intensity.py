"""What a network sees of the cached z-scores: as they are, limited, as greys, from 0 to 1, or matched to a histogram.

A model's config names one of the kinds in `input.normalise`; training and inference apply the same to every part of
an image that they read. Voxels that are exactly 0 are background and stay exactly 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from fedbrats.data.cache import CachedCase
from fedbrats.data.cases import MODALITIES
from fedbrats.data.entries import map_array
from fedbrats.files import read_json, write_text

Normaliser = Callable[[CachedCase, np.ndarray], np.ndarray]

KINDS = ("zscore", "clip", "minmax", "percentiles", "histogram")
GREYS = 254  # highest grey value of `clip`
LEVELS = 101  # quantiles of a reference histogram, 0 % to 100 %

# The cache holds float16, so an image has at most 65536 different values. Counted and put in order they give exact
# quantiles some ten times faster than sorting the voxels does (25 instead of 250 ms for a BraTS case).
_FLOAT16 = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float64)
_ORDER = np.argsort(_FLOAT16, kind="stable")


def normaliser(kind: str, cases: Sequence[CachedCase]) -> Normaliser | None:
    """What brings the cached values of a site into the form that a network takes.

    Args:
        kind: "zscore": the cache as it is. "clip": `clipped`. "minmax": `stretched`. "percentiles": `limited`.
            "histogram": `matched_to` the reference histogram of `cases`.
        cases: training cases of one site; only "histogram" reads them.

    Returns:
        None for "zscore", else a function of (case, values float32 [4, ...] of any part of its image) that returns
        new values float32 of the same shape. The case need not be among `cases`.

    Raises:
        ValueError: an unknown kind, or "histogram" without cases.
    """
    if kind not in KINDS:
        raise ValueError(f"normalise={kind}: choose one of {', '.join(KINDS)}")
    if kind == "zscore":
        return None
    if kind == "histogram":
        return matched_to(reference_histogram(cases))
    return {"clip": clipped, "minmax": stretched, "percentiles": limited}[kind]


def clipped(case: CachedCase, values: np.ndarray) -> np.ndarray:
    """Grey values of z-scores z: 128 z / 3 + 127, clipped to [0, 254], divided by 254.

    Colman et al., "DR-UNet104 for multimodal MRI brain tumor segmentation" (BrainLes 2020), equation 2, where mean
    and standard deviation are those of the image's voxels above 0. Its print is torn: "254 / (v - mean) + 127 / 3*SD
    over 128 / 0" with the conditions v > mean + 3 SD, otherwise and v < mean - 3 SD. Read here as
    128 (v - mean) / (3 SD) + 127 between those limits. That formula gives 255 and -1 at the limits themselves, so the
    clip is on the grey value. The paper stores the greys as 8-bit PNG; here they are neither rounded nor left at 0 to
    254 but scaled to [0, 1], as large inputs make training badly conditioned. The equation has no case for
    background; here it stays 0, and a brain voxel at the lower limit becomes 0 too.

    Args:
        case: not needed, as the cache holds z-scores of the whole image.
        values: z-scores float32 [4, ...], 0 in the background.

    Returns:
        New values float32, the same shape.
    """
    greys = np.clip(values * np.float32(128 / 3) + np.float32(127), 0, GREYS) / np.float32(GREYS)
    greys[values == 0] = 0
    return greys


def limited(case: CachedCase, values: np.ndarray) -> np.ndarray:
    """z-scores no further out than the 1st and the 99th percentile of their own image.

    "Limited in its intensity to 1-99th percentile of any non-zero intensity values" (deeply supervised attention U-Net
    with positive mining, BrainLes 2021, section 2.5); each modality on its own, percentiles of its whole image. What
    the paper scales the values to, if to anything, is not printed; here they stay z-scores. Background stays 0.

    Args:
        case: whose percentiles are taken.
        values: z-scores float32 [4, ...] of any part of its image.

    Returns:
        New values float32, the same shape.
    """
    low, high = _ends(case, values.ndim)
    return np.where(values == 0, values, np.clip(values, low, high))


def _ends(case: CachedCase, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """The 1st and the 99th percentile of each modality, float32 [4, 1, ...] of so many dimensions."""
    own = quantiles(case.folder, LEVELS).astype(np.float32)  # a level for each per cent
    low, high = (own[:, level].reshape(-1, *[1] * (dimensions - 1)) for level in (1, LEVELS - 2))
    return low, high


def stretched(case: CachedCase, values: np.ndarray) -> np.ndarray:
    """From 0 at the 1st percentile of the image's own non-zero voxels to 1 at the 99th, each modality on its own.

    HarDNet-BTS (BrainLes 2021, section 2.2): "the 1 and 99 percentile as min and max". What lies outside is clipped,
    which the paper does not say and the one whose pre-processing it follows (Henry et al., BrainLes 2020) does.
    z-scores give the same as raw intensities. Background stays 0, and brain at the lower limit or below becomes 0 too.

    Args:
        case: whose percentiles are taken.
        values: z-scores float32 [4, ...] of any part of its image.

    Returns:
        New values float32, the same shape.
    """
    low, high = _ends(case, values.ndim)
    width = np.where(high > low, high - low, 1)  # an image of one value
    found = np.clip((values - low) / width, 0, 1).astype(np.float32)
    found[values == 0] = 0
    return found


def matched_to(reference: np.ndarray) -> Normaliser:
    """Histogram matching to `reference`, quantiles float [4, levels] as `reference_histogram` returns them.

    A value at a quantile of its own image (whole image, non-zero voxels, each modality on its own) becomes that
    quantile of the reference, linearly in between. The map is monotone, and the same for all parts of an image.
    """

    def match(case: CachedCase, values: np.ndarray) -> np.ndarray:
        own = quantiles(case.folder, reference.shape[1])
        out = np.zeros(values.shape, np.float32)
        for channel in range(len(MODALITIES)):
            inside = values[channel] != 0
            out[channel][inside] = np.interp(values[channel][inside], own[channel], reference[channel])
        return out

    return match


def reference_histogram(cases: Sequence[CachedCase], levels: int = LEVELS) -> np.ndarray:
    """The average histogram of a site's own cases, as quantiles; it holds no voxel and is never sent to the server.

    Pawar et al., "Residual encoder and convolutional decoder neural network for glioma segmentation" (BrainLes 2017),
    section 3.3: "the reference histogram for matching was obtained by averaging histograms of all the training
    dataset", over voxels with signal. Two choices: the reference is made at each site of its own training cases, as a
    pooled one would need intensities of all sites in one place; and quantiles are averaged rather than the counts of
    bins, as the mean of narrow peaks at different places would be broader than any of them. The images are the
    z-scores of the cache: matching does not depend on the scale of the image that is matched, and the reference is
    then of unit scale, as the network wants it.

    Args:
        cases: cases of one site; their order does not matter.
        levels: number of quantiles, evenly spaced from 0 % to 100 %.

    Returns:
        float64 [4, levels] in the order of `MODALITIES`, not decreasing along the levels.

    Raises:
        ValueError: no cases, or a modality of a case without a non-zero voxel.
    """
    if not cases:
        raise ValueError("normalise=histogram: a reference histogram needs at least one case of the site")
    # Summed in the order of the entries' keys, so that the result is bit-identical whatever the order of cases.
    return np.mean([quantiles(folder, levels) for folder in sorted(case.folder for case in cases)], axis=0)


@lru_cache(maxsize=4096)  # 3 kB each
def quantiles(folder: Path, levels: int = LEVELS) -> np.ndarray:
    """Quantiles of the non-zero voxels of each modality of a cache entry, float64 [4, levels], read-only.

    Exact over all voxels, with NumPy's linear interpolation; worked out once per process and entry (some 25 ms).

    Raises:
        ValueError: a modality without a non-zero voxel; the file is named.
        CacheError: the entry is damaged.
    """
    image = map_array(folder / "image.npy", np.float16, 4)
    found = np.empty((len(image), levels))
    for row, channel, name in zip(found, image, MODALITIES, strict=True):
        counts = np.bincount(np.ascontiguousarray(channel).view(np.uint16).ravel(), minlength=2**16)
        counts[_FLOAT16 == 0] = 0
        running = np.cumsum(counts[_ORDER])
        if running[-1] == 0:
            raise ValueError(f"{folder / 'image.npy'}: every voxel of {name} is 0, expected a brain")
        place = np.linspace(0, 1, levels) * (running[-1] - 1)
        below, above = (
            _FLOAT16[_ORDER[np.searchsorted(running, step(place), side="right")]]
            for step in (np.floor, np.ceil)
        )
        row[:] = below + (above - below) * (place % 1)
    found.flags.writeable = False
    return found


def write_reference(file: Path, reference: np.ndarray) -> None:
    """Write a reference histogram float [4, levels] as JSON: modality -> quantiles of its z-scores.

    The file stays at the site, beside its cache or model: a reference is a summary of the site's patients.
    """
    rows = {name: row.tolist() for name, row in zip(MODALITIES, reference, strict=True)}
    write_text(file, json.dumps({"reference_histogram": rows}, indent=1) + "\n")


def read_reference(file: Path) -> np.ndarray:
    """A reference histogram as `write_reference` wrote it, float64 [4, levels], bit for bit.

    Raises:
        ValueError: no such file, or another content; the file is named.
    """
    try:
        rows = read_json(file)["reference_histogram"]
        reference = np.array([rows[name] for name in MODALITIES], np.float64)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: cannot be read as a reference histogram ({error!r})") from error
    rising = reference.ndim == 2 and reference.shape[1] >= 2 and (np.diff(reference) >= 0).all()
    if not rising or not np.isfinite(reference).all():
        raise ValueError(
            f"{file}: expected, for each of {', '.join(MODALITIES)}, the same number (2 or more) of finite quantiles "
            "that do not decrease"
        )
    return reference
