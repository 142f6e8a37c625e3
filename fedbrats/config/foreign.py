"""The configuration of a run folder, which anybody may have written: read, and what it may name. One way in for all.

Hydra builds whatever a `_target_` names, which is as good as a pickle. So a run folder may name, key by key, only what
the files of conf/ name there, and what a package holds that the user names on the command line of now.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import OmegaConf

from fedbrats.config.folder import conf_folder
from fedbrats.config.schema import Config, load_config
from fedbrats.config.targets import ConfigError
from fedbrats.files import read_yaml

# Where a target may stand, and the group of conf/ whose files say which.
GROUPS = {
    "model": "model",
    "loss": "loss",
    "strategy": "strategy",
    "privacy": "privacy",
    "personalization": "personalization",
    "train.optimizer": "train/optimizer",
    "postprocess.steps": "postprocess",
    "metrics.more": "metrics",
}
OF_PARTS = ("loss",)  # a loss may be made of losses
# What no file of conf/ names, and yet somebody may set.
BESIDE = {
    "train.optimizer": tuple(
        f"torch.optim.{name}"
        for name in ("Adagrad", "Adadelta", "Adamax", "ASGD", "NAdam", "RAdam", "RMSprop", "Rprop")
    ),
}
# Hydra's own words beside a target: their only value and the keys. `_args_` and `_recursive_` are none of them.
WORDS: dict[str, tuple[Any, Collection[str]]] = {
    "_convert_": ("all", GROUPS.keys()),
    "_partial_": (True, ("train.optimizer",)),
}


def foreign_config(folder: Path, where: str, trust: Sequence[str] = ()) -> Config:
    """The configuration of the run in `folder`, which names nothing but what may be built.

    Args:
        folder: of the run.
        where: what of the command line names it, for the message.
        trust: packages of the user's own that his command line names; any code of them may run.

    Raises:
        ConfigError: not a configuration of this version, an interpolation, or a target that it must not name.
    """
    config = load_config(folder / "config.yaml")
    check_trusted(asdict(config), where, trust)
    return config


def check_trusted(node: Any, where: str, trust: Sequence[str] = (), key: str = "") -> None:
    """Check that every `_target_` inside `node` is one that may stand at its key.

    Args:
        node: of the configuration of a run folder.
        where: it was found, for the message.
        trust: packages that the user's own command line names.
        key: of the node.

    Raises:
        ConfigError: naming the key and the target.
    """
    if isinstance(node, Mapping):
        if any(_is_word(name) for name in node):
            _check_target(node, where, trust, key)
        for name, value in node.items():
            check_trusted(value, where, trust, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            check_trusted(value, where, trust, f"{key}[{index}]")


def _is_word(name: Any) -> bool:
    """Whether Hydra may read the key `name` of a node itself."""
    return str(name).startswith("_") and str(name).endswith("_")


def _check_target(node: Mapping[str, Any], where: str, trust: Sequence[str], key: str) -> None:
    """Check what Hydra reads of one node: the target and the words beside it."""
    place, target = re.sub(r"\[\d+\]", "", key), node.get("_target_")
    group = next((known for known in GROUPS if f"{place}.".startswith(f"{known}.")), None)
    for word in filter(_is_word, node):
        value, groups = (target, GROUPS) if word == "_target_" else WORDS.get(word, (None, ()))
        if not isinstance(target, str) or group not in groups or node[word] != value:
            raise ConfigError(
                f"{where}: its configuration names {node[word]} at {key}.{word}, where a run folder names nothing."
            )
    whole = place == group or group in OF_PARTS
    if group is None or not ((whole and target in listed()[group]) or _is_own(str(target), trust)):
        raise ConfigError(
            f"{where}: its configuration names {target} at {key}; from a run folder only what the files of "
            f"conf/{GROUPS[str(group)]} name is built there, and what a package of your own holds that you name: "
            "trust=<package> (run: run.trust=[<package>], audit: --trust <package>)."
        )


def _is_own(target: str, trust: Sequence[str]) -> bool:
    """Whether `target` is defined in a package of `trust`; `brain_parts.os.system` is not, though it can be found."""
    inside = tuple(f"{package}." for package in trust)
    if not target.startswith(inside) or any(part.startswith("_") for part in target.split(".")):
        return False
    try:
        home = str(getattr(get_object(target), "__module__", ""))
    except Exception:
        return True  # what cannot be found cannot run; building it says why
    return f"{home}.".startswith(inside)


@cache
def listed() -> dict[str, frozenset[str]]:
    """The targets that may stand at each key: those of the files of conf/, and `BESIDE`."""
    found = {}
    for key, group in GROUPS.items():
        named = set(BESIDE.get(key, ()))
        for file in sorted((conf_folder() / group).glob("*.yaml")):
            content = OmegaConf.to_container(read_yaml(file), resolve=False)
            first = key.split(".")[0]  # of files that say "@package _global_"
            named |= set(_targets(content.get(first, content) if isinstance(content, dict) else content))
        found[key] = frozenset(named)
    return found


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from ([str(node["_target_"])] if "_target_" in node else [])
        node = list(node.values())
    for part in node if isinstance(node, list) else ():
        yield from _targets(part)
