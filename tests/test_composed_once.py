"""What is made once in a process of tests is what Hydra itself makes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl as loader
from omegaconf import OmegaConf

from fedbrats.commands.compose import composed, register_with_hydra
from fedbrats.config.targets import ConfigError
from tests.composed_once import HYDRAS
from tests.tiny import ROOT

CASES = (
    "rounds=4",
    "experiment=demo",
    "experiment=demo rounds=7 strategy=fedprox strategy.mu=0.2",
    "model=nnunet model.size=full +train.site_steps.TMC=3 ~scenario.clock",
    "model=nnunet",
    "train/optimizer=ranger train.optimizer.lr=0.5",
    "model=nonet",
    "rounds.x=4",
)


def found(case: str) -> str:
    register_with_hydra()
    try:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return OmegaConf.to_yaml(compose("config", overrides=case.split(), return_hydra_config=True))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def test_it_is_what_hydra_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    once = [found(case) for case in (*CASES, *CASES)]
    listing, composing = HYDRAS
    assert loader.create_defaults_list is not listing
    monkeypatch.setattr(loader, "create_defaults_list", listing)
    monkeypatch.setattr(loader.ConfigLoaderImpl, "_compose_config_from_defaults_list", composing)
    assert once == 2 * [found(case) for case in CASES]
    assert len(set(once)) == len(CASES)


def test_a_file_of_a_users_own_is_read_every_time(tmp_path: Path) -> None:
    own = tmp_path / "loss"
    own.mkdir()
    for weight in (1, 2):
        (own / "mine.yaml").write_text(f"_target_: fedbrats.losses.dice.Dice\nsmooth: {weight}\n")
        assert composed(["loss=mine"], tmp_path).loss.smooth == weight
    with pytest.raises(ConfigError, match="loss/mine"):
        composed(["loss=mine"])
