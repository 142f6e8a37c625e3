"""What of a result may stand in a report that is handed out: numbers over enough test cases, and no words from a site.

No mean over fewer cases than an interval needs leaves: below `MIN_CASES` it says too much about one patient. Nor does
one that could be worked out from the means that leave: where the withheld institutions of an arm have fewer cases than
that together, the next larger institution is withheld with them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from fedbrats.metrics.interval import MIN_CASES
from fedbrats.metrics.summary import ALL_SITES as EVERY_SITE
from fedbrats.runs.privacy_files import Privacy

WITHHELD = (
    f"fewer than {MIN_CASES} test cases, or a score that follows from other rows: not in a report to hand out"
)
INSIDE_ONLY = "the reason is in the report for the inside"
# Of a row, all that stays when it is withheld.
KEPT = {"site", "unseen", "arm", "region", "n", "points", "note"}


def released_table(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with the numbers of those that may leave; the others say why they have none, and nobody has points.

    Args:
        table: result of `institution_table`.
    """
    few = withheld_sites(table)
    whole = table["site"] == EVERY_SITE
    hidden = (table["n"] > 0) & ((whole & (table["n"] < MIN_CASES)) | table["site"].isin(few))
    out = table.assign(points=[{} for _ in range(len(table))])
    numbers = [name for name in table.columns if name not in KEPT and name != "failed"]
    out[numbers] = out[numbers].astype(float).mask(hidden, np.nan)
    return out.assign(failed=out["failed"].mask(hidden, 0), note=out["note"].mask(hidden, WITHHELD))


def withheld_sites(table: pd.DataFrame) -> set[str]:
    """Institutions whose means stay inside.

    Args:
        table: result of `institution_table`; an arm that counts pairs of model and case has a larger n, so the
            smallest n of an institution is its number of cases.
    """
    rows = table[(table["site"] != EVERY_SITE) & (table["n"] > 0)]
    sizes = rows.groupby("site")["n"].min().sort_values(kind="stable")
    out = set(sizes.index[sizes < MIN_CASES])
    members = [set(part["site"]) for _, part in rows.groupby("arm")]
    while thin := [sites for sites in members if _differs(sites, out, sizes)]:
        out.add(next(site for site in sizes.index if site in thin[0] - out))
    return out


def _differs(sites: set[str], out: set[str], sizes: pd.Series) -> bool:
    """Whether all `sites` less those that leave are too few cases, and another one can be withheld."""
    withheld = sites & out
    return 0 < sizes[list(withheld)].sum() < MIN_CASES and bool(sites - out)


def released_empty(empty: pd.DataFrame) -> pd.DataFrame:
    """The rows in which both kinds of cases, with and without the region, are enough.

    Args:
        empty: result of `without_truth`.
    """
    return empty[(empty["empty"] >= MIN_CASES) & (empty["n"] - empty["empty"] >= MIN_CASES)]


def released_privacy(privacy: Privacy) -> Privacy:
    """The budgets without what an institution said in its own words and without what compares norms."""
    return replace(
        privacy,
        sites=tuple(replace(site, stopped=INSIDE_ONLY if site.stopped else "") for site in privacy.sites),
        unknown=tuple((site, INSIDE_ONLY) for site, _ in privacy.unknown),
        central=privacy.central
        and replace(privacy.central, swamped="", stopped=INSIDE_ONLY if privacy.central.stopped else ""),
    )
