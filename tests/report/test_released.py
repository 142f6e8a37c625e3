"""What may leave: no mean over few cases, none that follows from those that leave, no words of a site."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fedbrats.report.released import WITHHELD, released_empty, released_table, withheld_sites


def table(**arms: dict[str, int]) -> pd.DataFrame:
    """Rows as of `institution_table` with these numbers of cases by arm and institution."""
    rows = [
        {
            **{"site": site, "unseen": False, "arm": arm, "region": "WT", "n": n, "failed": 1 if n else 0},
            **{"dice": 0.5, "dice_low": 0.4, "dice_high": 0.6, "percent_of_pooled": 90.0},
            **{"points": {"dice": [0.5] * n} if n < 6 else {}, "note": ""},
        }
        for arm, sizes in arms.items()
        for site, n in {"all": sum(sizes.values()), **sizes}.items()
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("sizes", "withheld"),
    [
        ({"A": 6, "B": 20}, set()),
        ({"A": 3, "B": 3, "C": 20}, {"A", "B"}),  # six together
        ({"A": 5, "B": 20, "C": 9}, {"A", "C"}),  # A alone is all less B less C
        ({"A": 1, "B": 2, "C": 0, "D": 30}, {"A", "B", "D"}),
        ({"A": 4}, {"A"}),
    ],
)
def test_no_mean_over_few_cases_follows_from_those_that_leave(
    sizes: dict[str, int], withheld: set[str]
) -> None:
    assert withheld_sites(table(federated=sizes)) == withheld


def test_each_arm_is_looked_at_and_pairs_are_no_cases() -> None:
    both = table(federated={"A": 3, "B": 3, "C": 8, "D": 9}, local={"A": 3, "C": 8, "D": 9})
    assert withheld_sites(both) == {"A", "B", "C"}
    pairs = table(federated={"A": 5, "B": 8, "C": 9}, local_elsewhere={"A": 10, "B": 16, "C": 18})
    assert withheld_sites(pairs) == {"A", "B"}


def test_withheld_rows_keep_their_number_of_cases_only() -> None:
    out = released_table(table(federated={"A": 3, "B": 3, "C": 20})).set_index("site")
    for site in "AB":
        row = out.loc[site]
        assert np.isnan(row[["dice", "dice_low", "dice_high", "percent_of_pooled"]].astype(float)).all()
        assert (row["n"], row["failed"], row["points"], row["note"]) == (3, 0, {}, WITHHELD)
    assert list(out.loc[["all", "C"], "dice"]) == [0.5, 0.5]
    assert np.isnan(released_table(table(federated={"A": 4}))["dice"]).all()  # four in all, too


def test_cases_without_a_region_are_told_where_both_kinds_are_enough() -> None:
    empty = pd.DataFrame({"region": ["ET", "TC", "WT"], "n": [22, 22, 11], "empty": [8, 2, 6]})
    assert list(released_empty(empty)["region"]) == ["ET"]
