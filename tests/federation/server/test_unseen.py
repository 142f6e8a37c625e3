"""The mean of the arrays that stay, asked for once after the last round."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from flwr.app import Message, MetricRecord, RecordDict

from fedbrats.arrays import signature
from fedbrats.federation import questions
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server.state import FederationError, Member
from fedbrats.federation.server.unseen import mean_of_stays
from fedbrats.federation.wire import to_record
from tests.federation.toy import FakeGrid, Handler, error_message, federation

STAYS = {"bn": torch.zeros(2)}
MEMBERS = {"A": Member(2, 5, 0, 1), "B": Member(3, 1, 0, 1), "C": Member(4, 1, 0, 1)}
COHORT = Cohort("federated", ("A", "B", "C"))


def says(*values: float) -> Handler:
    def answer(message: Message) -> Message:
        config = message.content["config"]
        assert message.metadata.message_type == questions.STAYS
        assert (config["arm"], config["round"]) == ("federated", 7)
        records = {
            "arrays": to_record({"bn": torch.tensor(values)}),
            "metrics": MetricRecord({"num-examples": 5, "seconds": 0.25}),
        }
        return Message(RecordDict(records), reply_to=message)

    return answer


def test_the_mean_counts_every_site_alike_and_leaves_bad_answers_out(tmp_path: Path) -> None:
    """(1 + 3) / 2 whatever the number of cases; C sends a number that is none."""
    fed = federation(tmp_path, MEMBERS, [COHORT])
    grid = FakeGrid([says(1.0, -2.0), says(3.0, 4.0), says(math.nan, 0.0)])
    rows, mean = mean_of_stays(grid, fed, COHORT, 7, signature(STAYS))
    assert mean["bn"].tolist() == [2.0, 1.0]
    assert [(r["round"], r["site"], r["phase"], r["seconds"]) for r in rows] == [
        (7, "A", "stays", 0.25),
        (7, "B", "stays", 0.25),
        (7, "C", "stays", ""),
    ]
    assert [r["status"][:6] for r in rows] == ["ok", "ok", "failed"]
    assert rows[0]["bytes_up"] > 0
    assert rows[2]["bytes_up"] == ""
    assert fed.observer.replies == [
        ("federated", "A", "stays", True),
        ("federated", "B", "stays", True),
        ("federated", "C", "stays", False),
    ]


def test_without_any_answer_there_is_no_mean(tmp_path: Path) -> None:
    fed = federation(tmp_path, MEMBERS, [COHORT])
    grid = FakeGrid([lambda message: error_message("Refused: these arrays stay at site A", message)] * 3)
    with pytest.raises(FederationError, match="no site sent the arrays"):
        mean_of_stays(grid, fed, COHORT, 7, signature(STAYS))
