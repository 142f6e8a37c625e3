"""The node `model` of a configuration: what of it makes the network, and what its size changes.

A file of conf/model names a network (`_target_`), its arguments, what it takes (`input`), how large it is (`size`), and
whether it is planned (`plan`, `plan_memory`; `planned.py`).
Where the small variant, which trains on a CPU, differs from the full one, in `model`, `train` or elsewhere, the file
says both: `${fedbrats.sized:FULL,SMALL}`. Such a value is settled after all overrides, so what somebody sets himself
stands in its place. The size `auto` is small on phantoms and full on files. Nothing of it is left in the config.yaml of
a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import MODALITIES

AUTO, FULL, SMALL = "auto", "full", "small"
SIZES = (AUTO, FULL, SMALL)
RESOLVER = "fedbrats.sized"
ABOUT = ("input", "size", "plan", "plan_memory")  # keys that are no arguments of the network


def arguments(model: Mapping[str, Any]) -> dict[str, Any]:
    """What of a `model` node is instantiated: the `_target_` and its arguments.

    A network that sees some of the modalities only has as many `in_channels`.

    Raises:
        ConfigError: `model.input.modalities` names something else than modalities, or `in_channels` another number.
    """
    given = {key: value for key, value in model.items() if key not in ABOUT}
    seen = channels_of(model)
    if seen is not None:
        said = given.get("in_channels", len(MODALITIES))
        if said not in (len(MODALITIES), len(seen)):
            raise ConfigError(
                f"model.in_channels={said}: model.input.modalities names {len(seen)}; leave model.in_channels out."
            )
        given["in_channels"] = len(seen)
    return given


def channels_of(model: Mapping[str, Any]) -> list[int] | None:
    """Which channels of an image the network of a `model` node sees, in the order of `MODALITIES`; None: all of them.

    `model.input.modalities` is a set: in whatever order it is written, the network is the same.

    Raises:
        ConfigError: it is no list of one or more modalities, each once.
    """
    names = (model.get("input") or {}).get("modalities")
    if names is None:
        return None
    known = [str(name) for name in names] if not isinstance(names, str) else []
    if not known or set(known) - set(MODALITIES) or len(set(known)) < len(known):
        raise ConfigError(
            f"model.input.modalities={names}: a list of one or more of {', '.join(MODALITIES)}, each once, or null "
            "for all."
        )
    seen = sorted(MODALITIES.index(name) for name in known)
    return seen if len(seen) < len(MODALITIES) else None


def sized(full: Any, small: Any, *, _root_: DictConfig) -> Any:
    """The resolver: one of two values, as `model.size` of the whole configuration says.

    Raises:
        ConfigError: there is no such size.
    """
    value = small if size_of(_root_) == SMALL else full
    if isinstance(value, list | dict):  # a node, because `OmegaConf.resolve` cannot put in the plain value
        return OmegaConf.create(value)
    return value


def has_small(model: DictConfig) -> bool:
    """Whether something in a `model` node, as it was composed, depends on its size."""
    return f"${{{RESOLVER}:" in OmegaConf.to_yaml(model)


def check_size(config: DictConfig) -> None:
    """Check `model.size` of a configuration as it was composed, before its values are settled.

    Raises:
        ConfigError: there is no such size, or the network does not come in it.
    """
    model = config.get("model")
    if isinstance(model, DictConfig) and _said(model) == SMALL and not has_small(model):
        raise ConfigError(
            "model.size=small: nothing in model depends on it, so this network has no small variant (or all that it "
            f"changes is set already); set model.size=full, or say ${{{RESOLVER}:FULL,SMALL}} in its file."
        )


def size_of(config: DictConfig) -> str:
    """The size of the network in the whole configuration: "full" or "small", whether it is said or found.

    Raises:
        ConfigError: there is no such size.
    """
    said = _said(config.model)
    if said != AUTO:
        return said
    return SMALL if OmegaConf.select(config, "data.source") == "phantom" else FULL


def with_size(config: DictConfig) -> DictConfig:
    """A copy of a configuration as it was composed, whose `model.size` says "full" or "small"."""
    found = config.copy()
    if isinstance(found.get("model"), DictConfig):
        found.model.size = size_of(found)
    return found


def why_this_size(config: DictConfig) -> str | None:
    """What `model.size=auto` has become, in one line; None where the size is said."""
    if _said(config.model) != AUTO:
        return None
    size = size_of(config)
    why = "the heads are phantoms" if size == SMALL else "the cases are files"
    other = FULL if size == SMALL else SMALL
    return f"model.size=auto: {size}, because {why}; model.size={other} sets the other"


def _said(model: DictConfig) -> str:
    size = model.get("size", FULL)
    if size not in SIZES:
        raise ConfigError(f"model.size={size}: choose {', '.join(SIZES[:-1])} or {SIZES[-1]}.")
    return str(size)
