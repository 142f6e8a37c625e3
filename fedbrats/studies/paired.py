"""Every method of a sweep against a reference, case by case, with what the numbers allow to say; and their ranking."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fedbrats.data.sentences import plural
from fedbrats.metrics.interval import MIN_CASES
from fedbrats.metrics.paired import bootstrap_interval, case_ranks, holm, permutation_test, signed_rank
from fedbrats.metrics.table import Facts
from fedbrats.report.cells import number
from fedbrats.runs.reading import RunFolderError
from fedbrats.studies.jobs import class_of
from fedbrats.studies.methods import Method
from fedbrats.tasks import segmentation as task

REFERENCE = "FedAvg"  # what others are measured against, where a sweep has it plain
ALPHA = 0.05
TESTS = (
    *("method", "over", "region", "metric", "seeds", "cases", "institutions"),
    *("difference", "low", "high", "p", "p_holm", "size", "sentence"),
)
RANKS = ("method", "arm", "place", "rank", "cases")
SAME = 1e-12


def reference_of(methods: Sequence[Method], over: str | None = None) -> Method | None:
    """The method that the others are measured against: the one called `over`, or plain FedAvg, or the first federated.

    Raises:
        RunFolderError: no method is called `over`.
    """
    if over is not None:
        if found := next((method for method in methods if method.name == over), None):
            return found
        raise RunFolderError(f"no method is called {over!r}; there are: {'; '.join(m.name for m in methods)}")
    federated = [method for method in methods if method.arm == "federated"]
    plain = [m for m in federated if m.name.split(" (")[0].split(",")[0] == REFERENCE and _is_plain(m)]
    return next(iter([*plain, *federated]), None)


def _is_plain(method: Method) -> bool:
    return all(class_of(method.jobs[0], group) == "-" for group in ("personalization", "privacy"))


def tests(
    methods: Sequence[Method], reference: Method, metrics: Mapping[str, Facts]
) -> tuple[pd.DataFrame, list[str]]:
    """Paired comparisons of all other methods with `reference` (`TESTS`), and who could not be compared, and why.

    difference is method - reference of the mean over the cases that both have, each averaged over the seeds; low and
    high are of `bootstrap_interval`, p, p_holm and size of `signed_rank` and `holm` over all rows.
    """
    scores, rows, left = reference.scores(metrics), [], []
    for method in methods:
        if method is reference:
            continue
        mine = method.scores(metrics)
        both = mine.index.intersection(scores.index)
        if not len(both):
            left.append(f"{method.name} has no test case in common with {reference.name}")
            continue
        if len(both) < max(len(mine), len(scores)):
            shared = plural(len(both.droplevel("region").unique()), "case")
            left.append(f"{method.name}: only the {shared} that {reference.name} has been tested on, too")
        pairs = (mine.loc[both] - scores.loc[both]).reset_index()
        seeds = min(len(method.jobs), len(reference.jobs))
        for region in task.in_order(set(pairs["region"])):
            part = pairs[pairs["region"] == region]
            for metric in metrics:
                if part[metric].notna().all():
                    head = (method.name, reference.name, region, metric, seeds)
                    rows.append({**dict(zip(TESTS, head, strict=False)), **_test(part, metric)})
    frame = pd.DataFrame(rows, columns=list(TESTS))
    frame["p_holm"] = holm(frame["p"].to_numpy(float))
    frame["sentence"] = [sentence(row, metrics[row["metric"]]) for row in frame.to_dict("records")]
    return frame, left


def _test(part: pd.DataFrame, metric: str) -> dict[str, Any]:
    values, sites = part[metric].to_numpy(float), part["site"].tolist()
    low, high = bootstrap_interval(values, sites) if len(values) >= MIN_CASES else (math.nan, math.nan)
    p, size = signed_rank(values)
    counts = {"cases": len(values), "institutions": len(set(sites))}
    return {**counts, "difference": float(values.mean()), "low": low, "high": high, "p": p, "size": size}


def sentence(row: Mapping[str, Any], facts: Facts) -> str:
    """What a comparison allows to say, and no more."""
    name, decimals = f"{row['region']} {facts.title}", facts.decimals
    unit = f" {facts.unit}" if facts.unit else ""
    who, over = row["method"], row["over"]
    where = f"over {plural(row['cases'], 'case')} of {plural(row['institutions'], 'institution')}"
    where += f" and {row['seeds']} seeds" if row["seeds"] > 1 else ""
    if abs(row["difference"]) < SAME and row["p"] == 1:
        return f"{name}: {who} and {over} score the same {where}."
    size, p = number(abs(row["difference"]), decimals), f"p = {row['p_holm']:.2g} after Holm"
    more = "higher" if row["difference"] > 0 else "lower"
    if math.isnan(row["low"]):
        few = f"fewer than {MIN_CASES} cases" if row["cases"] < MIN_CASES else "one institution"
        start = f"{name}: {who} scores {size}{unit} {more} than {over} {where}"
        return f"{start}; {few} cannot say whether others would ({p})."
    interval = f"95 % interval {number(row['low'], decimals)} to {number(row['high'], decimals)}, {p}"
    zero, sure = row["low"] <= 0 <= row["high"], row["p_holm"] < ALPHA
    better = (row["difference"] > 0) != facts.lower_is_better
    if not zero and sure:
        end = f"{who} is {'better' if better else 'worse'} on cases and institutions like these"
    elif zero and not sure:
        end = "the data do not tell them apart, which does not show that they are equal"
    elif zero:
        end = "the difference is there in these cases; whether it is at other institutions is open"
    else:
        end = "the interval leaves zero out, the test does not agree: a hint, no more"
    return f"{name}: {who} scores {size}{unit} {more} than {over} {where} ({interval}): {end}."


def ranking(methods: Sequence[Method], metrics: Mapping[str, Facts]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The methods by their mean rank over the cases that all of them have, and p of every pair.

    Returns:
        Columns `RANKS`, best first; and [method x method] one-sided p of the permutation test that the row is the
        better by chance, by name in the same order. Both are empty with fewer than two methods or without a case that
        all have.
    """
    names = [method.name for method in methods]
    tables = [method.scores(metrics) for method in methods]
    shared = tables[0].index if tables else pd.Index([])
    for table in tables[1:]:
        shared = shared.intersection(table.index)
    if len(methods) < 2 or not len(shared):
        return pd.DataFrame(columns=list(RANKS)), pd.DataFrame()
    scored = [metric for metric in metrics if all(table[metric].notna().any() for table in tables)]
    wide = [table.loc[shared, scored].unstack("region").dropna() for table in tables]
    cases = wide[0].index
    for table in wide[1:]:
        cases = cases.intersection(table.index)
    lower = [metrics[metric].lower_is_better for metric, _ in wide[0].columns]
    ranks = case_ranks(np.stack([table.loc[cases].to_numpy(float) for table in wide]), lower)
    order = np.argsort(ranks.mean(axis=1), kind="stable")
    rows = [
        {
            "method": names[k],
            "arm": methods[k].arm,
            "place": place,
            "rank": ranks[k].mean(),
            "cases": len(cases),
        }
        for place, k in enumerate(order, 1)
    ]
    p = [[math.nan if i == j else permutation_test(ranks[i], ranks[j]) for j in order] for i in order]
    sorted_names = [names[k] for k in order]
    return pd.DataFrame(rows, columns=list(RANKS)), pd.DataFrame(p, sorted_names, sorted_names)
