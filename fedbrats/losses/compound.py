"""Losses made of losses."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fedbrats.data.regions import REGIONS
from fedbrats.losses.channels import as_float, check_not_negative
from fedbrats.losses.cross_entropy import CrossEntropy
from fedbrats.losses.dice import Dice
from fedbrats.losses.in_round import value
from fedbrats.tasks.segmentation import is_softmax, predicted_regions


class DiceCE(nn.Module):
    """Soft Dice plus cross-entropy, the usual pair, with both weights and the denominator within reach.

    MONAI's `DiceCELoss` is not used: for more than one channel its cross-entropy is a softmax over the channels,
    which makes the nested regions compete with each other.
    """

    def __init__(
        self,
        dice: float = 1.0,
        cross_entropy: float = 1.0,
        squared: bool = False,
        include_background: bool = False,
    ) -> None:
        """Weights of the two parts; `squared` and `include_background` are those of `Dice`.

        Raises:
            ValueError: a weight is negative, or both are zero.
        """
        super().__init__()
        check_not_negative("dice", dice)
        check_not_negative("cross_entropy", cross_entropy)
        if dice + cross_entropy == 0:
            raise ValueError("loss.dice and loss.cross_entropy: not both may be zero.")
        self.weights = (dice, cross_entropy)
        self.dice, self.cross_entropy = Dice(squared, include_background), CrossEntropy()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...]."""
        logits, target = as_float(logits, target)
        dice, entropy = self.dice(logits, target), self.cross_entropy(logits, target)
        return self.weights[0] * dice + self.weights[1] * entropy


class WeightedSum(nn.Module):
    """Any losses by name, each times its weight."""

    def __init__(self, weights: Mapping[str, float], terms: Mapping[str, nn.Module]) -> None:
        """`weights` and `terms` have the same names.

        Raises:
            ValueError: they do not, a weight is negative, or all are zero.
        """
        super().__init__()
        if not terms or set(weights) != set(terms):
            raise ValueError(f"loss.weights names {sorted(weights)} but loss.terms has {sorted(terms)}.")
        for name, weight in weights.items():
            check_not_negative(f"weights.{name}", weight)
        if not any(weights.values()):
            raise ValueError("loss.weights: not all may be zero.")
        self.weights = {name: float(weight) for name, weight in weights.items()}
        self.terms = nn.ModuleDict(dict(terms.items()))

    @property
    def by_round(self) -> bool:
        """Whether a term changes over the rounds."""
        return any(getattr(term, "by_round", False) for term in self.terms.values())

    def forward(self, logits: Tensor, target: Tensor, when: float = 0.0) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, C, ...], `when` as in `in_round`."""
        logits, target = as_float(logits, target)
        values = [self.weights[name] * value(term, logits, target, when) for name, term in self.terms.items()]
        return sum(values[1:], start=values[0])


class PerRegion(nn.Module):
    """A loss of its own for each sigmoid region; the mean over the regions that the network predicts.

    Demoustier et al. (BrainLes 2021, section 2.4) train one network per region, WT and TC with cross-entropy plus Dice,
    ET with cross-entropy alone. Here the regions are channels of one network.
    """

    def __init__(self, WT: nn.Module, TC: nn.Module, ET: nn.Module) -> None:
        """One loss per region; each sees its region as a single channel."""
        super().__init__()
        self.terms = nn.ModuleDict({"WT": WT, "TC": TC, "ET": ET})

    @property
    def by_round(self) -> bool:
        """Whether the loss of a region changes over the rounds."""
        return any(getattr(term, "by_round", False) for term in self.terms.values())

    def forward(self, logits: Tensor, target: Tensor, when: float = 0.0) -> Tensor:
        """Loss of each sample, float32 [B]; `logits` and `target` are [B, 1 or 3, ...], `when` as in `in_round`.

        Raises:
            ValueError: the channels are softmax classes, which cannot be taken apart.
        """
        if is_softmax(logits.shape[1]):
            raise ValueError(
                "loss: PerRegion needs sigmoid regions, this network's 4 channels are exclusive classes; set "
                f"model.out_channels={len(REGIONS)} or choose another loss."
            )
        regions = predicted_regions(logits.shape[1])
        values = [
            value(self.terms[region], logits[:, i : i + 1], target[:, i : i + 1], when)
            for i, region in enumerate(regions)
        ]
        return sum(values[1:], start=values[0]) / len(values)
