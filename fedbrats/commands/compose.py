"""From overrides to a configuration: what Hydra needs to know before it reads `conf/`."""

from __future__ import annotations

from omegaconf import OmegaConf

from fedbrats import config as config_module


def _run_folder(resume: str | None, name: str) -> str:
    return str(resume) if resume else f"outputs/{name}"


def register_with_hydra() -> None:
    """Register the schema and the resolver that `conf/config.yaml` uses; may be called again."""
    config_module.register()
    OmegaConf.register_new_resolver("fedbrats.run_folder", _run_folder, replace=True)
