"""What the federation costs on top of plain PyTorch, measured side by side on the phantom (`fedbrats bench`).

Each part returns rows (what, figure, bound). Parts that compare memory run in processes of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from fedbrats.bench.overhead import round_overhead, server_memory
from fedbrats.bench.privacy import private_step
from fedbrats.bench.rounds import Result
from fedbrats.bench.speed import engine_speed, gpu_speed, patch_reading, ray_speed
from fedbrats.config.schema import Config
from fedbrats.environment import describe_environment

PARTS: dict[str, Callable[[Path, Config], list[Result]]] = {
    "a": engine_speed,
    "b": ray_speed,
    "c": round_overhead,
    "d": server_memory,
    "e": patch_reading,
    "f": gpu_speed,
    "g": private_step,
}


def machine() -> str:
    """The machine in words, for the table's title."""
    found = describe_environment()
    hardware, versions = found["hardware"], found["versions"]
    gpus = ", ".join(hardware["gpus"]) or "no GPU"
    return (
        f"{hardware['processor']}, {hardware['cores']} cores, {gpus}; Python {versions['python']}, "
        f"torch {versions['torch']}, flwr {versions['flwr']}, {sys.platform}"
    )
