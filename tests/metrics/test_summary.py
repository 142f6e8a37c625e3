import numpy as np
import pandas as pd
import pytest

from fedbrats.data.regions import REGIONS
from fedbrats.metrics.summary import SUMMARY_COLUMNS, summarise
from fedbrats.metrics.table import Facts
from tests.scored import CASE_COLUMNS, SCORES, facts


def case(site, name, dice, hd95, status="ok", arm="federated"):
    values = {"dice": dice, "hd95": hd95, "sensitivity": 1.0, "specificity": 1.0}
    values |= {"lesion_dice": dice, "lesion_hd95": hd95, "volume_true_ml": 1.0, "volume_pred_ml": 1.0}
    head = {"arm": arm, "site": site, "case": name}
    return [{**head, "region": region, **values, "status": status} for region in REGIONS]


def table(*cases):
    return pd.DataFrame([row for rows in cases for row in rows], columns=list(CASE_COLUMNS))


def pick(summary, metric, site="all", region="WT", arm="federated"):
    rows = summary[(summary.metric == metric) & (summary.site == site) & (summary.region == region)]
    (row,) = rows[rows.arm == arm].to_dict("records")
    return row


FOUR = table(
    case("B", "b1", 0.9, 2), case("A", "a1", 0.5, 8), case("A", "a2", 0.7, 4), case("B", "b2", 0.8, 30)
)


def test_statistics_by_hand():
    """Dice 0.5, 0.7, 0.8, 0.9; site A is worst in Dice (0.6), site B in HD95 (16)."""
    summary = summarise(FOUR, facts("monai"), "monai", bootstrap=500, seed=1)
    assert tuple(summary.columns) == SUMMARY_COLUMNS
    assert len(summary) == 3 * len(REGIONS) * len(SCORES)
    assert set(summary.convention) == {"monai"}
    row = pick(summary, "dice")
    assert row["mean"] == pytest.approx(0.725)
    assert row["std"] == pytest.approx(np.sqrt((0.225**2 + 0.025**2 + 0.075**2 + 0.175**2) / 3))
    assert (row["q25"], row["median"], row["q75"]) == pytest.approx((0.65, 0.75, 0.825))
    assert (row["n"], row["failed"], row["worst_site"]) == (4, 0, "A")
    assert row["worst_mean"] == pytest.approx(0.6)
    assert pick(summary, "hd95")["worst_site"] == "B"
    assert pick(summary, "hd95")["worst_mean"] == pytest.approx(16)
    assert pick(summary, "hd95", site="A")["mean"] == pytest.approx(6)
    assert pick(summary, "hd95", site="A")["worst_site"] == "A"


def test_failed_cases_count_with_the_worst_values():
    """Perfect case and a failed one: the mean is half the penalty, not 0 (the trap of dropped NaN)."""
    nothing = float("nan")
    cases = table(case("A", "a1", 1, 0), case("A", "a2", nothing, nothing, status="failed: no prediction"))
    for convention, penalty in (("brats2023", 374), ("captk", 373.1287), ("monai", 374)):
        summary = summarise(cases, facts(convention), convention, bootstrap=50)
        assert (pick(summary, "hd95")["n"], pick(summary, "hd95")["failed"]) == (2, 1)
        assert pick(summary, "hd95")["mean"] == pytest.approx(penalty / 2, abs=1e-4)
        assert pick(summary, "lesion_hd95")["mean"] == 187
        assert pick(summary, "dice")["mean"] == 0.5
        assert pick(summary, "specificity")["mean"] == 0.5
        assert np.isfinite(summary.select_dtypes("number").to_numpy()).all()


def test_failed_row_without_region_counts_in_every_region():
    whole = {**case("B", "b1", 0, 0, status="failed: out of memory")[0], "region": None}
    summary = summarise(table(case("A", "a1", 1, 0), [whole]), facts("brats2023"), "brats2023", bootstrap=50)
    assert [pick(summary, "dice", region=r)["failed"] for r in REGIONS] == [1, 1, 1]
    assert pick(summary, "dice", region="ET")["worst_site"] == "B"


def test_interval_is_deterministic_and_independent_of_order():
    first = summarise(FOUR, facts("brats2023"), "brats2023", bootstrap=300, seed=3)
    again = summarise(
        FOUR.sample(frac=1, random_state=0), facts("brats2023"), "brats2023", bootstrap=300, seed=3
    )
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    assert (
        pick(summarise(FOUR, facts("brats2023"), "brats2023", 300, seed=4), "hd95")["ci_high"]
        != pick(first, "hd95")["ci_high"]
    )


def test_interval_is_the_percentile_bootstrap():
    """Two cases, 0 and 1: resampled means are 0, 0.5, 1 with 1/4, 1/2, 1/4, so the interval is 0 to 1.

    For 200 cases of standard deviation s it is close to the mean -+ 1.96 s / sqrt(200).
    """
    two = summarise(
        table(case("A", "a", 0, 0), case("A", "b", 1, 1)), facts("brats2023"), "brats2023", bootstrap=1000
    )
    assert (pick(two, "dice")["ci_low"], pick(two, "dice")["ci_high"]) == (0, 1)
    dice = np.random.default_rng(0).beta(8, 2, 200)
    row = pick(
        summarise(
            table(*(case("A", f"c{i}", d, 1) for i, d in enumerate(dice))), facts("monai"), "monai", 4000
        ),
        "dice",
    )
    half = 1.96 * dice.std(ddof=1) / np.sqrt(200)
    assert row["ci_low"] == pytest.approx(dice.mean() - half, abs=0.1 * half)
    assert row["ci_high"] == pytest.approx(dice.mean() + half, abs=0.1 * half)


def test_single_case_is_its_own_interval():
    row = pick(summarise(table(case("A", "a1", 0.25, 7)), facts("captk"), "captk", bootstrap=10), "hd95")
    assert (row["mean"], row["std"], row["ci_low"], row["ci_high"], row["q25"]) == (7, 0, 7, 7, 7)


def test_arms_are_kept_apart():
    both = table(case("A", "a1", 1, 0), case("A", "a1", 0.5, 3, arm="pooled"))
    summary = summarise(both, facts("brats2023"), "brats2023", bootstrap=10)
    assert pick(summary, "dice", arm="pooled")["mean"] == 0.5
    assert pick(summary, "dice")["mean"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.assign(dice=float("nan")),
            'status is "ok" but a score is missing or infinite: federated / B',
        ),
        (lambda t: t.drop(index=0), "one row for each of WT, TC, ET.*federated / B / b1"),
        (lambda t: t[(t.region != "ET") | (t.case != "b1")], "one row for each of WT, TC, ET"),
        (lambda t: t.assign(site="all"), 'a site cannot be called "all"'),
        (lambda t: t.assign(site=None), "site is empty"),
        (lambda t: t.drop(columns="lesion_dice"), r"missing columns \['lesion_dice'\]"),
        (lambda t: t[:0], "no rows"),
        (lambda t: t.assign(region="NCR"), "unknown region"),
    ],
)
def test_bad_tables_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        summarise(change(FOUR), facts("brats2023"), "brats2023", bootstrap=10)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"metrics.bootstrap"):
        summarise(FOUR, facts("brats2023"), "brats2023", bootstrap=0)
    with pytest.raises(ValueError, match=r"metrics.convention: unknown 'x'"):
        facts("x")


def test_one_more_metric_moves_no_number_of_the_others():
    """Its order is another, so if rows were drawn by it, the intervals of the others would move."""
    known = facts("brats2023")
    more = {"extra": Facts("Extra"), **known, "another": Facts("Another")}
    cases = FOUR.assign(extra=FOUR["hd95"].to_numpy()[::-1], another=np.arange(len(FOUR)) % 5 / 5)
    plain, found = (summarise(cases, metrics, "brats2023", 300) for metrics in (known, more))
    assert set(found["metric"]) == {*SCORES, "extra", "another"}
    found = found[found["metric"].isin(SCORES)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, plain, check_exact=True)
