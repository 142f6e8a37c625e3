"""How many steps the pooled arm takes, by hand."""

from __future__ import annotations

import pytest

from fedbrats.checks.config import checked
from fedbrats.commands.compose import composed
from fedbrats.config.schema import TrainConfig
from fedbrats.training.amount import pooled_steps, steps_per_round

MEMBERS = {"A": 3, "B": 9}  # training cases


@pytest.mark.parametrize(
    ("train", "together", "in_a_row"),
    [
        (TrainConfig(local_steps=20), 40, 20),
        (TrainConfig(local_epochs=2, batch=2), 3 + 9, 9),
        (TrainConfig(local_steps=20, site_steps={"A": 35}), 55, 35),
    ],
)
def test_the_pooled_arm_takes_the_steps_of_all_sites_or_of_the_longest(
    train: TrainConfig, together: int, in_a_row: int
) -> None:
    assert pooled_steps(MEMBERS, train) == together
    assert pooled_steps(MEMBERS, train, in_a_row=True) == in_a_row
    train.pooled_steps = "both"
    assert pooled_steps(MEMBERS, train) == together
    train.pooled_steps = "in_a_row"
    assert pooled_steps(MEMBERS, train) == in_a_row


def test_every_arm_of_the_demo_has_as_many_steps_in_a_row() -> None:
    """Or its share of pooled would be one of too few steps, as it was with 200 beside 1200."""
    config = checked(composed(["experiment=demo"]))
    each = {steps_per_round(site, cases, config.train) for site, cases in MEMBERS.items()}
    assert each == {pooled_steps(MEMBERS, config.train)} == {50}
    assert config.rounds == 10
