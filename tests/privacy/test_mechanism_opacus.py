"""The private step against Opacus: the same step where its hooks run, and a bound that its ghost mode loses."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss
from torch import Tensor, nn

from fedbrats.privacy.mechanism import Batch
from tests.privacy.step_samples import ENGINES, EXPECTED, NORMS, flat, patients, step_of, unet, values

pytestmark = pytest.mark.filterwarnings("ignore")  # Opacus and torch warn about Opacus


@pytest.fixture(scope="module", autouse=True)
def opacus() -> None:
    """Import Opacus, which is slow, without the handler that it puts on the root logger."""
    before = logging.root.handlers[:]
    pytest.importorskip("opacus")
    logging.root.handlers[:] = before


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("norm", NORMS)
def test_steps_without_noise_are_those_of_opacus(norm: str, engine: str) -> None:
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    ours, clip = unet(NORMS[norm]), 0.46
    theirs = GradSampleModule(copy.deepcopy(ours), loss_reduction="mean")
    plain_sgd = torch.optim.SGD(theirs.parameters(), lr=0.5)
    reference = DPOptimizer(
        plain_sgd,
        noise_multiplier=0.0,
        max_grad_norm=clip,
        expected_batch_size=EXPECTED,
        loss_reduction="mean",
    )
    optimizer, clipped = torch.optim.SGD(ours.parameters(), lr=0.5), []
    step = step_of(ours, engine, clip=clip, chunk=2)
    for size in (1, 5, 3):  # Poisson draws
        drawn = patients([1.0, 3.0, 0.3, 1.0, 1.0][:size])
        clipped.append(step.gradients(drawn).clipped / size)
        optimizer.step()
        reference.zero_grad()
        images, labels = (torch.cat(tensors) for tensors in zip(*drawn))
        values(theirs(images), labels).mean().backward()
        reference.step()
    assert 0 < sum(clipped) < 3, "some gradients are clipped, some are not"
    assert float((flat(ours.parameters()) - flat(theirs.parameters())).abs().max()) < 1e-12


def ghost_sum(network: nn.Module, drawn: list[Batch], clip: float, criterion: nn.Module) -> Tensor:
    """Sum of clipped gradients that Opacus's ghost mode makes."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    wrapped = GradSampleModuleFastGradientClipping(
        copy.deepcopy(network), max_grad_norm=clip, use_ghost_clipping=True
    )
    sgd = torch.optim.SGD(wrapped.parameters(), lr=1.0)
    optimizer = DPOptimizerFastGradientClipping(
        sgd, noise_multiplier=0.0, max_grad_norm=clip, expected_batch_size=1
    )
    images, labels = (torch.cat(tensors) for tensors in zip(*drawn))
    loss = DPLossFastGradientClipping(wrapped, optimizer, criterion)
    loss(wrapped(images), (labels[:, None] > 1).double()).backward()
    return flat(p.grad for p in wrapped.parameters())


class PerSample(nn.Module):
    """A loss that does what ghost clipping needs."""

    reduction = "mean"

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return values(logits, 3 * target[:, 0].to(torch.uint8))


@pytest.mark.parametrize("kind", [DiceLoss, DiceCELoss])
def test_ghost_clipping_of_opacus_breaks_the_bound_and_ours_does_not(kind: Any) -> None:
    """MONAI's losses give no value per sample, which the ghost mode of Opacus takes for granted without a check."""
    network, drawn, clip = unet(None, outputs=1), patients([1.0, 1.0, 100.0, 1.0]), 0.3
    bound = len(drawn) * clip * (1 + 1e-5)
    assert float(ghost_sum(network, drawn, clip, PerSample()).norm()) <= bound
    assert float(ghost_sum(network, drawn, clip, kind(sigmoid=True)).norm()) > 1.5 * bound
    loss = kind(sigmoid=True)
    each = lambda outputs, labels: loss(outputs, (labels[:, None] > 1).double())  # noqa: E731
    for engine in ENGINES:
        total, seen = step_of(network, engine, clip=clip, values=each).clipped_sum(drawn)
        assert seen.clipped > 0
        assert float(flat(total).norm()) <= bound
