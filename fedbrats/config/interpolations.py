"""Values that stand for others, `${...}`: which of them a configuration may hold."""

from __future__ import annotations

from typing import Any

from fedbrats.config.targets import ConfigError

ENVIRONMENT = "oc.env"  # OmegaConf's word for it


def refuse_environment(node: Any, key: str = "") -> None:
    """Refuse values that are taken from the environment: settled, they would stand in whatever a run writes.

    `node`: of a configuration as it was composed, interpolations as written.

    Raises:
        ConfigError: naming the key.
    """
    if isinstance(node, dict):
        for name, value in node.items():
            refuse_environment(value, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            refuse_environment(value, f"{key}[{index}]")
    elif isinstance(node, str) and ENVIRONMENT in node and "${" in node:
        raise ConfigError(
            f"{key}={node}: what a variable of the environment holds would be written into config.yaml and the report; "
            "if it may stand there, let the shell put it in ($NAME), else leave it out."
        )


def check_settled(node: Any, file: str, key: str = "") -> None:
    """No value may be an interpolation: it would be settled with what is known here, as the environment is.

    Raises:
        ConfigError: naming `file` and the key.
    """
    if isinstance(node, dict):
        for name, value in node.items():
            inside = f"{key}.{name}" if key else str(name)
            check_settled(str(name), file, inside)
            check_settled(value, file, inside)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            check_settled(value, file, f"{key}[{index}]")
    elif isinstance(node, str) and "${" in node:
        raise ConfigError(f"{file}: {key}={node}: a run folder holds settled values, no ${{...}}.")
