"""From the evaluation replies to `cases.csv` and `summary.json`."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.data.partition import Site
from fedbrats.data.regions import REGIONS
from fedbrats.federation.arms import LOCAL, POOLED
from fedbrats.federation.replies import EvaluateReply
from fedbrats.federation.site_cases import pseudonym
from fedbrats.metrics.score import CASE_COLUMNS, worst_scores
from fedbrats.metrics.summary import summarise

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
ELSEWHERE = "local_elsewhere"


def case_rows(
    arm: str, sites: list[Site], replies: Mapping[str, EvaluateReply], convention: str
) -> list[dict[str, Any]]:
    """Rows of `cases.csv` of one model, with real case names; only who made the partition can resolve them.

    Every test case of every site has a row per region. A site that did not answer, or left a case out, is given the
    worst scores with its reason, so that it weighs on the mean and is not forgotten.
    """
    rows = []
    for site in sites:
        answered = replies.get(site.name)
        found = {(r["case"], r["region"]): r for r in answered.rows} if answered else {}
        reason = "failed: no result for this case" if answered else "failed: the site did not answer"
        for index, case in enumerate(site.test):
            for region in REGIONS:
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


def summary_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The case rows with the local models told apart: `local` at home, `local_elsewhere` on other sites' cases."""
    frame = pd.DataFrame(rows, columns=list(CASE_COLUMNS))
    local = frame["arm"].str.startswith(f"{LOCAL}:")
    home = frame["arm"] == f"{LOCAL}:" + frame["site"]
    frame["case"] = frame["case"].where(~local | home, frame["arm"] + "/" + frame["case"])
    frame["arm"] = frame["arm"].mask(local & home, LOCAL).mask(local & ~home, ELSEWHERE)
    return frame


def arms_summary(rows: list[dict[str, Any]], convention: str, bootstrap: int) -> dict[str, Any]:
    """Statistics by arm, site, region and metric, as nested dictionaries."""
    arms: dict[str, Any] = {}
    for entry in summarise(summary_frame(rows), convention, bootstrap).to_dict("records"):
        arm = arms.setdefault(entry["arm"], {"all": {}, "sites": {}})
        place = arm["all"] if entry["site"] == "all" else arm["sites"].setdefault(entry["site"], {})
        place.setdefault(entry["region"], {})[entry["metric"]] = {key: entry[key] for key in STATISTICS}
    return arms


def percent_of_pooled(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean Dice of each arm as a percentage of the pooled model's on the very same cases, by region.

    The local arm is a different model at each site and has none at held-out institutions, so each arm is compared
    on the cases it has.
    """
    frame = summary_frame(rows)
    frame = frame[frame["arm"] != ELSEWHERE]
    dice = frame.pivot_table(index=["site", "case", "region"], columns="arm", values="dice")
    if POOLED not in dice:
        return {}
    shares: dict[str, dict[str, float]] = {}
    for arm in dice.columns.drop(POOLED):
        both = dice[[arm, POOLED]].dropna().groupby("region").mean()
        shares[str(arm)] = {
            region: float(100 * both.loc[region, arm] / both.loc[region, POOLED])
            for region in REGIONS
            if region in both.index and both.loc[region, POOLED] > 0
        }
    return shares


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
        rounds = pd.read_csv(rounds_file)
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
