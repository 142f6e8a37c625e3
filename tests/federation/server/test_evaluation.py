"""Validation in the rounds and the test at the end, with sites that answer by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from fedbrats.data.regions import REGIONS
from fedbrats.federation.server import evaluation, round_loop
from fedbrats.federation.server.state import Member
from fedbrats.federation.wire import to_record
from tests.federation.toy import ARRAYS, FakeGrid, case_row, evaluate_reply, federation
from tests.federation.toy_rounds import CASES, Answer, members, raising, rows_of, sends, serve

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
    round_loop.serve(FakeGrid([evaluating(0.5)] * 3), fed)
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
    found, usable = evaluation.score_model(
        FakeGrid([answer, garbage, answer, answer]),
        fed,
        fed.cohorts[0],
        dict.fromkeys(everyone, to_record(ARRAYS)),
        1,
        [],
    )
    assert [(r["site"], r["status"] == "ok") for r in found] == [("A", True), ("B", False), ("HELD", True)]
    assert usable.keys() == {"A", "HELD"}
    assert usable["HELD"].rows == rows
