"""Validation in one exchange with the training of the next round changes the number of messages and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message, MetricRecord

from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.arrays import trainable, travelling
from fedbrats.config.schema import load_config
from fedbrats.engines.grids import InProcessGrid
from fedbrats.engines.sites import node_configs
from fedbrats.federation import questions
from fedbrats.federation.arms import Cohort
from fedbrats.federation.parts import parts_of
from fedbrats.federation.server.round_loop import serve
from fedbrats.federation.server.state import Federation, FederationError, Member
from fedbrats.federation.site.app import make_client_app
from fedbrats.federation.wire import VALIDATION
from fedbrats.runs.checkpoint import Model, load_checkpoint
from tests.federation.toy import FakeGrid, evaluate_reply, federation, write_toy_run
from tests.federation.toy_private import DP
from tests.federation.toy_rounds import members, raising, rows_of, sends

HOSPITALS = {
    "A": {"train": ["a1", "a2"], "val": ["a3", "a4"]},
    "B": {"train": ["b1"], "val": []},
    "C": {"train": ["c1"], "val": ["c2"]},
}
COUNTS = {
    site: [len(splits.get(name, ())) for name in ("train", "val")] for site, splits in HOSPITALS.items()
}
TIMES = ("seconds", "bytes_down", "bytes_up")


class Counting(InProcessGrid):
    """Counts the messages and lets a site fail as `broken` says."""

    def __init__(self, *args: Any, broken: Any = None) -> None:
        super().__init__(*args)
        self.asked: list[tuple[str, int]] = []
        self.broken = broken

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        self.asked += [(m.metadata.message_type, m.metadata.dst_node_id - 2) for m in messages]
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self.broken(reply) if self.broken else reply for reply in super().pull_messages(message_ids)]


def served(
    folder: Path, joint: bool, rounds: int = 3, broken: Any = None, every: int = 1, **changed: Any
) -> tuple[Federation, Counting]:
    """A federation of the toy hospitals, from the newest checkpoint where there is one."""
    if not folder.exists():
        folder.mkdir()
        write_toy_run(folder, HOSPITALS, rounds=rounds, **changed)
    run = folder / "run"
    grid = Counting(make_client_app(str(run)), node_configs([*HOSPITALS]), broken=broken)
    there = {site: Member(node, *COUNTS[site], 0) for node, site in enumerate(HOSPITALS, start=2)}
    algorithm = FedAvg(timeout=60.0, quorum=0.5)
    snapshot, log = load_checkpoint(run / "checkpoints"), run / "rounds.csv"
    kept = log.read_text() if snapshot else ""
    fed = federation(run, there, [Cohort("federated", tuple(HOSPITALS), algorithm)], algorithm, rounds)
    if snapshot:
        log.write_text(kept)
        fed.models, fed.finished_round, fed.checkpointed = snapshot.models, snapshot.round, snapshot.round
    else:
        network = parts_of(load_config(run / "config.yaml")).network
        start = {name: tensor.detach().clone() for name, tensor in travelling(network).items()}
        fed.models["federated"], fed.trainable = Model(start), frozenset(trainable(network))
    fed.losses_stay = bool(changed.get("privacy"))
    fed.one_exchange, fed.evaluate_every = joint, every
    serve(grid, fed)
    return fed, grid


def results(folder: Path) -> tuple[list[dict[str, str]], dict[str, bytes]]:
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in rows_of(folder / "run")]
    files = {
        str(f.relative_to(folder)): f.read_bytes()
        for f in sorted((folder / "run" / "checkpoints").rglob("*"))
        if f.is_file()
    }
    assert len(files) >= 2
    return rows, files


def same(tmp_path: Path, **options: Any) -> tuple[Counting, Counting]:
    (_, alone), (_, joint) = (
        served(tmp_path / name, name == "joint", **options) for name in ("alone", "joint")
    )
    one, other = results(tmp_path / "alone"), results(tmp_path / "joint")
    assert one[0] == other[0]
    assert one[1] == other[1]
    assert any("best" in name for name in one[1])
    return alone, joint


@pytest.mark.parametrize("every", [1, 2])
def test_rows_models_and_checkpoints_are_the_same_to_the_bit(every: int, tmp_path: Path) -> None:
    """A and C train and validate, B has nothing to validate on; after the last round there is no training."""
    alone, joint = same(tmp_path, every=every)
    validations = [site for kind, site in joint.asked if kind == questions.VALIDATE]
    before = [site for kind, site in alone.asked if kind == questions.VALIDATE]
    assert before == [0, 2] * (3 if every == 1 else 2)
    assert validations == [0, 2]
    assert [x for x in joint.asked if x[0] == questions.TRAIN] == [
        x for x in alone.asked if x[0] == questions.TRAIN
    ]


@pytest.mark.parametrize("error", [False, True])
def test_a_site_whose_training_fails_is_asked_for_its_validation_alone(error: bool, tmp_path: Path) -> None:
    """C fails in round 2: its validation of round 1 would be lost with it, and the best round might be another."""
    same(tmp_path, broken=partial(loses_c, error))
    rows = rows_of(tmp_path / "joint" / "run")
    mine = {(r["round"], r["phase"]): r["status"] for r in rows if r["site"] == "C"}
    assert mine["1", "val"] == "ok"
    assert mine["2", "train"].startswith("failed: ")


def loses_c(error: bool, reply: Message) -> Message:
    about = reply.metadata
    if (about.message_type, about.group_id, about.src_node_id) == (questions.TRAIN, "2", 4):
        if error:
            return Message(Error(code=0, reason="no disc space"), metadata=about)
        reply.content.clear()
    return reply


def test_a_validation_that_cannot_be_used_costs_no_training(tmp_path: Path) -> None:
    def spoiled(reply: Message) -> Message:
        if not reply.has_error() and VALIDATION in reply.content:
            reply.content[VALIDATION] = MetricRecord({"num-examples": 1e9})
        return reply

    served(tmp_path / "joint", True, rounds=2, broken=spoiled)
    rows = rows_of(tmp_path / "joint" / "run")
    status = {(r["round"], r["site"], r["phase"]): r["status"] for r in rows}
    assert status["1", "A", "val"].startswith("failed: weight 1e+09")
    assert (status["2", "A", "train"], status["2", "A", "val"]) == ("ok", "ok")


def test_stopped_and_resumed_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """Killed while the second round is trained: the first is not written down yet, and is computed again."""

    def dies(reply: Message) -> Message:
        if reply.metadata.group_id == "2" and reply.metadata.src_node_id == 4:
            raise KeyboardInterrupt
        return reply

    served(tmp_path / "alone", False)
    with pytest.raises(KeyboardInterrupt):
        served(tmp_path / "joint", True, broken=dies)
    served(tmp_path / "joint", True)
    assert results(tmp_path / "joint") == results(tmp_path / "alone")


def test_failed_rounds_end_the_run_without_another_training(tmp_path: Path) -> None:
    kinds: list[str] = []

    def site(answer: Any, message: Message) -> Message:
        kinds.append(message.metadata.message_type)
        if message.metadata.message_type == questions.VALIDATE:
            return evaluate_reply(to=message)
        return answer(message)

    fed = federation(tmp_path, members(val=2), algorithm=FedAvg(max_failed_rounds=1, timeout=5), rounds=9)
    fed.one_exchange = True
    with pytest.raises(FederationError):
        serve(FakeGrid([partial(site, a) for a in (raising, raising, sends(1.0, 5))]), fed)
    assert kinds == [questions.TRAIN] * 3 + [questions.VALIDATE] * 3


def test_what_is_private_is_counted_and_paid_for_in_the_same_way(tmp_path: Path) -> None:
    """Noisy scores of the validation patients: the list of what was asked and the ledgers are equal."""
    noisy = {"validation": "noisy", "validation_sigma": 3.0, "validation_epsilon": 500.0, "insecure_seed": 1}
    privacy = {**DP, **noisy}
    model = {"_target_": "tests.federation.toy.group_network"}
    same(tmp_path, model=model, privacy=privacy)
    for site in ("A", "C"):
        kept = [tmp_path / name / "run" / "sites" / site / "privacy" for name in ("alone", "joint")]
        asked = [json.loads((folder / "asked.json").read_text()) for folder in kept]
        assert asked[0] == asked[1]
        assert asked[0][f"{questions.VALIDATE} federated 1"] == 1
    said = [r for r in rows_of(tmp_path / "joint" / "run") if r["phase"] == "val"]
    assert [(r["round"], r["site"], r["status"]) for r in said] == [
        (number, site, "ok") for number in "123" for site in "AC"
    ]
