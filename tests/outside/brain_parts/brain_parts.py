from dataclasses import dataclass

from torch import Tensor, nn

from fedbrats.algorithms.base import Memory, Reply
from fedbrats.algorithms.fedavg import FedAvg, WeightedMean
from fedbrats.metrics.table import Masks, Metric


def small_net(in_channels: int = 4, out_channels: int = 3, width: int = 8) -> nn.Module:
    layers = [nn.Conv3d(in_channels, width, 3, padding=1), nn.GroupNorm(2, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv3d(width, out_channels, 1))


class Brier(nn.Module):
    def forward(self, logits: Tensor, target: Tensor) -> Tensor:  # [B, C, ...] -> [B]
        return (logits.sigmoid() - target).square().flatten(1).mean(1)


def jaccard() -> Metric:
    def of(m: Masks) -> float:  # bool [X, Y, Z] of one region; two empty ones agree
        union = (m.prediction | m.reference).sum()
        return float((m.prediction & m.reference).sum() / union) if union else 1.0

    return Metric("jaccard", "Jaccard", of)


class RootMean(WeightedMean):
    def add(self, reply: Reply) -> None:
        self.take(reply.arrays, reply.cases**0.5)


@dataclass(frozen=True, kw_only=True)
class FedRoot(FedAvg):  # a site counts with the square root of its cases
    def collect(self, memory: Memory) -> RootMean:
        return RootMean()
