"""From overrides to a configuration: where its files are, and what Hydra needs to know before it reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fedbrats.checks.config import checked
from fedbrats.commands.overrides import readable
from fedbrats.config import schema
from fedbrats.config.folder import conf_folder
from fedbrats.config.paths import absolute
from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.models import node
from fedbrats.studies.naming import job_name

# What Hydra raises on files and overrides.
CANNOT_COMPOSE = (HydraException, OmegaConfBaseException, YAMLError)
OWN = ("--config-dir", "-cd")  # Hydra's names for the user's own folder of configurations


def _run_folder(resume: str | None, name: str) -> str:
    return str(absolute(str(resume))) if resume else f"outputs/{name}"


def register_with_hydra() -> None:
    """Register the schema and the resolvers that the files of conf/ use; may be called again."""
    schema.register()
    OmegaConf.register_new_resolver(node.RESOLVER, node.sized, replace=True)
    OmegaConf.register_new_resolver("fedbrats.run_folder", _run_folder, replace=True)
    OmegaConf.register_new_resolver("fedbrats.job_name", job_name, replace=True)


def own_folder(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Take `--config-dir DIR` (or `=DIR`, or `-cd`), the user's own folder of configurations, out of the arguments.

    Returns:
        The folder, None where none is given, and the other arguments.

    Raises:
        ConfigError: no such folder, or a file in it that has the name of a packaged one, which would win.
    """
    folder, rest, waiting = None, list[str](), iter(arguments)
    for argument in waiting:
        name, equals, value = argument.partition("=")
        if name not in OWN:
            rest.append(argument)
            continue
        given = value if equals else next(waiting, "")
        folder = Path(given).expanduser()
        if not given or not folder.is_dir():
            raise ConfigError(f"--config-dir {given}: no such folder.")
    if folder:
        packaged = conf_folder()
        names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.yaml"))
        if taken := [name for name in names if (packaged / name).is_file()]:
            raise ConfigError(
                f"--config-dir {folder}: {', '.join(taken)} would be ignored, as a file that comes with fedbrats has "
                "that name; choose another."
            )
    return folder, rest


def compose_config(overrides: Sequence[str], own: Path | None = None) -> Config:
    """The checked configuration of `key=value` overrides as a run takes them, with the user's own folder if any.

    Raises:
        ConfigError: an unknown key or group, or a value of a wrong type, named in the message.
    """
    return checked(composed(overrides, own))


def composed(overrides: Sequence[str], own: Path | None = None) -> DictConfig:
    """The same as it was composed, before its values are settled and checked.

    Raises:
        ConfigError: an unknown key or group, or a file that is not YAML.
    """
    register_with_hydra()
    GlobalHydra.instance().clear()
    more = [f"hydra.searchpath=[file://{own.resolve()}]"] if own else []
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return compose("config", overrides=[*readable(overrides), *more])
    except CANNOT_COMPOSE as error:
        raise ConfigError(": ".join(map(str, filter(None, [error, error.__cause__])))) from error
