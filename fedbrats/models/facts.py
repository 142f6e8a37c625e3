"""What there is to know about a network before it is federated, found by looking at it and declared nowhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from fedbrats.arrays import travelling
from fedbrats.models.norms import norm_arrays

NORMS = {
    "BatchNorm": _BatchNorm,
    "InstanceNorm": _InstanceNorm,
    "GroupNorm": nn.GroupNorm,
    "LayerNorm": nn.LayerNorm,
}
FLOAT = 4  # bytes
COPIES = 4  # of every weight while Adam trains: itself, its gradient, two moments


@dataclass(frozen=True)
class BatchNormArrays:
    """Names of the arrays that belong to BatchNorm layers."""

    parameters: tuple[str, ...]
    statistics: tuple[str, ...]


def batch_norm_arrays(network: nn.Module) -> BatchNormArrays:
    """The travelling arrays of `network` that are BatchNorm's, whatever the layers are called.

    MONAI calls them `adn.N`, torch's ResNet `bn1` and others `norm`, so names say nothing; types do.
    """
    return BatchNormArrays(norm_arrays(network, statistics=False), norm_arrays(network, parameters=False))


def mixing_modules(network: nn.Module) -> list[str]:
    """Modules that let one sample of a batch change another's output or leave a trace of it in the model.

    BatchNorm in training, and InstanceNorm that keeps running statistics. Patient-level differential privacy needs
    none of them.
    """
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm)
        or (isinstance(module, _InstanceNorm) and module.track_running_stats)
    ]


def has_dropout(network: nn.Module) -> bool:
    """Whether Monte Carlo passes would differ."""
    return any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in network.modules())


def parameter_count(network: nn.Module) -> int:
    """Trainable numbers, each counted once however often it is registered."""
    return sum(p.numel() for p in network.parameters())


def travelling_bytes(network: nn.Module) -> int:
    """Bytes of one model on its way, without what frames them; each site receives and sends as much per round."""
    return sum(t.numel() * t.element_size() for t in travelling(network).values())


def norm_layers(network: nn.Module) -> str:
    """Kinds of normalisation and how many, such as "GroupNorm 28"; a subclass counts as its kind."""
    found = Counter(kind for m in network.modules() for kind, types in NORMS.items() if isinstance(m, types))
    return ", ".join(f"{kind} {number}" for kind, number in sorted(found.items())) or "none"


def kept_bytes(network: nn.Module, patch: Sequence[int], batch: int) -> int:
    """Bytes of activations that autograd keeps for the backward pass of one batch, in float32.

    `network` lives on the meta device, so nothing is allocated.
    """
    storages: dict[int, int] = {}
    alive = []  # a storage that is freed would give its address to the next one
    own = {p.untyped_storage()._cdata for p in network.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            storages[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    network.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = network(torch.zeros(batch, 4, *patch, device="meta"))
    del outputs
    return sum(storages.values())


def training_bytes(network: nn.Module, patch: Sequence[int], batch: int) -> int:
    """Least memory of one training step in float32: weights, gradients, Adam's moments and the kept activations.

    A convolution's workspace and what the allocator wastes come on top.
    """
    return COPIES * FLOAT * parameter_count(network) + kept_bytes(network, patch, batch)
