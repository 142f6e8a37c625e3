"""From the evaluation replies to rows with real case names; only who made the partition can resolve them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedbrats.data.partition import Site
from fedbrats.federation.server.replies import EvaluateReply
from fedbrats.metrics.aggregates import aggregates
from fedbrats.metrics.table import VOLUMES, Facts, worst
from fedbrats.runs.case_tables import reliability_rows
from fedbrats.runs.site_cases import pseudonym
from fedbrats.tasks import segmentation as task


def case_rows(
    arm: str,
    sites: list[Site],
    replies: Mapping[str, EvaluateReply],
    metrics: Mapping[str, Facts],
    regions: Sequence[str] = task.REGIONS,
) -> list[dict[str, Any]]:
    """Rows of `cases.csv` of one model, with real case names; only who made the partition can resolve them.

    Every test case of every site has a row for each of the `regions` that the network predicts. A site that did not
    answer, or left a case out, is given the worst scores with its reason, so that it weighs on the mean and is not
    forgotten. One that told aggregates in the place of its cases' results has no rows (`aggregate_rows`).
    """
    rows = []
    for site in sites:
        answered = replies.get(site.name)
        if answered and answered.aggregates:
            continue
        found = {(r["case"], r["region"]): r for r in answered.rows} if answered else {}
        reason = "failed: no result for this case" if answered else "failed: the site did not answer"
        for index, case in enumerate(site.test):
            for region in regions:
                scores = found.get((pseudonym(site.name, index), region))
                if scores is None:
                    scores = {
                        **worst(metrics),
                        **dict.fromkeys(VOLUMES, 0.0),
                        "status": reason,
                    }
                values = {key: scores[key] for key in (*metrics, *VOLUMES, "status")}
                rows.append({**values, "arm": arm, "site": site.name, "case": case, "region": region})
    return rows


def classified_rows(
    arm: str, sites: list[Site], replies: Mapping[str, EvaluateReply]
) -> list[dict[str, Any]]:
    """Rows of `cases.csv` of one model that classifies, one per test case, with real case names.

    A case without an answer has its reason and no score: only its site knows the label that would make one the worst.
    A site that told scores over all its cases has no rows (`told_rows`).
    """
    rows = []
    for site in sites:
        answered = replies.get(site.name)
        if answered and answered.aggregates:
            continue
        found = {row["case"]: row for row in answered.rows} if answered else {}
        reason = "failed: no result for this case" if answered else "failed: the site did not answer"
        for index, case in enumerate(site.test):
            told = found.get(pseudonym(site.name, index), {"score": "", "label": "", "status": reason})
            values = {key: told[key] for key in ("score", "label", "status")}
            rows.append({"arm": arm, "site": site.name, "case": case, **values})
    return rows


def told_rows(arm: str, replies: Mapping[str, EvaluateReply]) -> list[dict[str, Any]]:
    """Rows of `aggregates.csv` of one model that classifies: what sites tell that keep the results of single cases."""
    return [
        {"arm": arm, "site": site, **row}
        for site, reply in sorted(replies.items())
        for row in reply.aggregates
    ]


def aggregate_rows(
    arm: str, replies: Mapping[str, EvaluateReply], rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of `aggregates.csv` of one model, once a site keeps the results of single cases at home: then of all sites.

    `rows` are the `case_rows` of the others, summed up here.
    """
    told = {site: reply.aggregates for site, reply in replies.items() if reply.aggregates}
    if not told:
        return []
    for site in {row["site"] for row in rows}:
        told[site] = aggregates([row for row in rows if row["site"] == site], [*metrics, *VOLUMES], 1)
    empty = {"order": None, "step": ""}
    return [
        {"arm": arm, "site": site, **empty, **row} for site, summed in sorted(told.items()) for row in summed
    ]


def test_tables(
    arm: str, sites: list[Site], replies: Mapping[str, EvaluateReply]
) -> dict[str, list[dict[str, Any]]]:
    """What the sites say besides the scores, by name in `TABLES`, with real case names."""
    names = {pseudonym(s.name, i): case for s in sites for i, case in enumerate(s.test)}
    tables: dict[str, list[dict[str, Any]]] = {"steps": [], "uncertainty": [], "reliability": []}
    for site, reply in sorted(replies.items()):
        known = {"arm": arm, "site": site}  # whatever a row says
        tables["steps"] += [
            {**row, **known, "case": names[row["case"]]} for row in reply.steps if row["case"] in names
        ]
        tables["uncertainty"] += [
            {**row, **known, "case": names[row["case"]]} for row in reply.rows if row["case"] in names
        ]
        tables["reliability"] += [{**row, **known} for row in reliability_rows(reply.reliability)]
    return tables


def selected_round(model_best: int, finished: int, select: str) -> int:
    """Round of the model that is tested: the best on validation where there is one, else the last."""
    return model_best if select == "best" and model_best else finished
