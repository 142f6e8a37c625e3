"""`summary.json`: statistics of every arm, what travelled, what was left out, how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.files import write_json
from fedbrats.metrics.interval import INTERVALS
from fedbrats.metrics.summary import ALL_SITES, STATISTICS, summarise
from fedbrats.metrics.table import Facts
from fedbrats.report.arms import merge_local_arms, percent_of_pooled
from fedbrats.runs import rounds
from fedbrats.runs.case_tables import cases_table
from fedbrats.runs.taking_part import finished_words, write_taking_part

KEPT = (*STATISTICS, "worst_site", "worst_mean")


def arms_summary(rows: list[dict[str, Any]], metrics: Mapping[str, Facts], convention: str) -> dict[str, Any]:
    """Statistics by arm, site, region and metric, as nested dictionaries, and each arm's percentage of pooled.

    The local models appear as `local` (on their own institution's cases) and `local_elsewhere`. A number that few cases
    do not have (deviation, interval) is None.
    """
    frame = merge_local_arms(pd.DataFrame(rows, columns=list(cases_table(metrics).columns)), metrics)
    arms: dict[str, Any] = {}
    for entry in summarise(frame, metrics, convention).to_dict("records"):
        arm = arms.setdefault(entry["arm"], {"all": {}, "sites": {}})
        place = arm["all"] if entry["site"] == ALL_SITES else arm["sites"].setdefault(entry["site"], {})
        numbers = {key: None if pd.isna(entry[key]) else entry[key] for key in KEPT}
        place.setdefault(entry["region"], {})[entry["metric"]] = numbers
    return {"arms": arms, "intervals": INTERVALS, "percent_of_pooled": percent_of_pooled(frame)}


def traffic(frame: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Bytes down and up of the federated arm, and zero for the others, from `rounds.csv`."""
    replies = frame[frame["phase"] != "round"]
    sums = replies.groupby("arm")[["bytes_down", "bytes_up"]].sum()
    return {str(arm): {"down": int(v["bytes_down"]), "up": int(v["bytes_up"])} for arm, v in sums.iterrows()}


def failed_replies(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Every reply that was left out, with its reason."""
    bad = frame[(frame["phase"] != "round") & (frame["status"] != "ok")]
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
    """Write `summary.json` and, where there are rounds, `taking_part.csv`.

    `status` is "finished" or "failed: reason"; where a site has left for good, the first one says which and since when.
    """
    content: dict[str, Any] = {"status": status, **facts}
    if (folder / rounds.TABLE.name).is_file():
        seen, found = rounds.read_rounds(folder), write_taking_part(folder)
        content["status"] = finished_words(found) if status == "finished" else status
        content["bytes"], content["failed_replies"] = traffic(seen), failed_replies(seen)
        content["seconds"] = _seconds(seen)
    write_json(folder / "summary.json", content)


def _seconds(frame: pd.DataFrame) -> dict[str, float]:
    """Seconds of work at the sites by phase."""
    replies = frame[frame["phase"] != "round"]
    return {str(phase): round(float(v), 3) for phase, v in replies.groupby("phase")["seconds"].sum().items()}
