"""The server's rounds, with sites that answer by hand: what is aggregated, what is left out, and when it ends."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from toy import (
    ARRAYS,
    EXPECTED,
    FakeGrid,
    case_row,
    error_message,
    evaluate_reply,
    federation,
    train_reply,
)

from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.data.regions import REGIONS
from fedbrats.federation import server
from fedbrats.federation.arms import Cohort
from fedbrats.federation.asking import FederationError, Member, join
from fedbrats.federation.exchange import fingerprint, to_record

CASES = {"A": 1, "B": 2, "C": 5}  # training cases; site i is node i + 2
Answer = Callable[[Message], Message | None]


def members(val: int = 0, test: int = 0) -> dict[str, Member]:
    return {site: Member(node, n, val, test) for node, (site, n) in enumerate(CASES.items(), start=2)}


def constant(value: float) -> dict[str, torch.Tensor]:
    return {name: torch.full_like(tensor, value) for name, tensor in ARRAYS.items()}


def sends(value: float, cases: int, **changed: Any) -> Answer:
    """A site whose training ends with all weights at `value`."""
    return lambda message: train_reply(constant(value), to=message, **{"num-examples": cases, **changed})


def good() -> list[Answer]:
    return [sends(8.0, 1), sends(4.0, 2), sends(0.0, 5)]


def silent(message: Message) -> None:
    return None


def raising(message: Message) -> Message:
    return error_message("SiteError: no disc space", message)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "rounds.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def values(fed: server.Federation, arm: str = "federated") -> list[float]:
    return [float(t.mean()) for t in fed.models[arm].arrays.values()]


def serve(tmp_path: Path, handlers: Sequence[Answer], **options: Any) -> server.Federation:
    fed = federation(tmp_path, options.pop("members", members()), **options)
    server.serve(FakeGrid(handlers), fed)
    return fed


# Aggregation


def test_mean_by_hand_with_unequal_sites(tmp_path: Path) -> None:
    """1, 2 and 5 cases send 8, 4 and 0: (8 + 8 + 0) / 8 = 2. Losses 1, 0.5, 0.2: (1 + 1 + 1) / 8 = 0.375."""
    handlers = [sends(8.0, 1, loss=1.0), sends(4.0, 2, loss=0.5), sends(0.0, 5, loss=0.2)]
    fed = serve(tmp_path, handlers)
    assert values(fed) == pytest.approx([2.0, 2.0])
    rows = rows_of(tmp_path)
    assert [(r["site"], r["phase"], r["status"]) for r in rows] == [
        ("A", "train", "ok"),
        ("B", "train", "ok"),
        ("C", "train", "ok"),
        ("server", "round", "ok"),
    ]
    assert [r["cases"] for r in rows] == ["1", "2", "5", "8"]
    assert float(rows[-1]["loss"]) == pytest.approx(0.375)
    wire = sum(t.nbytes for t in ARRAYS.values()) + 2 * 128
    assert [int(r["bytes_up"]) for r in rows] == [wire, wire, wire, 3 * wire]
    assert [int(r["bytes_down"]) for r in rows] == [wire, wire, wire, 3 * wire]


def test_sites_receive_the_current_model_round_by_round(tmp_path: Path) -> None:
    seen: list[tuple[int, int, float]] = []

    def adds_one(cases: int) -> Answer:
        def answer(message: Message) -> Message:
            config, arrays = message.content["config"], message.content["arrays"]
            w = arrays["w"].numpy()
            seen.append((config["round"], config["checkpointed"], float(w.mean())))
            changed = {"w": torch.from_numpy(w + 1), "b": ARRAYS["b"]}
            return train_reply(changed, to=message, **{"num-examples": cases})

        return answer

    fed = serve(tmp_path, [adds_one(1), adds_one(2), adds_one(5)], rounds=3)
    start = float(ARRAYS["w"].mean())
    assert seen == [(r, r - 1, start + r - 1) for r in (1, 2, 3) for _ in CASES]
    torch.testing.assert_close(fed.models["federated"].arrays["w"], ARRAYS["w"] + 3)
    assert fed.observer.rounds == [1, 2, 3]  # type: ignore[attr-defined]


def broadcastable(message: Message) -> Message:
    return train_reply({"w": torch.ones(1), "b": torch.ones(4)}, to=message, **{"num-examples": 2})


BAD: dict[str, tuple[Answer, str]] = {
    "raises": (raising, "site error: SiteError: no disc space"),
    "another shape": (broadcastable, "w: shape (1,)"),
    "NaN": (sends(float("nan"), 2), "w: non-finite"),
    "infinity": (sends(float("inf"), 2), "w: non-finite"),
    "absurd weight": (sends(4.0, 10**9), "weight 1e+09"),
    "negative weight": (sends(4.0, -2), "weight -2"),
    "NaN loss": (sends(4.0, 2, loss=float("nan")), "loss is nan"),
    "no records": (lambda m: Message(RecordDict(), reply_to=m), "records []"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_reply_is_left_out_and_recorded_and_the_others_count(kind: str, tmp_path: Path) -> None:
    """Without B (2 cases): (1 * 8 + 5 * 0) / 6 = 4/3."""
    answer, reason = BAD[kind]
    handlers = good()
    handlers[1] = answer
    fed = serve(tmp_path, handlers)
    assert values(fed) == pytest.approx([4 / 3, 4 / 3])
    rows = rows_of(tmp_path)
    assert [r["status"] == "ok" for r in rows] == [True, False, True, True]
    assert rows[1]["status"].startswith(f"failed: {reason}")
    assert rows[-1]["cases"] == "6"
    assert ("federated", "B", "train", False) in fed.observer.replies  # type: ignore[attr-defined]


def test_a_site_that_never_answers_costs_one_timeout(tmp_path: Path) -> None:
    handlers = good()
    handlers[0] = silent  # the first one, so that the others are asked after the deadline
    fed = serve(tmp_path, handlers, algorithm=FedAvg(timeout=0.2))
    assert values(fed) == pytest.approx([8 / 7, 8 / 7])  # (2 * 4 + 5 * 0) / 7
    rows = rows_of(tmp_path)
    assert rows[0]["status"] == "failed: no reply within 0.2 s (strategy.timeout)"
    assert [r["status"] for r in rows[1:]] == ["ok"] * 3
    assert 0.2 <= float(rows[-1]["seconds"]) < 2


def test_below_quorum_the_old_model_stays(tmp_path: Path) -> None:
    fed = serve(tmp_path, [raising, raising, sends(0.0, 5)], algorithm=FedAvg(quorum=0.5, timeout=5))
    for name, tensor in ARRAYS.items():
        assert torch.equal(fed.models["federated"].arrays[name], tensor)
    last = rows_of(tmp_path)[-1]
    assert last["status"] == "failed: 1 of 3 replies usable, quorum needs 2; the old model stays"
    assert last["loss"] == ""
    model = fed.models["federated"]
    assert (model.failed_in_a_row, model.rounds_trained) == (1, 0)


def test_failed_rounds_in_a_row_end_the_run_and_name_the_sites(tmp_path: Path) -> None:
    fed = federation(tmp_path, members(), algorithm=FedAvg(max_failed_rounds=2, timeout=5), rounds=10)
    with pytest.raises(FederationError) as caught:
        server.serve(FakeGrid([raising, sends(1.0, 2), raising]), fed)
    message = str(caught.value)
    assert "2 failed rounds in a row (strategy.max_failed_rounds), last in round 2" in message
    assert "A: failed: site error: SiteError: no disc space" in message
    assert "C: failed" in message
    assert "B: " not in message
    assert fed.finished_round == 2
    assert len(rows_of(tmp_path)) == 2 * 4
    assert (tmp_path / "checkpoints" / "round_00002").is_dir()


def test_a_good_round_in_between_starts_the_count_again(tmp_path: Path) -> None:
    def flaky(message: Message) -> Message:
        odd = message.content["config"]["round"] % 2
        return raising(message) if odd else sends(1.0, 1)(message)

    handlers = [flaky, raising, sends(1.0, 5)]
    fed = serve(tmp_path, handlers, algorithm=FedAvg(max_failed_rounds=2, timeout=5), rounds=6)
    statuses = [r["status"] for r in rows_of(tmp_path) if r["phase"] == "round"]
    assert [s == "ok" for s in statuses] == [False, True] * 3
    assert fed.models["federated"].rounds_trained == 3


# Cohorts


def test_local_cohorts_do_not_mix(tmp_path: Path) -> None:
    cohorts = [
        Cohort("federated", ("A", "B", "C")),
        *(Cohort(f"local:{s}", (s,)) for s in CASES),
        Cohort("pooled", ("pooled",)),
    ]
    arms: list[tuple[str, str]] = []

    def site(name: str, value: float, cases: int) -> Answer:
        def answer(message: Message) -> Message:
            arm = message.content["config"]["arm"]
            arms.append((arm, name))
            return sends(value if arm == "federated" else 10 * value, cases)(message)

        return answer

    everyone = {**members(), "pooled": Member(5, 8, 0, 0)}
    handlers = [site("A", 8.0, 1), site("B", 4.0, 2), site("C", 0.0, 5), site("pooled", 7.0, 8)]
    fed = serve(tmp_path, handlers, members=everyone, cohorts=cohorts)
    assert [values(fed, c.arm)[0] for c in cohorts] == pytest.approx([2, 80, 40, 0, 70])
    assert sorted(arms) == sorted((c.arm, s) for c in cohorts for s in c.sites)
    rows = rows_of(tmp_path)
    for row in rows:  # only the federation exchanges anything
        federated = row["arm"] == "federated"
        assert (int(row["bytes_up"]) > 0) == federated
        assert (int(row["bytes_down"]) > 0) == federated


def test_a_failed_local_model_does_not_end_the_run(tmp_path: Path) -> None:
    cohorts = [Cohort("federated", ("A", "B", "C")), Cohort("local:A", ("A",))]

    def only_federated(message: Message) -> Message:
        arm = message.content["config"]["arm"]
        return sends(8.0, 1)(message) if arm == "federated" else raising(message)

    algorithm = FedAvg(max_failed_rounds=1, timeout=5)
    handlers = [only_federated, *good()[1:]]
    fed = serve(tmp_path, handlers, cohorts=cohorts, algorithm=algorithm, rounds=3)
    assert fed.models["local:A"].failed_in_a_row == 3
    assert fed.finished_round == 3


# Order


def test_replies_are_pulled_one_at_a_time_in_site_order(tmp_path: Path) -> None:
    fed = federation(tmp_path, members())
    grid = FakeGrid(good())
    server.serve(grid, fed)
    assert grid.open_at_once == 1
    assert grid.pulled == [2, 3, 4]


def test_the_order_of_arrival_does_not_change_a_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sent = {node: rng.normal(size=(4, 2)).astype(np.float32) for node in (2, 3, 4)}

    def answer(message: Message) -> Message:
        node = message.metadata.dst_node_id
        arrays = {"w": torch.from_numpy(sent[node]), "b": ARRAYS["b"]}
        return train_reply(arrays, to=message, **{"num-examples": list(CASES.values())[node - 2]})

    results = []
    for backwards in (False, True):
        fed = federation(tmp_path, members(), rounds=2)
        server.serve(FakeGrid([answer] * 3, backwards), fed)
        results.append(fed.models["federated"].arrays["w"].numpy().tobytes())
    assert results[0] == results[1]


# Validation and test


def evaluating(dice: float, cases: int = 2, **changed: Any) -> Answer:
    def answer(message: Message) -> Message:
        if message.metadata.message_type == "train":
            return sends(1.0, list(CASES.values())[message.metadata.dst_node_id - 2])(message)
        shares = {f"dice-{r.lower()}": dice for r in REGIONS}
        return evaluate_reply(to=message, **{"num-examples": cases, **shares, **changed})

    return answer


def test_validation_is_weighted_by_cases_and_the_best_round_is_kept(tmp_path: Path) -> None:
    """Dice 0.2 on 1 case, 0.8 on 3 cases: 2.6 / 4 = 0.65. C has no validation cases and is not asked."""
    everyone = {"A": Member(2, 1, 1, 0), "B": Member(3, 2, 3, 0), "C": Member(4, 5, 0, 0)}
    handlers = [evaluating(0.2, 1), evaluating(0.8, 3), evaluating(0.1)]
    fed = serve(tmp_path, handlers, members=everyone, rounds=2)
    last = rows_of(tmp_path)[-1]
    assert [float(last[f"dice_{r}"]) for r in ("wt", "tc", "et")] == pytest.approx([0.65] * 3)
    assert [r["site"] for r in rows_of(tmp_path) if r["phase"] == "val"] == ["A", "B"] * 2
    model = fed.models["federated"]
    assert (model.best_round, model.best_score) == (
        1,
        pytest.approx(0.65),
    )  # an equal round does not replace it
    assert (tmp_path / "checkpoints" / "best" / "federated.safetensors").is_file()


@pytest.mark.parametrize("changed", [{"num-examples": 0}, {"num-examples": 10**9}, {"dice-wt": 2.0}], ids=str)
def test_a_bad_validation_reply_is_left_out(changed: dict[str, Any], tmp_path: Path) -> None:
    handlers = [evaluating(0.6), evaluating(0.9, **changed), evaluating(0.8)]
    fed = serve(tmp_path, handlers, members=members(val=2))
    rows = rows_of(tmp_path)
    assert [r["status"] == "ok" for r in rows if r["phase"] == "val"] == [True, False, True]
    assert float(rows[-1]["dice_wt"]) == pytest.approx(0.7)
    assert fed.models["federated"].best_round == 0  # a mean over fewer sites is not compared


def test_a_round_without_any_validation_reply_goes_on(tmp_path: Path) -> None:
    def trains_only(message: Message) -> Message:
        return evaluating(0.5)(message) if message.metadata.message_type == "train" else raising(message)

    fed = serve(tmp_path, [trains_only] * 3, members=members(val=2))
    assert rows_of(tmp_path)[-1]["status"] == "ok"
    assert rows_of(tmp_path)[-1]["dice_wt"] == ""
    assert fed.finished_round == 1


def test_evaluation_only_in_the_rounds_that_are_due(tmp_path: Path) -> None:
    fed = federation(tmp_path, members(val=2), rounds=5)
    fed.evaluate_every, fed.checkpoint_every = 2, 3
    server.serve(FakeGrid([evaluating(0.5)] * 3), fed)
    assert {r["round"] for r in rows_of(tmp_path) if r["phase"] == "val"} == {"2", "4", "5"}
    assert fed.checkpointed == 5


def test_the_test_asks_every_site_with_test_cases_held_out_ones_too(tmp_path: Path) -> None:
    rows = [case_row("x#0000", region) for region in REGIONS]

    def answer(message: Message) -> Message:
        return evaluate_reply(rows, to=message)

    def garbage(message: Message) -> Message:
        return evaluate_reply("[[[", to=message)

    everyone = {**members(test=2), "C": Member(4, 5, 0, 0), "HELD": Member(5, 0, 0, 2)}
    fed = federation(tmp_path, everyone)
    found, usable = server.test_model(
        FakeGrid([answer, garbage, answer, answer]), fed, fed.cohorts[0], to_record(ARRAYS), 1
    )
    assert [(r["site"], r["status"] == "ok") for r in found] == [("A", True), ("B", False), ("HELD", True)]
    assert usable.keys() == {"A", "HELD"}
    assert usable["HELD"].rows == rows


# Joining


def joins(site: str, **changed: Any) -> Answer:
    facts = {"site": site, "train": 1, "val": 0, "test": 2, "arrays": fingerprint(EXPECTED), **changed}
    kept = {key: value for key, value in facts.items() if value is not None}
    return lambda m: Message(RecordDict({"facts": ConfigRecord(kept)}), reply_to=m)


def test_members_know_their_node_and_their_cases() -> None:
    found = join(FakeGrid([joins("B", train=4), joins("A", val=3)]), EXPECTED, ["A", "B"], 5)
    assert found == {"B": Member(2, 4, 0, 2), "A": Member(3, 1, 3, 2)}


REFUSED: dict[str, tuple[list[Answer], str]] = {
    "another network": (
        [joins("A"), joins("B", arrays="0123")],
        "site B has another network .*check `model`",
    ),
    "missing site": ([joins("A")], "sites did not join: B"),
    "error": ([joins("A"), raising], "could not join: SiteError: no disc space"),
    "silent": ([joins("A"), silent], "could not join: no reply"),
    "twice": ([joins("A"), joins("A")], "two nodes joined as site A"),
    "no counts": ([joins("A"), joins("B", train=None)], "without its name and case counts"),
    "negative count": ([joins("A"), joins("B", val=-1)], "without its name and case counts"),
    "no facts": (
        [joins("A"), lambda m: Message(RecordDict(), reply_to=m)],
        "without its name and case counts",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_federation_that_is_not_the_agreed_one_does_not_start(kind: str) -> None:
    handlers, reason = REFUSED[kind]
    with pytest.raises(FederationError, match=reason):
        join(FakeGrid(handlers), EXPECTED, ["A", "B"], 0.2)
