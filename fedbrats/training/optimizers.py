"""A site's optimiser: its rate in a round, clipping, and its moments as a file holds them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply the configured learning rate by `factor`, that of the round."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("base_lr", group["lr"]) * factor


def clip_in_steps(optimizer: torch.optim.Optimizer, norm: float) -> None:
    """Clip the gradient of all parameters of `optimizer` together to `norm` before each of its steps."""

    def clip(*step: Any) -> None:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], norm)

    optimizer.register_step_pre_hook(clip)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's moments as named tensors, "parameter index.name", for safetensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": value.detach().to("cpu").contiguous()
        for index, entries in state.items()
        for key, value in entries.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; the hyper-parameters stay those of `optimizer`."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
