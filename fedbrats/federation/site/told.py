"""What a site tells of its cases under its policy: how many they are, and numbers that enough of them stand behind."""

from __future__ import annotations

import json
from typing import Any

from flwr.app import ConfigRecord

from fedbrats.config.site_file import Policy
from fedbrats.data.survey import with_least
from fedbrats.metrics.aggregates import WORDS, aggregates
from fedbrats.metrics.classification import SCORES
from fedbrats.runs.site_cases import SPLITS
from fedbrats.tasks.told import OF_CLASSES, enough_of_both, told_scores

ALL = "all"
# Without these no study goes on: the weight, the work, and what the patients' privacy has cost.
ALWAYS = ("num-examples", "steps", "seconds", "epsilon")
WITHHELD = "withheld"  # what was kept at home, in words, in the reply itself


def metric_may(policy: Policy, name: str) -> bool:
    """Whether a number of this name may leave: `dice` is `dice-wt` of a reply, too."""
    return policy.metrics == ALL or name in (*ALWAYS, *policy.metrics) or name.split("-")[0] in policy.metrics


def fewer(policy: Policy) -> str:
    return f"policy.least_cases={policy.least_cases}: fewer cases"


def in_words(value: Any) -> str:
    return value if isinstance(value, str) else "[" + ", ".join(map(str, value)) + "]"


def told_counts(policy: Policy, record: ConfigRecord) -> tuple[ConfigRecord, list[str]]:
    """What is told at joining; of a split with too few cases, that there are none: then nobody asks for them."""
    few = [split for split in SPLITS if 0 < record.get(split, 0) < policy.least_cases]
    if not few:
        return record, []
    told = ConfigRecord({key: 0 if key in few else value for key, value in record.items()})
    why = f"{fewer(policy)}: {', '.join(few)}"
    told[WITHHELD] = why
    return told, [why]


def told_survey(policy: Policy, record: ConfigRecord) -> tuple[ConfigRecord, list[str]]:
    """A survey without the counts that fewer patients stand behind than this site lets anybody know of."""
    found = json.loads(str(record["values"]))
    told = {name: with_least(counts, policy.least_cases) for name, counts in found.items()}
    if told == found:
        return record, []
    return ConfigRecord({"values": json.dumps(told)}), [f"{fewer(policy)} behind a count of the survey"]


def without_reasons(record: ConfigRecord) -> tuple[str, ConfigRecord, list[str]]:
    """The tables of a test with all its cases, but what a failure said of one of them."""
    rows = json.loads(str(record["rows"]))
    if all(row["status"] == "ok" for row in rows):
        return "cases", record, []
    for row in rows:
        row["status"] = row["status"] if row["status"] == "ok" else "failed: the site keeps the reason"
    told = ConfigRecord({**record, "rows": json.dumps(rows)})
    return "cases", told, ["why single cases failed stays in the log of the site"]


def aggregated(policy: Policy, record: ConfigRecord) -> tuple[str, ConfigRecord, list[str]]:
    """The tables of a test without a row of a single case."""
    rows, steps = json.loads(str(record["rows"])), json.loads(str(record["steps"]))
    key = f"policy.metrics={in_words(policy.metrics)}" if policy.per_case else "policy.per_case=false"
    why = [f"{key}: aggregates in place of results of single cases"]
    metrics = [name for name in (rows[0] if rows else ()) if name not in WORDS]
    if set(metrics) == {"score", "label"}:
        return _of_labels(policy, rows, why)
    told = [name for name in metrics if metric_may(policy, name)]
    if kept := [name for name in metrics if name not in told]:
        why.append(f"policy.metrics={in_words(policy.metrics)}: without {', '.join(kept)}")
    tables = {
        "rows": aggregates(rows, told, policy.least_cases),
        "steps": _steps(policy, steps),
        "reliability": json.loads(str(record["reliability"])) if metric_may(policy, "uncertainty") else [],
        WITHHELD: why,
    }
    return "aggregates", ConfigRecord({key: json.dumps(table) for key, table in tables.items()}), why


def _of_labels(
    policy: Policy, rows: list[dict[str, Any]], why: list[str]
) -> tuple[str, ConfigRecord, list[str]]:
    """The test of a classification as scores over all cases, those of one label only where both have enough cases."""
    kept = [name for name in SCORES if not metric_may(policy, name)]
    if kept:
        why = [*why, f"policy.metrics={in_words(policy.metrics)}: without {', '.join(kept)}"]
    if not enough_of_both(rows, policy.least_cases):
        what = [name for name in OF_CLASSES if name not in kept]
        why = [*why, f"{fewer(policy)} of one label: without {', '.join(what)}"] if what else why
    told = told_scores(rows, policy.least_cases, [name for name in SCORES if name not in kept])
    tables = {"rows": told, "steps": [], "reliability": [], WITHHELD: why}
    return "aggregates", ConfigRecord({key: json.dumps(table) for key, table in tables.items()}), why


def _steps(policy: Policy, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Scores after each step of post-processing as means over the cases."""
    found = list[dict[str, Any]]()
    for order, step in dict.fromkeys((row["order"], row["step"]) for row in rows):
        part = [{**row, "status": "ok"} for row in rows if (row["order"], row["step"]) == (order, step)]
        names = [n for n in part[0] if n not in (*WORDS, "order", "step")]
        may = [name for name in names if name == "changed_voxels" or metric_may(policy, name)]
        told = aggregates(part, may, policy.least_cases)
        found += [{"order": order, "step": step, **row} for row in told]
    return found
