"""The server's own configuration, `server.yaml`: where the federation's credentials are, and where studies lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from omegaconf import OmegaConf

from fedbrats.config.targets import ConfigError
from fedbrats.files import read_yaml

VARIABLE = (
    "FEDBRATS_SERVER"  # of the environment: the file, for the processes that `fedbrats server start` begins
)


@dataclass
class ServerFile:
    """The server of a federation."""

    federation: str = ""  # folder of `fedbrats federation init`
    storage: str = ""  # folder of studies, logs and the SuperLink's database
    superlink: str | None = None  # host where its other processes find the SuperLink; None: this machine
    listen: str = "0.0.0.0"  # address at which the SuperLink listens
    port: int | None = None  # None: the one that the federation was begun with
    database: bool = (
        False  # the SuperLink keeps its runs on disk and outlives a restart; for models up to 100 MB
    )
    sites: list[str] = field(default_factory=list)  # that a study asks; none named: all that are enrolled
    wait_days: float = (
        7.0  # that a study waits for its sites to connect, prepare and approve, or to come back
    )


def load_server_file(file: Path) -> ServerFile:
    """The configuration of a server; relative paths start from its folder.

    Raises:
        ConfigError: the file cannot be read, an unknown key, a value of another type or out of range, by key.
    """
    try:
        stored = OmegaConf.create(read_yaml(file))
        merged = OmegaConf.merge(OmegaConf.structured(ServerFile), stored)
        found = cast(ServerFile, OmegaConf.to_object(merged))
    except Exception as error:
        raise ConfigError(
            f"{file}: not the configuration of a server ({' '.join(str(error).split())})"
        ) from error
    base = file.resolve().parent
    for key in ("federation", "storage"):
        value = getattr(found, key)
        if not value:
            raise ConfigError(f"{file}: {key}='': name a folder")
        setattr(found, key, str(base / Path(value).expanduser()))
    if found.port is not None and not 1 <= found.port <= 65535:
        raise ConfigError(f"{file}: port={found.port}: 1 to 65535, or null")
    if not found.wait_days > 0:
        raise ConfigError(f"{file}: wait_days={found.wait_days}: above 0")
    if len(set(found.sites)) < len(found.sites):
        raise ConfigError(f"{file}: sites={found.sites}: each once")
    return found
