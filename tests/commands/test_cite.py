"""The papers of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fedbrats.commands.cite import main
from fedbrats.config.schema import save_config
from fedbrats.studies.citing import papers
from tests.config.test_config import config_of


def test_every_part_is_listed_with_its_paper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of("strategy=fedprox", "model=segresnet", "personalization=bn_local", "model.norm=batch")
    save_config(config, tmp_path / "config.yaml")
    assert main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for part in (
        "strategy (FedProx): FedProx (Li et al., MLSys 2020",
        "SegResNet (Myronenko, BrainLes 2018)",
        "personalization (BnLocal): FedBN (Li et al., ICLR 2021",
        "federation (Flower): Beutel et al.",
        "report.floor (FLAIR threshold): Challenging Current Semi-supervised Anomaly Segmentation",
    ):
        assert part in said
    assert "FLAIR" not in str(papers({"report": {"floor": None}}))  # no floor, no paper of it


def test_nothing_of_other_packages_is_imported() -> None:
    found = papers(
        {"model": {"_target_": "nowhere.at.all.Net"}, "loss": {"_target_": "fedbrats.losses.gone.Loss"}}
    )
    assert found[:2] == [("model", "Net", "of nowhere"), ("loss", "Loss", "no paper named")]


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "config.yaml is missing" in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(["a", "list"]))
    assert main([str(tmp_path)]) == 2
