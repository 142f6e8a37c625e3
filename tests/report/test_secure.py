"""What the report says of secure aggregation: what the rounds used, and nothing that is not written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from fedbrats.report.secure import secure_sentence
from fedbrats.runs.rounds import read_rounds
from fedbrats.runs.secure import TABLE, start
from tests.report.fake_run import write_run

FACTS = {"asked": 3, "threshold": 3, "summed": 3, "cases": 7, "bits": 43, "error": 2.41e-14}


def secured(folder: Path, rows: list[dict[str, Any]], rounds: int = 3) -> str:
    """The sentence on a made-up run; round 7 of it failed."""
    write_run(folder, ["A", "B", "C"], [6, 6, 6], (), ("federated", "pooled"), rounds=rounds)
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"privacy": {"secure_aggregation": True}}
    start(folder, 0)
    TABLE.append(folder, rows)
    return secure_sentence(folder, config, read_rounds(folder))


def test_threshold_and_error_are_those_of_the_rounds_that_changed_the_model(tmp_path: Path) -> None:
    rows = [FACTS | {"round": number} for number in range(1, 8)]
    rows[1] |= {"asked": 5, "threshold": 4, "summed": 4, "error": 3.01e-14}
    rows[6] |= {"asked": 9, "threshold": 7, "error": 1.0}  # of the round that failed
    assert secured(tmp_path, rows, rounds=7) == (
        "Secure aggregation: in 6 of 6 rounds that changed the model the sites' models came to the server masked, and "
        "only their sum, of 3 sites at least, was unmasked; 3 of 3 or 4 of 5 sites had to stay to the end of a round "
        "(threshold), and rounding for the sum moved no element of the mean by more than 3.1e-14."
    )


def test_a_round_of_which_nothing_is_written_is_not_counted(tmp_path: Path) -> None:
    rows = [FACTS | {"round": 1}, FACTS | {"round": 2, "error": ""}]
    assert secured(tmp_path, rows).startswith("Secure aggregation: in 1 of 3 rounds that changed the model")


@pytest.mark.parametrize("written", [True, False])
def test_a_run_without_record_does_not_claim_it(written: bool, tmp_path: Path) -> None:
    said = secured(tmp_path, [])
    if not written:  # as an older version left it
        (tmp_path / TABLE.name).unlink()
        said = secure_sentence(tmp_path, {"privacy": {"secure_aggregation": True}}, read_rounds(tmp_path))
    assert said == (
        "Secure aggregation was asked for (privacy.secure_aggregation=true), but secure_rounds.csv tells of none of "
        "the 3 rounds that changed the model."
    )


def test_before_the_first_round_and_without_it(tmp_path: Path) -> None:
    empty = read_rounds(tmp_path)
    said = secure_sentence(tmp_path, {"privacy": {"secure_aggregation": True}}, empty)
    assert said.endswith("no round has changed the model yet.")
    for privacy in (None, {}, "x", {"secure_aggregation": False}):
        assert secure_sentence(tmp_path, {"privacy": privacy}, empty) == ""
