"""What an update gives away: images recovered from the gradient of one patient, without and with privacy.

A server that receives the update of one plain SGD step knows the gradient. It searches an image whose gradient points
the same way (Geiping et al., NeurIPS 2020, equation 4: cosine distance plus total variation). The setting is made easy
for the attacker, as such demonstrations are: one slice of one patient, a small network without strides or norm layers
and with smooth activations, and the segmentation is known. Real updates are many steps of a deep network; that they
are harder to invert is no guarantee, the noise is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.metrics.regression import SSIMMetric
from torch import Tensor, nn

from fedbrats.data.cache import CachedCase
from fedbrats.data.cases import MODALITIES
from fedbrats.data.intensity import Normaliser
from fedbrats.losses.compound import DiceCE
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.privacy.mechanism import Batch, PrivateStep
from fedbrats.privacy.noise import SecretNumbers

WIDTH, KERNEL = 32, 5  # of the demonstration's network
SMOOTHNESS = 3e-5  # weight of the total variation against the cosine distance
NOISY_SMOOTHNESS = (3e-5, 1e-2)  # against noise both are tried, and what comes nearer to the truth is kept
HISTORY = 50  # steps that L-BFGS remembers
SMALLEST, LARGEST = 32, 48  # pixels of a side of the slice
SHOWN = ("t1ce", "flair")
ZOOM = 4  # pixels of a picture for one of the slice
PLAIN = "Without privacy"


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What one attack found.

    title: under which protection.
    sigma: noise multiplier; None without clipping and noise.
    image: float32 [4, A, B], in the units of the original.
    similarity: channel -> correlation, PSNR in dB over the range of the original, and SSIM.
    """

    title: str
    sigma: float | None
    image: np.ndarray
    similarity: dict[str, dict[str, float]]

    @property
    def correlation(self) -> float:
        """Mean of the channels that are shown."""
        return float(np.mean([self.similarity[channel]["correlation"] for channel in SHOWN]))


def demonstrate(
    slice_: Batch,
    *,
    clip: float,
    sigma: float,
    noise: Callable[[], SecretNumbers],
    iterations: int = 200,
    seed: int = 0,
    make: type[PrivateStep] = PrivateStep,
) -> list[Recovered]:
    """Attack the gradient of one slice without privacy, with little noise, with that of the run, and noise alone.

    "Little" is noise as long as a gradient may be. It carries no epsilon worth the name (thousands) and an attacker who
    expects a smooth image still sees something; it shows what lies between.

    Args:
        slice_: images float32 [1, 4, A, B] and labels uint8 [1, A, B] of a patient.
        clip: bound C of the run.
        sigma: noise multiplier of the run.
        noise: makes a stream of secret numbers.
        iterations: of the search.
        seed: of the network and of where the search starts.
        make: `PrivateStep`, or a class that takes its place.
    """
    images, labels = slice_
    network = small_network(seed).to(images.device)
    d = sum(p.numel() for p in network.parameters())
    little = 1 / math.sqrt(d)
    settings: list[tuple[str, float | None, list[Batch]]] = [
        (PLAIN, None, [slice_]),
        (f"Clipped, little noise (sigma {little:.2g})", little, [slice_]),
        (f"As in this run (C {clip:g}, sigma {sigma:.3g})", sigma, [slice_]),
        (f"Noise of this run, nobody drawn (sigma {sigma:.3g})", sigma, []),
    ]
    results = []
    for title, used, drawn in settings:
        update = gradient(network, images, labels)
        if used is not None:
            update = private_gradient(make, network, drawn, clip=clip, sigma=used, noise=noise())
        attempts = []
        for weight in (SMOOTHNESS,) if used is None else NOISY_SMOOTHNESS:
            found = invert(network, update, labels, smoothness=weight, iterations=iterations, seed=seed)
            image = found[0].cpu()
            alike = similarity(images[0].cpu(), image)
            attempts.append(Recovered(title=title, sigma=used, image=image.numpy(), similarity=alike))
        results.append(max(attempts, key=lambda attempt: attempt.correlation))
    return results


def small_network(seed: int = 0, channels: int = 3) -> nn.Module:
    """Two convolutions with GELU and an output layer, nothing that loses detail; random weights of `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(len(MODALITIES), WIDTH, KERNEL, padding=KERNEL // 2),
            nn.GELU(),
            nn.Conv2d(WIDTH, WIDTH, KERNEL, padding=KERNEL // 2),
            nn.GELU(),
            nn.Conv2d(WIDTH, channels, 1),
        )


def values(outputs: Tensor, labels: Tensor) -> Tensor:
    """Training loss of each slice, [K]: soft Dice plus cross-entropy."""
    return deep_supervised(DiceCE(), outputs, labels)


def gradient(network: nn.Module, images: Tensor, labels: Tensor, create_graph: bool = False) -> Tensor:
    """Gradient of the training loss, [d]; what one plain SGD step tells up to the learning rate."""
    parts = torch.autograd.grad(
        values(network(images), labels).mean(), list(network.parameters()), create_graph=create_graph
    )
    return torch.cat([part.flatten() for part in parts])


def private_gradient(
    make: type[PrivateStep],
    network: nn.Module,
    drawn: Sequence[Batch],
    *,
    clip: float,
    sigma: float,
    noise: SecretNumbers,
) -> Tensor:
    """What the private step releases for the patients drawn, [d]; one alone is the best case for an attacker."""
    step = make(network, values, clip=clip, sigma=sigma, expected=1.0, noise=noise)
    step.gradients(drawn)
    found = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    network.zero_grad(set_to_none=True)
    return found


def invert(
    network: nn.Module,
    update: Tensor,
    labels: Tensor,
    *,
    smoothness: float = SMOOTHNESS,
    iterations: int,
    seed: int,
) -> Tensor:
    """Image [1, 4, A, B] whose gradient points most nearly along `update` [d], and which is smooth.

    Half the squared distance of the two unit vectors is their cosine distance, without its loss of digits near 0.
    """
    shape, generator = (1, len(MODALITIES), *labels.shape[1:]), torch.Generator().manual_seed(seed)
    start = torch.randn(shape, generator=generator)
    image = (0.1 * start).to(update.device).requires_grad_()
    goal = update / update.norm()
    optimizer = torch.optim.LBFGS(
        [image],
        max_iter=iterations,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
        tolerance_grad=0,
        tolerance_change=0,
    )

    def objective() -> Tensor:
        found = gradient(network, image, labels, create_graph=True)
        apart = 0.5 * (found / found.norm() - goal).square().sum()
        value = 1000 * (apart + smoothness * total_variation(image))  # in float32's comfortable range
        (image.grad,) = torch.autograd.grad(value, [image])
        return value.detach()

    optimizer.step(objective)
    return image.detach()


def total_variation(image: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, of both directions added up."""
    return (image[..., 1:, :] - image[..., :-1, :]).abs().mean() + (
        image[..., 1:] - image[..., :-1]
    ).abs().mean()


def similarity(original: Tensor, found: Tensor) -> dict[str, dict[str, float]]:
    """Correlation, PSNR (dB) and SSIM of each channel of two images [4, A, B]."""
    result = {}
    for channel, a, b in zip(MODALITIES, original.double(), found.double()):
        spread = float(a.max() - a.min()) or 1.0
        error = float((a - b).square().mean())
        ssim = SSIMMetric(spatial_dims=2, data_range=spread)(b[None, None].float(), a[None, None].float())
        result[channel] = {
            "correlation": float(
                torch.nan_to_num(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])
            ),
            "psnr": 10 * math.log10(spread**2 / error) if error else math.inf,
            "ssim": float(ssim),
        }
    return result


def tumour_slice(case: CachedCase, normalise: Normaliser | None = None) -> Batch:
    """The axial slice with most tumour, cut to half as much again as the tumour: [1, 4, A, B] and [1, A, B].

    Raises:
        ValueError: the case has no label, or no tumour.
    """
    labels = np.asarray(case.label)
    tumour: np.ndarray = labels > 0
    if not tumour.any():
        raise ValueError(f"{case.name}: no tumour to show")
    z = int(tumour.sum((0, 1)).argmax())
    sides = [_window(np.any(tumour[:, :, z], axis=1 - axis)) for axis in (0, 1)]
    part = (*sides, slice(z, z + 1))
    image = np.asarray(case.image[(slice(None), *part)], dtype=np.float32)
    image = image if normalise is None else normalise(case, image)
    return torch.from_numpy(image[None, ..., 0].copy()), torch.from_numpy(labels[part][None, ..., 0].copy())


def _window(present: np.ndarray) -> slice:
    """Where a side of the slice lies along an axis on which the tumour is `present` [n]."""
    places = np.flatnonzero(present)
    extent, middle = places[-1] - places[0] + 1, (places[0] + places[-1] + 1) // 2
    side = min(int(np.clip(extent * 3 // 2, SMALLEST, LARGEST)), len(present))
    start = int(np.clip(middle - side // 2, 0, len(present) - side))
    return slice(start, start + side)


def pictures(slice_: Batch, results: Sequence[Recovered]) -> list[tuple[str, np.ndarray]]:
    """Title and grey values uint8 of each picture: the original and what was recovered, T1ce beside FLAIR.

    Radiological view: the patient's right is on the left, front is up. Each channel has the same window in all
    pictures, that of the original; every pixel is drawn as a square of `ZOOM` pixels.
    """
    original = slice_[0][0].cpu().numpy()
    channels = [MODALITIES.index(name) for name in SHOWN]
    low = {c: float(original[c].min()) for c in channels}
    high = {c: float(np.quantile(original[c], 0.995)) for c in channels}

    def grey(image: np.ndarray) -> np.ndarray:
        parts = [
            np.rot90(np.flip((image[c] - low[c]) / max(high[c] - low[c], 1e-6), axis=0)) for c in channels
        ]
        shown = (np.clip(np.hstack(parts), 0, 1) * 255).astype(np.uint8)
        return shown.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)

    return [("Original", grey(original)), *((r.title, grey(r.image)) for r in results)]


def sentence(results: Sequence[Recovered]) -> str:
    """What the demonstration shows, in words that keep to what was measured."""
    plain, _, private, nobody = results
    return (
        f"From the gradient of one slice the images come back with a correlation of {plain.correlation:.2f} (mean of "
        f"{' and '.join(SHOWN)}); clipped and with the noise of this run, of {private.correlation:.2f}, where the "
        f"noise alone, without any patient, gives {nobody.correlation:.2f}. The attacker has it easy: one step, one "
        "slice, one patient, a small network without strides or norm layers, the segmentation known; against noise, "
        "the best of two attempts. That a real update of many steps is harder to invert is no guarantee; the noise is."
    )
