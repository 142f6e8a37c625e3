"""The smallest real federation: a phantom of three institutions and an unseen one, seconds per run."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from fedbrats.commands.compose import register_with_hydra

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("model=segresnet", "model.size=small")
MODEL = (*SMALL, "model.blocks_down=[1,1]", "model.blocks_up=[1]", "train.patch=[16,16,16]")
OVERRIDES = (
    "train=small",
    "train.local_steps=2",
    "data.phantom.sites={TCIA01:5,TCIA02:4,CBICA:3,TCIA13:1}",
    "data.phantom.shape=[32,32,24]",
    "partition.holdout=[TCIA13]",
    "inference.overlap=0.0",
    "rounds=2",
    "report.html=false",
    "runtime.workers=0",
)


def tiny_overrides(cache: Path, *more: str, model: tuple[str, ...] = MODEL) -> list[str]:
    """Overrides of a tiny run whose phantom and cache lie in `cache`; later ones win."""
    return [*OVERRIDES, *model, f"data.cache={cache}", *more]


def one_round(cache: Path, folder: Path, *model: str) -> None:
    """Train such a network for one round; all sites must have answered and the model be there."""
    from fedbrats.commands.run.run import run

    done = run(tiny(cache, "arms=[federated]", "rounds=1", model=model), folder)
    rows = (done / "rounds.csv").read_text().splitlines()
    assert any(",ok," in row for row in rows)
    assert not any(",failed," in row for row in rows)
    assert (done / "checkpoints" / "round_00001" / "federated.safetensors").is_file()


def tiny(cache: Path, *more: str, model: tuple[str, ...] = MODEL) -> DictConfig:
    """The composed configuration of a tiny run."""
    register_with_hydra()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=tiny_overrides(cache, *more, model=model))
