"""Virtual adversarial training (Miyato et al., TPAMI 2019, arXiv 1704.03976): a term of a site's loss.

The images x of a batch are moved by the r of a given size that changes the network's prediction p(x) most, and the
prediction is to stay what it was. To second order KL(p(x) || p(x + r)) is r^T H r / 2, so the best r has the direction
of the dominant eigenvector of H, which power iteration finds without H: d becomes the gradient of the divergence at
x + xi d, brought to length 1 (their Algorithm 1; one iteration suffices them).

"Reciprocal Adversarial Learning" (BrainLes 2021, Equation 4) writes KL(Y || p(x + r)) with the ground truth Y. That is
`target=truth`: the direction is searched as above, and the moved prediction is to be the truth, by cross-entropy.

Choices where both are silent on volumes:

- A size is a root mean square over the values of a patch, so it means the same for every patch and network; Miyato's
  2-norm of n values is sqrt(n) times as large. It counts in units of what the network sees (`model.input.normalise`).
- The divergence of a sample is the mean over its voxels, and over its regions where they are sigmoids, as that of
  `losses.cross_entropy`.
- All passes of a step see the same dropout, or a small step would show nothing but its noise.
- Passes are in float32, also with `runtime.amp`, where a small step would be rounded away.
- With deep supervision, and terms of a network's own, the logits at full size alone are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div, logsigmoid

from fedbrats.config.vat import TRUTH, VatConfig
from fedbrats.losses.channels import per_sample
from fedbrats.losses.cross_entropy import CrossEntropy
from fedbrats.losses.labelled import labelled_only
from fedbrats.tasks.segmentation import is_softmax, targets

Pass = Callable[[Tensor], Tensor]  # images to logits, with the same dropout every time
Adversary = Callable[[nn.Module, Tensor, Tensor], Tensor]  # network, images and labels to a term of the loss


def adversary_of(settings: VatConfig, unlabelled: Collection[str] = ()) -> Adversary | None:
    """The term of the loss that `settings` ask for; None with a weight of 0.

    `unlabelled` are regions for which the site has no truth.
    """
    return VirtualAdversary(settings, tuple(unlabelled)) if settings.weight else None


@dataclass(frozen=True)
class VirtualAdversary:
    """The term of a batch."""

    settings: VatConfig
    unlabelled: tuple[str, ...] = ()

    def __call__(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """`weight` times the mean over a batch: a scalar whose gradient is that of the pass of the moved images alone.

        Running statistics, and whatever else the network remembers, are left as they are.

        Args:
            network: in training.
            images: float32 [B, C, ...].
            labels: canonical, [B, ...].
        """
        with _passes(network, images) as logits_of:
            with torch.no_grad():
                clean = logits_of(images)
            moved = logits_of(images + perturbation(logits_of, images, clean, self.settings))
            if self.settings.target == TRUTH:
                truth = targets(labels, moved.shape[1]).float()
                values = labelled_only(CrossEntropy(), self.unlabelled)(moved, truth)
            else:
                values = divergence(clean, moved)
            return self.settings.weight * values.mean()


def perturbation(logits_of: Pass, images: Tensor, clean: Tensor, settings: VatConfig) -> Tensor:
    """The virtual adversarial perturbation of each sample, [B, C, ...] without a gradient, of size `epsilon`.

    A sample whose prediction does not change keeps the random direction. `clean` are the logits of `images`.
    """
    direction = _of_size_one(torch.randn_like(images), torch.zeros_like(images))
    for _ in range(settings.iterations):
        step = (settings.xi * direction).requires_grad_()
        away = divergence(clean, logits_of(images + step)).sum()
        (gradient,) = torch.autograd.grad(away, step)
        direction = _of_size_one(gradient, direction)
    return settings.epsilon * direction


def divergence(clean: Tensor, moved: Tensor) -> Tensor:
    """KL divergence of the prediction of logits `clean` from that of `moved`, both [B, C, ...]; float32 [B]."""
    clean, moved = clean.float(), moved.float()
    if is_softmax(clean.shape[1]):
        return per_sample(_kl(clean.log_softmax(1), moved.log_softmax(1)).sum(1))
    return per_sample(_kl(logsigmoid(clean), logsigmoid(moved)) + _kl(logsigmoid(-clean), logsigmoid(-moved)))


def _kl(clean: Tensor, moved: Tensor) -> Tensor:
    """p log(p / q) of one outcome, from the logarithms."""
    return kl_div(moved, clean, reduction="none", log_target=True)


def _of_size_one(vectors: Tensor, otherwise: Tensor) -> Tensor:
    """`vectors` [B, ...] with a root mean square of 1 each; `otherwise` where one is zero or not finite."""
    # In float64: squares of gradients, which are means over millions of voxels, are too small for float32.
    wide = vectors.double().flatten(1)
    size = wide.square().mean(1).sqrt().reshape(-1, *[1] * (vectors.ndim - 1))
    usable = (size > 0) & size.isfinite()
    scaled = (vectors.double() / size.where(usable, 1.0)).to(vectors.dtype)
    return torch.where(usable, scaled, otherwise)


@contextmanager
def _passes(network: nn.Module, images: Tensor) -> Iterator[Pass]:
    """Passes through `network` that draw the same random numbers each, and leave no trace in it."""
    seed = int(torch.randint(2**62, ()))

    def logits_of(moved: Tensor) -> Tensor:
        # Forked in each pass, not around all, so that the search draws its start from the stream of the site.
        with torch.random.fork_rng([images.device] if images.is_cuda else []):
            torch.manual_seed(seed)
            outputs = network(moved)
        return outputs if isinstance(outputs, Tensor) else outputs[0]

    own = [
        (module, name, buffer)
        for module in network.modules()
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False)
    ]
    try:
        # A norm in training normalises by the batch and writes what it was into its running statistics: here a copy's.
        for module, name, buffer in own:
            setattr(module, name, buffer.clone())
        yield logits_of
    finally:
        for module, name, buffer in own:
            setattr(module, name, buffer)
