"""How an algorithm meets the round loop and the site: what travels beside, what is remembered, what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from safetensors.torch import load_file
from torch import Tensor

from fedbrats.algorithms.base import Arrays, Collector, Group, Memory
from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.algorithms.fedcostwavg import FedCostWAvg
from fedbrats.algorithms.scaffold import Scaffold
from fedbrats.arrays import travelling
from fedbrats.engines.sites import answer, new_context
from fedbrats.federation import wire
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server.round_loop import run_round
from fedbrats.federation.server.state import Federation
from fedbrats.federation.site.app import make_client_app
from fedbrats.runs.checkpoint import Model, load_checkpoint, save_checkpoint
from tests.federation.toy import (
    ARRAYS,
    FakeGrid,
    federation,
    request,
    toy_network,
    train_reply,
    write_toy_run,
)
from tests.federation.toy_rounds import CASES, Answer, constant, members, rows_of, sends, serve, values

SGD = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.05}
SCAFFOLD = {"_target_": "fedbrats.algorithms.scaffold.Scaffold"}


# The server


def beside(value: float, cases: int, **changed: Any) -> Answer:
    """A site that sends `value` everywhere, beside the model too."""

    def answered(message: Message) -> Message:
        reply = train_reply(constant(value), to=message, **{"num-examples": cases, **changed})
        reply.content["beside"] = wire.to_record({"w": torch.full_like(ARRAYS["w"], value)})
        return reply

    return answered


def scaffold(tmp_path: Path, cohorts: list[Cohort] | None = None, rounds: int = 1) -> Federation:
    algorithm = Scaffold(timeout=5.0, quorum=0.5)
    cohorts = cohorts or [Cohort("federated", tuple(CASES), algorithm)]
    fed = federation(tmp_path, members(), cohorts, algorithm, rounds)
    fed.trainable = frozenset({"w"})
    return fed


def test_an_array_for_every_trained_one_travels_beside_the_model_and_is_counted(tmp_path: Path) -> None:
    told: list[Mapping[str, Tensor]] = []

    def listening(message: Message) -> Message:
        told.append({n: torch.from_numpy(a.numpy().copy()) for n, a in message.content["beside"].items()})
        return beside(1.0, 5)(message)

    fed = scaffold(tmp_path)
    for round_ in (1, 2):
        rows = run_round(FakeGrid([beside(1.0, 1), beside(1.0, 2), listening]), fed, round_)
    assert [{n: t.unique().tolist() for n, t in part.items()} for part in told] == [{"w": [0]}, {"w": [1]}]
    plain = wire.size_bytes(RecordDict({"arrays": wire.to_record(ARRAYS)}))
    extra = wire.size_bytes(RecordDict({"beside": wire.to_record({"w": ARRAYS["w"]})}))
    assert {(r["bytes_down"], r["bytes_up"]) for r in rows if r["phase"] == "train"} == {
        (plain + extra, plain + extra)
    }


@pytest.mark.parametrize("algorithm", [FedAvg(timeout=5.0), Scaffold(timeout=5.0)])
def test_replies_with_too_little_or_too_much_beside_are_left_out(tmp_path: Path, algorithm: FedAvg) -> None:
    fed = federation(tmp_path, members(), [Cohort("federated", tuple(CASES), algorithm)], algorithm)
    fed.trainable = frozenset({"w"})
    rows = run_round(FakeGrid([sends(8.0, 1), beside(4.0, 2), sends(0.0, 5)]), fed, 1)
    status = [row["status"] for row in rows if row["phase"] == "train"]
    wrong = [2] if type(algorithm) is FedAvg else [1, 3]
    assert [i for i, text in enumerate(status, start=1) if text.startswith("failed: records")] == wrong


def test_infinity_beside_the_model_is_left_out(tmp_path: Path) -> None:
    fed = scaffold(tmp_path)

    def spoiled(message: Message) -> Message:
        reply = sends(2.0, 5)(message)
        reply.content["beside"] = wire.to_record({"w": torch.full_like(ARRAYS["w"], float("inf"))})
        return reply

    rows = run_round(FakeGrid([beside(1.0, 1), beside(1.0, 2), spoiled]), fed, 1)
    assert [row["status"] for row in rows][:3] == ["ok", "ok", "failed: w: non-finite values"]
    assert float(fed.models["federated"].memory.arrays["w"].max()) == pytest.approx(2 / 3)  # of N = 3


def test_the_baselines_train_plainly_beside_a_federation_of_another_kind(tmp_path: Path) -> None:
    names: dict[str, set[str]] = {}

    def listening(message: Message) -> Message:
        arm = message.content["config"]["arm"]
        names[arm] = set(message.content)
        return (beside if arm == "federated" else sends)(1.0, 1)(message)

    cohorts = [Cohort("federated", ("A",), Scaffold(timeout=5.0)), Cohort("local:A", ("A",))]
    fed = scaffold(tmp_path, cohorts)
    run_round(FakeGrid([listening]), fed, 1)
    assert names == {"federated": {"arrays", "beside", "config"}, "local:A": {"arrays", "config"}}
    assert fed.models["local:A"].memory == Memory()


def test_a_reply_that_the_algorithm_cannot_use_is_left_out_with_its_reason(tmp_path: Path) -> None:
    algorithm = FedCostWAvg(timeout=5.0, quorum=0.5)
    cohorts = [Cohort("federated", tuple(CASES), algorithm)]
    handlers = [sends(8.0, 1), sends(4.0, 2, loss=-0.5), sends(0.0, 5)]
    fed = serve(tmp_path, handlers, cohorts=cohorts, algorithm=algorithm)
    status = {row["site"]: row["status"] for row in rows_of(tmp_path)}
    assert status["B"].startswith(
        "failed: training loss is -0.5, but strategy=fedcostwavg needs a positive one"
    )
    assert fed.models["federated"].memory.facts == {"costs": {"A": 0.5, "C": 0.5}}
    # by cases 8 / 6, by costs 4, half of each
    assert values(fed) == pytest.approx([0.5 * (8 / 6 + 4)] * 2)


@dataclass(frozen=True, kw_only=True)
class Runaway(FedAvg):
    """Remembers the round; its second step is beyond every number."""

    seen: list[Memory] = field(default_factory=list)

    def step(
        self, old: Arrays, found: Collector, memory: Memory, group: Group
    ) -> tuple[dict[str, Tensor], Memory]:
        self.seen.append(memory)
        last = memory.arrays.get("last", torch.ones(1))
        return found.arrays, Memory({"last": last * torch.tensor(1e30)})


def test_a_step_that_is_not_finite_keeps_the_model_and_what_was_remembered(tmp_path: Path) -> None:
    algorithm = Runaway(timeout=5.0, max_failed_rounds=9)
    handlers = [sends(8.0, 1), sends(4.0, 2), sends(0.0, 5)]
    cohorts = [Cohort("federated", tuple(CASES), algorithm)]
    fed = serve(tmp_path, handlers, cohorts=cohorts, algorithm=algorithm, rounds=3)
    model = fed.models["federated"]
    assert (model.failed_in_a_row, model.memory.arrays["last"].tolist()) == (2, [pytest.approx(1e30)])
    assert [len(memory.arrays) for memory in algorithm.seen] == [0, 1, 1]
    server = [row["status"] for row in rows_of(tmp_path) if row["phase"] == "round"]
    assert server[0] == "ok"
    assert all("last: non-finite values; the old model stays" in text for text in server[1:])


def test_what_is_remembered_is_saved_with_its_model(tmp_path: Path) -> None:
    memory = Memory({"m/w": torch.rand(3), "v/w": torch.rand(2, 2)}, {"costs": {"A": 1 / 3}})
    models = {"federated": Model({"w": torch.ones(1)}, memory=memory), "pooled": Model({"w": torch.zeros(1)})}
    save_checkpoint(tmp_path, 1, models)
    found = load_checkpoint(tmp_path)
    assert found is not None
    back = found.models["federated"].memory
    assert back.facts == memory.facts
    assert {n: t.tolist() for n, t in back.arrays.items()} == {
        n: t.tolist() for n, t in memory.arrays.items()
    }
    assert found.models["pooled"].memory == Memory()
    assert not list(tmp_path.glob("*/pooled.memory*"))


# The site


class Site:
    """The ClientApp of a site A as an engine calls it, through any number of restarts."""

    def __init__(self, tmp_path: Path, **changed: Any) -> None:
        sites = {"A": {"train": ["a1", "a2"]}}
        settings: dict[str, Any] = {"strategy": SCAFFOLD, **changed}
        self.folder, _ = write_toy_run(tmp_path, sites, **settings)
        self.restart(SGD)

    def restart(self, optimizer: dict[str, Any] | None = None) -> None:
        if optimizer:
            text = (self.folder / "config.yaml").read_text()
            (self.folder / "config.yaml").write_text(text.replace("torch.optim.Adam", "torch.optim.SGD"))
        self.app = make_client_app(str(self.folder), baselines=["A"])
        self.context = new_context(2, {"site": "A"})

    def train(self, round_: int, told: Mapping[str, Tensor] | None, arm: str = "federated") -> Message:
        torch.manual_seed(0)
        content = RecordDict({"arrays": wire.to_record(travelling(toy_network()))})
        if told is not None:
            content["beside"] = wire.to_record(told)
        asked = {"arm": arm, "round": round_, "checkpointed": 0, "lr-factor": 1.0, "validate": 0}
        content["config"] = ConfigRecord(asked)
        return answer(self.app, request(2, "train", content), self.context)


def trained() -> dict[str, Tensor]:
    return {n: p.detach() for n, p in toy_network().named_parameters()}


def arrays_of(record: Any) -> dict[str, np.ndarray]:
    assert isinstance(record, ArrayRecord)
    return {name: array.numpy() for name, array in record.items()}


def zeros() -> dict[str, Tensor]:
    return {name: torch.zeros_like(p) for name, p in trained().items()}


def test_a_site_sends_the_change_of_its_control_variate_and_keeps_the_variate(tmp_path: Path) -> None:
    """c_k+ = (x - y) / (K rate), so rate times the change times the steps is the way the weights have gone."""
    site = Site(tmp_path)
    reply = site.train(1, zeros())
    assert not reply.has_error(), reply.error.reason
    torch.manual_seed(0)
    start = dict(toy_network().named_parameters())
    new, sent = arrays_of(reply.content["arrays"]), arrays_of(reply.content["beside"])
    assert sent.keys() == trained().keys()  # no running statistics
    for name, change in sent.items():
        way = start[name].detach().numpy() - new[name]
        np.testing.assert_allclose(change * 0.01 * 2, way, atol=1e-7, err_msg=name)  # rate 0.01, 2 steps
    kept = load_file(site.folder / "sites" / "A" / "state" / "algorithm" / "round_00001.safetensors")
    assert all(np.array_equal(kept[name].numpy(), change) for name, change in sent.items())  # c_k was 0
    second = arrays_of(site.train(2, zeros()).content["beside"])
    site.restart()  # without Flower's context the site's own storage knows
    again = arrays_of(site.train(2, zeros()).content["beside"])
    assert all(np.array_equal(second[name], again[name]) for name in second)
    assert not all(np.array_equal(sent[name], second[name]) for name in second)


def test_the_correction_moves_every_step(tmp_path: Path) -> None:
    """c - c_k with c_k = 0 is added to each gradient: a constant c moves a site by K rate c, all else equal."""
    site = Site(tmp_path)
    plain = arrays_of(site.train(1, zeros()).content["arrays"])
    pushed = arrays_of(site.train(1, zeros() | {"3.bias": torch.full((3,), 7.0)}).content["arrays"])
    np.testing.assert_allclose(plain["3.bias"] - pushed["3.bias"], 2 * 0.01 * 7.0, rtol=0.02)


def test_other_arms_neither_keep_nor_send_anything(tmp_path: Path) -> None:
    site = Site(tmp_path)
    reply = site.train(1, None, arm="local:A")
    assert set(reply.content) == {"arrays", "metrics"}
    assert not (site.folder / "sites" / "A" / "state" / "algorithm").exists()


def test_what_is_beside_the_model_must_be_of_the_trained_arrays(tmp_path: Path) -> None:
    reply = Site(tmp_path).train(1, {"3.bias": torch.zeros(3)})
    assert reply.has_error()
    assert "missing arrays" in reply.error.reason
