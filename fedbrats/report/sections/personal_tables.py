"""Global against personal model per institution, paired by case, and what stays at home."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from fedbrats.data.sentences import plural
from fedbrats.metrics.interval import MIN_CASES, mean_interval
from fedbrats.metrics.summary import ALL_SITES as EVERY_SITE
from fedbrats.report.arms import merge_local_arms
from fedbrats.report.cells import Cell, number, shorten
from fedbrats.report.style import GREY, REGION_COLOURS, new_figure, styled
from fedbrats.report.words import listed
from fedbrats.runs.run_folder import RunFolder
from fedbrats.tasks import segmentation as task

FIRST = 3  # names shown before the full list
KEYS = ["site", "case", "region"]
UNSEEN = {
    "average": "the average of the arrays that stay elsewhere at the institutions (for this they have left them)",
    "recalibrate": "normalisation statistics recalibrated on their own scans, without labels",
    "instance": "the normalisation statistics of each scan itself",
    "": "the global model as it is",
}


def paired_gains(run: RunFolder) -> pd.DataFrame:
    """Main score of the personal and of the global model on the same case: site, case, region, before, after, gain.

    "before" is the global model (arm "federated"), "after" the institution's own; cases that could not be scored
    count with the worst score, cases that only one of the arms has are left out.

    Raises:
        RunFolderError: the scores have an unknown convention.
    """
    cases = merge_local_arms(run.cases, run.metrics) if len(run.cases) else run.cases
    before, after = (
        cases.loc[cases["arm"] == arm, [*KEYS, task.MAIN]].rename(columns={task.MAIN: name})
        for arm, name in (("federated", "before"), ("personal", "after"))
    )
    pairs = before.merge(after, on=KEYS)
    return pairs.assign(gain=pairs["after"] - pairs["before"])


def gain_table(run: RunFolder) -> pd.DataFrame:
    """One row per institution ("all" first) and region: site, region, n, before, after, gain, low, high, verdict.

    Means of the main score over the paired cases with the 95 % interval of the gain. verdict: "gain" or "loss" where
    the interval excludes 0, "even" where it does not, "few" below `MIN_CASES`, which have no interval.
    """
    pairs, rows = paired_gains(run), []
    found = set(pairs["site"])
    for site in [EVERY_SITE, *(name for name in run.sites if name in found)] if found else []:
        for region in run.regions:
            part = pairs[(pairs["region"] == region) & ((pairs["site"] == site) | (site == EVERY_SITE))]
            sites = part["site"].tolist() if site == EVERY_SITE else None
            low, high = mean_interval(part["gain"].to_numpy(float), task.GAINS, sites)
            row = {"site": site, "region": region, "n": len(part), "low": low, "high": high}
            row |= {name: part[name].mean() for name in ("before", "after", "gain")}
            rows.append({**row, "verdict": _verdict(row)})
    return pd.DataFrame(
        rows, columns=["site", "region", "n", "before", "after", "gain", "low", "high", "verdict"]
    )


def _verdict(row: dict[str, Any]) -> str:
    if row["n"] < MIN_CASES:
        return "few"
    return "gain" if row["low"] > 0 else "loss" if row["high"] < 0 else "even"


def verdicts(table: pd.DataFrame, words: Mapping[str, str] = task.IN_WORDS) -> list[str]:
    """Who gains and who loses, a sentence per region.

    Args:
        table: result of `gain_table`.
        words: what the regions are called.
    """
    out = []
    for region in dict.fromkeys(table["region"]):
        rows = table[(table["region"] == region) & (table["site"] != EVERY_SITE)]
        parts = []
        for verdict, said in (("gain", "gaining"), ("loss", "losing")):
            part = rows[rows["verdict"] == verdict].to_dict(orient="records")
            names = [f"{row['site']} ({row['gain']:+.3f}, {_between(row)})" for row in part]
            parts.append(f"{said}: {listed(names) if names else 'nobody'}")
        for verdict, said in (("even", "no clear difference"), ("few", f"fewer than {MIN_CASES} cases")):
            sites = rows.loc[rows["verdict"] == verdict, "site"].tolist()
            parts += [f"{said}: {listed(sites)}"] if sites else []
        title = words[region]
        out.append(f"{title[0].upper()}{title[1:]}, {'; '.join(parts)}.")
    return out


def _between(row: dict[str, Any]) -> str:
    return f"{row['low']:+.3f} to {row['high']:+.3f}"


def gain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Printable rows, one per institution, with the regions side by side.

    Args:
        table: result of `gain_table`.
    """
    rows = []
    for site in dict.fromkeys(table["site"]):
        part = table[table["site"] == site].to_dict(orient="records")
        rows.append(
            {
                "site": site,
                "n": max(row["n"] for row in part),
                "before": [number(row["before"], 3) for row in part],
                "after": [number(row["after"], 3) for row in part],
                "gain": [
                    Cell(f"{row['gain']:+.3f}", "" if pd.isna(row["low"]) else _between(row), row["verdict"])
                    for row in part
                ],
            }
        )
    return rows


def gain_figure(table: pd.DataFrame) -> Figure:
    """Gain of the personal model in the mean main score with its interval: a row per institution, a panel per region.

    Args:
        table: result of `gain_table`, at least one row.
    """
    sites, regions = list(dict.fromkeys(table["site"])), list(dict.fromkeys(table["region"]))
    with styled():
        figure = new_figure(10.5, 0.9 + 0.27 * len(sites))
        axes = figure.subplots(1, len(regions), sharey=True, sharex=True, squeeze=False)[0]
        for axis, region in zip(axes, regions):
            part = table[table["region"] == region].reset_index(drop=True)
            axis.axvline(0, color=GREY, lw=1)
            axis.hlines(part.index, part["low"], part["high"], color=REGION_COLOURS[region], lw=1.6)
            axis.plot(part["gain"], part.index, "o", ms=5, color=REGION_COLOURS[region])
            axis.set_title(region, loc="left", fontweight="bold")
            axis.set_xlabel(f"Gain in {task.MAIN_TITLE}")
            axis.margins(x=0.08)
            axis.grid(axis="y", visible=False)
        names = ["All that trained" if site == EVERY_SITE else shorten(site) for site in sites]
        axes[0].set_yticks(
            range(len(sites)),
            [f"{name}, n = {n}" for name, n in zip(names, table.groupby("site", sort=False)["n"].max())],
        )
        axes[0].set_ylim(len(sites) - 0.5, -0.5)
    return figure


def arrays_sentence(names: list[str], said: str) -> str:
    """ "1 array stays: a.", "5 arrays stay: a, b, c and 2 more."."""
    rest = len(names) - FIRST
    first = f": {', '.join(names[:FIRST])}" + (f" and {rest} more" if rest > 0 else "") if names else ""
    return f"{plural(len(names), 'array')} {said if len(names) != 1 else said + 's'}{first}."


def personal_context(
    run: RunFolder, known: dict[str, Any] | None, institutions: list[dict[str, Any]]
) -> dict[str, Any]:
    """What the page prints, figures as Figure.

    Args:
        run: the run.
        known: result of `read_personalization`.
        institutions: {"site", "unseen", "rows": result of `arm_rows`} of each, as the page prints them.

    Raises:
        RunFolderError: the scores have an unknown convention.
    """
    table = gain_table(run)
    unseen = [(block["site"], row) for block in institutions if block["unseen"] for row in block["rows"]]
    return {
        "known": known,
        "stays": arrays_sentence(known["stays"], "stay") if known else "",
        "travels": arrays_sentence(known["travels"], "travel") if known else "",
        "served": UNSEEN.get(known["unseen"], known["unseen"]) if known else "",
        "verdicts": verdicts(table, run.in_words),
        "rows": gain_rows(table),
        "alone": _without_partner(run, table),
        "unseen": [{**row, "site": site} for site, row in unseen if row["arm"] == "federated"],
        "figures": {"gain": gain_figure(table)} if len(table) else {},
    }


def _without_partner(run: RunFolder, table: pd.DataFrame) -> int:
    """Cases of the personal arm that the federated arm lacks."""
    personal = run.cases[run.cases["arm"] == "personal"].drop_duplicates(["site", "case"])
    paired = table.loc[table["site"] == EVERY_SITE, "n"].max() if len(table) else 0
    return len(personal) - int(paired)
