"""The arms of a run as cohorts of sites."""

from __future__ import annotations

import pytest

from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.algorithms.fedprox import FedProx
from fedbrats.data.partition import Site
from fedbrats.federation.arms import Cohort, algorithm_of, cohorts, pooled_site

SITES = [
    Site("A", False, ("a1", "a2"), ("a3",), ("a4",)),
    Site("B", False, ("b1",), (), ("b2",)),
    Site("HELD", True, (), (), ("h1", "h2")),
]


@pytest.mark.parametrize("order", [("federated", "pooled", "local"), ("local", "pooled", "federated")])
def test_cohorts_come_in_one_order(order: tuple[str, ...]) -> None:
    prox = FedProx(mu=0.5)
    assert cohorts(order, ["A", "B"], prox) == [
        Cohort("federated", ("A", "B"), prox),
        Cohort("local:A", ("A",)),
        Cohort("local:B", ("B",)),
        Cohort("pooled", ("pooled",)),
    ]
    twice = cohorts(["pooled"], ["A"], prox, pooled_twice=True)
    assert twice == [Cohort(arm, ("pooled",)) for arm in ("pooled", "pooled_in_a_row")]
    assert cohorts(["local"], ["A"], FedAvg()) == [Cohort("local:A", ("A",))]


def test_only_the_federation_exchanges_anything() -> None:
    assert [c.federated for c in cohorts(("federated", "pooled", "local"), ["A"], FedAvg())] == [
        True,
        False,
        False,
    ]


def test_pooled_site_is_the_union_of_what_trains_and_never_holds_a_test_case() -> None:
    pooled = pooled_site(SITES)
    assert pooled == Site("pooled", False, ("a1", "a2", "b1"), ("a3",), ())
    tested = {case for site in SITES for case in site.test}
    assert not tested & {*pooled.train, *pooled.val}


def test_the_baselines_train_plainly() -> None:
    prox = FedProx(mu=0.5)
    assert algorithm_of("federated", prox) is prox
    for arm in ("pooled", "local:A"):
        assert type(algorithm_of(arm, prox)) is FedAvg
