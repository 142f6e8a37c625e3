"""The table of networks that `fedbrats models` prints: every file of conf/model, looked at without weights."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from rich.table import Table

from fedbrats.commands.compose import compose_config, conf_folder
from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.models import facts
from fedbrats.models.build import build_network, channels_last, dimensions, output_channels, patch_of
from fedbrats.outputs import predicted_regions

GB = 1e9
HEADINGS = {
    "name": "model",
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


@dataclass(frozen=True)
class ModelRow:
    """One network. `gigabytes` is `facts.training_bytes`; the last two are filled by measuring on a GPU."""

    name: str
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
    seconds: float | None = None
    peak: float | None = None


def model_names(own: Path | None = None) -> list[str]:
    """The networks there are configurations for, in the user's own folder too."""
    folders = [conf_folder(), own] if own else [conf_folder()]
    return sorted({file.stem for folder in folders for file in (folder / "model").glob("*.yaml")})


def config_of(name: str, own: Path | None = None) -> Config:
    """The checked configuration of `model=<name>` with everything else as default.

    Raises:
        ConfigError: no such model; the message names those there are.
    """
    names = model_names(own)
    if name not in names:
        raise ConfigError(f"model={name}: unknown; choose one of {', '.join(names)}.")
    return compose_config([f"model={name}"], own)


def look_at(name: str, config: Config) -> ModelRow:
    """The row of one network, found without allocating its weights."""
    with torch.device("meta"):
        network = build_network(config.model)
    patch, batch = patch_of(config), config.train.batch
    network.eval()
    return ModelRow(
        name=name,
        kind=f"{dimensions(network)}D",
        regions=", ".join(predicted_regions(output_channels(network, patch))),
        parameters=facts.parameter_count(network),
        megabytes=facts.travelling_bytes(network) / 1e6,
        norms=facts.norm_layers(network),
        bn_local=bool(facts.batch_norm_arrays(network).statistics),
        private=not facts.mixing_modules(network),
        dropout=facts.has_dropout(network),
        patch=f"{'x'.join(map(str, patch))} x {batch}",
        gigabytes=facts.training_bytes(network, patch, batch) / GB,
    )


def measure(config: Config, steps: int = 5) -> tuple[float, float]:
    """Seconds per training step and peak memory in bytes on this machine's GPU, at the configured patch and batch.

    Raises:
        ConfigError: there is no GPU.
    """
    if not torch.cuda.is_available():
        raise ConfigError("measure=true: torch sees no GPU here; leave it out for the figures without one.")
    device = torch.device("cuda")
    network = channels_last(build_network(config.model).to(device)).train()
    optimizer, loss = instantiate(config.train.optimizer)(network.parameters()), instantiate(config.loss)
    patch, batch = patch_of(config), config.train.batch
    images = torch.randn(batch, 4, *patch, device=device)
    labels = torch.randint(0, 4, (batch, *patch), device=device, dtype=torch.uint8)
    torch.cuda.reset_peak_memory_stats()
    started = 0.0
    for step in range(steps + 2):
        if step == 2:  # the first ones choose algorithms
            torch.cuda.synchronize()
            started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=config.runtime.amp):
            outputs = network(images)
        deep_supervised(loss, outputs, labels, config.train.deep_supervision).mean().backward()
        optimizer.step()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / steps, torch.cuda.max_memory_allocated()


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


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if key == "seconds" else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
