"""Whole runs with secure aggregation: fresh masks every time, and the same model to the last bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fedbrats.commands.run.run import run
from tests.tiny import tiny

SECURE = ("privacy.secure_aggregation=true", "arms=[federated]", "rounds=3", "runtime.keep_checkpoints=3")


@pytest.mark.slow
def test_other_workers_and_a_resume_give_the_same_bytes(cache: Path, tmp_path: Path) -> None:
    whole = run(tiny(cache, *SECURE, "report.html=true"), tmp_path / "whole")
    stopped = run(tiny(cache, *SECURE, "runtime.workers=2"), tmp_path / "stopped")
    # As a kill in round 3 leaves it: the last checkpoint is that of round 2, the sites are one round ahead.
    shutil.rmtree(stopped / "checkpoints" / "round_00003")
    (stopped / "checkpoints" / "last.json").write_text(json.dumps({"round": 2, "folder": "round_00002"}))
    record = json.loads((stopped / "sites" / "CBICA" / "secure" / "rounds.json").read_text())
    assert record == {"checkpointed": 2, "unmasked": {"3": ["CBICA", "TCIA01", "TCIA02"]}}
    run(tiny(cache, f"run.resume={stopped}"), stopped, [f"run.resume={stopped}"])
    for file in ("checkpoints/round_00003/federated.safetensors", "cases.csv"):
        assert (whole / file).read_bytes() == (stopped / file).read_bytes(), file
    assert (whole / "report.html").is_file()
    plain = run(tiny(cache, *SECURE[1:]), tmp_path / "plain")
    one, two = (
        load_file(folder / "checkpoints" / "round_00001" / "federated.safetensors")
        for folder in (whole, plain)
    )
    # What is masked differs from the running mean in float32 by its rounding only.
    assert all(torch.allclose(one[name], two[name], rtol=1e-6, atol=1e-8) for name in one)
    assert not (plain / "sites" / "CBICA" / "secure").exists()
