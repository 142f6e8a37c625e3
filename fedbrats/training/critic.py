"""A critic beside the network ("Reciprocal Adversarial Learning", BrainLes 2021, Eq. 2 and 5): a term of a site's loss.

A small network psi looks at masks, true ones Y and predicted ones F, and says of each voxel how sure it is that the
mask is a true one. It learns to tell them apart, and the network learns to be taken for the truth:

    critic    -mean log psi(Y) - mean log(1 - psi(F))
    network   loss - weight * mean log psi(F)

A critic stays at its site: it has seen the site's own masks, and the server has no use for it. Its weights, running
statistics and moments are in no message; `federation/site/work.py` keeps them between rounds.

Printed: four 3x3x3 convolutions with BatchNorm and leaky ReLU, "inspired by PatchGAN where cubic size is 1x1x1", so a
confidence per voxel; RMSProp at 5e-5, "as momentum based methods cause instability", so without momentum; 0.3 for the
weight (sections 3.4 and 4.1).

Choices where the paper is silent or contradicts itself:

- Equation 5 has eta = 0 for a prediction and 1 for a true mask, which would train the critic on nothing it is given;
  the two are exchanged. It is a sum over voxels; here a mean, or 0.3 of it would be millions of times the Dice loss.
- The network deceives by -log psi(F) and not by log(1 - psi(F)): the same aim, but with a gradient where the critic is
  sure (Goodfellow et al. 2014, section 3).
- 16, 32 and 64 channels, a slope of 0.2, no bias before a norm, and one map of confidence per channel of the network,
  as [0, 1]^(H x W) goes to [0, 1]^(H x W): those of the public release (facts, no code). The fourth convolution gives
  the logit: behind a norm of the batch its mean would be the same for true masks as for predicted ones.
- True and predicted masks are normalised apart, each by their own batch. A step of the network is followed by one of
  the critic, on the same predictions.
- The release cannot be followed further: its kernels are 1x1x1, its critic sees logits beside masks, and its critic
  takes no step, as its loss is detached before it is derived.
- With deep supervision, and terms of a network's own, the logits at full size alone are shown.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fedbrats.arrays import stored
from fedbrats.config.critic import CriticConfig
from fedbrats.tasks.segmentation import REGIONS, activate, targets
from fedbrats.training.optimizers import load_optimizer_tensors, optimizer_tensors

WIDTHS = (16, 32, 64)
SLOPE = 0.2  # of the leaky ReLU
NETWORK, OPTIMIZER = "network/", "optimizer/"  # parts of what a critic leaves


def critic_network(channels: int) -> nn.Sequential:
    """Logits [B, channels, X, Y, Z] of masks float [B, channels, X, Y, Z], of any sides."""
    layers: list[nn.Module] = []
    for before, width in zip((channels, *WIDTHS), WIDTHS):
        layers += [
            nn.Conv3d(before, width, 3, padding=1, bias=False),
            nn.BatchNorm3d(width),
            nn.LeakyReLU(SLOPE, inplace=True),
        ]
    return nn.Sequential(*layers, nn.Conv3d(WIDTHS[-1], channels, 3, padding=1))


class Critic:
    """A critic and its optimiser."""

    def __init__(
        self,
        settings: CriticConfig,
        channels: int,
        device: torch.device | str = "cpu",
        unlabelled: Collection[str] = (),
        amp: bool = False,
    ) -> None:
        """A new one, whose weights are drawn from torch's generator.

        Args:
            settings: with the weight of its term.
            channels: that the network predicts.
            device: of the network.
            unlabelled: regions for which the site has no truth; the critic sees neither theirs nor the prediction.
            amp: whether its convolutions are bf16.
        """
        self.network = critic_network(channels).to(device)
        self.optimizer = torch.optim.RMSprop(self.network.parameters(), lr=settings.lr)
        self._weight, self._amp = settings.weight, amp
        known = torch.tensor([region not in unlabelled for region in REGIONS]) if unlabelled else None
        self._known = None if known is None else known.reshape(1, -1, 1, 1, 1).to(device)

    def logits(self, masks: Tensor) -> Tensor:
        """How true `masks`, float [B, C, X, Y, Z] in [0, 1], look: float32 of the same shape, above 0 for true."""
        seen = masks if self._known is None else masks * self._known
        with torch.autocast(seen.device.type, dtype=torch.bfloat16, enabled=self._amp):
            found: Tensor = self.network(seen)
        return found.float()

    def term(self, outputs: Tensor | Sequence[Tensor]) -> Tensor:
        """What is added to the loss of the network, a scalar whose gradient does not reach the critic.

        Args:
            outputs: of the network, as it gives them: logits [B, C, X, Y, Z], or several, full size first.
        """
        self.network.requires_grad_(False)
        try:
            return self._weight * softplus(-self.logits(_predicted(outputs))).mean()
        finally:
            self.network.requires_grad_(True)

    def step(self, outputs: Tensor | Sequence[Tensor], labels: Tensor) -> Tensor:
        """One step of the critic's own; its loss before it, a scalar without a gradient.

        Args:
            outputs: of the network; nothing of it changes.
            labels: canonical, [B, X, Y, Z].
        """
        predicted = _predicted(outputs).detach()
        truth = targets(labels, predicted.shape[1]).float()
        self.optimizer.zero_grad(set_to_none=True)
        # log psi = -softplus(-logit) and log(1 - psi) = -softplus(logit)
        loss = softplus(-self.logits(truth)).mean() + softplus(self.logits(predicted)).mean()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        """All that the critic is, for the site to keep: its weights, statistics and counters, and its moments."""
        own = {NETWORK + name: stored(tensor) for name, tensor in self.network.state_dict().items()}
        moments = optimizer_tensors(self.optimizer)  # the very ones that the next step changes
        return own | {OPTIMIZER + name: stored(tensor) for name, tensor in moments.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        self.network.load_state_dict(_part(state, NETWORK))
        load_optimizer_tensors(self.optimizer, _part(state, OPTIMIZER))


def critic_of(
    settings: CriticConfig, channels: int, device: torch.device | str, amp: bool = False
) -> Critic | None:
    """A new critic as it is configured, None where it is off."""
    return Critic(settings, channels, device, amp=amp) if settings.weight else None


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _predicted(outputs: Tensor | Sequence[Tensor]) -> Tensor:
    """The probabilities at full size."""
    return activate((outputs if isinstance(outputs, Tensor) else outputs[0]).float())
