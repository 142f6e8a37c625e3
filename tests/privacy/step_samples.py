"""Networks, patients and gradients by hand for the tests of the private step."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from fedbrats.privacy.mechanism import Batch, PrivateStep
from fedbrats.privacy.noise import secret_numbers

ENGINES = ("microbatch", "vmap")
CLIP, EXPECTED = 0.1, 3.75


def values(outputs: Any, labels: Tensor) -> Tensor:
    """Dice plus cross-entropy of each patch, [K], in the precision of the outputs (the project's own use float32)."""
    outputs = [outputs] if isinstance(outputs, Tensor) else outputs
    total = torch.zeros(len(labels), dtype=outputs[0].dtype)
    for logits in outputs:
        step = labels.shape[-1] // logits.shape[-1]
        small = labels[(slice(None), *[slice(None, None, step)] * (labels.ndim - 1))]
        target = (small > 1).unsqueeze(1).expand_as(logits).to(logits.dtype)
        axes, p = tuple(range(1, logits.ndim)), logits.sigmoid()
        dice = 1 - 2 * (p * target).sum(axes) / ((p + target).sum(axes) + 1)
        total = total + dice + binary_cross_entropy_with_logits(logits, target, reduction="none").mean(axes)
    return total


def patients(
    scales: list[float],
    patches: int = 1,
    sides: tuple[int, ...] = (8, 8, 8),
    dtype: torch.dtype = torch.float64,
) -> list[Batch]:
    """A patient per scale of its images."""
    random = torch.Generator().manual_seed(len(scales))
    return [
        (
            scale * torch.randn(patches, 4, *sides, generator=random, dtype=dtype),
            torch.randint(0, 4, (patches, *sides), generator=random, dtype=torch.uint8),
        )
        for scale in scales
    ]


def plain(width: int = 4) -> nn.Module:
    """Two convolutions and no norm, so that large images give large gradients."""
    torch.manual_seed(0)
    layers = [nn.Conv3d(4, width, 3, padding=1), nn.Softplus(), nn.Conv3d(width, 3, 1)]
    return nn.Sequential(*layers).double()


def step_of(network: nn.Module, engine: str = "microbatch", **options: Any) -> PrivateStep:
    given = {"clip": CLIP, "sigma": 0.0, "expected": EXPECTED, "noise": secret_numbers(0), "values": values}
    return PrivateStep(network, engine=engine, **(given | options))


def flat(tensors: Any) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def by_hand(network: nn.Module, patient: Batch) -> Tensor:
    """Gradient of a patient: that of its patches one by one, averaged."""
    rows = []
    for image, label in zip(*patient):
        network.zero_grad()
        values(network(image[None]), label[None]).sum().backward()
        rows.append(flat(torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()))
    network.zero_grad()
    return torch.stack(rows).mean(0)


def unet(norm: Any, dimensions: int = 3, outputs: int = 3) -> nn.Module:
    torch.manual_seed(1)
    return UNet(dimensions, 4, outputs, (4, 8), (2,), num_res_units=1, norm=norm).double()


NORMS = {"instance": ("instance", {"affine": True}), "group": ("group", {"num_groups": 1})}
