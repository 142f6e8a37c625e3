"""Adaptive personalised federated learning (Deng, Kamani and Mahdavi, arXiv 2003.13461, Algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedbrats.personalization.base import LocalWork, Personalization
from fedbrats.training.loop import TrainingError

OWN = "own/"  # before the names of v in a site's state


@dataclass(frozen=True, kw_only=True)
class Apfl(Personalization):
    """A site's own model is the mixture alpha v + (1 - alpha) w of a model v that stays with it and the global w.

    Both take their steps on the same batches. In each, from the values before it:

        w     <- w - rate * grad F(w)                                   what is sent, as without APFL
        v     <- v - rate * alpha * grad F(alpha v + (1 - alpha) w)     the derivative with respect to v
        alpha <- alpha - rate * <v - w, grad F(alpha v + (1 - alpha) w)>, kept in [0, 1], if `adaptive`

    The first two are those of Algorithm 1, with the configured optimiser in the place of gradient descent; the third is
    its rule for an adaptive alpha, always gradient descent at the learning rate of the round. v starts as the first w
    that the site receives, so alpha does not move before the two differ. Running statistics of the mixture (BatchNorm)
    are its own. Batches are computed in float32, also with `runtime.amp`.

    A site whose training never succeeded has no v; its own model is then the global one.
    """

    keeps_state: ClassVar[bool] = True
    own_steps: ClassVar[bool] = True
    alpha: float = 0.5  # share of v, at the start if `adaptive`
    adaptive: bool = True

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        if not 0 <= self.alpha <= 1:
            raise ValueError(
                f"personalization.alpha={self.alpha}: must lie in [0, 1], a share of the own model."
            )

    def unsound_with_dp(self) -> str | None:
        """Its steps are not the private ones."""
        return (
            "apfl trains the site's own model and its share alpha on the batches of the released model, by steps "
            "without clipping or noise, which no epsilon covers, and private steps for them would spend the budget "
            "twice; use personalization=mr_mtl for a site's own model inside the budget"
        )

    def round(self, work: LocalWork) -> float:
        """Train w, v and alpha together; the loss is that of w.

        Raises:
            TrainingError: the loss of w or of the mixture is not finite.
        """
        network = work.network
        mixture = _Mixture(network, work.state, self.alpha, self.adaptive)
        penalty = work.penalty(network)
        own = work.optimizer("personal", mixture.parameters.values())
        common = work.optimizer("train", network.parameters())
        network.train()
        losses, own_losses = [], []
        for images, labels in work.batches("train"):
            layout = torch.channels_last_3d if images.ndim == 5 else torch.channels_last
            images = images.to(memory_format=layout)
            common.zero_grad(set_to_none=True)
            value = work.value(network(images), labels)
            (value if penalty is None else value + penalty()).backward()
            losses.append(value.detach())
            own.zero_grad(set_to_none=True)
            value = work.value(mixture(images), labels)
            value.backward()
            own_losses.append(value.detach())
            common.step()
            own.step()
            mixture.move_alpha(float(own.param_groups[0]["lr"]))
        loss, own_loss = float(torch.stack(losses).mean()), float(torch.stack(own_losses).mean())
        if not math.isfinite(loss + own_loss):
            raise TrainingError(
                f"training loss is {loss}, that of the own model {own_loss}: lower train.optimizer.lr or set "
                "train.clip_norm."
            )
        work.state = mixture.state()
        return loss

    def personal(self, work: LocalWork) -> None:
        """Mix v into the received w."""
        if work.state:
            mixture = _Mixture(work.network, work.state, self.alpha, adaptive=False)
            with torch.no_grad():
                for name, value in mixture.mixed().items():
                    work.network.get_parameter(name).copy_(value)
                for name, buffer in work.network.named_buffers():
                    buffer.copy_(mixture.buffers[name])


class _Mixture:
    """v and alpha of one site, and the network with the weights alpha v + (1 - alpha) w."""

    def __init__(self, network: nn.Module, state: dict[str, Tensor], alpha: float, adaptive: bool) -> None:
        """v and alpha from `state`, or v as `network` is now and the given `alpha` if it is empty."""
        self.network = network
        self.parameters = {
            name: nn.Parameter(p.detach().clone(), p.requires_grad) for name, p in network.named_parameters()
        }
        self.buffers = {name: buffer.detach().clone() for name, buffer in network.named_buffers()}
        if state:
            with torch.no_grad():
                for name, tensor in (self.parameters | self.buffers).items():
                    tensor.copy_(state[OWN + name])
        device = next(network.parameters()).device
        self.alpha = state.get("alpha", torch.tensor(alpha)).to(device, copy=True).requires_grad_(adaptive)

    def mixed(self) -> dict[str, Tensor]:
        """alpha v + (1 - alpha) w, by name; w is the network's present weights, as constants."""
        return {
            name: w.detach() + self.alpha * (self.parameters[name] - w.detach())
            for name, w in self.network.named_parameters()
        }

    def __call__(self, images: Tensor) -> Tensor | list[Tensor]:
        """Outputs of the mixture in training mode; neither the network nor its random numbers (dropout) notice."""
        devices = [images.device] if images.is_cuda else []
        with torch.random.fork_rng(devices):
            outputs: Tensor | list[Tensor] = functional_call(
                self.network, self.mixed() | self.buffers, (images,)
            )
        return outputs

    def move_alpha(self, rate: float) -> None:
        """One step of gradient descent on alpha, back into [0, 1]."""
        if self.alpha.grad is not None:
            with torch.no_grad():
                self.alpha.sub_(rate * self.alpha.grad).clamp_(0, 1)
            self.alpha.grad = None

    def state(self) -> dict[str, Tensor]:
        """What the site remembers: v with its statistics, and alpha."""
        own = {
            OWN + name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in (self.parameters | self.buffers).items()
        }
        return own | {"alpha": self.alpha.detach().cpu().clone()}
