"""Memory of this process."""

from __future__ import annotations

import math
import resource
from pathlib import Path

STATUS = Path("/proc/self/status")


def resident_megabytes() -> float:
    """MB (2^20 bytes) resident now; nan where the system does not say."""
    return _told("VmRSS")


def peak_megabytes() -> float:
    """The most MB ever resident. Not getrusage on Linux: its peak includes the parent's at the fork."""
    peak = _told("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 if math.isnan(peak) else peak


def _told(key: str) -> float:
    lines = STATUS.read_text().splitlines() if STATUS.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:")), math.nan)
