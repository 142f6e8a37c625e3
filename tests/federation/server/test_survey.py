"""The survey: what is told, what a site of another configuration refuses, what is wrong with a reply, who is unlike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedbrats.config.survey import SurveyConfig, check_survey
from fedbrats.config.targets import ConfigError
from fedbrats.data.survey import BY_NAME, bins_of
from fedbrats.federation.server.replies import BadReply
from fedbrats.federation.server.survey import ask_survey, check_survey_reply, unlike_the_others
from fedbrats.files import read_json
from tests.federation.toy import FakeGrid, error_message, federation, request
from tests.federation.toy_rounds import members


def counts(place: int = 1, patients: int = 6) -> dict[str, list[int]]:
    return {
        name: [patients if i == min(place, len(bins_of(name)) - 1) else 0 for i in range(len(bins_of(name)))]
        for name in BY_NAME
    }


def reply(values: Any, to: Message | None = None) -> Message:
    text = values if isinstance(values, str) else json.dumps(values)
    return Message(RecordDict({"survey": ConfigRecord({"values": text})}), reply_to=to or request())


@pytest.mark.parametrize(
    "bad",
    [
        "[[[",
        "[" * 5000,
        "{}",
        {**counts(), "more": [1]},
        {**counts(), "ET, mL": [1]},
        {**counts(), "ET labelled": [1.5, 0]},
        {**counts(), "ET labelled": [-1, 0]},
        {**counts(), "ET labelled": [True, 0]},
        {**counts(), "ET labelled": [10**9, 0]},
        " " * 200_000,
    ],
)
def test_what_is_no_survey_is_refused(bad: Any) -> None:
    with pytest.raises(BadReply, match="survey cannot be used"):
        check_survey_reply(reply(bad))


def test_it_is_asked_once_and_written_down(tmp_path: Path) -> None:
    fed = federation(tmp_path, members(val=2, test=1))
    grid = FakeGrid(
        [
            lambda message: reply(counts(), message),
            lambda message: reply(counts(3), message),
            lambda message: error_message("Refused: no", message),
        ]
    )
    ask_survey(grid, fed, SurveyConfig())
    assert not (tmp_path / "survey.json").exists()
    ask_survey(grid, fed, SurveyConfig(enabled=True, least=2, epsilon=3.0))
    found = read_json(tmp_path / "survey.json")
    assert found["sites"] == {"A": counts(), "B": counts(3)}
    assert found["failed"] == {"C": "failed: site error: Refused: no"}
    assert (found["least"], found["epsilon"], found["bins"]["ET labelled"]) == (2, 3.0, ["none", "there"])
    assert {row["site"] for row in found["unusual"]} == {"A", "B"}
    asked = grid.count
    ask_survey(grid, fed, SurveyConfig(enabled=True))
    assert grid.count == asked


def test_who_is_unlike_the_others() -> None:
    alike = {site: counts(2) for site in "ABC"}
    assert list(unlike_the_others(alike)) == []
    other = {**alike, "D": counts(2) | {"ET, mL": counts(4)["ET, mL"]}}
    assert unlike_the_others(other) == [{"site": "D", "what": "ET, mL", "distance": 1.0}]
    few = {**alike, "D": {name: [min(n, 4) for n in c] for name, c in other["D"].items()}}
    assert unlike_the_others(few) == []  # four patients prove nothing


@pytest.mark.parametrize(
    ("settings", "federated", "private", "said"),
    [
        ({"least": 0}, True, False, r"survey\.least=0"),
        ({"epsilon": 0.0}, True, False, r"survey\.epsilon=0\.0"),
        ({"enabled": True}, False, False, "add federated to arms"),
        ({"enabled": True}, True, True, "not in the ledger of privacy=dp_sgd"),
    ],
)
def test_wrong_settings_name_their_key(
    settings: dict[str, Any], federated: bool, private: bool, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check_survey(SurveyConfig(**settings), federated, private)
    check_survey(SurveyConfig(enabled=True, epsilon=1.0), True, False)
