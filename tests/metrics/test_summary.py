import numpy as np
import pandas as pd
import pytest

from fedbrats.data.regions import REGIONS
from fedbrats.metrics.hd95 import PENALTY
from fedbrats.metrics.interval import mean_interval
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
SEVEN = table(*(case("A", f"a{i}", (i + 1) / 10, 9 - i) for i in range(6)), case("B", "b", 1.0, 0.0))


def test_statistics_by_hand():
    """Dice 0.5, 0.7, 0.8, 0.9; site A is worst in Dice (0.6), site B in HD95 (16)."""
    summary = summarise(FOUR, facts("monai"), "monai")
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
        summary = summarise(cases, facts(convention), convention)
        assert (pick(summary, "hd95")["n"], pick(summary, "hd95")["failed"]) == (2, 1)
        assert pick(summary, "hd95")["mean"] == pytest.approx(penalty / 2, abs=1e-4)
        assert pick(summary, "lesion_hd95")["mean"] == 187
        assert pick(summary, "dice")["mean"] == 0.5
        assert pick(summary, "specificity")["mean"] == 0.5
        numbers = summary.drop(columns=["ci_low", "ci_high"]).select_dtypes("number")  # two cases have none
        assert np.isfinite(numbers.to_numpy()).all()


def test_failed_row_without_region_counts_in_every_region():
    whole = {**case("B", "b1", 0, 0, status="failed: out of memory")[0], "region": None}
    summary = summarise(table(case("A", "a1", 1, 0), [whole]), facts("brats2023"), "brats2023")
    assert [pick(summary, "dice", region=r)["failed"] for r in REGIONS] == [1, 1, 1]
    assert pick(summary, "dice", region="ET")["worst_site"] == "B"


def test_no_number_depends_on_the_order_of_the_rows():
    pd.testing.assert_frame_equal(
        summarise(SEVEN, facts("brats2023"), "brats2023"),
        summarise(SEVEN.sample(frac=1, random_state=0), facts("brats2023"), "brats2023"),
        check_exact=True,
    )


def test_interval_is_that_of_the_range_of_each_metric():
    """Within an institution over its cases; of all cases over the institutions too."""
    summary = summarise(SEVEN, facts("captk"), "captk")
    dice, hd95 = ([float(i) for i in part] for part in ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [9, 8, 7, 6, 5, 4]))
    row = pick(summary, "dice", site="A")
    assert (row["ci_low"], row["ci_high"]) == mean_interval(np.array(dice), (0, 1))
    row = pick(summary, "hd95", site="A")
    assert (row["ci_low"], row["ci_high"]) == mean_interval(np.array(hd95), (0, PENALTY["captk"]))
    row = pick(summary, "dice")
    whole = mean_interval(np.array([*dice, 1.0]), (0, 1), [*"AAAAAAB"])
    assert (row["ci_low"], row["ci_high"]) == whole
    assert whole != mean_interval(np.array([*dice, 1.0]), (0, 1))


def test_few_cases_have_no_interval_and_one_no_deviation():
    summary = summarise(SEVEN, facts("captk"), "captk")
    one = pick(summary, "hd95", site="B")
    assert (one["mean"], one["q25"]) == (0, 0)
    assert np.isnan([one["std"], one["ci_low"], one["ci_high"]]).all()
    five = pick(summarise(SEVEN[SEVEN.case != "a0"], facts("captk"), "captk"), "dice", site="A")
    assert five["n"] == 5
    assert five["std"] > 0
    assert np.isnan([five["ci_low"], five["ci_high"]]).all()


def test_arms_are_kept_apart():
    both = table(case("A", "a1", 1, 0), case("A", "a1", 0.5, 3, arm="pooled"))
    summary = summarise(both, facts("brats2023"), "brats2023")
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
        summarise(change(FOUR), facts("brats2023"), "brats2023")


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match=r"metrics.convention: unknown 'x'"):
        facts("x")


def test_one_more_metric_moves_no_number_of_the_others():
    known = facts("brats2023")
    more = {"extra": Facts("Extra"), **known, "another": Facts("Another")}
    cases = FOUR.assign(extra=FOUR["hd95"].to_numpy()[::-1], another=np.arange(len(FOUR)) % 5 / 5)
    plain, found = (summarise(cases, metrics, "brats2023") for metrics in (known, more))
    assert set(found["metric"]) == {*SCORES, "extra", "another"}
    found = found[found["metric"].isin(SCORES)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, plain, check_exact=True)


def test_an_arm_may_speak_about_wt_alone_beside_others_but_about_all_of_its_cases():
    floor = [case("A", "a1", 0.4, 9, arm="floor")[:1], case("A", "a2", 0.6, 9, arm="floor")[:1]]
    summary = summarise(pd.concat([FOUR, table(*floor)]), facts("monai"), "monai")
    assert pick(summary, "dice", arm="floor")["mean"] == 0.5
    assert set(summary[summary.arm == "floor"].region) == {"WT"}
    assert pick(summary, "dice", region="ET")["n"] == 4
    torn = pd.concat([FOUR, table(case("A", "a1", 0.4, 9, arm="floor"), floor[1])])
    with pytest.raises(ValueError, match=r"one row for each of WT, TC, ET: .*floor / A / a2"):
        summarise(torn, facts("monai"), "monai")
