"""Four hospitals under secure aggregation that answer through their ClientApp, with what passes the server kept."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, Message, RecordDict

from fedbrats.algorithms.fedavg import SIMULATED, FedAvg
from fedbrats.arrays import travelling
from fedbrats.config.secure import SecureAggregation
from fedbrats.engines.sites import answer, new_context
from fedbrats.federation import questions
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server import round_loop
from fedbrats.federation.server.state import Federation, Member
from fedbrats.federation.site.app import make_client_app
from fedbrats.federation.wire import to_record
from fedbrats.runs import secure as secure_files
from fedbrats.runs.checkpoint import Model
from fedbrats.runs.rounds import start
from tests.federation.toy import (
    GROUP_MODEL,
    FakeGrid,
    Quiet,
    error_message,
    group_network,
    request,
    write_toy_run,
)

CASES = {"A": 2, "B": 1, "C": 3, "D": 1}
SPLITS = {site: {"train": [f"{site}{i}" for i in range(n)]} for site, n in CASES.items()}
SECURE = {"secure_aggregation": True}
NODES = dict(zip(CASES, range(2, 6), strict=True))
SESSION = "0123abcd"
Broken = Collection[tuple[str, str]]  # site and question that it does not answer


def start_model() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: tensor.detach().clone() for name, tensor in travelling(group_network()).items()}


@dataclass
class Sites:
    """The hospitals, their storage and the server between them."""

    folder: Path
    broken: Broken = ()
    seen: list[tuple[str, str, RecordDict, RecordDict]] = field(default_factory=list)  # asked and answered

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """New processes: all that was in memory is gone."""
        self.app = make_client_app(str(self.folder))
        self.contexts = {site: new_context(node, {"site": site}) for site, node in NODES.items()}

    def handle(self, site: str, message: Message) -> Message:
        kind = message.metadata.message_type
        if (site, kind) in self.broken:
            return error_message("SiteError: no disc space", message)
        reply = answer(self.app, message, self.contexts[site])
        if not reply.has_error():
            self.seen.append((site, kind, message.content, reply.content))
        return reply

    def ask(self, site: str, kind: str, records: Any = None, round_: int = 1, **config: Any) -> Message:
        """A question by hand, as the server puts it, with other values of `config` or more of them."""
        given = {"arm": "federated", "round": round_, "session": SESSION}
        given |= {"checkpointed": 0, "lr-factor": 1.0, "validate": 0} if kind == questions.TRAIN else {}
        arrays = {"arrays": to_record(start_model())} if kind == questions.TRAIN else {}
        content = RecordDict({**arrays, **(records or {}), "config": ConfigRecord({**given, **config})})
        return self.handle(site, request(NODES[site], kind, content))

    def good(self, site: str, kind: str, records: Any = None, round_: int = 1, **config: Any) -> RecordDict:
        reply = self.ask(site, kind, records, round_, **config)
        assert not reply.has_error(), reply.error.reason
        return reply.content

    def refused(self, site: str, kind: str, records: Any = None, round_: int = 1, **config: Any) -> str:
        reply = self.ask(site, kind, records, round_, **config)
        assert reply.has_error()
        return str(reply.error.reason)

    def roster(self, round_: int = 1, **config: Any) -> dict[str, ConfigRecord]:
        """Keys of all, as a record."""
        keys = {site: self.good(site, questions.KEYS, None, round_, **config)["keys"] for site in CASES}
        return {"roster": ConfigRecord({site: found["seal"] + found["mask"] for site, found in keys.items()})}

    def sealed(self, round_: int = 1, **config: Any) -> dict[str, dict[str, ConfigRecord]]:
        """Keys and shares of all; by receiver what a training question holds."""
        roster, told = self.roster(round_, **config), {"sites": 4, "cases": 7}
        found = {
            site: self.good(site, questions.SHARES, roster, round_, **told, **config)["sealed"]
            for site in CASES
        }
        return {to: {"sealed": ConfigRecord({by: found[by][to] for by in CASES if by != to})} for to in CASES}

    def train(self, round_: int = 1, **config: Any) -> dict[str, RecordDict]:
        """All of it up to the masked replies."""
        sealed = self.sealed(round_, **config)
        return {site: self.good(site, questions.TRAIN, sealed[site], round_, **config) for site in CASES}


def hospitals(root: Path, privacy: Any = None, broken: Broken = (), **changed: Any) -> Sites:
    node = SECURE if privacy is None else privacy
    folder, _ = write_toy_run(root, SPLITS, model=GROUP_MODEL, privacy=node, rounds=9, **changed)
    return Sites(folder, broken)


def serve(sites: Sites, root: Path, rounds: int = 1, secure: bool = True, **options: Any) -> Federation:
    """The server's rounds with these sites; the model starts as `start_model`."""
    present = options.pop("present", tuple(CASES))
    algorithm = options.pop("algorithm", FedAvg(timeout=5.0))
    if algorithm.quorum is None:  # as `checks.by_engine` does in a simulation
        algorithm = replace(algorithm, quorum=SIMULATED)
    start(root, 0)
    secure_files.start(root, 0)
    fed = Federation(
        algorithm=algorithm,
        cohorts=[Cohort("federated", present, algorithm)],
        models={"federated": Model(start_model())},
        folder=root,
        rounds=rounds,
        observer=Quiet(),
        members={site: Member(NODES[site], CASES[site], 0, 0) for site in present},
        secure=SecureAggregation() if secure else None,
        trainable=frozenset(start_model()),
        **options,
    )

    def handler(site: str) -> Any:
        return lambda message: sites.handle(site, message)

    grid: Any = FakeGrid([handler(site) for site in CASES])
    round_loop.serve(grid, fed)
    return fed


def sent_by(sites: Sites) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of the last training reply of each site."""
    return {
        site: {name: array.numpy() for name, array in reply["arrays"].items()}
        for site, kind, _, reply in sites.seen
        if kind == questions.TRAIN
    }


def mean_of(sent: dict[str, dict[str, np.ndarray]], sites: Collection[str]) -> dict[str, np.ndarray]:
    """Their mean weighted by cases, in float64."""
    cases = sum(CASES[site] for site in sites)
    return {
        name: sum(CASES[site] * sent[site][name].astype(np.float64) for site in sites) / cases
        for name in next(iter(sent.values()))
    }
