"""One model, one image: the mean over planes, mirrorings and Monte Carlo passes, and how far the passes differ."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torch.nn.modules.dropout import _DropoutNd

from fedbrats.config.schema import InferenceConfig, InputConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.patches import NORMAL
from fedbrats.inference.windows import slice_probabilities, volume_probabilities
from fedbrats.seeding import seed_torch
from fedbrats.tasks.segmentation import is_softmax, region_probabilities


@dataclass(frozen=True)
class Prediction:
    """What a model, or several, say about an image.

    probabilities: channels, float32 [C, X, Y, Z], see `tasks.segmentation`, from which the labels are read; spread:
    population standard deviation of the region probabilities over all passes (dividing by their number, as `numpy.std`
    does), float32 [R, X, Y, Z], None for a single pass; passes: their number; notes: what a reader of the result should
    know; mean: of the region probabilities over all passes where `probabilities` is a vote and hence no such mean.
    """

    probabilities: Tensor
    spread: Tensor | None = None
    passes: int = 1
    notes: tuple[str, ...] = ()
    mean: Tensor | None = None

    @property
    def by_region(self) -> Tensor:
        """Mean probability of each region, float32 [R, X, Y, Z], for maps and uncertainty, however labels are made."""
        return region_probabilities(self.probabilities) if self.mean is None else self.mean

    def flipped(self, axes: list[int]) -> Prediction:
        """The same with `axes` the other way round."""
        spread, mean = (None if t is None else t.flip(axes) for t in (self.spread, self.mean))
        return replace(self, probabilities=self.probabilities.flip(axes), spread=spread, mean=mean)

    def cpu(self) -> Prediction:
        """The same in main memory."""
        spread, mean = (None if t is None else t.cpu() for t in (self.spread, self.mean))
        return replace(self, probabilities=self.probabilities.cpu(), spread=spread, mean=mean)


class Running:
    """Mean and standard deviation of tensors of one shape that come one at a time (Welford)."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, values: Tensor) -> None:
        """Take in one more; `values` are kept, not changed."""
        self.count += 1
        if self.count == 1:
            self.mean, self._squares = values, torch.zeros_like(values)
            return
        change = values - self.mean
        self.mean = self.mean + change / self.count
        self._squares = self._squares + change * (values - self.mean)

    def deviation(self) -> Tensor:
        """Population standard deviation."""
        return (self._squares / self.count).sqrt()


def predict(
    network: nn.Module,
    image: np.ndarray,
    *,
    rules: InputConfig,
    inference: InferenceConfig,
    window: Sequence[int],
    device: torch.device,
    amp: bool = False,
    seed: int = 0,
) -> Prediction:
    """Predict one image [4, X, Y, Z] (any float dtype, normalised as the network expects).

    The passes are planes x mirrorings x Monte Carlo passes. Within a plane the channel probabilities are averaged.
    Planes are averaged too, or vote (`inference.combine`); STAPLE is for ensembles, and averages planes.

    Monte Carlo dropout: Gal and Ghahramani (ICML 2016); Jonsson et al. take the standard deviation over the passes as
    the uncertainty, and print neither its divisor nor the number of passes. The dropout mask is drawn anew for every
    window and slice.

    Args:
        network: on `device`, in eval mode, and left in it.
        image: whole volume.
        rules: of the network's input.
        inference: as configured; `locate` is the caller's business.
        window: sides in voxels, two for a 2D network.
        device: where the network is.
        amp: bf16 autocast.
        seed: of the dropout of Monte Carlo passes. It alone decides them, whatever was predicted before, and torch's
            own generators are left as they were.

    Returns:
        The prediction, on `device`, with the network's channels.

    Raises:
        ConfigError: Monte Carlo passes of a network without dropout.
    """
    inputs = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).to(device)
    options = {"window": window, "overlap": inference.overlap, "batch": inference.batch, "amp": amp}
    planes: Sequence[str | None] = rules.planes if len(window) == 2 else [None]
    all_passes, found = Running(), []
    with dropout_on(network, seed) if inference.mc_passes else contextlib.nullcontext():
        for plane in planes:
            mean = Running()
            for probabilities in _passes(network, inputs, plane, inference, options):
                mean.add(probabilities)
                all_passes.add(region_probabilities(probabilities))
            found.append(mean.mean)
    elected = inference.combine == "vote" and len(found) > 1
    probabilities = vote_of_channels(torch.stack(found)) if elected else torch.stack(found).mean(0)
    spread = all_passes.deviation() if all_passes.count > 1 else None
    return Prediction(probabilities, spread, all_passes.count, mean=all_passes.mean if elected else None)


def _passes(
    network: nn.Module,
    image: Tensor,
    plane: str | None,
    inference: InferenceConfig,
    options: dict[str, Any],
) -> Iterator[Tensor]:
    """Channel probabilities of every mirroring and Monte Carlo pass, turned back; `plane` is None in 3D."""
    axes = [axis + 1 for axis in range(3) if plane is None or axis != NORMAL[plane]]
    for mirrored in mirrorings(axes) if inference.flips else [()]:
        flipped = image.flip(mirrored)
        for _ in range(max(1, inference.mc_passes)):
            if plane is None:
                found = volume_probabilities(network, flipped, **options)
            else:
                found = slice_probabilities(network, flipped, plane, **options)
            yield found.flip(mirrored)


def mirrorings(axes: Sequence[int]) -> list[tuple[int, ...]]:
    """Every subset of `axes`, the empty one first: 8 for the three axes of a volume, 4 within a slice."""
    return [subset for count in range(len(axes) + 1) for subset in combinations(axes, count)]


def majority(votes: Tensor, probabilities: Tensor) -> Tensor:
    """Share of yes in `votes` (bool [n, ...]) where the mean of `probabilities` [n, ...] has one vote as well.

    That vote lies between 0 and 1, so it decides ties and nothing else: the result is above 0.5 exactly where more
    than half vote yes, or half of them and the mean probability is above 0.5.
    """
    return (votes.sum(0) + probabilities.mean(0)) / (len(votes) + 1)


def vote_of_channels(probabilities: Tensor) -> Tensor:
    """Majority vote of channel probabilities [n, C, ...]: per region, or for the most frequent class; ties as above.

    Returns:
        float32 [C, ...] from which `tasks.segmentation.labels_from_probabilities` reads the winner.
    """
    channels = probabilities.shape[1]
    if is_softmax(channels):
        return majority(one_hot(probabilities.argmax(1), channels).movedim(-1, 1).bool(), probabilities)
    return majority(probabilities > 0.5, probabilities)


@contextlib.contextmanager
def dropout_on(network: nn.Module, seed: int) -> Iterator[None]:
    """Dropout at work, everything else (batch norm above all) in eval mode, torch's generators as `seed` says.

    Both are as before afterwards.
    """
    modules = [m for m in network.modules() if isinstance(m, _DropoutNd) and m.p > 0]
    if not modules:
        raise ConfigError(
            "inference.mc_passes: the network has no dropout; set model.dropout, or mc_passes=0."
        )
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        seed_torch(seed, "Monte Carlo dropout")
        for module in modules:
            module.train()
        try:
            yield
        finally:
            for module in modules:
                module.eval()
