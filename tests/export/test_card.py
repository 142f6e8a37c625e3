"""The model card of a run with results: institutions by number, who is worst, and what may not leave."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from fedbrats.export.card import Card, read_card, references
from fedbrats.export.numbered import Numbers
from fedbrats.files import write_csv
from fedbrats.inference.members import Spec
from tests.inference.run_folders import make_run

SIZES = {"CBICA": 7, "TCIA01": 8, "TCIA13": 2}
DICE = {"CBICA": 0.75, "TCIA01": 0.5, "TCIA13": 0.25}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three institutions, of which the last has too few test cases for a score that leaves."""
    folder = tmp_path_factory.mktemp("card") / "run"
    make_run(folder, "strategy=fedprox")
    names: dict[str, Sequence[str]] = {
        site: [f"{site}_{number}" for number in range(size)] for site, size in SIZES.items()
    }
    sites = [
        {"name": site, "holdout": site == "TCIA13", "train": ["x"], "val": [], "test": names[site]}
        for site in SIZES
    ]
    (folder / "partition.json").write_text(json.dumps({"sites": sites}))
    rows = [
        {"arm": "federated", "site": site, "case": case, "region": region, "dice": DICE[site], "hd95": 4.0}
        | {"status": "ok"}
        for site in SIZES
        for case in names[site]
        for region in ("WT", "TC", "ET")
    ]
    write_csv(folder / "cases.csv", list(rows[0]), rows)
    return folder


@pytest.fixture(scope="module")
def card(run: Path) -> Card:
    return read_card(Spec(run))


def test_means_are_those_of_the_cases_and_few_cases_have_none(card: Card) -> None:
    rows = {row["who"]: row for row in card.results}
    assert [row["n"] for row in card.results] == [17, 7, 8, 2]
    assert rows["2"]["cells"][0].startswith("0.500 (")
    assert rows["3"]["cells"] == ["withheld"] * 6
    assert card.columns[:3] == ["Dice WT", "Dice TC", "Dice ET"]


def test_what_would_follow_from_the_others_is_withheld_too(card: Card) -> None:
    """The two cases of institution 3 would follow from the mean of all and those of 1 and 2."""
    assert {row["who"]: row["cells"][0] for row in card.results}["1"] == "withheld"


def test_the_worst_institution_is_one_of_those_that_leave(card: Card) -> None:
    assert card.worst.startswith("WT Dice 0.500 at institution 2 (n = 8)")
    assert "institution 3" not in card.worst


def test_papers_are_those_with_a_year(card: Card) -> None:
    said = " ".join(references(card))
    assert "FedProx (Li et al., MLSys 2020" in said
    assert "no paper named" not in said


def test_names_become_numbers_wherever_they_stand() -> None:
    numbers = Numbers.of(["A", "TCIA1", "TCIA10"])
    assert numbers.hide("TCIA10 and TCIA1, TCIA100") == "institution 3 and institution 2, TCIA100"
    assert numbers.hide("A patient") == "A patient"
    assert numbers.name("nobody") == "institution ?"
