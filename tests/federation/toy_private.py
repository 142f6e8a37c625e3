"""A hospital of four training patients under patient-level privacy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fedbrats.arrays import travelling
from fedbrats.federation import wire
from fedbrats.federation.site.budget import Budget
from tests.federation.toy import GROUP_MODEL, group_network, write_toy_run
from tests.federation.toy_sites import Process

HOSPITAL = {"A": {"train": ["a1", "a2", "a3", "a4"], "val": ["a5", "a6"], "test": ["a7"]}}
DP = {"_target_": "fedbrats.privacy.dp_sgd.DpSgd", "sigma": 1.0, "expected_patients": 2}


def runtime(tmp_path: Path, privacy: dict[str, Any] = DP, **changed: Any) -> Process:
    folder, _ = write_toy_run(tmp_path, HOSPITAL, model=GROUP_MODEL, privacy=privacy, rounds=4, **changed)
    return Process(folder)


def model() -> Any:
    torch.manual_seed(0)
    return wire.to_record(travelling(group_network()))


def train(found: Process, round_: int = 1, sent: Any = None) -> dict[str, Any]:
    return found.train("A", sent or model(), "federated", round_)


def budget(found: Process) -> Budget:
    return found.site("A").budget


def ledger_file(found: Process) -> Path:
    return budget(found).storage / "ledger.json"
