"""Normalisation layers and their arrays: found by the type of the module, never by its name."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from fedbrats.arrays import travelling

# _NormBase is BatchNorm (SyncBatchNorm too) and InstanceNorm of any dimension.
NORMS: tuple[type[nn.Module], ...] = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def norm_arrays(
    network: nn.Module,
    kinds: type[nn.Module] | tuple[type[nn.Module], ...] = _BatchNorm,
    *,
    parameters: bool = True,
    statistics: bool = True,
) -> tuple[str, ...]:
    """Names of the arrays of `network` that belong to modules of `kinds`, subclasses too.

    An array is recognised by identity, so one that is registered under several names is listed once, under the name
    that travels. Counters (`num_batches_tracked`) do not travel and are not listed.

    Args:
        network: on any device.
        kinds: types of module.
        parameters: list weights and biases.
        statistics: list running means and variances.
    """
    found: set[int] = set()
    for module in network.modules():
        if isinstance(module, kinds):
            if parameters:
                found |= {id(p) for p in module.parameters(recurse=False)}
            if statistics:
                found |= {id(b) for b in module.buffers(recurse=False)}
    return tuple(name for name, tensor in travelling(network).items() if id(tensor) in found)
