"""MOON, model-contrastive federated learning (Li, He and Song, CVPR 2021, Equation 3 and Algorithm 1)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedbrats.algorithms.base import Beside, Company, Left, Penalty, check_positive
from fedbrats.algorithms.fedavg import FedAvg

HOOKS = "_moon_hooks"  # attribute of a network that has any


@dataclass(frozen=True, kw_only=True)
class Moon(FedAvg):
    """A site's representation z of a batch is drawn to that of the global model and away from its own last one:

        l = -log exp(sim(z, z_glob) / T) / (exp(sim(z, z_glob) / T) + exp(sim(z, z_prev) / T))

    is added to the loss `mu` times, with the cosine similarity and the model that the site had at the end of its last
    round, where it has had one. The paper classifies: z is what a projection head makes of the encoder's output. A
    segmentation network has no such head, so z is the output of a layer (`layer`, by default the last but one module
    with weights, which feeds the output), averaged over the voxels. Running statistics of
    the last model are those that were received.
    """

    keeps_state: ClassVar[bool] = True

    mu: float = 1.0
    temperature: float = 0.5  # T
    layer: str | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: naming the key that is out of range.
        """
        super().__post_init__()
        if not self.mu >= 0:
            raise ValueError(f"strategy.mu={self.mu}: must be >= 0 (0 is FedAvg).")
        check_positive(self, "temperature")

    def refuses(self, company: Company) -> str | None:
        """The term looks at patients, so it may not come after the noise."""
        if company.patient_privacy:
            return "adds a term that looks at the images, which privacy=dp_sgd would not protect"
        if company.network is not None:
            try:
                module_of(company.network, self.layer or feeding_layer(company.network))
            except ValueError as error:
                return f"finds no representation: {error}"
        if company.own_start:
            return "draws a site to what it receives, from which it must begin; with this personalization it does not"
        return super().refuses(company)

    def begin(self, network: nn.Module, site: Beside) -> Penalty | None:
        """The contrastive term of each batch that the network has seen last; None in a site's first round."""
        _unhook(network)  # of a round that was broken off
        if self.mu == 0 or not site.kept:
            return None
        name = self.layer or feeding_layer(network)
        frozen = copy.deepcopy(network).eval().requires_grad_(False)
        last = copy.deepcopy(frozen)
        last.load_state_dict({**last.state_dict(), **site.kept})
        seen: dict[str, Tensor] = {}

        def keep(key: str, what: str) -> Any:
            def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
                seen[key] = inputs[0] if what == "input" else output

            return hook

        layer = module_of(network, name)
        hooks = [
            network.register_forward_hook(keep("images", "input")),
            layer.register_forward_hook(keep("z", "output")),
            module_of(frozen, name).register_forward_hook(keep("frozen", "output")),
            module_of(last, name).register_forward_hook(keep("last", "output")),
        ]
        network.__dict__[HOOKS] = hooks  # `end` takes them off

        def term() -> Tensor:
            images, z = seen["images"].detach(), seen["z"]
            with torch.no_grad():
                frozen(images)
                last(images)
            return self.mu * contrast(z, seen["frozen"], seen["last"], self.temperature)

        return term

    def end(self, network: nn.Module, site: Beside, steps: int, rate: float) -> Left:
        """The site keeps its trained arrays for the next round."""
        _unhook(network)
        kept = {
            name: network.get_parameter(name).detach().to("cpu", copy=True).contiguous()
            for name in site.start
        }
        return Left(kept)


def _unhook(network: nn.Module) -> None:
    for hook in network.__dict__.pop(HOOKS, []):
        hook.remove()


def contrast(z: Tensor, z_global: Tensor, z_last: Tensor, temperature: float) -> Tensor:
    """Equation 3, the mean over the batch, of outputs [batch, channels, ...] averaged over the voxels."""
    own, towards, away = (t.float().flatten(2).mean(2) for t in (z, z_global, z_last))
    near = functional.cosine_similarity(own, towards) / temperature
    far = functional.cosine_similarity(own, away) / temperature
    return functional.softplus(far - near).mean()  # -log(e^near / (e^near + e^far))


def feeding_layer(network: nn.Module) -> str:
    """Name of the last but one module with weights of its own, in the order in which the network names them."""
    names = [n for n, m in network.named_modules() if any(True for _ in m.parameters(recurse=False))]
    if len(names) < 2:
        raise ValueError("strategy.layer: the network has no layer before its output; name one")
    return names[-2]


def module_of(network: nn.Module, name: str) -> nn.Module:
    """The module called `name`. Raises ValueError: the network has none."""
    try:
        return network.get_submodule(name)
    except AttributeError as error:
        raise ValueError(f"strategy.layer={name}: the network has no such module") from error
