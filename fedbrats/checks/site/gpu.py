"""Whether there is the GPU that `device` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fedbrats.checks.site.finding import FIX, OK, WARNING, Finding

DRIVER = Path("/proc/driver/nvidia/version")
FREE = 4e9  # bytes below which hardly any network in 3D trains


def check_gpu(device: str, driver: Path = DRIVER) -> Finding:
    """Look for a GPU that torch can use, its driver and its free memory.

    Args:
        device: of site.yaml: auto, cpu or cuda.
        driver: the file that the NVIDIA driver of the machine leaves.
    """
    if device == "cpu":
        return Finding("gpu", OK, "not asked for: device=cpu", "", {"torch": torch.__version__})
    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "driver": _driver(driver),
    }
    if not torch.cuda.is_available():
        said = _why_none(facts)
        if device == "auto":
            return Finding(
                "gpu", WARNING, f"{said} Until then this site computes on its processor.", "", facts
            )
        return Finding("gpu", FIX, f"{said} Or set device=cpu.", "", facts)
    try:
        free, total = torch.cuda.mem_get_info()
        capability = torch.cuda.get_device_capability()
    except RuntimeError:
        said = "is there, but cannot be used: another program may hold it alone. Look with nvidia-smi."
        return Finding("gpu", FIX, said, "", facts)
    facts |= {
        "name": torch.cuda.get_device_name(),
        "GB": round(total / 1e9, 1),
        "free GB": round(free / 1e9, 1),
    }
    said = f"{facts['name']}, {free / 1e9:.1f} GB free of {total / 1e9:.1f}"
    said += f", driver {facts['driver']}, CUDA {facts['cuda']}"
    if not _built_for(capability):
        built = ", ".join(torch.cuda.get_arch_list())
        said += f": this torch is built for {built}, not for sm_{capability[0]}{capability[1]}; install another build."
        return Finding("gpu", FIX, said, "", facts)
    if free < FREE:
        said += ": too little; end the other programs on it (nvidia-smi lists them)."
        return Finding("gpu", FIX if device == "cuda" else WARNING, said, "", facts)
    return Finding("gpu", OK, said, "", facts)


def _driver(file: Path) -> str:
    """Version of the driver, "none" without one."""
    try:
        words = file.read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return "none"
    return next((word for word in words if word[0].isdigit() and "." in word), "unknown")


def _why_none(facts: Mapping[str, Any]) -> str:
    driver, torch_, cuda = facts["driver"], facts["torch"], facts["cuda"]
    if driver == "none":
        return (
            "no NVIDIA driver is seen here. Install it on the machine; a container also needs the NVIDIA container "
            "toolkit and its GPU reservation (docker/README.md)."
        )
    if cuda == "none":
        return (
            f"driver {driver} is there, but torch {torch_} is built without CUDA. Install the CUDA build, or take the "
            "CUDA image."
        )
    return (
        f"driver {driver} is there, but torch (CUDA {cuda}) finds no GPU. The driver may be older than that CUDA, the "
        "container without a GPU reservation, or CUDA_VISIBLE_DEVICES empty."
    )


def _built_for(capability: tuple[int, int]) -> bool:
    """Whether torch's kernels run there: those of the same generation and not newer, or text to compile (PTX)."""
    major, minor = capability
    for name in torch.cuda.get_arch_list():
        kind, _, number = name.partition("_")
        digits = "".join(filter(str.isdigit, number))
        built = (int(digits[:-1]), int(digits[-1]))
        if kind == "compute" and built <= capability:
            return True
        if kind == "sm" and built[0] == major and built[1] <= minor:
            return True
    return False
