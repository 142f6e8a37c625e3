"""The server's rounds: what is aggregated, what is left out, and when it ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict

from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server import round_loop
from fedbrats.federation.server.state import FederationError, Member
from tests.federation.toy import ARRAYS, FakeGrid, evaluate_reply, federation, train_reply
from tests.federation.toy_rounds import (
    CASES,
    Answer,
    good,
    members,
    raising,
    rows_of,
    sends,
    serve,
    silent,
    values,
)

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
    assert model.failed_in_a_row == 1


def test_failed_rounds_in_a_row_end_the_run_and_name_the_sites(tmp_path: Path) -> None:
    fed = federation(tmp_path, members(), algorithm=FedAvg(max_failed_rounds=2, timeout=5), rounds=10)
    with pytest.raises(FederationError) as caught:
        round_loop.serve(FakeGrid([raising, sends(1.0, 2), raising]), fed)
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
    assert fed.models["federated"].failed_in_a_row == 0


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
    round_loop.serve(grid, fed)
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
        round_loop.serve(FakeGrid([answer] * 3, backwards), fed)
        results.append(fed.models["federated"].arrays["w"].numpy().tobytes())
    assert results[0] == results[1]


# Early stopping


def _validating(losses: dict[str, list[float]], asked: list[tuple[str, str, int]]) -> Answer:
    """A site that trains, and whose validation losses in each arm are told one after the other."""

    def answer(message: Message) -> Message:
        config = message.content["config"]
        kind = message.metadata.message_type
        asked.append((config["arm"], kind, config["round"]))
        if "train" in kind:
            return train_reply(to=message, **{"num-examples": 5})
        return evaluate_reply(to=message, loss=losses[config["arm"]][config["round"] - 1])

    return answer


def test_an_arm_stops_by_itself_and_the_run_with_the_last_one(tmp_path: Path) -> None:
    asked: list[tuple[str, str, int]] = []
    losses = {"federated": [3.0, 2.0, 2.5, 2.0, 0.0, 0.0], "pooled": [3.0, 2.0, 1.0, 1.5, 1.5, 0.0]}
    cohorts = [Cohort("federated", ("C",)), Cohort("pooled", ("C",))]
    fed = federation(tmp_path, {"C": Member(2, 5, 2, 0)}, cohorts, rounds=6)
    fed.stop_patience, fed.checkpoint_every = 2, 10
    round_loop.serve(FakeGrid([_validating(losses, asked)]), fed)
    trained = {arm: [r for a, kind, r in asked if a == arm and "train" in kind] for arm in losses}
    assert trained == {"federated": [1, 2, 3, 4], "pooled": [1, 2, 3, 4, 5]}
    assert fed.models["federated"].val_losses == [3.0, 2.0, 2.5, 2.0]
    assert fed.finished_round == fed.checkpointed == 5
    assert [r["arm"] for r in rows_of(tmp_path) if r["round"] == "5" and r["phase"] == "train"] == ["pooled"]
    before = len(asked)
    round_loop.serve(FakeGrid([_validating(losses, asked)]), fed)  # a resume of a run that had stopped
    assert (len(asked), fed.finished_round) == (before, 5)


def test_without_patience_every_round_is_trained(tmp_path: Path) -> None:
    asked: list[tuple[str, str, int]] = []
    fed = federation(tmp_path, {"C": Member(2, 5, 2, 0)}, rounds=4)
    round_loop.serve(FakeGrid([_validating({"federated": [1.0, 2.0, 3.0, 4.0]}, asked)]), fed)
    assert [r for _, kind, r in asked if "train" in kind] == [1, 2, 3, 4]


def test_a_site_without_a_training_case_is_not_asked(tmp_path: Path) -> None:
    """It has no weight; its reply alone would divide by zero."""
    asked: list[str] = []

    def listening(message: Message) -> Message:
        asked.append(str(message.metadata.dst_node_id))
        return sends(8.0, 0)(message)

    empty = {"A": Member(2, 0, 0, 1), "B": Member(3, 2, 0, 0)}
    fed = federation(tmp_path, empty, [Cohort("federated", ("A", "B")), Cohort("local:A", ("A",))])
    rows = round_loop.run_round(FakeGrid([listening, sends(4.0, 2)]), fed, 1)
    assert not asked
    assert values(fed) == [4.0, 4.0]
    status = {row["arm"]: row["status"] for row in rows if row["phase"] == "round"}
    assert status == {"federated": "ok", "local:A": "stopped: no site has a training case; the model stays"}
