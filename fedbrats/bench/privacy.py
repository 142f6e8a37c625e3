"""One private step beside a plain one on the same patches, our engines and Opacus: part (g).

On a CPU at 96^3 and 48^3 in one thread; `gpu` does it at 128^3. See `turns` for how it is measured.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from hydra.utils import instantiate
from monai.networks.blocks.segresnet_block import ResBlock
from torch import Tensor, nn

from fedbrats.bench.jobs import Job, config_of
from fedbrats.bench.rounds import Result
from fedbrats.bench.turns import Cost, Runner, Step, least_costs
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.models.build import build_network, channels_last
from fedbrats.privacy.mechanism import PrivateStep
from fedbrats.privacy.noise import secret_numbers
from fedbrats.training.loop import train_locally

NOT_INSTALLED = "not installed: pip install opacus"


@dataclass(frozen=True, kw_only=True)
class Case:
    """`patients` times `patches` (K) cubes of `side` voxels, and what is trained on them (nodes of a configuration)."""

    side: int
    patients: int
    patches: int = 1
    model: Mapping[str, Any]
    loss: Mapping[str, Any]
    optimizer: Mapping[str, Any]
    device: str = "cpu"
    amp: bool = False
    clip: float = 1.0  # the cost does not depend on it, nor on sigma
    sigma: float = 1.0


class Task:
    """A case made real: network, optimiser, loss and patches, the same for every way of taking a step."""

    def __init__(self, case: Case) -> None:
        """Weights and patches follow from a fixed seed."""
        torch.manual_seed(0)
        self.case = case
        self.network = channels_last(build_network(case.model).to(case.device)).train()
        self.optimizer = instantiate(case.optimizer)(self.network.parameters())
        self.loss = instantiate(case.loss)
        shape = (case.patients * case.patches, *(case.side,) * 3)
        self.images = torch.randn(shape[0], 4, *shape[1:]).to(case.device)
        self.labels = torch.randint(0, 4, shape, dtype=torch.uint8).to(case.device)

    def values(self, outputs: Any, labels: Tensor) -> Tensor:
        """Loss per patch, float32 [B]."""
        return deep_supervised(self.loss, outputs, labels)


Way = Callable[[Task], Step]


def plain(task: Task) -> Step:
    """What a site does without privacy, with all patches in one batch."""

    def step() -> None:
        data = iter([(task.images, task.labels)])
        train_locally(task.network, task.optimizer, task.loss, data, amp=task.case.amp)

    return step


def ours(task: Task, engine: str) -> Step:
    """Our own step."""
    case = task.case
    private = PrivateStep(
        task.network,
        task.values,
        clip=case.clip,
        sigma=case.sigma,
        expected=float(case.patients),
        noise=secret_numbers(),
        engine=engine,
        amp=case.amp,
    )
    patients = list(zip(task.images.split(case.patches), task.labels.split(case.patches)))

    def step() -> None:
        private.gradients(patients)
        task.optimizer.step()

    return step


def opacus(task: Task, ghost: bool) -> Step:
    """Opacus's step, with a patch as the unit, which its hooks cannot change."""
    handlers = list(logging.root.handlers)
    from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

    logging.root.handlers[:] = handlers  # importing it adds one
    network, case = out_of_place(task.network), task.case
    noise = {
        "noise_multiplier": case.sigma,
        "max_grad_norm": case.clip,
        "expected_batch_size": len(task.images),
    }
    if ghost:
        wrapped = GradSampleModuleFastGradientClipping(network, max_grad_norm=case.clip)
        optimizer = DPOptimizerFastGradientClipping(task.optimizer, **noise)
    else:
        wrapped, optimizer = GradSampleModule(network), DPOptimizer(task.optimizer, **noise)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        values = task.values(wrapped(task.images), task.labels)
        if ghost:
            DPTensorFastGradientClipping(wrapped, optimizer, values).backward()
        else:
            values.mean().backward()
        optimizer.step()

    return step


def out_of_place(network: nn.Module) -> nn.Module:
    """`network` without operations in place, which hooks on its modules do not survive; it computes the same."""

    def forward(block: Any, x: Tensor) -> Tensor:
        inner = block.conv1(block.act(block.norm1(x)))
        return x + block.conv2(block.act(block.norm2(inner)))

    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
        if isinstance(module, ResBlock):
            module.forward = MethodType(forward, module)
    return network


WAYS: dict[str, Way] = {
    "plain": plain,
    "microbatch": partial(ours, engine="microbatch"),
    "vmap": partial(ours, engine="vmap"),
    "Opacus hooks": partial(opacus, ghost=False),
    "Opacus ghost": partial(opacus, ghost=True),
}
OURS, OPACUS = ("plain", "microbatch", "vmap"), ("Opacus hooks", "Opacus ghost")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One way of `WAYS` in a comparison, and how many steps it takes; none where it is not installed."""

    way: str
    case: Case
    turns: int


@dataclass(frozen=True)
class Steps:
    """Private steps of a SegResNet with group norm: cubes of `large` with 2 patients, of `small` with 4."""

    large: int = 96  # voxels along each side
    small: int = 48
    filters: int = 16
    turns: int = 3

    def __str__(self) -> str:
        return (
            f"SegResNet of {self.filters} filters, 2 patients of {self.large}^3 and 4 of {self.small}^3, best of "
            f"{self.turns} steps"
        )


def case_of(job: Job, side: int, patients: int, device: str = "cpu") -> Case:
    """A case of the network of `job` with group norm."""
    config = config_of(job, Path())
    model = {**config.model, "norm": "group"}
    common: dict[str, Any] = {"loss": config.loss, "optimizer": config.train.optimizer, "device": device}
    return Case(side=side, patients=patients, model=model, **common)


def private_step(folder: Path, job: Steps) -> Iterator[Result]:
    """(g) A private step beside a plain one on the same patches."""
    network = Job(filters=job.filters)
    large, small = case_of(network, job.large, 2), case_of(network, job.small, 4)
    pairs = Entry(way="microbatch", case=replace(small, patients=2, patches=2), turns=job.turns)
    ours, theirs = entries(large, OURS, job.turns), entries(large, OPACUS, 1)
    yield from compared([*ours, *theirs], bound="<= 1.15")
    yield from compared([*entries(small, OURS, job.turns), pairs, *entries(small, OPACUS, 1)])


def entries(case: Case, ways: Iterable[str], turns: int) -> list[Entry]:
    """Each of `ways` on the same patches."""
    installed = importlib.util.find_spec("opacus") is not None
    return [Entry(way=way, case=case, turns=turns if installed or way in OURS else 0) for way in ways]


def _make(entry: Entry) -> Step:
    return WAYS[entry.way](Task(entry.case))


def compared(entries: Sequence[Entry], bound: str = "") -> list[Result]:
    """A row per entry, the first of which is the plain step; `bound` is that of the second one's ratio to it."""
    runners = [
        Runner(make=partial(_make, entry), turns=entry.turns, gpu=entry.case.device == "cuda")
        for entry in entries
    ]
    found = least_costs(runners)
    rows = []
    for i, (entry, cost) in enumerate(zip(entries, found)):
        figures = _figures(cost, found[0] if i else None) if entry.turns else NOT_INSTALLED
        rows.append((f"(g) {_what(entry)}", figures, bound if i == 1 else ""))
    return rows


def _what(entry: Entry) -> str:
    case = entry.case
    patches = "1 patch" if case.patches == 1 else f"{case.patches} patches"
    kind = f", {case.device}, {'bf16' if case.amp else 'float32'}" if case.device != "cpu" else ""
    return f"{case.side}^3, {case.patients} patients, {patches} each{kind}: {entry.way}"


def _figures(cost: Cost | str, reference: Cost | str | None) -> str:
    if isinstance(cost, str):
        return cost
    ratio = f", {cost.seconds / reference.seconds:.2f} of plain" if isinstance(reference, Cost) else ""
    return f"{cost.seconds:.2f} s{ratio}; {cost.megabytes:.0f} MB"
