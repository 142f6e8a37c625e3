"""What goes wrong in a command, as one readable line and an exit status."""

from __future__ import annotations

import contextlib
import logging
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedbrats.commands.run.sweep import FAILED, AnotherJob, note, sweep_folder
from fedbrats.config.interpolations import refuse_environment
from fedbrats.config.names import shown
from fedbrats.config.targets import ConfigError
from fedbrats.files import write_json, write_text

EXPECTED = (ConfigError, ValueError, OSError, RuntimeError)  # explained in one line; anything else is a bug
log = logging.getLogger(__name__)


@contextlib.contextmanager
def explain_errors(config: DictConfig, folder: Path) -> Iterator[None]:
    """Turn a failure into one line on standard error, with how to go on where the folder has a run to go on with.

    A single run then ends with status 2, after Ctrl-C with 130. In a sweep the next job begins, what became of this
    one is noted, and a job that failed before it wrote anything leaves its configuration and the reason, for `compare`;
    Ctrl-C ends all of it. What nobody expects is a bug and shows its traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        _say(f"stopped{_how_to_resume(folder) or '; nothing was begun that could be resumed'}")
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        going_on = _how_to_resume(folder) if isinstance(error, OSError | RuntimeError) else ""
        if not isinstance(error, AnotherJob):
            _record_failure(config, folder, error)
        expected, sweep = isinstance(error, EXPECTED), HydraConfig.get().mode == RunMode.MULTIRUN
        if not (expected or sweep):
            raise
        if not expected:
            traceback.print_exc()
        log.debug("failed", exc_info=True)
        reason = (str(error) or type(error).__name__) + going_on
        if not sweep:
            _say(reason)
            raise SystemExit(2) from None
        note(sweep_folder(), folder, FAILED, reason)
        _say(f"job {folder.name} failed: {reason}")


def _say(text: str) -> None:
    print(f"fedbrats: {shown(text)}", file=sys.stderr, flush=True)


def _how_to_resume(folder: Path) -> str:
    """The end of a sentence that says how to go on, "" where there is nothing to go on with."""
    if not (folder / "config.yaml").is_file():
        return ""
    return f"; go on with: fedbrats run {shlex.quote(f'run.resume={folder}')}"


def _readable(config: DictConfig) -> str:
    """`config` as YAML, with its values settled if they can be and none is taken from the environment."""
    try:
        refuse_environment(OmegaConf.to_container(config, resolve=False))
        return OmegaConf.to_yaml(config, resolve=True)
    except (ConfigError, OmegaConfBaseException):
        return OmegaConf.to_yaml(config)


def _record_failure(config: DictConfig, folder: Path, error: Exception) -> None:
    """Leave the reason in the run folder, unless the run itself has written a summary."""
    if config.run.resume or not folder.is_dir() or (folder / "summary.json").exists():
        return
    reason = "".join(traceback.format_exception_only(error)).strip()
    with contextlib.suppress(OSError):  # a full disk may be the very reason
        if not (folder / "config.yaml").exists():
            write_text(folder / "config.yaml", _readable(config))
        write_json(folder / "summary.json", {"status": f"failed: {reason}"})
