"""Small federations for the tests of this folder: replies made by hand, a Grid in memory, sites with tiny cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedbrats.algorithms.fedavg import SIMULATED, FedAvg
from fedbrats.arrays import Signature, signature
from fedbrats.config.schema import Config, DataConfig, TrainConfig, save_config
from fedbrats.data.cache import CachedCase
from fedbrats.data.entries import make_layout, write_entry
from fedbrats.data.family_table import BRATS_2017
from fedbrats.data.partition import Site
from fedbrats.data.regions import REGIONS, regions_from_labels
from fedbrats.engines.sites import set_identity, set_message_id
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server.state import Federation, Member
from fedbrats.federation.wire import to_record
from fedbrats.metrics.table import VOLUMES
from fedbrats.runs.checkpoint import Model
from fedbrats.runs.rounds import Row, start
from fedbrats.runs.site_cases import write_site_cases
from tests.scored import SCORES

set_identity(1)  # without it Flower makes no message

ARRAYS = {"w": torch.arange(8, dtype=torch.float32).reshape(4, 2), "b": torch.ones(4)}
EXPECTED: Signature = signature(ARRAYS)


def request(node: int = 2, kind: str = "train", content: RecordDict | None = None) -> Message:
    message = Message(content or RecordDict(), node, kind, ttl=60.0, group_id="1")
    set_message_id(message, "1")
    return message


def error_message(reason: str, to: Message | None = None) -> Message:
    return Message(Error(code=2, reason=reason), reply_to=to or request())


def train_reply(
    arrays: ArrayRecord | Mapping[str, torch.Tensor] = ARRAYS,
    *,
    to: Message | None = None,
    without: str | None = None,
    **changed: Any,
) -> Message:
    """A good training reply of 5 cases, or one with other arrays, other metrics or one metric left out."""
    found = arrays if isinstance(arrays, ArrayRecord) else to_record(arrays)
    metrics = {"num-examples": 5, "loss": 0.5, "steps": 3, "seconds": 0.1, **changed}
    metrics.pop(without or "", None)
    content = RecordDict({"arrays": found, "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=to or request())


def case_row(case: str, region: str, **changed: Any) -> dict[str, Any]:
    scores = dict.fromkeys((*SCORES, *VOLUMES, "uncertainty"), 0.5)
    return {"case": case, "region": region, **scores, "status": "ok", **changed}


def evaluate_reply(
    rows: Any = None,
    *,
    to: Message | None = None,
    without: str | None = None,
    steps: str = "[]",
    reliability: str = "[]",
    **changed: Any,
) -> Message:
    """A good evaluation reply of 2 cases; `rows` (JSON text, or what becomes it) is left out when None."""
    dice = {f"dice-{region.lower()}": 0.5 for region in REGIONS}
    metrics = {"num-examples": 2, "loss": 0.5, "seconds": 0.1, **dice, **changed}
    metrics.pop(without or "", None)
    records: dict[str, Any] = {"metrics": MetricRecord(metrics)}
    if rows is not None:
        text = rows if isinstance(rows, str) else json.dumps(rows)
        records["cases"] = ConfigRecord({"rows": text, "steps": steps, "reliability": reliability})
    return Message(RecordDict(records), reply_to=to or request())


Handler = Callable[[Message], Message | None]


class FakeGrid:
    """What `asking` needs of a Grid: each site's handler answers when its reply is pulled, None never answers.

    `backwards` makes the sites work in the opposite order as soon as the messages are pushed.
    """

    def __init__(self, handlers: Sequence[Handler], backwards: bool = False) -> None:
        self.handlers = dict(enumerate(handlers, start=2))
        self.backwards = backwards
        self.waiting: dict[str, Message] = {}
        self.done: dict[str, Message | None] = {}
        self.pulled: list[int] = []  # node of every reply handed out
        self.open_at_once = 0
        self.count = 0

    def get_node_ids(self) -> list[int]:
        return list(self.handlers)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        messages, ids = list(messages), []
        for message in messages:
            self.count += 1
            set_message_id(message, str(self.count))
            ids.append(str(self.count))
        self.waiting = dict(zip(ids, messages, strict=True))
        if self.backwards:
            self.done = {i: self._work(self.waiting[i]) for i in reversed(ids)}
        return ids

    def _work(self, message: Message) -> Message | None:
        return self.handlers[message.metadata.dst_node_id](message)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        message_ids = list(message_ids)
        self.open_at_once = max(self.open_at_once, len(message_ids))
        replies = []
        for message_id in message_ids:
            reply = self.done[message_id] if message_id in self.done else self._work(self.waiting[message_id])
            if reply is not None:
                self.pulled.append(reply.metadata.src_node_id)
                replies.append(reply)
        return replies


class Quiet:
    """An observer that keeps what it was told."""

    def __init__(self) -> None:
        self.replies: list[tuple[str, str, str, bool]] = []
        self.rounds: list[int] = []
        self.phases: list[tuple[int, str, list[tuple[str, str]]]] = []
        self.seen: list[set[tuple[str, str]]] = []

    def phase_started(self, round_: int, phase: str, asked: Sequence[tuple[str, str]]) -> None:
        self.phases.append((round_, phase, list(asked)))

    def arrived(self, asked: Collection[tuple[str, str]]) -> None:
        self.seen.append(set(asked))

    def reply(self, arm: str, site: str, phase: str, ok: bool, seconds: float) -> None:
        self.replies.append((arm, site, phase, ok))

    def round_finished(self, round_: int, rows: list[Row]) -> None:
        self.rounds.append(round_)


def federation(
    folder: Path,
    members: Mapping[str, Member],
    cohorts: list[Cohort] | None = None,
    algorithm: FedAvg | None = None,
    rounds: int = 1,
    **more: Any,
) -> Federation:
    """A server whose models all start as `ARRAYS`; by default one federated cohort of all members that train."""
    algorithm = algorithm or FedAvg(timeout=5.0)
    if algorithm.quorum is None:  # as `checks.by_engine` does in a simulation
        algorithm = replace(algorithm, quorum=SIMULATED)
    cohorts = cohorts or [Cohort("federated", tuple(s for s, m in members.items() if m.train), algorithm)]
    models = {c.arm: Model({n: t.clone() for n, t in ARRAYS.items()}) for c in cohorts}
    start(folder, 0)
    return Federation(
        algorithm=algorithm,
        cohorts=cohorts,
        models=models,
        folder=folder,
        rounds=rounds,
        observer=Quiet(),
        members=dict(members),
        **more,
    )


# Sites with real files, for the ClientApp


def write_cached(cache: Path, name: str, seed: int, shape: tuple[int, int, int] = (10, 9, 8)) -> CachedCase:
    """A cache entry as `prepare_case` leaves it: a bright box is oedema, its middle enhancing tumour and necrosis."""
    make_layout(cache)
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    low = rng.integers(1, 3, 3)
    label[tuple(slice(a, a + 5) for a in low)] = 2
    label[tuple(slice(a + 1, a + 4) for a in low)] = 3
    label[tuple(low + 2)] = 1
    image = (rng.normal(0, 1, (4, *shape)) + label).astype(np.float16)
    tumour = np.argwhere(label > 0).astype(np.int16)
    volumes = dict(zip(REGIONS, regions_from_labels(label).sum((1, 2, 3)) / 1000, strict=True))
    meta = {
        "source": {"shape": list(shape), "affine": np.eye(4).tolist(), "orientation": "RAS"},
        "crop": [[0, n] for n in shape],
        "full_shape": list(shape),
        "background": 0.0,
        "spacing": [1.0, 1.0, 1.0],
        "volumes_ml": {region: float(v) for region, v in volumes.items()},
        "labels": [0, 1, 2, 3],
        "label_system": BRATS_2017.to_json(),
    }
    folder = cache / "cases" / f"{seed:04d}"
    write_entry(folder, {"image.npy": image, "label.npy": label, "tumour.npy": tumour}, meta, cache)
    return CachedCase(name, folder)


def toy_network(in_channels: int = 4, out_channels: int = 3, width: int = 4) -> torch.nn.Module:
    """Two convolutions around a BatchNorm, whose counter must not travel."""
    return torch.nn.Sequential(
        torch.nn.Conv3d(in_channels, width, 3, padding=1),
        torch.nn.BatchNorm3d(width),
        torch.nn.ReLU(),
        torch.nn.Conv3d(width, out_channels, 1),
    )


def group_network(width: int = 4) -> torch.nn.Module:
    """Like `toy_network` with GroupNorm, so that patients do not mix."""
    return torch.nn.Sequential(
        torch.nn.Conv3d(4, width, 3, padding=1),
        torch.nn.GroupNorm(1, width),
        torch.nn.ReLU(),
        torch.nn.Conv3d(width, 3, 1),
    )


GROUP_MODEL = {"_target_": "tests.federation.toy.group_network"}


def toy_config(root: Path, **changed: Any) -> Config:
    adam = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.01}
    train = TrainConfig(optimizer=adam, patch=[8, 8, 8], batch=2, local_steps=2)
    config = Config(
        data=DataConfig(cache=str(root / "cache"), root=str(root / "data")),
        model={"_target_": "tests.federation.toy.toy_network"},
        loss={"_target_": "fedbrats.losses.compound.DiceCE"},
        strategy={"_target_": "fedbrats.algorithms.fedavg.FedAvg"},
        train=train,
    )
    config.runtime.device = "cpu"
    for key, value in changed.items():
        setattr(config, key, value)
    return config


def write_toy_run(
    root: Path, sites: Mapping[str, Mapping[str, Sequence[str]]], **changed: Any
) -> tuple[Path, dict[str, CachedCase]]:
    """A run folder as `run.write_inputs` leaves it; `sites` maps site -> split -> case names."""
    folder = root / "run"
    folder.mkdir(parents=True)
    save_config(toy_config(root, **changed), folder / "config.yaml")
    names = [name for splits in sites.values() for split in splits.values() for name in split]
    cached = {name: write_cached(root / "cache", name, seed) for seed, name in enumerate(names)}
    for site, splits in sites.items():
        parts = {split: tuple(splits.get(split, ())) for split in ("train", "val", "test")}
        write_site_cases(folder, Site(site, False, **parts), cached, {name: name for name in cached})
    return folder, cached
