"""Institutional incremental and cyclic learning: who trains when."""

from __future__ import annotations

from pathlib import Path

from fedbrats.algorithms.base import Company, Memory
from fedbrats.algorithms.incremental import Cyclic, Incremental
from fedbrats.federation.arms import Cohort
from tests.federation.toy_rounds import CASES, good, rows_of, serve, values

SITES = ["A", "B", "C"]


def turns(rule: Cyclic | Incremental, rounds: int) -> str:
    return "".join("".join(rule.asked(SITES, round_, rounds, Memory())) for round_ in range(1, rounds + 1))


def test_who_trains_when() -> None:
    assert turns(Cyclic(), 7) == "ABCABCA"
    assert turns(Incremental(), 6) == "AABBCC"
    assert turns(Incremental(), 7) == "AAABBCC"
    assert turns(Incremental(), 2) == "AB"
    assert Cyclic().asked([], 1, 3, Memory()) == Incremental().asked([], 1, 3, Memory()) == []


def test_the_model_of_one_site_is_the_next(tmp_path: Path) -> None:
    """A, B and C always end at 8, 4 and 0."""
    for rule, rounds, expected in ((Cyclic(), 4, 8.0), (Incremental(), 4, 0.0), (Cyclic(), 2, 4.0)):
        folder = tmp_path / f"{type(rule).__name__}{rounds}"
        folder.mkdir()
        fed = serve(folder, good(), cohorts=[Cohort("federated", tuple(CASES), rule)], rounds=rounds)
        assert values(fed) == [expected, expected]
        trained = [row["site"] for row in rows_of(folder) if row["phase"] == "train"]
        assert "".join(trained) == turns(rule, rounds)
        assert {row["status"] for row in rows_of(folder)} == {"ok"}  # of one site asked, one is all


def test_no_sum_hides_a_single_site() -> None:
    for rule in (Cyclic(), Incremental()):
        assert "secure_aggregation" in str(rule.refuses(Company(secure_aggregation=True)))
        assert "privacy=central" in str(rule.refuses(Company(central_privacy=True)))
        assert rule.refuses(Company(patient_privacy=True)) is None
