"""What a configuration names, each part built once: the algorithm, the network, and what is found by looking at it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from fedbrats import arrays
from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.config.schema import Config, InputConfig, PostprocessConfig
from fedbrats.config.secure import SecureAggregation, mechanism, secure_aggregation
from fedbrats.config.targets import build_once, check_target
from fedbrats.metrics.table import Metric, with_more
from fedbrats.models.build import build_network, input_rules, output_channels, patch_of, wrapped
from fedbrats.models.node import arguments
from fedbrats.personalization.base import Personalization
from fedbrats.postprocess.steps import Step, build_steps
from fedbrats.seeding import seed_torch
from fedbrats.tasks.classification import CLASSIFICATION, LABEL
from fedbrats.tasks.segmentation import SEGMENTATION, predicted_regions
from fedbrats.tasks.task import Task


@dataclass(frozen=True)
class Parts:
    """The parts of a configuration. All of them may be shared: nobody changes what is here.

    blank: the network without memory (meta device), for whatever can be found by looking at it.
    """

    algorithm: FedAvg
    loss: Any
    privacy: Any  # DpSgd, Central or None
    personalization: Personalization | None
    optimizer: torch.optim.Optimizer  # of one number, to look at
    blank: nn.Module
    model: dict[str, Any]  # its node
    patch: list[int]  # sides of a training patch in voxels
    postprocess: PostprocessConfig
    metrics: tuple[Metric, ...]  # of the test at the end
    seed: int
    task: Task = SEGMENTATION
    secure: SecureAggregation | None = None

    @cached_property
    def rules(self) -> InputConfig:
        """What the network takes."""
        return input_rules(self.model)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Steps of post-processing, as configured."""
        return tuple(build_steps(self.postprocess))

    @cached_property
    def channels(self) -> int:
        """Output channels of the network. Raises ValueError: it does not take its patch."""
        return output_channels(self.blank.eval(), self.patch)

    @cached_property
    def regions(self) -> tuple[str, ...]:
        """The regions that the network predicts; of a classification the label."""
        if self.classifies:
            return (LABEL,)
        return predicted_regions(self.channels)

    @property
    def classifies(self) -> bool:
        """Whether the network gives one value per case, and not one per voxel."""
        return self.task is CLASSIFICATION

    @cached_property
    def signature(self) -> arrays.Signature:
        """All arrays that could travel."""
        return arrays.signature(arrays.travelling(self.blank))

    @cached_property
    def trainable(self) -> frozenset[str]:
        """Names of the arrays that are trained."""
        return frozenset(arrays.trainable(self.blank))

    @cached_property
    def stays(self) -> tuple[str, ...]:
        """Names of the arrays that never leave a site. Raises ValueError: the network has nothing of the kind."""
        return self.personalization.stays(self.blank, self.patch) if self.personalization else ()

    @cached_property
    def network(self) -> nn.Module:
        """The untrained network with the weights of the seed, on the CPU. Whoever trains takes a copy."""
        seed_torch(self.seed, "initial weights")
        return build_network(self.model)

    def without_stays(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of `tensors` that leave a site."""
        return {name: tensor for name, tensor in tensors.items() if name not in self.stays}


_BUILT: dict[str, Parts] = {}  # by what they are made of, the latest only
_BLANK: dict[
    str, nn.Module
] = {}  # by its node, the latest only: the jobs of a sweep often share their network


def parts_of(config: Config) -> Parts:
    """The parts that `config` names; while nothing of them changes they are built once in a process.

    Raises:
        ConfigError: something cannot be built; the message names the key and what the target says.
    """
    made_of = {
        **{key: getattr(config, key) for key in ("model", "loss", "strategy", "privacy", "personalization")},
        "steps": config.postprocess.steps,
        "metrics": config.metrics.more,
        "train": [config.train.optimizer, config.train.patch],
        "seed": config.seed,
        "task": config.task.name,
    }
    text = json.dumps(made_of, sort_keys=True)
    if text not in _BUILT:
        parts = _build(config)
        _BUILT.clear()
        _BUILT[text] = parts
    return _BUILT[text]


def _build(config: Config) -> Parts:
    nodes: dict[str, Any] = {key: getattr(config, key) for key in ("model", "loss", "strategy")}
    nodes["model"] = arguments(config.model)
    beside = {"privacy": mechanism(config.privacy), "personalization": config.personalization}
    nodes |= {key: node for key, node in beside.items() if node}
    nodes |= {f"postprocess.steps[{i}]": step for i, step in enumerate(config.postprocess.steps)}
    for key, node in (nodes | {"train.optimizer": config.train.optimizer}).items():
        check_target(key, node)
    classifies = config.task.name == CLASSIFICATION.name
    network = json.dumps(config.model, sort_keys=True)
    if network in _BLANK:
        del nodes["model"]
    built = build_once(nodes, config.train.optimizer)
    if network not in _BLANK:
        _BLANK.clear()
        _BLANK[network] = wrapped(built["model"], config.model)
    return Parts(
        algorithm=built["strategy"],
        loss=instantiate(config.loss),
        privacy=built.get("privacy"),
        secure=secure_aggregation(config.privacy),
        personalization=built.get("personalization"),
        optimizer=built["train.optimizer"],
        blank=_BLANK[network],
        model=config.model,
        patch=patch_of(config),
        postprocess=config.postprocess,
        metrics=() if classifies else with_more(config.metrics.more),
        seed=config.seed,
        task=CLASSIFICATION if classifies else SEGMENTATION,
    )
