"""`fedbrats models`."""

from __future__ import annotations

import subprocess
import sys

from tests.tiny import ROOT


def models(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "sims" / "models.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_table_says_what_was_found(tmp_path) -> None:
    file = tmp_path / "models.csv"
    done = models("segresnet", "residual_unet_small", f"csv={file}")
    assert done.returncode == 0, done.stderr
    assert "4,701,123" in done.stdout or "segresnet" in done.stdout
    header, first, second = file.read_text().splitlines()
    assert header.startswith("name,kind,regions,parameters,megabytes,norms,bn_local,private")
    assert first.split(",")[:2] == ["segresnet", "3D"]
    assert "GroupNorm" in first
    assert second.startswith("residual_unet_small,3D")


def test_unknown_names_and_options_are_refused() -> None:
    unknown = models("resnet")
    assert unknown.returncode == 2
    assert "model=resnet: unknown; choose one of" in unknown.stderr
    assert "segresnet_small" in unknown.stderr
    option = models("segresnet", "measured=true")
    assert option.returncode == 2
    assert "measured" in option.stderr


def test_measuring_needs_a_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        return
    done = models("segresnet_small", "measure=true")
    assert done.returncode == 2
    assert "no GPU" in done.stderr
