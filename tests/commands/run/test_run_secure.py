"""Whole runs with secure aggregation: fresh masks every time, and the same model to the last bit."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from fedbrats.commands.run.run import run
from fedbrats.privacy.secure_aggregation.ring import FixedPoint
from fedbrats.report.public import PUBLIC_NAME
from fedbrats.report.terminal import print_result_table
from fedbrats.runs.secure import COLUMNS, TABLE
from tests.report.test_html import text_of
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
    TABLE.append(stopped, [dict.fromkeys(COLUMNS, 99) | {"round": 3}])  # and a row that is made again
    run(tiny(cache, f"run.resume={stopped}"), stopped, [f"run.resume={stopped}"])
    for file in ("checkpoints/round_00003/federated.safetensors", "cases.csv"):
        assert (whole / file).read_bytes() == (stopped / file).read_bytes(), file
    _assert_said(whole)
    assert [row["round"] for row in TABLE.rows(stopped)] == ["1", "2", "3"]
    plain = run(tiny(cache, *SECURE[1:]), tmp_path / "plain")
    one, two = (
        load_file(folder / "checkpoints" / "round_00001" / "federated.safetensors")
        for folder in (whole, plain)
    )
    # What is masked differs from the running mean in float32 by its rounding only.
    assert all(torch.allclose(one[name], two[name], rtol=1e-6, atol=1e-8) for name in one)
    assert not (plain / "sites" / "CBICA" / "secure").exists()
    assert "Secure aggregation" not in _printed(plain)
    assert not (plain / TABLE.name).exists()


def _assert_said(folder: Path) -> None:
    """Both reports and the terminal say once what the rounds used."""
    used = [
        (int(r["asked"]), int(r["threshold"]), int(r["cases"]), int(r["bits"])) for r in TABLE.rows(folder)
    ]
    sites = json.loads((folder / "partition.json").read_text())["sites"]
    cases = sum(len(site["train"]) for site in sites)
    bits = FixedPoint.of(cases, 65536.0).bits
    assert used == [(3, 3, cases, bits)] * 3
    said = re.compile(
        r"Secure aggregation: in 3 of 3 rounds .* only their sum, of 3 sites at least, was unmasked; 3 of 3 sites had "
        r"to stay to the end of a round \(threshold\), and rounding .* by more than (\S+)\."
    )
    texts = [text_of((folder / name).read_text()) for name in ("report.html", PUBLIC_NAME)]
    for text in (*texts, _printed(folder)):
        (bound,) = said.findall(" ".join(text.split()))
        exact = 3 / (2 * cases) * 2.0**-bits
        assert exact <= float(bound) < 1.1 * exact


def _printed(folder: Path) -> str:
    stream = io.StringIO()
    print_result_table(folder, Console(file=stream, width=80))
    return stream.getvalue()
