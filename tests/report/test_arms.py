"""Local models become two arms; percentages of pooled are paired."""

from __future__ import annotations

import pandas as pd
import pytest

from fedbrats.data.regions import REGIONS
from fedbrats.report.arms import arm_rank, arm_title, merge_local_arms, percent_of_pooled
from fedbrats.report.style import ARM_COLOURS
from tests.scored import CASE_COLUMNS, facts


def cases(*rows: tuple[str, str, str, float, str]) -> pd.DataFrame:
    """Rows (arm, site, case, dice, status) for every region; all other scores 1."""
    columns = [
        name for name in CASE_COLUMNS if name not in ("arm", "site", "case", "region", "dice", "status")
    ]
    head = ["arm", "site", "case", "dice", "status"]
    records = [
        {**dict(zip(head, row)), "region": r, **dict.fromkeys(columns, 1.0)} for row in rows for r in REGIONS
    ]
    return pd.DataFrame(records)


def dice_of(frame: pd.DataFrame, arm: str) -> dict[str, float]:
    part = frame[(frame["arm"] == arm) & (frame["region"] == "TC")]
    return dict(zip(part["case"], part["dice"]))


def test_own_and_elsewhere_are_told_apart_and_a_case_counts_once() -> None:
    frame = merge_local_arms(
        cases(
            ("federated", "A", "a1", 0.8, "ok"),
            ("local:A", "A", "a1", 0.7, "ok"),
            ("local:B", "A", "a1", 0.5, "ok"),
            ("local:C", "A", "a1", 0.3, "ok"),
        ),
        facts("brats2023"),
    )
    assert dice_of(frame, "local") == {"a1": 0.7}
    assert dice_of(frame, "local_elsewhere") == {"a1": pytest.approx(0.4)}  # (0.5 + 0.3) / 2
    assert dice_of(frame, "federated") == {"a1": 0.8}
    assert len(frame) == 3 * len(REGIONS)


def test_failed_models_count_with_the_worst_score() -> None:
    frame = merge_local_arms(
        cases(
            ("local:B", "A", "a1", 0.6, "ok"),
            ("local:C", "A", "a1", 0.9, "failed: x"),
            ("local:B", "A", "a2", 0.6, "failed: y"),
            ("local:C", "A", "a2", 0.6, "failed: z"),
        ),
        facts("brats2023"),
    )
    assert dice_of(frame, "local_elsewhere") == {"a1": pytest.approx(0.3), "a2": 0.0}
    assert set(frame[frame["case"] == "a1"]["status"]) == {"ok"}
    assert set(frame[frame["case"] == "a1"]["hd95"]) == {(1.0 + 374.0) / 2}
    assert all(status.startswith("failed") for status in frame[frame["case"] == "a2"]["status"])


def test_failed_row_without_region_stands_for_all() -> None:
    one = cases(("federated", "A", "a1", 0.5, "failed: x")).iloc[:1].assign(region="")
    frame = merge_local_arms(one, facts("captk"))
    assert sorted(frame["region"]) == sorted(REGIONS)
    assert set(frame["dice"]) == {0.0}
    assert frame["hd95"].iloc[0] == pytest.approx((240**2 + 240**2 + 155**2) ** 0.5)


def test_percent_of_pooled_uses_shared_cases_only() -> None:
    frame = cases(
        ("pooled", "A", "a1", 0.8, "ok"),
        ("pooled", "B", "b1", 0.4, "ok"),
        ("local", "A", "a1", 0.6, "ok"),
        ("federated", "A", "a1", 0.8, "ok"),
        ("federated", "B", "b1", 0.2, "ok"),
    )
    found = percent_of_pooled(frame)
    assert found["local"]["WT"] == pytest.approx(75.0)  # 0.6 / 0.8; over all pooled cases it would be 100
    assert found["federated"]["WT"] == pytest.approx(100 * 0.5 / 0.6)
    assert percent_of_pooled(frame, "B") == {"federated": dict.fromkeys(REGIONS, pytest.approx(50.0))}


def test_every_arm_has_a_place_a_title_and_a_colour_of_its_own() -> None:
    order = ["federated", "personal", "pooled", "local", "local_elsewhere", "floor"]
    assert sorted([*reversed(order), "other"], key=arm_rank) == [*order, "other"]
    assert list(ARM_COLOURS) == order
    assert len(set(ARM_COLOURS.values())) == len(order)
    assert [arm_title(arm) for arm in order[:2]] == ["Federated", "Personal"]


def test_no_percentage_of_a_pooled_mean_of_zero() -> None:
    assert percent_of_pooled(cases(("pooled", "A", "a", 0.0, "ok"), ("federated", "A", "a", 0.5, "ok"))) == {}
