"""Words of a command line as the commands read them that do without Hydra."""

from __future__ import annotations

from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedbrats.config.interpolations import refuse_environment
from fedbrats.config.targets import ConfigError


def path(text: str) -> Path:
    """A path as it was typed; `~` is the home folder even where no shell has seen it."""
    return Path(text).expanduser()


def assign(config: Any, schema: type, argument: str, under: str = "") -> None:
    """Set what `key=value` says in `config`.

    A text is taken as it was typed, whatever YAML would make of its brackets, `=`, `#` or umlauts; `null` is none.

    Args:
        config: of OmegaConf, structured.
        schema: the dataclass that it is made of.
        argument: as it was typed.
        under: beginning of the keys that `schema` has in `config`, with its dot.

    Raises:
        ConfigError: no `=`, an unknown key, a value of the wrong type or of the environment; the key is named.
    """
    key, equals, value = argument.partition("=")
    if not equals:
        raise ConfigError(f"{argument}: expected key=value")
    refuse_environment(value, key)
    try:
        OmegaConf.update(config, key, _value(_hint(schema, key.removeprefix(under)), value))
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error


def _hint(schema: Any, key: str) -> Any:
    for part in key.split("."):
        schema = get_type_hints(schema).get(part) if is_dataclass(schema) else None
    return schema


def _value(hint: Any, value: str) -> Any:
    if value == "null":
        return None
    if hint in (str, str | None):
        return value
    if hint is Any and not value.startswith(("[", "{")):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        if value.startswith("[") and value.endswith("]"):  # a list of paths, some with signs of YAML in them
            return [text.strip() for text in value[1:-1].split(",")]
        return value if hint is Any else yaml.safe_load(value)
