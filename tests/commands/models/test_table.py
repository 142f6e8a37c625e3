"""`fedbrats models`."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from fedbrats.commands.models.command import main
from fedbrats.commands.models.table import model_names
from tests.tiny import ROOT


@pytest.mark.slow
def test_the_table_says_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "models.csv"
    assert main(["segresnet", "residual_unet", f"csv={file}"]) == 0
    assert "4,702,227" in capsys.readouterr().out
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
    assert main(["segresnet", "dr_unet104", "size=small", f"csv={file}"]) == 0
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["name"], row["size"]) for row in rows] == [("segresnet", "small"), ("dr_unet104", "small")]


@pytest.mark.slow
def test_the_table_of_the_readme_is_the_printed_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Head and order; the row of each network is looked for in tests/models/test_every_model.py."""
    assert main(["segresnet", "markdown=true"]) == 0
    head = capsys.readouterr().out.splitlines()[:2]
    lines = (ROOT / "README.md").read_text().splitlines()
    rows = lines[lines.index(head[0]) + 1 :]
    assert rows[0] == head[1]
    assert [line.split("`")[1] for line in rows[1 : 1 + len(model_names())]] == model_names()
    assert not rows[1 + len(model_names())].startswith("|")


def test_unknown_names_and_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resnet"]) == 2
    unknown = capsys.readouterr().err
    assert "model=resnet: unknown; choose one of" in unknown
    assert "segresnet" in unknown
    for option, said in (("measured=true", "measured: unknown"), ("size=tiny", "must be full or small")):
        assert main(["segresnet", option]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would measure")
def test_measuring_needs_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["segresnet", "size=small", "measure=true"]) == 2
    assert "no GPU" in capsys.readouterr().err
