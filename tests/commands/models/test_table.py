"""`fedbrats models`."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from fedbrats.commands.models.table import model_names
from tests.tiny import ROOT


def models(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "sims" / "models.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280)


@pytest.mark.slow
def test_the_table_says_what_was_found(tmp_path: Path) -> None:
    file = tmp_path / "models.csv"
    done = models("segresnet", "residual_unet", f"csv={file}")
    assert done.returncode == 0, done.stderr
    assert "4,702,227" in done.stdout
    with file.open(newline="") as lines:
        first, second = csv.DictReader(lines)
    assert (first["name"], first["size"], first["kind"]) == ("segresnet", "full", "3D")
    assert first["parameters"] == "4702227"
    assert first["norms"].startswith("GroupNorm")
    assert "Myronenko" in first["source"]
    assert second["name"] == "residual_unet"


@pytest.mark.slow
def test_small_variants_are_listed_on_request(tmp_path: Path) -> None:
    file = tmp_path / "models.csv"
    done = models("size=small", f"csv={file}")
    assert done.returncode == 0, done.stderr
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["name"] for row in rows] == model_names(size="small")
    assert {row["size"] for row in rows} == {"small"}
    assert max(int(row["parameters"]) for row in rows) < 5_000_000


@pytest.mark.slow
def test_the_table_of_the_readme_is_the_printed_one() -> None:
    done = models("markdown=true")
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert [line.split("`")[1] for line in printed[2:]] == model_names()
    assert done.stdout in (ROOT / "README.md").read_text(), (
        "README.md: put what `python sims/models.py markdown=true` prints in the place of its table of networks"
    )


@pytest.mark.slow
def test_unknown_names_and_options_are_refused() -> None:
    unknown = models("resnet")
    assert unknown.returncode == 2
    assert "model=resnet: unknown; choose one of" in unknown.stderr
    assert "segresnet" in unknown.stderr
    for option, said in (("measured=true", "measured: unknown"), ("size=tiny", "must be full or small")):
        refused = models("segresnet", option)
        assert refused.returncode == 2
        assert said in refused.stderr


@pytest.mark.slow
def test_measuring_needs_a_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        return
    done = models("segresnet", "size=small", "measure=true")
    assert done.returncode == 2
    assert "no GPU" in done.stderr
