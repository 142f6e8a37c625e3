"""Numbers that enough cases stand behind, by hand; and what is not told because too few do."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import pytest

from fedbrats.metrics.aggregates import aggregates, together


def rows(values: list[float], region: str = "WT", failed: int = 0) -> list[dict[str, Any]]:
    return [
        {"case": f"c{i}", "region": region, "dice": value, "status": "failed: x" if i < failed else "ok"}
        for i, value in enumerate(values)
    ]


def test_mean_and_deviation_by_another_library() -> None:
    values = [0.1, 0.5, 0.7, 0.2, 0.9]
    (found,) = aggregates(rows(values), ["dice"], 5)
    assert (found["region"], found["metric"], found["cases"], found["failed"]) == ("WT", "dice", 5, 0)
    assert found["mean"] == pytest.approx(statistics.mean(values))
    assert found["sd"] == pytest.approx(statistics.stdev(values))


@pytest.mark.parametrize(
    ("cases", "told"),
    [(5, set()), (9, set()), (10, {"median"}), (19, {"median"}), (20, {"q25", "median", "q75"})],
)
def test_a_quantile_has_enough_cases_on_either_side(cases: int, told: set[str]) -> None:
    values = list(np.random.default_rng(0).random(cases))
    (found,) = aggregates(rows(values), ["dice"], 5)
    assert {name for name in ("q25", "median", "q75") if found[name] is not None} == told
    if "median" in told:
        assert found["median"] == pytest.approx(statistics.median(values))
        below = sum(value < found["median"] for value in values)
        assert min(below, cases - below) >= 5 or cases == 19  # of 19 one is the median itself


def test_of_too_few_cases_nothing_is_told() -> None:
    assert aggregates(rows([0.1] * 4), ["dice"], 5) == []
    assert aggregates([], ["dice"], 5) == []


@pytest.mark.parametrize(
    ("failed", "told"), [(0, 0), (1, None), (4, None), (5, 5), (7, 7), (8, None), (11, None), (12, 12)]
)
def test_how_many_failed_is_a_number_of_cases_too(failed: int, told: int | None) -> None:
    (found,) = aggregates(rows([0.5] * 12, failed=failed), ["dice"], 5)
    assert found["failed"] == told


def test_sites_together_are_as_all_cases_in_one_list() -> None:
    lists = [[0.1, 0.5, 0.7], [0.9], [0.2, 0.2, 0.4, 0.6]]
    found = together([aggregates(rows(values), ["dice"], 1)[0] for values in lists])
    every = [value for values in lists for value in values]
    assert found["cases"] == 8
    assert found["mean"] == pytest.approx(statistics.mean(every))
    assert found["sd"] == pytest.approx(statistics.stdev(every))
