"""What an institution that never trained puts in the place of arrays that stay at the sites."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.functional import instance_norm
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from fedbrats.config.targets import ConfigError

AVERAGE, RECALIBRATE, INSTANCE = "average", "recalibrate", "instance"
CHOICES = (AVERAGE, RECALIBRATE, INSTANCE)  # of networks with BatchNorm


def check_choice(unseen: str, choices: Collection[str] = CHOICES) -> None:
    """Check the option `unseen` of a method.

    Raises:
        ValueError: naming the choices.
    """
    if unseen not in choices:
        raise ValueError(f"personalization.unseen={unseen}: choose {', '.join(choices)}.")


def check_fits(unseen: str, network: nn.Module) -> None:
    """Check that `network` has what the option `unseen` works on.

    Raises:
        ConfigError: naming what would fit.
    """
    batch_norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    tracking = [m for m in network.modules() if isinstance(m, _NormBase) and m.running_mean is not None]
    reason = {
        "initial": "initial statistics (mean 0, variance 1) fit no scan" if tracking else "",
        "recalibrate": "" if set(batch_norms) & set(tracking) else "has no BatchNorm with running statistics",
        "instance": "" if batch_norms else "has no BatchNorm",
    }.get(unseen, "")
    if reason:
        fitting = [*([] if tracking else ["initial"]), "average"]
        fitting += ["recalibrate"] if set(batch_norms) & set(tracking) else []
        fitting += ["instance"] if batch_norms else []
        raise ConfigError(
            f"personalization.unseen={unseen}: {type(network).__name__}: {reason}; choose {' or '.join(fitting)}."
        )


def average(sites: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Equal-weight mean of the sites' arrays, by name; added up in float64, dtype as given.

    The mean of running variances is the mean variance within a site. Of the variance of all sites taken together it
    leaves out the part that comes from the sites' means being different, so it is too small for features whose mean
    depends on the scanner. (In FedBN every site is a world of its own, so that part belongs to no site.)

    Raises:
        ValueError: no site, or sites with different names or shapes.
    """
    if not sites:
        raise ValueError("no site gave the arrays that stay local, so there is no mean of them.")
    first = {name: tensor.shape for name, tensor in sites[0].items()}
    if any({name: tensor.shape for name, tensor in site.items()} != first for site in sites):
        raise ValueError("the sites' local arrays have different names or shapes.")
    return {
        name: torch.stack([site[name].double() for site in sites]).mean(dim=0).to(tensor.dtype)
        for name, tensor in sites[0].items()
    }


def recalibrate(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give the BatchNorm layers of `network` the statistics of `batches`; no label is needed and nothing else changes.

    The running mean and variance become the plain means over the batches of each batch's mean and unbiased variance
    (torch's cumulative average), so the order of the batches has no influence short of rounding. Dropout is off and no
    gradient is computed; weights, biases, momentum and modes are as before.

    Args:
        network: on the device of the batches.
        batches: images float32 [B, 4, ...], all with the same B, or each counts the same whatever its size.

    Raises:
        ValueError: no BatchNorm with running statistics, or no batch; the network is untouched.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    if not layers:
        raise ValueError(f"{type(network).__name__} has no BatchNorm statistics to calibrate.")
    images = iter(batches)
    first = next(images, None)
    if first is None:
        raise ValueError("no scans to calibrate BatchNorm on.")
    modes = [(module, module.training) for module in network.modules()]
    momenta = [layer.momentum for layer in layers]
    network.eval()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # torch's sign for a cumulative average
            layer.train()
        with torch.no_grad():
            for batch in chain([first], images):
                network(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, training in modes:
            module.training = training


@contextmanager
def instance_statistics(network: nn.Module) -> Iterator[None]:
    """Within this context every BatchNorm of `network` normalises each sample by its own mean and variance.

    That is InstanceNorm with the weights and biases of the BatchNorm layers, in training mode and in evaluation;
    running statistics are neither used nor changed.

    Raises:
        ValueError: no BatchNorm in `network`.
    """
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    if not layers:
        raise ValueError(f"{type(network).__name__} has no BatchNorm to normalise by instance.")
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        vars(layer)["forward"] = partial(_normalise, layer)
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            if forward is None:
                del vars(layer)["forward"]
            else:
                vars(layer)["forward"] = forward


def _normalise(layer: _BatchNorm, features: Tensor) -> Tensor:
    return instance_norm(features, weight=layer.weight, bias=layer.bias, eps=layer.eps)
