"""The phantom's scanners: how an institution's machine turns an anatomy into four modalities."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import scipy.ndimage as ndi
from numpy.typing import NDArray

from fedbrats.data.cases import MODALITIES
from fedbrats.data.phantom_anatomy import ET, NCR, Anatomy, Grid, Volume, smooth_noise

# Relative signal on the shared scanner. `ncr` is necrosis in high-grade, solid tumour in low-grade cases.
TISSUES = ("wm", "gm", "csf", "necrosis", "solid", "oedema", "enhancing")
SIGNAL = {
    "t1": (0.82, 0.62, 0.30, 0.34, 0.40, 0.68, 0.42),
    "t1ce": (0.74, 0.60, 0.28, 0.32, 0.40, 0.60, 1.35),
    "t2": (0.42, 0.55, 1.00, 0.92, 0.90, 0.70, 0.82),
    "flair": (0.46, 0.54, 0.16, 0.74, 0.82, 1.00, 0.86),
}


@dataclass(frozen=True)
class Scanner:
    """One institution: its machine and the patients it sees. Arrays are in the order of MODALITIES."""

    contrast: NDArray[np.float64]  # [4, tissues], factor on SIGNAL
    gamma: NDArray[np.float64]  # exponent of the contrast curve
    scale: NDArray[np.float64]  # file units per unit of signal
    bias: float  # standard deviation of the log bias field
    noise: float  # standard deviation, in units of signal
    blur: float  # standard deviation of the point spread, voxels
    high_grade: float  # share of high-grade cases
    tumour_size: float  # factor on the tumour's diameter


def random_stream(*parts: object) -> np.random.Generator:
    """Generator that depends on `parts` alone, so that cases can be made in any order and process."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def draw_scanner(seed: int, institution: str, shift: float) -> Scanner:
    """The scanner of an institution; `shift` scales its distance to the one that all share at 0."""
    rng = random_stream(seed, institution, "scanner")

    def away(sd: float, *size: int) -> NDArray[np.float64]:
        return shift * sd * np.clip(rng.standard_normal(size), -2, 2)

    return Scanner(
        contrast=np.exp(away(0.07, len(MODALITIES), len(TISSUES))),
        gamma=np.exp(away(0.22, len(MODALITIES))),
        scale=600 * np.exp(away(0.5, len(MODALITIES))),
        bias=float(0.08 * np.exp(away(0.4))),
        noise=float(0.035 * np.exp(away(0.35))),
        blur=float(0.4 * np.exp(away(0.3))),
        high_grade=float(1 / (1 + np.exp(-1.4 - away(0.9)))),
        tumour_size=float(np.exp(away(0.12))),
    )


def scan(
    anatomy: Anatomy, grid: Grid, scanner: Scanner, rng: np.random.Generator
) -> dict[str, NDArray[np.int16]]:
    """Images [X, Y, Z] per modality: 0 outside the brain, 1 to 32767 inside."""
    signal = np.array([SIGNAL[name] for name in MODALITIES]) * scanner.contrast
    signal *= np.exp(0.04 * rng.standard_normal(signal.shape))  # patients differ as well
    texture_field = smooth_noise(grid, rng, 7.0)  # texture shared by the modalities
    bias = smooth_noise(grid, rng, 90.0)
    images = {}
    for index, name in enumerate(MODALITIES):
        values = dict(zip(TISSUES, signal[index].astype(np.float32)))
        image = _tissue_signal(anatomy, name, values)
        texture = rng.uniform(-0.05, 0.05)
        image *= 1 + np.float32(texture) * texture_field * (1 + 2 * (anatomy.labels > 0))
        gamma = scanner.gamma[index] * np.exp(0.04 * rng.standard_normal())
        image = np.power(np.clip(image, 0.02, None), np.float32(gamma))
        image = ndi.gaussian_filter(image, scanner.blur, truncate=3)
        image *= np.exp(np.float32(scanner.bias * rng.uniform(0.5, 1.5)) * bias)
        noise = np.float32(scanner.noise * rng.uniform(0.8, 1.2))
        image = np.abs(image + noise * rng.standard_normal(image.shape, dtype=np.float32))
        scale = scanner.scale[index] * np.exp(0.15 * rng.standard_normal())
        stored = np.clip(np.rint(image * np.float32(scale)), 1, np.iinfo(np.int16).max)
        images[name] = (stored * anatomy.mask).astype(np.int16)
    return images


def _tissue_signal(anatomy: Anatomy, modality: str, values: dict[str, np.float32]) -> Volume:
    """Noise-free signal [X, Y, Z] of one modality."""
    image = (
        values["wm"]
        + anatomy.gm * (values["gm"] - values["wm"])
        + anatomy.csf * (values["csf"] - values["wm"])
    )
    image += anatomy.oedema * (values["oedema"] - image)
    if modality == "flair":
        image += 0.5 * anatomy.lesions * (values["oedema"] - image)
    if modality == "t1ce":
        image += 0.35 * anatomy.vessels * (values["enhancing"] - image)
    enhancing = anatomy.labels == ET
    image[enhancing] = values["enhancing"]
    image[anatomy.labels == NCR] = values["necrosis" if enhancing.any() else "solid"]
    return image
