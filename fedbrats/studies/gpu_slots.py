"""GPUs for jobs that a launcher runs at once on one machine: each of its processes keeps one for itself."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from fedbrats.config.targets import ConfigError
from fedbrats.devices import GPUS, visible_gpus
from fedbrats.files import locked

FOLDER = ".gpus"  # in that of the sweep
WAIT = 1.0  # seconds between two looks; a slot is free again when the process that had it has ended


@dataclass
class _Process:
    gpu: str | None = None
    lock: ExitStack = field(default_factory=ExitStack)


_process = _Process()


def keep_gpu(folder: Path, jobs: int, per_gpu: int) -> str | None:
    """Let this process see one of the visible GPUs only, which at most `per_gpu` processes of the sweep have.

    A process keeps its GPU, as CUDA does: later jobs in it have the same one. It must not have begun with CUDA before.

    Args:
        folder: of the sweep; the slots are locked files there, by the name of the machine.
        jobs: that the launcher runs at once.
        per_gpu: processes that may share a GPU (`run.jobs_per_gpu`).

    Returns:
        The GPU as `CUDA_VISIBLE_DEVICES` names it; None where none is visible.

    Raises:
        ConfigError: more jobs at once than slots, so that some would wait for the others to end.
    """
    if _process.gpu is not None:
        return _process.gpu
    gpus = visible_gpus()
    if not gpus:
        return None
    if jobs > len(gpus) * per_gpu:
        raise ConfigError(
            f"hydra.launcher.n_jobs={jobs}: {len(gpus)} GPUs are visible, with run.jobs_per_gpu={per_gpu} for "
            f"{len(gpus) * per_gpu} jobs at once; ask for fewer, or let more share a GPU (and set "
            "runtime.memory_fraction)."
        )
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    while True:
        for slot in range(per_gpu):
            for gpu in gpus:
                if _take(place / f"{socket.gethostname()}_{gpu}_{slot}"):
                    os.environ[GPUS] = _process.gpu = gpu
                    return gpu
        time.sleep(WAIT)


def _take(file: Path) -> bool:
    with ExitStack() as stack:
        if stack.enter_context(locked(file)):
            _process.lock = stack.pop_all()
            return True
    return False
