"""The mean of the arrays that stay, asked for once after the last round, and a site that forgets its own for it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from flwr.app import Message, MetricRecord, RecordDict

from fedbrats.federation import exchange, unseen_sites
from fedbrats.federation.arms import Cohort
from fedbrats.federation.asking import FederationError, Member
from fedbrats.federation.exchange import signature, to_record
from tests.federation.toy import FakeGrid, Handler, error_message, federation
from tests.federation.toy_personal import BN, arrays, method, own, runtime, sent_without

STAYS = {"bn": torch.zeros(2)}
MEMBERS = {"A": Member(2, 5, 0, 1), "B": Member(3, 1, 0, 1), "C": Member(4, 1, 0, 1)}
COHORT = Cohort("federated", ("A", "B", "C"))


def says(*values: float) -> Handler:
    def answer(message: Message) -> Message:
        config = message.content["config"]
        assert (config["arm"], config["round"], config["split"]) == ("federated", 7, "stays")
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
    rows, mean = unseen_sites.mean_of_stays(grid, fed, COHORT, 7, signature(STAYS))
    assert mean["bn"].tolist() == [2.0, 1.0]
    assert [(r["round"], r["site"], r["phase"], r["seconds"]) for r in rows] == [
        (7, "A", "stays", 0.25),
        (7, "B", "stays", 0.25),
        (7, "C", "stays", 0.0),
    ]
    assert [r["status"][:6] for r in rows] == ["ok", "ok", "failed"]
    assert [r["bytes_up"] for r in rows][2] == 0 < rows[0]["bytes_up"]
    assert fed.observer.replies == [
        ("federated", "A", "stays", True),
        ("federated", "B", "stays", True),
        ("federated", "C", "stays", False),
    ]


def test_without_any_answer_there_is_no_mean(tmp_path: Path) -> None:
    fed = federation(tmp_path, MEMBERS, [COHORT])
    grid = FakeGrid([lambda message: error_message("PermissionError: these arrays stay here", message)] * 3)
    with pytest.raises(FederationError, match="no site sent the arrays"):
        unseen_sites.mean_of_stays(grid, fed, COHORT, 7, signature(STAYS))


def test_what_leaves_for_the_mean_is_of_the_round_that_is_tested(tmp_path: Path) -> None:
    found = runtime(tmp_path, method("bn_local", unseen="average"))
    for round_ in (1, 2):
        found.train("A", sent_without(BN), "federated", round_, 0)
    for round_ in (1, 2):
        sent = exchange.from_record(
            unseen_sites.stays_of_site(found, "A", round_)["arrays"],
            signature({name: arrays()[name] for name in BN}),
        )
        kept = own(found, "A", round_ + 1)
        assert all(torch.equal(torch.from_numpy(sent[name].copy()), kept[name]) for name in BN)


def test_a_site_that_trained_forgets_its_own_arrays_to_be_served_as_unseen(tmp_path: Path) -> None:
    found, sent = runtime(tmp_path, method("bn_local", unseen="instance")), sent_without(BN)
    found.train("A", sent, "federated", 1, 0)
    mine = own(found, "A", 2)
    found.load(sent, "A", "federated", 2)
    with unseen_sites.served_as_unseen(found, "A"):
        assert torch.equal(found.network[1].weight, torch.ones(4))
        assert torch.equal(found.network[1].running_mean, torch.zeros(4))
    found.load(sent, "A", "federated", 2)  # and has them again afterwards
    assert torch.equal(found.network[1].weight, mine["1.weight"])
    assert not torch.equal(mine["1.weight"], torch.ones(4))
