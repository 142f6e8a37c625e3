"""What a run was made with: versions, commit, hardware."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = (
    "fedbrats",
    "flwr",
    "hydra-core",
    "monai",
    "nibabel",
    "numpy",
    "pandas",
    "scipy",
    "simpleitk",
    "torch",
    "ray",
)


def describe_environment() -> dict[str, Any]:
    """Versions of what computes, the source and the commit of a checkout, the hardware, the command."""
    return {
        **made_by(),
        "commit": _commit(),
        "hardware": _hardware(),
        "command": " ".join(sys.argv),
    }


def made_by() -> dict[str, Any]:
    """What decides what a configuration computes: versions, and the SHA-256 of this package's own source."""
    return {"versions": {"python": platform.python_version(), **_versions()}, "code": _source()}


@cache
def _source() -> str:
    """SHA-256 of the source files by their names, in hex."""
    here, found = Path(__file__).resolve().parent, hashlib.sha256()
    for file in sorted(here.rglob("*.py")):
        found.update(f"{file.relative_to(here).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return found.hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    """Commit of the checkout this package lies in, with "+changes" when files differ; outside one FEDBRATS_COMMIT."""
    here = Path(__file__).resolve().parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(here, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("FEDBRATS_COMMIT", "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


def _hardware() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"machine": platform.machine(), "processor": _processor(), "cores": os.cpu_count(), "gpus": gpus}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
