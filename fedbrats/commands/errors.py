"""What goes wrong in a command, as one readable line and an exit status."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fedbrats.config.names import shown
from fedbrats.config.targets import ConfigError
from fedbrats.files import write_json, write_text

EXPECTED = (ConfigError, ValueError, OSError, RuntimeError)  # explained in one line; anything else is a bug
log = logging.getLogger(__name__)


@contextlib.contextmanager
def explain_errors(config: DictConfig, folder: Path) -> Iterator[None]:
    """Turn a failure into one line on standard error and exit code 2; in a sweep, record it and let the next job run.

    A job of a sweep that failed before it wrote anything leaves its configuration and the reason, for `compare`.
    """
    try:
        yield
    except Exception as error:
        _record_failure(config, folder, error)
        if HydraConfig.get().mode == RunMode.MULTIRUN or not isinstance(error, EXPECTED):
            raise
        log.debug("failed", exc_info=True)
        print(f"fedbrats: {shown(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None


def _readable(config: DictConfig) -> str:
    """`config` as YAML, with its values settled if they can be."""
    try:
        return OmegaConf.to_yaml(config, resolve=True)
    except Exception:
        return OmegaConf.to_yaml(config)


def _record_failure(config: DictConfig, folder: Path, error: Exception) -> None:
    """Leave the reason in the run folder, unless the run itself has written a summary."""
    if config.run.resume or not folder.is_dir() or (folder / "summary.json").exists():
        return
    if not (folder / "config.yaml").exists():
        write_text(folder / "config.yaml", _readable(config))
    reason = "".join(traceback.format_exception_only(error)).strip()
    write_json(folder / "summary.json", {"status": f"failed: {reason}"})
