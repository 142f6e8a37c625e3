"""Whole runs of algorithms that remember something: a killed one goes on to the same bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fedbrats.commands.run.run import run
from tests.tiny import tiny

PLAIN = ("train/optimizer=sgd_plain", "train.optimizer.lr=0.05")
ALGORITHMS = {
    "fedadam": ("strategy=fedadam",),
    "scaffold": ("strategy=scaffold", *PLAIN),
    "fedavgm": ("strategy=fedavgm",),
    "fedyogi": ("strategy=fedyogi",),
    "fedadagrad": ("strategy=fedadagrad",),
    "fednova": ("strategy=fednova", *PLAIN),
    "feddyn": ("strategy=feddyn",),
    "median": ("strategy=median",),
    "trimmed_mean": ("strategy=trimmed_mean",),
    "norm_clipping": ("strategy=norm_clipping",),
    "fedcostwavg": ("strategy=fedcostwavg",),
    "fedpidavg": ("strategy=fedpidavg",),
    "fedpod": ("strategy=fedpod",),
    "clustered": ("strategy=clustered", "strategy.groups={a:[CBICA,TCIA01],b:[TCIA02]}"),
    "cfl": ("strategy=cfl", "strategy.wait=0", "strategy.eps=10"),
    "top_k": ("strategy.transfer=top_k",),
    "qfedavg": ("strategy=qfedavg", *PLAIN),
    "dwa": ("strategy=dwa",),
    "inverse_distance": ("strategy=inverse_distance",),
    "fltrust": ("strategy=fltrust", "strategy.root=CBICA"),
    "percentile_clipping": ("strategy=percentile_clipping",),
    "incremental": ("strategy=incremental",),
    "cyclic": ("strategy=cyclic",),
    "moon": ("strategy=moon",),
    "braintorrent": ("strategy=braintorrent",),
    "fedprox_adaptive": ("strategy=fedprox_adaptive", "strategy.mu=0.1", "strategy.patience=1"),
    "flower": ("strategy=flower",),
}
ADAPTIVE = {key: ["m/", "v/"] for key in ("fedadam", "fedyogi", "fedadagrad")}
MEMORY = {
    **ADAPTIVE,
    **{key: [""] for key in ("fedavgm", "feddyn", "scaffold", "braintorrent", "clustered", "cfl")},
}  # how its arrays begin
KEEPING = ("feddyn", "scaffold", "moon")  # something at the sites
SITES = ("CBICA", "TCIA01", "TCIA02")


# Those that look at nothing but the replies of a round have nothing to lose in a kill.
FORGETFUL = ("median", "trimmed_mean", "norm_clipping", "inverse_distance", "fltrust", "percentile_clipping")
EACH = [pytest.param(name, marks=pytest.mark.long if name in FORGETFUL else []) for name in ALGORITHMS]


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_a_killed_run_goes_on_to_the_same_bytes(cache: Path, tmp_path: Path, name: str) -> None:
    more = (*ALGORITHMS[name], "arms=[federated]", "rounds=3", "runtime.keep_checkpoints=2")
    whole = run(tiny(cache, *more), tmp_path / "whole")
    stopped = Path(shutil.copytree(whole, tmp_path / "stopped"))
    # As a kill in round 3 leaves it: the last checkpoint is that of round 2, the sites are one round ahead.
    (stopped / "summary.json").unlink()
    (stopped / "cases.csv").unlink()
    shutil.rmtree(stopped / "checkpoints" / "round_00003")
    last = {"round": 2, "folder": "round_00002"}
    (stopped / "checkpoints" / "last.json").write_text(json.dumps(last))
    trust = ["run.trust=[flwr]"] if name == "flower" else []  # of another package, so it has to be named
    run(tiny(cache, f"run.resume={stopped}", *trust), stopped, [f"run.resume={stopped}", *trust])
    files = [f.relative_to(whole) for f in (whole / "checkpoints" / "round_00003").iterdir()]
    files += [f.relative_to(whole) for f in whole.glob("sites/*/state/algorithm/round_00003.safetensors")]
    assert len(files) == 2 + (name in MEMORY) + 3 * (name in KEEPING)
    for file in (*files, Path("cases.csv")):
        assert (whole / file).read_bytes() == (stopped / file).read_bytes(), file


@pytest.mark.parametrize("name", ["fedadam", "scaffold"])
def test_running_statistics_have_no_part_in_what_is_remembered(
    cache: Path, tmp_path: Path, name: str
) -> None:
    unet = ("model=residual_unet", "model.size=small", "model.norm=batch", "train.patch=[16,16,16]")
    folder = run(tiny(cache, *ALGORITHMS[name], "arms=[federated]", "rounds=1", model=unet), tmp_path / "run")
    model = load_file(folder / "checkpoints" / "round_00001" / "federated.safetensors")
    memory = load_file(folder / "checkpoints" / "round_00001" / "federated.memory.safetensors")
    statistics = {name for name in model if name.endswith(("running_mean", "running_var"))}
    assert statistics
    assert all(float(model[name].min()) >= 0 for name in statistics if name.endswith("running_var"))
    expected = {f"{start}{array}" for array in model.keys() - statistics for start in MEMORY[name]}
    assert memory.keys() == expected
