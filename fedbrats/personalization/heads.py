"""The output heads of a network, found by following its outputs back to the last modules that have parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from fedbrats.config.targets import ConfigError

Node = torch.autograd.graph.Node


def head_modules(network: nn.Module, patch: Sequence[int]) -> tuple[str, ...]:
    """Names of the modules that make the outputs of `network`, in order of registration.

    For every output (each one of a deeply supervised network) these are the modules with parameters of their own after
    which no other such module comes on the way to that output. The network is run once in training mode, with arrays
    on the meta device in the place of its own, so nothing is computed and it is as before.

    Args:
        network: on any device.
        patch: sides that it takes, in voxels.

    Raises:
        ConfigError: no output depends on such a module, or the network does not take the patch.
    """
    made_by: dict[Node, nn.Module] = {}
    with _watched(network, made_by):
        outputs = _outputs(network, patch)
    heads = {id(module) for output in outputs for module in _last(output, made_by)}
    names = tuple(name for name, module in network.named_modules() if id(module) in heads)
    if not names:
        raise ConfigError(
            f"personalization: no layer of {type(network).__name__} was found to make its outputs; name the layers "
            "in personalization.layers."
        )
    return names


@contextmanager
def _watched(network: nn.Module, made_by: dict[Node, nn.Module]) -> Iterator[None]:
    """Within this context `network` is in training mode, and what its modules with parameters make is written down."""

    def remember(module: nn.Module, inputs: Any, output: Any) -> None:
        for tensor in _tensors(output):
            if tensor.grad_fn is not None:
                made_by.setdefault(tensor.grad_fn, module)  # hooks of inner modules come first

    modes = [(module, module.training) for module in network.modules()]
    own = [m for m in network.modules() if any(True for _ in m.parameters(recurse=False))]
    hooks = [module.register_forward_hook(remember) for module in own]
    network.train()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for hook in hooks:
            hook.remove()


def _outputs(network: nn.Module, patch: Sequence[int]) -> list[Tensor]:
    ghosts: dict[str, Tensor] = {
        name: nn.Parameter(torch.empty_like(p, device="meta")) for name, p in network.named_parameters()
    }
    ghosts |= {name: torch.empty_like(b, device="meta") for name, b in network.named_buffers()}
    # Two samples, because BatchNorm in training refuses a single value per channel.
    images = torch.zeros(2, 4, *patch, device="meta")
    try:
        with torch.enable_grad():
            return _tensors(functional_call(network, ghosts, (images,)))
    except Exception as error:  # what a network says about a patch that it cannot take is its own
        raise ConfigError(
            f"personalization: the heads of {type(network).__name__} cannot be found by running it on {list(patch)} "
            f"voxels ({error}); name the layers in personalization.layers."
        ) from error


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    parts: Iterable[Any] = output if isinstance(output, Sequence) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _last(output: Tensor, made_by: dict[Node, nn.Module]) -> list[nn.Module]:
    """The modules nearest to `output` on every way back, without those that feed another of them."""
    nearest = [node for node in _before([output.grad_fn], made_by) if node in made_by]
    feeding = {before for node in nearest for before in _before(_inputs(node), {})}
    return [made_by[node] for node in nearest if node not in feeding]


def _before(starts: Iterable[Node | None], stop: dict[Node, nn.Module]) -> list[Node]:
    """`starts` and all that they were computed from, not looking behind the nodes of `stop`."""
    found: dict[Node, None] = {}
    todo = [node for node in starts if node is not None]
    while todo:
        node = todo.pop()
        if node not in found:
            found[node] = None
            todo += [] if node in stop else _inputs(node)
    return list(found)


def _inputs(node: Node) -> list[Node]:
    return [before for before, _ in node.next_functions if before is not None]
