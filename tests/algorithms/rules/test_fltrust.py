"""FLTrust by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fedbrats.algorithms.base import Company, NoModel
from fedbrats.algorithms.rules.fltrust import FLTrust
from fedbrats.federation.arms import Cohort
from tests.algorithms.rules.made_replies import made
from tests.federation.toy import ARRAYS
from tests.federation.toy_rounds import CASES, good, raising, rows_of, serve

RULE = FLTrust(root="R")


def test_a_round_by_hand() -> None:
    """From (1, 1) the root moves (0, 2). A moves (0, 10): trusted fully, cut to (0, 2). B moves (3, 3): cosine
    1 / sqrt 2, cut to (sqrt 2, sqrt 2). C moves (0, -5): not trusted.
    """
    t = 1 / math.sqrt(2)
    new = made(
        RULE,
        ("A", (1, 11), 4.0, 1),
        ("B", (4, 4), 8.0, 1),
        ("C", (1, -4), 99.0, 50),
        ("R", (1, 3), 0.0, 1),
    )
    assert new["a"] == pytest.approx(1 + t * math.sqrt(2) / (2 + t))
    assert new["b"] == pytest.approx(1 + (2 + 2 + t * math.sqrt(2)) / (2 + t))
    assert new["seen"] == pytest.approx((4 + 8 * t) / (2 + t))


def test_a_liar_moves_the_model_no_further_than_the_root_does() -> None:
    new = made(RULE, ("A", (1e20, 1e20), 0, 1), ("R", (2, 2), 0, 1))
    assert (new["a"], new["b"]) == (pytest.approx(2), pytest.approx(2))


def test_without_the_root_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(NoModel, match=r"R \(strategy\.root\) has not replied"):
        made(RULE, ("A", (1, 3), 0, 1))
    with pytest.raises(NoModel, match="has changed nothing"):
        made(RULE, ("A", (1, 3), 0, 1), ("R", (1, 1), 0, 1))
    handlers = good()
    handlers[1] = raising
    cohort = Cohort("federated", tuple(CASES), FLTrust(root="B", quorum=0.5))
    fed = serve(tmp_path, handlers, cohorts=[cohort])
    status = "failed: the root of trust B (strategy.root) has not replied; the old model stays"
    assert rows_of(tmp_path)[-1]["status"] == status
    assert all((fed.models["federated"].arrays[name] == array).all() for name, array in ARRAYS.items())


def test_what_it_refuses() -> None:
    assert "strategy.root=<site>" in str(FLTrust().refuses(Company()))
    assert RULE.refuses(Company()) is None
    assert RULE.refuses_sites(["A", "R"]) is None
    assert "strategy.root=R, which does not train; name one of A, B" in str(RULE.refuses_sites(["B", "A"]))
    assert "privacy=central" in str(RULE.refuses(Company(central_privacy=True)))
