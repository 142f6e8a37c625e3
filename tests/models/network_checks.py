"""What every network of the seed papers has to show; each test file names the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, max_pool3d

from fedbrats.commands.compose import register_with_hydra
from fedbrats.models.node import arguments
from tests.tiny import ROOT

CLASSIFIERS = (  # networks of whole cases
    *("efficientnet3d", "median_slice_cnn", "multiscale_efficientnet", "late_fusion_efficientnet"),
    *("c3d", "ca_net_radiology"),
)


def node(name: str, size: str) -> dict[str, Any]:
    """The node `model` of `model=<name> model.size=<size>`, as a run composes it."""
    register_with_hydra()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return dict(compose("config", overrides=[f"model={name}", f"model.size={size}"]).model)


def configured(name: str, size: str = "full") -> tuple[nn.Module, dict[str, Any]]:
    """The network of conf/model/<name>.yaml as a run builds it, and its rules of input."""
    model = node(name, size)
    return instantiate(arguments(model)), dict(model["input"])


def count(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in network.parameters())


def parameters_with_two_names(network: nn.Module) -> list[str]:
    """Names of tensors that are registered more than once; they would travel twice."""
    named = [
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    ]
    times = Counter(id(tensor) for _, tensor in named)
    return [name for name, tensor in named if times[id(tensor)] > 1]


def losses_of_steps(
    network: nn.Module, sides: Sequence[int], steps: int = 12, lr: float = 0.01
) -> list[float]:
    """Losses of Adam steps on one batch of two images with a bright block as every region."""
    torch.manual_seed(0)
    region = torch.zeros(2, 1, *sides)
    region[:, :, 4 : sides[0] // 2, 4 : sides[1] // 2, 4 : sides[2] // 2] = 1
    images = torch.randn(2, 4, *sides) + 2 * region
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    network.train()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        outputs = network(images)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        loss = sum(_cross_entropy(logits, region) for logits in outputs) / len(outputs)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def _cross_entropy(logits: Tensor, region: Tensor) -> Tensor:
    target = max_pool3d(region, region.shape[2] // logits.shape[2]).expand_as(logits)
    return binary_cross_entropy_with_logits(logits, target)


def largest_difference_in_channels_last(
    network: nn.Module, sides: Sequence[int], device: str = "cpu"
) -> float:
    """Between the logits of the same images in both memory formats, over the largest logit; float64."""
    network.eval().double().to(device)
    images = torch.randn(2, 4, *sides, dtype=torch.float64, device=device)
    with torch.no_grad():
        plain = network(images)
        network.to(memory_format=torch.channels_last_3d)
        last = network(images.contiguous(memory_format=torch.channels_last_3d))
    return float((plain - last).abs().max() / plain.abs().max())
