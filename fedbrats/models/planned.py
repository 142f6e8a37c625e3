"""A configuration whose network is planned: what `model.plan` asks for, and the plan put into its place.

A plan becomes plain settings (`model.channels`, `strides`, `kernels`, `input`, `train.batch`, `deep_supervision`), so
that whoever reads the config.yaml of a run needs nothing else. `plan.json` beside it says where they come from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.data.fingerprint import Fingerprint
from fedbrats.files import read_json, write_json
from fedbrats.models.planning import Plan, Planner, Topology, plan
from fedbrats.runs.case_tables import PLAN
from fedbrats.tasks.segmentation import is_softmax

FEDERATED = "federated"  # value of `model.plan`: from the histograms of all sites
MEMORY = 8.0  # GB, nnU-Net's own
# What a plan sets.
PLANNED = (
    *("model.channels", "model.strides", "model.kernels", "model.input.patch", "model.input.multiple"),
    *("train.batch", "train.deep_supervision"),
)
OUTPUTS_LEFT_OUT = 2  # of the lowest resolutions, in the loss


def asks_sites(config: Config) -> bool:
    """Whether the network is planned from what the sites tell."""
    return config.model.get("plan") == FEDERATED


def awaits_plan(config: Config) -> bool:
    """Whether that has not been done yet."""
    return asks_sites(config) and not config.model.get("strides")


def planner_of(model: Mapping[str, Any]) -> Planner:
    """What the plan of a `model` node keeps of it: the first and the last of its channels, its levels' convolutions."""
    out, channels = int(model.get("out_channels", 3)), list(model["channels"])
    return Planner(
        memory=float(model.get("plan_memory") or MEMORY),
        first=int(channels[0]),
        most=int(channels[-1]),
        convolutions=int(model.get("convolutions", 2)),
        labels=out if is_softmax(out) else out + 1,  # nnU-Net counts the background of regions, too
    )


def make_plan(config: Config, found: Fingerprint) -> Plan:
    """The plan of the network of `config`, which awaits one.

    Raises:
        ConfigError: the memory is too small for any.
    """
    try:
        return plan(found, planner_of(config.model))
    except ValueError as error:
        raise ConfigError(
            f"model.plan_memory={config.model.get('plan_memory')}: {error}; raise it."
        ) from error


def with_plan(config: Config, made: Plan) -> Config:
    """`config` with what `made` plans.

    All outputs of the decoder but the two of the lowest resolution count in the loss, each half as much as the one
    above (Isensee et al. 2021, supplementary note 2).
    """
    multiple = Topology(made.strides, made.kernels, made.patch).multiple
    given = {"patch": list(made.patch), "multiple": min(multiple), "normalise": "zscore"}
    model = {
        **config.model,
        "channels": list(made.channels),
        "strides": [list(of) for of in made.strides],
        "kernels": [list(of) for of in made.kernels],
        "input": {**(config.model.get("input") or {}), **given},
    }
    outputs = len(made.channels) - 1
    counted = max(1, outputs - OUTPUTS_LEFT_OUT)
    weights = [0.5**i if i < counted else 0.0 for i in range(outputs)]
    return replace(
        config, model=model, train=replace(config.train, batch=made.batch, deep_supervision=weights)
    )


def write_plan(folder: Path, made: Plan, found: Fingerprint, config: Config) -> None:
    """Write `plan.json`: what the sites told together, what the plan kept of the configuration, and the plan."""
    content = {
        "fingerprint": asdict(found),
        "planner": asdict(planner_of(config.model)),
        "plan": asdict(made),
    }
    write_json(folder / PLAN, content)


def digest_of(made: Plan) -> str:
    """SHA-256 of a plan, in hex: the same wherever it was worked out the same."""
    return sha256(json.dumps(asdict(made), sort_keys=True).encode()).hexdigest()


def read_plan(file: Path, where: str) -> Plan:
    """The plan in a file that `write_plan` wrote, on whatever machine.

    Raises:
        ConfigError: it holds no plan; `where` names it.
    """
    try:
        found = dict(read_json(file)["plan"])
        lists: dict[str, Any] = {
            key: tuple(tuple(of) for of in found.pop(key)) for key in ("strides", "kernels")
        }
        flat: dict[str, Any] = {
            key: tuple(found.pop(key)) for key in ("spacing", "patch", "channels", "reasons")
        }
        made = Plan(**found, **lists, **flat)
        whole = [made.batch, made.elements, *made.patch, *made.channels]
        whole += [n for of in (*made.strides, *made.kernels) for n in of]
        if not all(type(n) is int and n > 0 for n in whole) or len(made.patch) != 3:
            raise ValueError("numbers that no plan has")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{where}: {file} holds no plan ({error}); name the plan.json of a run.") from error
    return made
