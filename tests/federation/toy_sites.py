"""The sites of a toy run as one process serves them, asked by hand."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fedbrats.federation import questions
from fedbrats.federation.site.budget import BudgetReached
from fedbrats.federation.site.permits import SECURE
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.training import train
from fedbrats.federation.site.warm import Warm


class Process:
    """What `make_client_app` keeps: one network for all sites."""

    def __init__(self, folder: Path, baselines: Collection[str] = ()) -> None:
        self.folder, self.warm = folder, Warm(folder, baselines=baselines)
        self.sites: dict[str, Site] = {}

    @property
    def network(self) -> Any:
        return self.warm.network

    def site(self, name: str = "A") -> Site:
        return self.sites.setdefault(name, Site(name, self.warm))

    def train(
        self, name: str, sent: ArrayRecord, arm: str, round_: int, keep_from: int = 0, lr_factor: float = 1.0
    ) -> dict[str, Any]:
        """The metrics of a training reply, without its seconds. Raises BudgetReached where the site stops."""
        config = {"arm": arm, "round": round_, "checkpointed": keep_from, "lr-factor": lr_factor}
        reply = train(self.site(name), RecordDict({"arrays": sent, "config": ConfigRecord(config)}))
        if "stopped" in reply:
            raise BudgetReached(reply["stopped"]["reason"])
        return {key: value for key, value in reply["metrics"].items() if key != "seconds"}

    def load(self, sent: ArrayRecord, name: str, arm: str, before_round: int, **options: Any) -> None:
        self.site(name).load(RecordDict({"arrays": sent}), arm, before_round, **options)


def asked(sent: ArrayRecord, arm: str, round_: int, **config: Any) -> RecordDict:
    """The content of a message."""
    return RecordDict({"arrays": sent, "config": ConfigRecord({"arm": arm, "round": round_, **config})})


def question(kind: str, sent: ArrayRecord | None = None, **config: Any) -> RecordDict:
    """The content of a message that asks `kind` as the server does, with other values of `config` or more of them."""
    given: dict[str, Any] = {"arm": "federated", "round": 1}
    given |= {questions.TRAIN: {"checkpointed": 0, "lr-factor": 1.0, "validate": 0}}.get(kind, {})
    given |= {questions.TEST: {"steps": "[]", "whole": False}}.get(kind, {})
    if kind in SECURE:
        given["session"] = "x"
    given |= {questions.SHARES: {"sites": 3, "cases": 9}}.get(kind, {})
    given |= {questions.UNMASK: {"survivors": ["A"]}}.get(kind, {})
    records: dict[str, Any] = {} if sent is None else {"arrays": sent}
    if kind == questions.SHARES:
        records["roster"] = ConfigRecord({})
    return RecordDict({**records, "config": ConfigRecord({**given, **config})})


def weights(process: Process) -> torch.Tensor:
    """Those of the first layer, as they are now."""
    found: torch.Tensor = process.network[0].weight.detach().clone()
    return found
