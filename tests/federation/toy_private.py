"""A hospital of four training patients under patient-level privacy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fedbrats.federation import exchange, site_privacy
from fedbrats.federation.site_runtime import SiteRuntime
from tests.federation.toy import GROUP_MODEL, group_network, write_toy_run

HOSPITAL = {"A": {"train": ["a1", "a2", "a3", "a4"], "val": ["a5", "a6"], "test": ["a7"]}}
DP = {"_target_": "fedbrats.privacy.dp_sgd.DpSgd", "sigma": 1.0, "expected_patients": 2}


def runtime(tmp_path: Path, privacy: dict[str, Any] = DP, **changed: Any) -> SiteRuntime:
    folder, _ = write_toy_run(tmp_path, HOSPITAL, model=GROUP_MODEL, privacy=privacy, rounds=4, **changed)
    return SiteRuntime(folder)


def model() -> Any:
    torch.manual_seed(0)
    return exchange.to_record(exchange.travelling(group_network()))


def train(found: SiteRuntime, round_: int = 1, sent: Any = None) -> dict[str, Any]:
    return found.train("A", sent or model(), "federated", round_, 0)[0]


def ledger_file(found: SiteRuntime) -> Path:
    return site_privacy.storage(found, "A") / "ledger.json"
