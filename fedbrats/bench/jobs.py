"""How large each measured job is: written here, whatever the defaults of a model or of the trainer come to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedbrats.commands.compose import compose_config
from fedbrats.config.schema import Config


@dataclass(frozen=True)
class Job:
    """A federation of equal sites on the phantom."""

    sites: int = 5
    cases: int = 6  # of a site, all for training
    shape: tuple[int, int, int] = (64, 64, 48)  # voxels of a case
    patch: int = 32  # voxels along each side
    batch: int = 2
    steps: int = 8  # of a site in one round
    rounds: int = 5
    filters: int = 8  # initial filters of the SegResNet
    device: str = "cpu"
    amp: bool = False  # bf16, on a GPU

    @property
    def names(self) -> list[str]:
        """Of the sites."""
        return [f"TCIA{number:02d}" for number in range(1, self.sites + 1)]

    @property
    def all_steps(self) -> int:
        """Of all sites in all rounds."""
        return self.sites * self.rounds * self.steps

    def __str__(self) -> str:
        return (
            f"SegResNet of {self.filters} filters, {self.batch} patches of {self.patch}^3 a step, {self.sites} sites "
            f"of {self.cases} cases, {self.rounds} rounds of {self.steps} steps"
        )


def config_of(job: Job, folder: Path, *more: str) -> Config:
    """The checked configuration of a job whose phantom and cache lie below `folder`; `more` are overrides besides."""
    sites = ",".join(f"{name}:{job.cases}" for name in job.names)
    overrides = [
        "model=segresnet",
        "model.size=full",
        f"model.init_filters={job.filters}",
        "train=small",
        f"train.patch={_list([job.patch] * 3)}",
        f"train.batch={job.batch}",
        f"train.local_steps={job.steps}",
        f"data.phantom.sites={{{sites}}}",
        f"data.phantom.shape={_list(job.shape)}",
        "partition.val=0",
        "partition.test=0",
        f"rounds={job.rounds}",
        "runtime.threads=1",
        f"runtime.amp={job.amp}",
        *more,
    ]
    config = compose_config(overrides)
    return replace(
        config,
        data=replace(config.data, cache=str(folder / "cache")),
        runtime=replace(config.runtime, device=job.device),
    )


def _list(numbers: Sequence[int]) -> str:
    return f"[{','.join(map(str, numbers))}]"
