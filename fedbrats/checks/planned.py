"""Checks of `model.plan`: who can be planned, what excludes it, and a plan that a file brings."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from fedbrats.config.paths import absolute
from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.federation.parts import Parts
from fedbrats.models.planned import FEDERATED, PLANNED, asks_sites, read_plan, with_plan
from fedbrats.privacy.dp_sgd import DpSgd

NEEDS = ("channels", "strides", "kernels")  # arguments of a network that can be planned
UNSET = {"model.strides": None, "model.kernels": None, "train.patch": None, "model.input.normalise": "zscore"}


def refuse_by_hand(config: DictConfig) -> None:
    """Refuse a plan beside what it would set, set by hand, in a configuration as it was composed.

    A file of conf/model says `${fedbrats.sized:...}` where a plan may come; whatever else stands there, somebody
    has set.

    Raises:
        ConfigError: naming both keys.
    """
    asked = OmegaConf.select(config, "model.plan")
    if asked is None:
        return
    _check_takes(config.model)
    for key in (*PLANNED, *UNSET):
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(config, parent)
        if not isinstance(node, DictConfig) or name not in node or OmegaConf.is_interpolation(node, name):
            continue
        if key not in UNSET or node[name] != UNSET[key]:
            raise ConfigError(
                f"{key}={node[name]} and model.plan={asked} exclude each other: the plan sets it; leave {key} out, or "
                "set model.plan=null."
            )


def with_plan_asked(config: Config, base: Path | None = None) -> Config:
    """`config` with the plan of the file that `model.plan` names; one that asks the sites has its survey switched on.

    Raises:
        ConfigError: neither the word nor a file with a plan.
    """
    asked = config.model.get("plan")
    if asked is None or config.model.get("strides"):
        return config
    if asked == FEDERATED:
        return replace(config, survey=replace(config.survey, enabled=True))
    file = absolute(str(asked), base)
    if not isinstance(asked, str) or not file.is_file():
        raise ConfigError(
            f"model.plan={asked}: choose {FEDERATED}, null, or the file of a plan that a run has written."
        )
    _check_takes(config.model)
    found = with_plan(config, read_plan(file, f"model.plan={asked}"))
    return replace(found, model={**found.model, "plan": str(file)})


def check_model_plan(config: Config, parts: Parts) -> None:
    """Check what `model.plan` asks for.

    Raises:
        ConfigError: naming the key and the fix.
    """
    memory: Any = config.model.get("plan_memory", 1.0)
    if isinstance(memory, bool) or not isinstance(memory, int | float) or not 0 < memory < math.inf:
        raise ConfigError(f"model.plan_memory={memory}: GB above 0 that a plan reckons with.")
    asked = config.model.get("plan")
    if asked is None:
        return
    _check_takes(config.model)
    if not asks_sites(config):
        if not config.model.get("strides"):
            raise ConfigError(
                f"model.plan={asked}: a plan that was never put in; begin with `fedbrats run` or `study start`."
            )
        return
    if isinstance(parts.privacy, DpSgd):
        raise ConfigError(
            f"model.plan={FEDERATED}: what the sites tell for it is not in the ledger of privacy=dp_sgd; make the plan "
            "in a run without privacy, and name its plan.json: model.plan=<file>."
        )
    if config.train.init is not None:
        raise ConfigError(
            f"model.plan={FEDERATED} and train.init exclude each other: the weights are of a network that stands; "
            "name the plan.json of that run: model.plan=<file>."
        )
    if not config.survey.enabled:
        raise ConfigError(f"model.plan={FEDERATED}: asks the sites for histograms; set survey.enabled=true.")


def _check_takes(model: Mapping[Any, Any]) -> None:
    target = str(model.get("_target_"))
    try:
        takes = inspect.signature(get_object(target)).parameters
    except Exception:
        return  # building it says why
    if lacks := [key for key in NEEDS if key not in takes]:
        raise ConfigError(
            f"model.plan={model.get('plan')}: {target.rpartition('.')[2]} cannot be planned, it takes no "
            f"{', '.join(lacks)}; set model=nnunet, or model.plan=null."
        )
