"""The table of networks that `fedbrats models` prints: every file of conf/model, looked at without weights.

With `markdown=true` it is the table of README.md; a test holds the two together.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from fedbrats.commands.compose import compose_config, composed
from fedbrats.config.folder import conf_folder
from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.federation.parts import parts_of
from fedbrats.files import read_yaml
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.models import facts
from fedbrats.models.build import build_network, channels_last, dimensions, output_channels, patch_of
from fedbrats.models.node import has_small
from fedbrats.tasks.classification import CLASSIFICATION, LABEL
from fedbrats.tasks.segmentation import predicted_regions
from fedbrats.training.critic import critic_of
from fedbrats.training.vat import adversary_of

GB = 1e9
HEADINGS = {  # on a terminal
    "name": "model",
    "size": "size",
    "kind": "2D/3D",
    "regions": "predicts",
    "parameters": "parameters",
    "megabytes": "MB per round and site, each way",
    "norms": "norm layers",
    "bn_local": "BN-local",
    "private": "patient-level DP",
    "dropout": "MC dropout",
    "patch": "patch x batch",
    "gigabytes": "least training memory, GB",
    "seconds": "s/step",
    "peak": "measured peak, GB",
}
MARKDOWN = {
    "name": "`model=`",
    "source": "from",
    "kind": "",
    "regions": "predicts",
    "parameters": "parameters",
    "megabytes": "MB",
    "norms": "norm layers",
    "bn_local": "BN-local",
    "private": "DP",
    "patch": "patch x batch",
    "gigabytes": "GB",
}


@dataclass(frozen=True)
class ModelRow:
    """One network. `gigabytes` is `facts.training_bytes`; `seconds` and `peak` are filled by measuring on a GPU."""

    name: str
    size: str
    kind: str
    regions: str
    parameters: int
    megabytes: float
    norms: str
    bn_local: bool
    private: bool
    dropout: bool
    patch: str
    gigabytes: float
    source: str  # first line of its documentation, which names the paper
    seconds: float | None = None
    peak: float | None = None


def model_names(own: Path | None = None, size: str = "full") -> list[str]:
    """The networks there are configurations for, in the user's own folder too, and that come in this size.

    Raises:
        ConfigError: a file of the user's own cannot be composed.
    """
    folders = [conf_folder(), own] if own else [conf_folder()]
    files = {file.stem: file for folder in folders for file in (folder / "model").glob("*.yaml")}
    return [name for name in sorted(files) if size == "full" or _comes_small(files[name], own)]


def _comes_small(file: Path, own: Path | None) -> bool:
    """Most files say so themselves; one that is based on another has to be composed, which takes far longer."""
    try:
        model = OmegaConf.select(read_yaml(file), "model")
    except ValueError:  # composing says what is wrong with it
        model = None
    said = isinstance(model, DictConfig) and has_small(model)
    return said or has_small(composed([f"model={file.stem}"], own).model)


def config_of(name: str, own: Path | None = None, size: str = "full") -> Config:
    """The checked configuration of `model=<name> model.size=<size>` with everything else as default.

    Raises:
        ConfigError: no such model, or not in this size; the message names those there are.
    """
    names = model_names(own)
    if name not in names:
        raise ConfigError(f"model={name}: unknown; choose one of {', '.join(names)}.")
    return compose_config([f"model={name}", f"model.size={size}"], own)


def look_at(name: str, config: Config) -> ModelRow:
    """The row of one network, found without allocating its weights."""
    with torch.device("meta"):
        network = build_network(config.model)
    patch, batch = patch_of(config), config.train.batch
    network.eval()
    return ModelRow(
        name=name,
        size=str(config.model["size"]),
        kind=f"{dimensions(network)}D",
        regions=LABEL
        if _classifies(config)
        else ", ".join(predicted_regions(output_channels(network, patch))),
        parameters=facts.parameter_count(network),
        megabytes=facts.travelling_bytes(network) / 1e6,
        norms=facts.norm_layers(network),
        bn_local=bool(facts.batch_norm_arrays(network).statistics),
        private=not facts.mixing_modules(network),
        dropout=facts.has_dropout(network),
        patch=f"{'x'.join(map(str, patch))} x {batch}",
        gigabytes=facts.training_bytes(network, patch, batch) / GB,
        source=_source(config.model),
    )


def _classifies(config: Config) -> bool:
    return config.task.name == CLASSIFICATION.name


def _source(model: Mapping[str, Any]) -> str:
    """The first line that the module of a network says about it, or the network itself, without the full stop."""
    target = get_object(str(model["_target_"]))
    said = inspect.getdoc(sys.modules[target.__module__]) or inspect.getdoc(target) or ""
    return said.partition("\n")[0].removesuffix(".")


def measure(config: Config, steps: int = 5, on: str = "cuda") -> tuple[float, float]:
    """Seconds per training step and peak memory in bytes at the configured patch and batch; on a CPU no memory, 0.

    Raises:
        ConfigError: there is no GPU.
    """
    if gpu := on == "cuda":
        if not torch.cuda.is_available():
            raise ConfigError(
                "measure=true: torch sees no GPU here; leave it out for the figures without one."
            )
        torch.cuda.reset_peak_memory_stats()
    network = channels_last(build_network(config.model).to(on)).train()
    optimizer, loss = instantiate(config.train.optimizer)(network.parameters()), instantiate(config.loss)
    patch, batch, adversary = patch_of(config), config.train.batch, adversary_of(config.train.vat)
    amp = config.runtime.amp and gpu
    critic = critic_of(config.train.critic, parts_of(config).channels, on, amp)
    images = torch.randn(batch, 4, *patch, device=on)
    shape = (batch,) if _classifies(config) else (batch, *patch)
    labels = torch.randint(0, 2 if _classifies(config) else 4, shape, device=on, dtype=torch.uint8)
    started = 0.0
    for step in range(steps + 2):
        if step == 2:  # the first ones choose algorithms
            if gpu:
                torch.cuda.synchronize()
            started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(on, dtype=torch.bfloat16, enabled=amp):
            outputs = network(images)
        value = deep_supervised(loss, outputs, labels, config.train.deep_supervision).mean()
        (value if critic is None else value + critic.term(outputs)).backward()
        if adversary is not None:
            adversary(network, images, labels).backward()
        optimizer.step()
        if critic is not None:
            critic.step(outputs, labels)
    if gpu:
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / steps, torch.cuda.max_memory_allocated() if gpu else 0


def render(rows: Iterable[ModelRow]) -> Table:
    """The rows as a table for a terminal; columns that nothing fills are left out."""
    found = [asdict(row) for row in rows]
    columns = [key for key in HEADINGS if any(row[key] is not None for row in found)]
    table = Table()
    for key in columns:
        table.add_column(HEADINGS[key], justify="left" if key in ("name", "norms", "regions") else "right")
    for row in found:
        table.add_row(*(_cell(key, row[key]) for key in columns))
    return table


def markdown(rows: Iterable[ModelRow]) -> str:
    """The rows as a table in Markdown."""
    lines = [list(MARKDOWN.values()), ["---"] * len(MARKDOWN)]
    for row in map(asdict, rows):
        cells = [_cell(key, row[key]) for key in MARKDOWN]
        lines.append([f"`{cells[0]}`", *cells[1:]])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if key == "seconds" else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
