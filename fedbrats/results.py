"""From the evaluation replies to `cases.csv` and `summary.json`."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.data.partition import Site
from fedbrats.data.regions import REGIONS
from fedbrats.federation.server.replies import EvaluateReply
from fedbrats.metrics.score import CASE_COLUMNS, worst_scores
from fedbrats.metrics.summary import ALL_SITES, summarise
from fedbrats.report.arms import merge_local_arms, percent_of_pooled
from fedbrats.runs.site_cases import pseudonym

TEXT = ("arm", "site", "phase", "status")  # a site may be called 1 or NA
NUMBERS = {column: [""] for column in ("cases", "loss", "seconds", "bytes_down", "bytes_up")}
TABLE_COLUMNS = {
    "steps": ("arm", "site", "case", "region", "order", "step", "dice", "hd95", "changed_voxels"),
    "uncertainty": ("arm", "site", "case", "region", "uncertainty"),
    "reliability": (
        *("arm", "site", "region", "bin_low", "bin_high", "voxels"),
        *("mean_probability", "observed"),
    ),
}
STATISTICS = (
    "n",
    "failed",
    "mean",
    "std",
    "median",
    "q25",
    "q75",
    "ci_low",
    "ci_high",
    "worst_site",
    "worst_mean",
)


def case_rows(
    arm: str,
    sites: list[Site],
    replies: Mapping[str, EvaluateReply],
    convention: str,
    regions: Sequence[str] = REGIONS,
) -> list[dict[str, Any]]:
    """Rows of `cases.csv` of one model, with real case names; only who made the partition can resolve them.

    Every test case of every site has a row for each of the `regions` that the network predicts. A site that did not
    answer, or left a case out, is given the worst scores with its reason, so that it weighs on the mean and is not
    forgotten.
    """
    rows = []
    for site in sites:
        answered = replies.get(site.name)
        found = {(r["case"], r["region"]): r for r in answered.rows} if answered else {}
        reason = "failed: no result for this case" if answered else "failed: the site did not answer"
        for index, case in enumerate(site.test):
            for region in regions:
                scores = found.get((pseudonym(site.name, index), region))
                if scores is None:
                    scores = {
                        **worst_scores(convention),
                        "volume_true_ml": 0.0,
                        "volume_pred_ml": 0.0,
                        "status": reason,
                    }
                values = {key: scores[key] for key in CASE_COLUMNS if key in scores and key != "case"}
                rows.append({**values, "arm": arm, "site": site.name, "case": case, "region": region})
    return rows


def write_cases(file: Path, rows: list[dict[str, Any]]) -> None:
    """Write `cases.csv` atomically."""
    unfinished = file.with_suffix(".tmp")
    with unfinished.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, CASE_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    os.replace(unfinished, file)


def test_tables(
    arm: str, sites: list[Site], replies: Mapping[str, EvaluateReply]
) -> dict[str, list[dict[str, Any]]]:
    """What the sites say besides the scores, by name of the file (`TABLE_COLUMNS`), with real case names."""
    names = {pseudonym(s.name, i): case for s in sites for i, case in enumerate(s.test)}
    tables: dict[str, list[dict[str, Any]]] = {"steps": [], "uncertainty": [], "reliability": []}
    for site, reply in sorted(replies.items()):
        known = {"arm": arm, "site": site}
        tables["steps"] += [
            {**known, **row, "case": names[row["case"]]} for row in reply.steps if row["case"] in names
        ]
        tables["uncertainty"] += [
            {**known, **row, "case": names[row["case"]]} for row in reply.rows if row["case"] in names
        ]
        tables["reliability"] += [{**known, **row} for row in reliability_rows(reply.reliability)]
    return tables


def reliability_rows(bins: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `site_tables.bin_rows` with means in the place of sums; bins without a voxel are left out."""
    return [
        {
            **row,
            "mean_probability": row["sum_probability"] / row["voxels"],
            "observed": row["sum_truth"] / row["voxels"],
        }
        for row in bins
        if row["voxels"] > 0
    ]


def write_table(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Write `<name>.csv` with its own columns, unless there is nothing to write."""
    if rows:
        columns = list(TABLE_COLUMNS[name])
        pd.DataFrame(rows, columns=columns).to_csv(folder / f"{name}.csv", index=False)


def arms_summary(rows: list[dict[str, Any]], convention: str, bootstrap: int) -> dict[str, Any]:
    """Statistics by arm, site, region and metric, as nested dictionaries, and each arm's percentage of pooled.

    The local models appear as `local` (on their own institution's cases) and `local_elsewhere`.
    """
    frame = merge_local_arms(pd.DataFrame(rows, columns=list(CASE_COLUMNS)), convention)
    arms: dict[str, Any] = {}
    for entry in summarise(frame, convention, bootstrap).to_dict("records"):
        arm = arms.setdefault(entry["arm"], {"all": {}, "sites": {}})
        place = arm["all"] if entry["site"] == ALL_SITES else arm["sites"].setdefault(entry["site"], {})
        place.setdefault(entry["region"], {})[entry["metric"]] = {key: entry[key] for key in STATISTICS}
    return {"arms": arms, "percent_of_pooled": percent_of_pooled(frame)}


def traffic(rounds: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Bytes down and up of the federated arm, and zero for the others, from `rounds.csv`."""
    replies = rounds[rounds["phase"] != "round"]
    sums = replies.groupby("arm")[["bytes_down", "bytes_up"]].sum()
    return {str(arm): {"down": int(v["bytes_down"]), "up": int(v["bytes_up"])} for arm, v in sums.iterrows()}


def failed_replies(rounds: pd.DataFrame) -> list[dict[str, Any]]:
    """Every reply that was left out, with its reason."""
    bad = rounds[(rounds["phase"] != "round") & (rounds["status"] != "ok")]
    return [
        {
            "round": int(r["round"]),
            "arm": r["arm"],
            "site": r["site"],
            "phase": r["phase"],
            "reason": r["status"],
        }
        for r in bad.to_dict("records")
    ]


def write_summary(folder: Path, status: str, **facts: Any) -> None:
    """Write `summary.json`; `status` is "finished" or "failed: reason"."""
    content: dict[str, Any] = {"status": status, **facts}
    rounds_file = folder / "rounds.csv"
    if rounds_file.is_file():
        rounds = pd.read_csv(
            rounds_file, dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=NUMBERS
        )
        content["bytes"], content["failed_replies"] = traffic(rounds), failed_replies(rounds)
        content["seconds"] = _seconds(rounds)
    unfinished = folder / "summary.tmp"
    unfinished.write_text(json.dumps(content, indent=1))
    os.replace(unfinished, folder / "summary.json")


def _seconds(rounds: pd.DataFrame) -> dict[str, float]:
    """Seconds of work at the sites by phase."""
    replies = rounds[rounds["phase"] != "round"]
    return {str(phase): round(float(v), 3) for phase, v in replies.groupby("phase")["seconds"].sum().items()}


def selected_round(model_best: int, finished: int, select: str) -> int:
    """Round of the model that is tested: the best on validation where there is one, else the last."""
    return model_best if select == "best" and model_best else finished
