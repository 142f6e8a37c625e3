"""Run folders made by hand, with untrained networks that nonetheless predict something."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hydra import compose, initialize_config_dir

from fedbrats.checks.config import checked
from fedbrats.checks.settings import settle
from fedbrats.commands.compose import register_with_hydra
from fedbrats.config.schema import Config, save_config
from fedbrats.data.family_table import BRATS_2017
from fedbrats.federation.initial import initial_arrays
from fedbrats.federation.parts import parts_of
from fedbrats.runs.checkpoint import Model, save_best, save_checkpoint
from tests.tiny import OVERRIDES, ROOT, tiny


def compose_run(cache: Path, model: str | None, overrides: Sequence[str]) -> Config:
    """The settled configuration of a tiny run, with another model on request."""
    if model is None:
        return settle(checked(tiny(cache, *overrides)))
    common = [o for o in OVERRIDES if not o.startswith(("model", "train"))]
    chosen = [f"model={model}", "model.size=small", *common, f"data.cache={cache}", *overrides]
    register_with_hydra()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return settle(checked(compose("config", overrides=chosen)))


def make_run(
    folder: Path,
    *overrides: str,
    model: str | None = None,
    arms: Mapping[str, int] | None = None,
    rounds: int = 2,
) -> Config:
    """A run folder of `arms` (name -> seed of its weights) after `rounds` rounds, the first of which was the best.

    The weights of round r and arm seed s come from seed 100 s + r. A prior of 0.5 lets them predict some of everything.
    """
    config = compose_run(folder.parent / "cache", model, ["model.prior=0.5", "postprocess=none", *overrides])
    folder.mkdir(parents=True)
    save_config(config, folder / "config.yaml")
    system = BRATS_2017.to_json()
    (folder / "partition.json").write_text(json.dumps({"label_system": system}))
    for round_ in range(1, rounds + 1):
        models = {}
        for arm, seed in (arms or {"federated": 0}).items():
            arrays = initial_arrays(parts_of(replace(config, seed=100 * seed + round_)), None)
            models[arm] = Model(arrays, best_round=1, best_score=0.5)
            if round_ == 1:
                save_best(folder / "checkpoints", arm, arrays)
        save_checkpoint(folder / "checkpoints", round_, models, keep=rounds)
    return config
