"""Three hospitals, one of them without training cases, whose sites keep something of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fedbrats.arrays import travelling
from fedbrats.federation import wire
from tests.federation.toy import toy_network, write_toy_run
from tests.federation.toy_sites import Process

HOSPITALS = {
    "A": {"train": ["a1", "a2"], "val": ["a3"], "test": ["a4"]},
    "B": {"train": ["b1", "b2"], "test": ["b3"]},
    "NEW": {"test": ["n1"]},
}
BN = ("1.weight", "1.bias", "1.running_mean", "1.running_var")


def method(name: str, **settings: Any) -> dict[str, Any]:
    kind = "".join(part.capitalize() for part in name.split("_"))
    return {"_target_": f"fedbrats.personalization.{name}.{kind}", **settings}


def runtime(tmp_path: Path, personal: dict[str, Any], **changed: Any) -> Process:
    folder, _ = write_toy_run(tmp_path, HOSPITALS, personalization=personal, rounds=3, **changed)
    return Process(folder)


def arrays() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {n: t.detach().clone() for n, t in travelling(toy_network()).items()}


def sent_without(stays: tuple[str, ...]) -> Any:
    return wire.to_record({n: t for n, t in arrays().items() if n not in stays})


def own(found: Process, site: str, before: int) -> dict[str, torch.Tensor]:
    return {n.removeprefix("stays/"): t for n, t in found.site(site).state_before(before).items()}
