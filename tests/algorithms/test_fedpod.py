"""FedPOD by hand: weights by cases, by the level of each site's validation loss in the round and by its fall."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, MetricRecord

from fedbrats.algorithms.base import Company, Memory, Reply
from fedbrats.algorithms.fedpod import FedPOD
from fedbrats.federation import wire
from fedbrats.federation.arms import Cohort
from tests.algorithms.test_fedcostwavg import GROUP
from tests.federation.toy_rounds import CASES, Answer, members, rows_of, sends, serve, values

Said = tuple[str, float, int, tuple[float, float] | None]  # site, weight, cases, loss before and after


def step(replies: list[Said], **shares: float) -> float:
    algorithm = FedPOD(**shares)
    found = algorithm.collect(Memory())
    for site, value, cases, progress in replies:
        arrays = {"w": np.array([value], np.float64)}
        found.add(Reply(site, arrays, cases, steps=1, loss=9.0, progress=progress))
    new, memory = algorithm.step({}, found, Memory(), GROUP)
    assert memory == Memory()
    return float(new["w"])


TWO: list[Said] = [("A", 0.0, 1, (1.0, 0.6)), ("B", 4.0, 3, (0.5, 0.4))]


def test_a_round_by_hand() -> None:
    """Sites of 1 and 3 cases at 0 and 4: 3 by cases. Levels 0.8 and 0.45: 4 * 0.45 / 1.25 = 1.44. Falls 0.4 and 0.1:
    4 * 0.1 / 0.5 = 0.8. With 0.2, 0.1 and 0.7 of them 0.6 + 0.144 + 0.56 = 1.304.
    """
    assert step(TWO) == pytest.approx(1.304)
    assert step(TWO, alpha=0.0, beta=1.0, gamma=0.0) == pytest.approx(1.44)
    assert step(TWO, alpha=0.0, beta=0.0, gamma=1.0) == pytest.approx(0.8)


def test_where_no_loss_has_fallen_its_share_goes_to_the_cases() -> None:
    """0.9 * 3 + 0.1 * 4 * 0.5 / 1.5."""
    risen: list[Said] = [("A", 0.0, 1, (0.5, 1.5)), ("B", 4.0, 3, (0.5, 0.5))]
    assert step(risen) == pytest.approx(2.7 + 0.1 * 4 * 0.5 / 1.5)


def test_a_site_without_validation_cases_weighs_by_its_cases_only() -> None:
    """0.2 * 3 for the cases; level and fall are those of A, at 0."""
    assert step([("A", 0.0, 1, (1.0, 0.6)), ("B", 4.0, 3, None)]) == pytest.approx(0.6)
    assert step([("A", 0.0, 1, None), ("B", 4.0, 3, None)]) == pytest.approx(3.0)


def test_a_loss_below_zero_is_refused_and_leaves_no_trace() -> None:
    found = FedPOD().collect(Memory())
    with pytest.raises(ValueError, match="strategy=fedpod needs none below zero"):
        found.add(Reply("A", {"w": np.ones(1)}, 1, steps=1, progress=(0.5, -0.1)))
    assert found.replies == 0


def test_what_it_cannot_be_combined_with() -> None:
    assert "stay at home with privacy=dp_sgd" in str(FedPOD().refuses(Company(patient_privacy=True)))
    assert "privacy=central" in str(FedPOD().refuses(Company(central_privacy=True)))
    assert "secure_aggregation" in str(FedPOD().refuses(Company(secure_aggregation=True)))


@pytest.mark.parametrize("wrong", [{"alpha": -0.1}, {"gamma": 1.1}, {"alpha": 0.5}, {"alpha": float("nan")}])
def test_a_bad_value_names_its_key(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=rf"strategy\.{next(iter(wrong))}={next(iter(wrong.values()))}"):
        FedPOD(**wrong)


# In a round


def telling(answer: Answer, **told: float) -> Answer:
    def answered(message: Message) -> Message | None:
        reply = answer(message)
        assert reply is not None
        record = {"num-examples": 2, "loss-before": 1.0, "loss-after": 0.5, **told}
        reply.content[wire.PROGRESS] = MetricRecord(record)
        return reply

    return answered


def test_the_losses_come_beside_the_training_and_are_checked(tmp_path: Path) -> None:
    """A falls by 0.5, B's cases are not those that it registered, C tells nothing."""
    plain = [sends(8.0, 1), sends(4.0, 2), sends(0.0, 5)]
    cohort = Cohort("federated", tuple(CASES), FedPOD(quorum=0.1))
    handlers = [telling(plain[0]), telling(plain[1], **{"num-examples": 3}), plain[2]]
    fed = serve(tmp_path, handlers, members=members(val=2), cohorts=[cohort], algorithm=cohort.algorithm)
    assert values(fed) == [8.0, 8.0]
    status = {row["site"]: row["status"] for row in rows_of(tmp_path) if row["phase"] == "train"}
    assert status["A"] == "ok"
    assert "weight 3, but the site registered 2 cases" in status["B"]
    assert "no validation losses before and after training" in status["C"]


def test_where_they_are_not_asked_for_they_are_not_welcome(tmp_path: Path) -> None:
    serve(tmp_path, [telling(sends(8.0, 1))] * 3, members=members(val=2))
    assert all("records" in row["status"] for row in rows_of(tmp_path) if row["phase"] == "train")
