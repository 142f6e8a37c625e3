"""Checks of what a `_target_` of the configuration names: its arguments, and their values by building it once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

from hydra.utils import get_object, instantiate

# Annotations that say enough to check a value; anything else is left to the target.
KINDS: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "bool": bool, "str": str}


class ConfigError(ValueError):
    """A configuration that cannot run; the message names the key and the fix."""


def check_target(key: str, node: Mapping[str, Any]) -> None:
    """Check the arguments of a `_target_` against the signature it names, before anything is built.

    Raises:
        ConfigError: no such target, an unknown argument, one that is missing or of another type, named as
            `key.argument`.
    """
    target = node.get("_target_")
    if not target:
        given_anyway = f", only {', '.join(node)}" if node else ""
        raise ConfigError(
            f"{key}: has no _target_{given_anyway}; choose a file of conf/{key.replace('.', '/')}."
        )
    try:
        function = cast(Callable[..., Any], get_object(str(target)))
    except Exception as error:
        raise ConfigError(f"{key}._target_={target}: cannot be imported ({error}).") from error
    given = {name: v for name, v in node.items() if not (name.startswith("_") and name.endswith("_"))}
    parameters = inspect.signature(function).parameters
    for name in given.keys() & parameters.keys():
        _check_kind(f"{key}.{name}", given[name], parameters[name].annotation)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    unknown = sorted(given.keys() - parameters.keys())
    known = ", ".join(name for name in parameters if name not in ("self", "params"))
    if unknown:
        raise ConfigError(f"{key}.{'/'.join(unknown)}: {target} has no such option; it has {known}.")
    needed = {n for n, p in parameters.items() if p.default is p.empty and not node.get("_partial_")}
    if missing := sorted(needed - given.keys()):
        raise ConfigError(f"{key}.{'/'.join(missing)}: {target} needs a value.")


def _check_kind(name: str, value: Any, annotation: Any) -> None:
    word = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    kind = KINDS.get(word)
    if kind and (not isinstance(value, kind) or (isinstance(value, bool) and word != "bool")):
        raise ConfigError(f"{name}={value!r}: must be of type {word}.")


def build_once(nodes: Mapping[str, Mapping[str, Any]], optimizer: Mapping[str, Any]) -> dict[str, Any]:
    """Build what `nodes` (by key) and `train.optimizer` name, weights without memory, so that bad values show early.

    Returns:
        What was built, by key.

    Raises:
        ConfigError: with the key and what the target says.
    """
    import torch

    key, built = "", {}
    try:
        with torch.device("meta"):
            for key, node in nodes.items():
                built[key] = instantiate(node)
        key = "train.optimizer"
        built[key] = instantiate(optimizer)([torch.nn.Parameter(torch.zeros(1))])
    except Exception as error:
        reason = str(error.__cause__ or error)
        raise ConfigError(reason if reason.startswith(f"{key}.") else f"{key}: {reason}") from error
    return built
