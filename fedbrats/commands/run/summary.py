"""`summary.json`: statistics of every arm, what travelled, what was left out, how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.files import write_json
from fedbrats.metrics.score import CASE_COLUMNS
from fedbrats.metrics.summary import ALL_SITES, summarise
from fedbrats.report.arms import merge_local_arms, percent_of_pooled

TEXT = ("arm", "site", "phase", "status")  # a site may be called 1 or NA
NUMBERS = {column: [""] for column in ("cases", "loss", "seconds", "bytes_down", "bytes_up")}
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
    write_json(folder / "summary.json", content)


def _seconds(rounds: pd.DataFrame) -> dict[str, float]:
    """Seconds of work at the sites by phase."""
    replies = rounds[rounds["phase"] != "round"]
    return {str(phase): round(float(v), 3) for phase, v in replies.groupby("phase")["seconds"].sum().items()}
