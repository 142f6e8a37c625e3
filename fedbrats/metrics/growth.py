"""A prediction of growth as a ranking: which voxels does a tumour reach first?

Van Garderen et al., "Evaluating Glioma Growth Predictions as a Forward Ranking Problem" (BrainLes 2021): a growth model
gives every voxel x the time T(x) at which the tumour reaches it, and a later segmentation S' is compared with all
S(t) = {x : T(x) <= t} at once, by the area under precision and recall (equations 2 and 3). How fast the tumour grows
has no part in it, only the order does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """Precision and recall of S(t) against S' at every time at which S(t) grows, earliest first.

    times [n], volumes [n] (voxels of S(t)), hits [n] (those of them in S'); tumour: voxels of S'.
    """

    times: np.ndarray
    volumes: np.ndarray
    hits: np.ndarray
    tumour: int

    @property
    def precision(self) -> np.ndarray:
        """P(t) = |S(t) and S'| / |S(t)|, [n]."""
        found: np.ndarray = self.hits / self.volumes
        return found

    @property
    def recall(self) -> np.ndarray:
        """R(t) = |S(t) and S'| / |S'|, [n]."""
        found: np.ndarray = self.hits / self.tumour
        return found

    @property
    def average_precision(self) -> float:
        """Sum of (R(t) - R(t - 1)) P(t) (equation 2); voxels of S' that are never reached add nothing."""
        return float(np.sum(np.diff(self.recall, prepend=0.0) * self.precision))

    @property
    def overlap_at_volume(self) -> float:
        """Dice of the first S(t) that is as large as S', or of the largest where none is."""
        at = min(int(np.searchsorted(self.volumes, self.tumour)), len(self.volumes) - 1)
        return float(2 * self.hits[at] / (self.volumes[at] + self.tumour))


def ranking(times: np.ndarray, tumour: np.ndarray, region: np.ndarray) -> Ranking:
    """How `times` rank the voxels of `tumour` within `region`.

    Args:
        times: float [X, Y, Z], any unit; infinite where the tumour never comes.
        tumour: bool [X, Y, Z], the later segmentation.
        region: bool [X, Y, Z], what is looked at; the forward scheme leaves out what was tumour before (section 3.2).

    Raises:
        ValueError: no voxel of `region` is tumour or is ever reached, or a time in it is NaN.
    """
    inside, hit = times[region], tumour[region]
    if np.isnan(inside).any():
        raise ValueError("a time is NaN; expected a number, or infinity where the tumour never comes")
    if not hit.any():
        raise ValueError("no voxel of the later tumour lies in the region that is looked at")
    reached = inside < np.inf
    if not reached.any():
        raise ValueError("no voxel is ever reached")
    values, member, volumes = np.unique(inside[reached], return_inverse=True, return_counts=True)
    hits = np.bincount(member.reshape(-1), weights=hit[reached], minlength=len(values))
    return Ranking(values, np.cumsum(volumes), np.cumsum(hits).astype(np.int64), int(hit.sum()))


def agreement(found: Ranking, times: np.ndarray, tumour: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Where times and tumour agree, float32 [X, Y, Z] from 0 to 1 (section 2.1); 0 outside `region`.

    P(T(x)) in the tumour, R(T(x)) beside it. At a voxel that is never reached all voxels are in S(t), so P is the share
    of tumour in the region and R is 1.
    """
    inside, hit = times[region], tumour[region]
    at = np.minimum(np.searchsorted(found.times, inside), len(found.times) - 1)
    reached = inside < np.inf
    precision = np.where(reached, found.precision[at], found.tumour / len(inside))
    recall = np.where(reached, found.recall[at], 1.0)
    values = np.zeros(times.shape, np.float32)
    values[region] = np.where(hit, precision, recall)
    return values
