"""Names of the jobs of a sweep."""

from __future__ import annotations

import hashlib

import pytest

from fedbrats.studies.naming import LONGEST, job_name


def digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


@pytest.mark.parametrize(
    ("overrides", "same", "name"),
    [
        (
            ["strategy=fedprox", "strategy.mu=0.01", "seed=1", "rounds=3"],
            ["rounds"],
            "strategy=fedprox__mu=0.01__seed=1",
        ),
        (["seed=2", "+strategy.mu=1e-3"], [], "mu=1e-3__seed=2"),  # seeds last
        (["data.phantom.seed=1", "seed=2"], [], "data.phantom.seed=1__seed=2"),  # both end alike
        (["rounds=3"], ["rounds"], "7"),
        ([], [], "7"),
        (["train.init=null"], [], "init=null"),
        (["train.init=outputs/public"], [], f"init=outputs_public-{digits('outputs/public')}"),
        (["partition.table='/a/b.csv'"], [], f"table=a_b.csv-{digits('/a/b.csv')}"),
        (["arms=[federated,local]"], [], f"arms=federated_local-{digits('[federated,local]')}"),
    ],
)
def test_a_job_is_called_by_what_differs(overrides: list[str], same: list[str], name: str) -> None:
    assert job_name(overrides, same, 7) == name


def test_values_that_look_alike_once_they_are_safe_have_other_names() -> None:
    names = {job_name([f"train.init={value}"], [], 0) for value in ("a/b", "a_b", "a:b", "a b")}
    assert len(names) == 4
    assert not any(set(name) & set("/: ") for name in names)


def test_long_names_are_cut_and_still_differ() -> None:
    many = [f"model.option_{number}=0.123456789" for number in range(20)]
    one, other = job_name([*many, "seed=1"], [], 0), job_name([*many, "seed=2"], [], 0)
    assert len(one) == len(other) == LONGEST + 7
    assert one != other
