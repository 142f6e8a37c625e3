"""What sites say they spent is checked before it is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fedbrats.federation.server import spending
from fedbrats.federation.server.replies import BadReply
from fedbrats.federation.server.spending import check_spent, write_spent
from fedbrats.privacy.accounting import Entry, rdp_epsilon
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.runs.privacy import STEPS, collect_steps
from tests.federation.toy import error_message, request

HISTORY = [[1.0, 0.5, 10], [1.0, 0.5, 10]]
RDP = rdp_epsilon([Entry(1.0, 0.5, 20)], 1e-5)
SAID: dict[str, Any] = {
    "epsilon": 15.5,
    "epsilon_rdp": RDP,
    "accountant": "PRV",
    "delta": 1e-5,
    "sigma": 1.0,
    "sample_rate": 0.5,
    "steps": 20,
    "rounds": 2,
    "clip": 1.0,
    "patients": 8,
    "patches": 2,
    "unit": "patient",
    "adjacency": "",
    "budget": None,
    "history": HISTORY,
    "spent_before": 0.0,
    "validation_epsilon": None,
    "table": [[1, 4.0, 1.0, 0.5, 10], [2, RDP, 1.0, 0.5, 10]],
}


def reply(**changed: Any) -> Message:
    text = json.dumps({**SAID, **changed})
    records = {"spent": ConfigRecord({"values": text}), "metrics": MetricRecord({"seconds": 0.1})}
    return Message(RecordDict(records), reply_to=request())


def test_a_good_answer_comes_through() -> None:
    assert check_spent(reply()) == SAID


@pytest.mark.parametrize(
    "changed",
    [
        {"epsilon_rdp": RDP / 2},  # smaller than its history allows
        {"history": [[1.0, 0.5, 10]]},
        {"history": [[1.0, 0.5, -3]]},
        {"history": [[1.0, 1.5, 10]]},
        {"history": "all"},
        {"epsilon": "little"},
        {"epsilon": "nan"},
        {"epsilon": -1.0},
        {"epsilon": 0.0},  # after 20 steps
        {"epsilon": 5.5},  # above 0 and below RDP, but below what PRV can prove
        {"epsilon": 0.0, "epsilon_rdp": 0.0, "history": []},
        {"epsilon": RDP * 1.01},
        {"steps": 1.5},
        {"delta": 0},
        {"table": [[1]]},
    ],
)
def test_an_answer_that_does_not_add_up_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(BadReply):
        check_spent(reply(**changed))


def test_an_answer_that_knows_of_fewer_rounds_than_were_used_is_refused() -> None:
    """Reproduced before: 31 rounds were computed, and the epsilon of 19 was reported."""
    assert check_spent(reply(), used=2) == SAID
    with pytest.raises(BadReply, match=r"2 rounds of this run \(20 steps\), but replies of 3 were used"):
        check_spent(reply(), used=3)


def test_a_flood_of_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spending, "MAX_TEXT", len(json.dumps(SAID)))
    assert check_spent(reply()) == SAID
    with pytest.raises(BadReply, match="length"):
        check_spent(reply(steps=200))


def test_an_error_of_the_site_is_a_reason() -> None:
    with pytest.raises(BadReply, match="ledger"):
        check_spent(error_message("SiteError: LedgerError: ledger.json cannot be read"))


def test_what_is_written_names_stops_and_silence(tmp_path: Path) -> None:
    settings = DpSgd(sigma=1.0, insecure_seed=3, validation="home")
    write_spent(
        tmp_path,
        settings,
        {"C": SAID, "A": SAID},
        {"B": "failed: no reply"},
        {"A": "budget"},
        "Scores leave.",
    )
    told = json.loads((tmp_path / "privacy.json").read_text())
    assert told["sites"]["A"]["stopped"] == "budget"
    assert "table" not in told["sites"]["A"]
    assert (told["unknown"], told["insecure_seed"]) == ({"B": "failed: no reply"}, 3)
    assert "No validation score leaves a site." in told["not_covered"]
    assert "Scores leave." in told["not_covered"]
    lines = (tmp_path / "privacy_rounds.csv").read_text().splitlines()
    assert lines[0] == "round,site,epsilon,sigma,sample_rate,steps,status"
    assert lines[1] == "1,A,4.0,1.0,0.5,10,ok"
    assert [line[:3] for line in lines[1:]] == ["1,A", "1,C", "2,A", "2,C"]


def test_an_infinite_epsilon_is_valid_json(tmp_path: Path) -> None:
    said = {**SAID, "epsilon": float("inf")}
    write_spent(tmp_path, DpSgd(sigma=1.0), {"A": said}, {}, {}, "")
    assert json.loads((tmp_path / "privacy.json").read_text())["sites"]["A"]["epsilon"] == "inf"


def test_steps_are_joined_site_by_site(tmp_path: Path) -> None:
    head = ",".join(STEPS.columns)
    for site in ("A", "B"):
        folder = tmp_path / "sites" / site / "privacy" / "steps"
        folder.mkdir(parents=True)
        for round_ in (1, 2):
            (folder / f"round_{round_:05d}.csv").write_text(
                f"{head}\n{site},{round_},1,2,0,0.5,0.6,1.0,1.0\n"
            )
    collect_steps(tmp_path, ["A", "B"])
    lines = (tmp_path / "privacy_steps.csv").read_text().splitlines()
    assert [line[:3] for line in lines[1:]] == ["A,1", "A,2", "B,1", "B,2"]
