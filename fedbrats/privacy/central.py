"""Client-level differential privacy at the server (`privacy=central`): it hides whether a whole site took part.

DP-FedAvg (McMahan et al., ICLR 2018, arXiv 1710.06963, Algorithm 1) with a fixed bound, all sites in every round and
equal weights: each site's update is clipped to norm C over all arrays together, the sum gets Gaussian noise of
deviation sigma C, is rounded to a public grid (`release`) and divided by the number of replies. Neighbours differ by
one site's update while the number of replies is public. No amplification by sampling is claimed, so T releases cost
exactly `gaussian_epsilon(sqrt(T) / sigma, delta)`. The server is trusted: it sees every update.

What to expect. The noise on the mean has norm sigma C sqrt(d) / m for d numbers and m replies, the mean update at most
C. Measured with the 4.70 million numbers of SegResNet and updates that all agree:

| sites | sigma | epsilon of 50 rounds (delta 1e-5) | norm of the noise | cosine of released and true update |
|---|---|---|---|---|
| 6 | 1 | 54.4 | 361 C | 0.003 |
| 23 | 1 | 54.4 | 94 C | 0.010 |
| 23 | 5 | 6.6 | 471 C | 0.002 |

A round has less noise than signal only for d < (m / sigma)^2 numbers, 529 with 23 sites and sigma 1; all T rounds
together for T times as many, if every update points the same way. Central privacy of a few hospitals therefore cannot
train a segmentation network, whatever C is. It is here to be measured.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedbrats.algorithms.base import Reply
from fedbrats.arrays import read_only
from fedbrats.config.targets import ConfigError
from fedbrats.models.facts import batch_norm_arrays
from fedbrats.privacy.noise import SecretNumbers
from fedbrats.privacy.release import release


@dataclass(frozen=True, kw_only=True)
class Central:
    """Settings of the mechanism.

    clip: bound C on the norm of a site's update, in units of the weights.
    sigma: noise multiplier; the noise on the sum of clipped updates has deviation sigma * clip.
    delta: of (epsilon, delta); must be far below 1 / sites.
    max_epsilon: training stops before it would spend more; None for no limit.
    insecure_seed: makes the noise reproducible, and the guarantee void; for tests and demonstrations.
    """

    clip: float
    sigma: float
    delta: float = 1e-5
    max_epsilon: float | None = None
    insecure_seed: int | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        for key in ("clip", "sigma", "max_epsilon"):
            value = getattr(self, key)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"privacy.{key}={value}: must be a positive number.")
        if not 0 < self.delta < 1:
            raise ValueError(f"privacy.delta={self.delta}: must lie in (0, 1).")


def check_central(network: nn.Module, travels: Collection[str]) -> None:
    """Check that nothing but trainable parameters would get noise.

    Args:
        network: what is federated.
        travels: names of its arrays that sites send.

    Raises:
        ConfigError: running statistics travel; a noisy variance may be negative.
    """
    kept = [name for name, _ in network.named_buffers() if name in set(travels)]
    if not kept:
        return
    fix = "Set model.norm=group"
    if set(kept) <= set(batch_norm_arrays(network).statistics):
        fix += ", or keep them at the sites with personalization=bn_local or personalization=bn_stats_local"
    raise ConfigError(
        f"privacy=central: {len(kept)} arrays that are no parameters travel, such as {kept[0]}; noise would make a "
        f"running variance negative. {fix}."
    )


class PrivateMean:
    """Equal mean of the sites' clipped updates, with noise; a collector in the place of the algorithm's own mean.

    Replies are added one at a time and only their sum is kept, so one model in float64 is all the memory. Nothing can
    be taken out before `finish` has added the noise.
    """

    def __init__(self, start: Mapping[str, Tensor], central: Central) -> None:
        """Begin a round with the global arrays `start` that the sites received; they are read, never written."""
        self.arrays: dict[str, Tensor] = {}  # the released model; empty until `finish`
        self._start, self._central = start, central
        self._sum = {name: torch.zeros_like(array, dtype=torch.float64) for name, array in start.items()}
        self._norms: list[float] = []

    @property
    def replies(self) -> int:
        """Replies so far."""
        return len(self._norms)

    def add(self, reply: Reply) -> None:
        """Add one checked reply, arrays of any float dtype; all count alike, whatever their cases.

        Raises:
            ValueError: other names than the global arrays have, or a value that is not finite.
        """
        arrays = reply.arrays
        if arrays.keys() != self._start.keys():
            raise ValueError(f"{len(arrays)} arrays that are not the {len(self._start)} of the global model")
        norm = math.sqrt(
            sum(float(self._update(name, array).square_().sum()) for name, array in arrays.items())
        )
        if not math.isfinite(norm):
            raise ValueError("a reply with values that are not finite has no norm to clip")
        share = self._central.clip / norm if norm > self._central.clip else 1.0
        for name, array in arrays.items():
            self._sum[name].add_(self._update(name, array), alpha=share)
        self._norms.append(norm)

    def _update(self, name: str, array: np.ndarray) -> Tensor:
        return read_only(array).double() - self._start[name].double()

    def finish(self, noise: SecretNumbers) -> dict[str, float]:
        """Add noise once, divide by the replies and put the new global model into `arrays`.

        The release must be in the ledger before this is called.

        Args:
            noise: from `privacy.noise.secret_numbers`, of this round only.

        Returns:
            A row of `central_rounds.csv`: replies; clipped, those above the bound; update_norm_median, before
            clipping; mean_update_norm, of the clipped mean before noise; noise_norm, expected. All but the first and
            the last come from the updates without noise: they are for the server, and not covered by epsilon.

        Raises:
            RuntimeError: no reply, or the round is finished already.
        """
        if not self._norms or self.arrays:
            raise RuntimeError(
                "A round without replies, or one that was released before, has nothing to release."
            )
        deviation, numbers = self._central.sigma * self._central.clip, 0
        mean_norm = math.sqrt(sum(float(total.square().sum()) for total in self._sum.values())) / self.replies
        for name, total in self._sum.items():
            start, noisy = self._start[name], release(total, deviation, noise)
            self.arrays[name] = noisy.div_(self.replies).add_(start.double()).to(start.dtype)
            numbers += total.numel()
        return {
            "replies": self.replies,
            "clipped": sum(norm > self._central.clip for norm in self._norms),
            "update_norm_median": statistics.median(self._norms),
            "mean_update_norm": mean_norm,
            "noise_norm": deviation * math.sqrt(numbers) / self.replies,
        }
