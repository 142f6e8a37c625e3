"""What was run and what came out, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from fedbrats.algorithms.fedavg import SIMULATED, STRICT
from fedbrats.config.schema import FLOOR, POOLED_ROW
from fedbrats.data.sentences import plural
from fedbrats.metrics.interval import INTERVALS
from fedbrats.report.arms import arm_title, merge_local_arms, percent_of_pooled
from fedbrats.report.conditions import Steps, steps_in_words, steps_of_arms, truth_sentences
from fedbrats.report.released import WITHHELD
from fedbrats.report.tables import EVERY_SITE, failures, worst_institution
from fedbrats.runs.case_tables import AGGREGATES
from fedbrats.runs.run_folder import RunFolder
from fedbrats.tasks import segmentation as task

SAID_OF_CASES = {
    "personal": " of their own institution",
    "local": " of their own institution",
    "local_elsewhere": " of other institutions",
}
SAID_OF_ARM = {
    "federated": "The federated model",
    "personal": "The personal models of the institutions that trained",
    "pooled": "The pooled model",
    "pooled_in_a_row": "The pooled model that had only as many steps in a row as the federation",
    "local": "Models that an institution trained alone",
    "local_elsewhere": "Such models",
    "floor": "A threshold on FLAIR, without any training,",
}


def target_name(group: Any) -> str:
    """Last part of a group's `_target_`, with its settings: "FedProx (mu = 0.01)"."""
    if not isinstance(group, dict) or not group.get("_target_"):
        return "not recorded"
    return str(group["_target_"]).rsplit(".", 1)[-1]


def strategy_name(config: dict[str, Any]) -> str:
    """Strategy with mu where it has one."""
    group = config.get("strategy") or {}
    mu = group.get("mu") if isinstance(group, dict) else None
    return target_name(group) + (f" (mu = {mu})" if mu is not None else "")


def title(run: RunFolder) -> str:
    """Strategy and number of institutions, where they are known."""
    where = f" on {plural(len(run.sites), 'institution')}" if run.sites else ""
    return f"{strategy_name(run.config)}{where}"


def run_date(run: RunFolder) -> str:
    """When the run started: from `environment.json` ("started") or the folder's <date>/<time>, else "not recorded"."""
    started = run.environment.get("started")
    if started:
        return str(started).replace("T", " ")[:19]
    found = re.findall(r"(\d{4}-\d{2}-\d{2})/(\d{2})-(\d{2})-(\d{2})(?=/|$)", run.path.resolve().as_posix())
    return "{} {}:{}:{}".format(*found[-1]) if found else "not recorded"


def facts(run: RunFolder) -> list[tuple[str, str]]:
    """Head of the report: what was run, as (name, value)."""
    config, train = run.config, run.config.get("train") or {}
    sites = run.partition.get("sites", [])
    counts = {split: sum(len(site.get(split, ())) for site in sites) for split in ("train", "val", "test")}
    unseen = len(run.holdout)
    work = (
        f"{train['local_steps']} steps"
        if train.get("local_steps") is not None
        else f"{train.get('local_epochs', '?')} epochs"
    )
    data = config.get("data") or {}
    root = "generated" if data.get("source") == "phantom" else "no folder given"
    institutions = f"{plural(len(sites), 'institution')}" + (f", {unseen} of them unseen" if unseen else "")
    return [
        ("Started", run_date(run)),
        ("Strategy", strategy_name(config)),
        ("Network", target_name(config.get("model"))),
        ("Loss", target_name(config.get("loss"))),
        ("Arms", ", ".join(str(arm) for arm in config.get("arms", [])) or "not recorded"),
        (
            "Rounds",
            f"{config.get('rounds', '?')}, {work} per site and round, batch {train.get('batch', '?')}",
        ),
        ("Optimiser steps in a row", steps_in_words(run)),
        ("Patch", " x ".join(map(str, _patch(config))) or "not recorded"),
        ("Seeds", _seeds(config)),
        ("Data", f"{data.get('source', '?')}: {data.get('root') or root}"),
        ("Partition", f"{(config.get('partition') or {}).get('method', '?')}, {institutions}"),
        (
            "Cases",
            ", ".join(f"{count} {split}" for split, count in counts.items()) if sites else "not recorded",
        ),
        ("Labels", str(run.partition.get("et_recognised") or "not recorded")),
        (
            "Metrics",
            f"{task.BY_CONVENTION} as in convention {run.convention}; intervals are {INTERVALS}",
        ),
        ("Lesions", str(run.partition.get("lesion_constants") or "not recorded")),
        ("Duration", _wall(run)),
        ("Versions", _versions(run)),
        (
            "Hardware",
            ", ".join(f"{key} {value}" for key, value in flat(run.environment.get("hardware")))
            or "not recorded",
        ),
    ]


def _patch(config: dict[str, Any]) -> list[int]:
    """Sides of the training patch; without one of its own, training takes the model's."""
    own = (config.get("train") or {}).get("patch")
    return own or ((config.get("model") or {}).get("input") or {}).get("patch") or []


def _wall(run: RunFolder) -> str:
    seconds = run.summary.get("wall_seconds")
    return "not recorded" if seconds is None else duration(float(seconds))


def _seeds(config: dict[str, Any]) -> str:
    return f"{config.get('seed', '?')} (training), {(config.get('partition') or {}).get('seed', '?')} (partition)"


def _versions(run: RunFolder) -> str:
    versions = run.environment.get("versions") or {}
    shown = [
        f"{name} {versions[name]}"
        for name in ("fedbrats", "python", "torch", "flwr", "monai")
        if name in versions
    ]
    commit = run.environment.get("commit")
    return ", ".join([*shown, *([f"commit {str(commit)[:12]}"] if commit else [])]) or "not recorded"


def flat(content: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested dict as (dotted key, value) pairs in the order written."""
    if isinstance(content, dict):
        return [
            pair
            for key, value in content.items()
            for pair in flat(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(content, list):
        return [(prefix, ", ".join(str(item) for item in content) or "none")]
    return [] if content is None and not prefix else [(prefix, str(content))]


def result_sentences(run: RunFolder, table: pd.DataFrame, empty: pd.DataFrame) -> list[str]:
    """The result in a few sentences.

    Args:
        table: result of `institution_table`.
        empty: result of `without_truth`.
    """
    scored = table[(table["site"] == EVERY_SITE) & (table["n"] > 0)]
    whole = scored[scored[task.MAIN].notna()]
    out, steps = [], steps_of_arms(run)
    for arm in dict.fromkeys(whole["arm"]):
        out.append(_arm_sentence(whole[whole["arm"] == arm], arm, steps, run.in_words))
        if arm == "federated":
            out += _in_a_row_sentence(run) + truth_sentences(empty, run.in_words)
            out += _worst_sentence(table, run.in_words) + _unseen_sentence(table, run.in_words)
    none = "No test case was scored, so there is no result yet."
    if (run.path / AGGREGATES.name).is_file():
        none = "The sites keep the results of single cases; their means are below."
    out = out or [f"No result: {WITHHELD}." if len(scored) else none]
    bad = failures(run)
    rounds, replies = int((bad["phase"] == "round").sum()), int((bad["phase"] != "round").sum())
    skipped = len({entry.get("case") for entry in skipped_cases(run)})
    trouble = [
        f"{plural(rounds, 'round')} failed" if rounds else "no round failed",
        f"{plural(replies, 'reply', 'replies')} {'was' if replies == 1 else 'were'} left out"
        if replies
        else "no reply was left out",
        f"{plural(skipped, 'case')} {'was' if skipped == 1 else 'were'} skipped"
        if skipped
        else "no case was skipped",
    ]
    sentence = ", ".join(trouble) + "."
    return [*out, sentence[0].upper() + sentence[1:]]


def _arm_sentence(rows: pd.DataFrame, arm: str, steps: Mapping[str, Steps], words: Mapping[str, str]) -> str:
    """Mean of the main score per region, with the interval for the federated arm, the share of pooled and the steps."""
    values = {row["region"]: row for row in rows.to_dict(orient="records")}
    regions = task.in_order(values)
    means = [f"{values[r][task.MAIN]:.3f}" for r in regions]
    if arm == "federated":
        means = [f"{values[r][task.MAIN]:.3f}{_interval(values[r])} for {words[r]}" for r in regions]
    if arm == FLOOR:
        means = [f"{values[r][task.MAIN]:.3f} for {words[r]}" for r in regions]
    share, percents = "", [values[r]["percent_of_pooled"] for r in regions]
    if arm != "pooled" and not any(pd.isna(value) for value in percents):
        share = (
            f", {listed([f'{value:.1f}' for value in percents])} % of the pooled model on the cases of both"
        )
        share += f", which had {steps['pooled'].in_a_row} steps in a row" if "pooled" in steps else ""
    count = plural(max(int(row["n"]) for row in values.values()), "test case")
    whose = f"{count}{SAID_OF_CASES.get(arm, '')}"
    reached = f"reached a mean {task.MAIN_TITLE} of {listed(means)}"
    after = f" after {steps[arm].in_a_row} optimiser steps in a row" if arm in steps else ""
    return f"{SAID_OF_ARM.get(arm, arm_title(arm))} {reached}{after} on {whose}{share}."


def _in_a_row_sentence(run: RunFolder) -> list[str]:
    """The share of the second pooled model, where there is one, with as many steps in a row as the federation."""
    if POOLED_ROW not in set(run.cases["arm"]):
        return []
    merged = merge_local_arms(run.cases, run.metrics)
    shares = percent_of_pooled(merged, over=POOLED_ROW).get("federated", {})
    values = listed([f"{share:.1f}" for share in shares.values()])
    return [f"That is {values} % of a pooled model with as many steps in a row as it."] if shares else []


def _interval(row: dict[str, Any]) -> str:
    low, high = row[f"{task.MAIN}_low"], row[f"{task.MAIN}_high"]
    return "" if pd.isna(low) else f" ({low:.3f} to {high:.3f})"


def listed(parts: list[str]) -> str:
    """ "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _worst_sentence(table: pd.DataFrame, words: Mapping[str, str]) -> list[str]:
    worst = worst_institution(table, "federated", task.LEADING)
    if worst is None:
        return []
    unseen = ", unseen in training" if worst["unseen"] else ""
    where = f"{worst['site']} ({plural(worst['n'], 'test case')}{unseen})"
    said = f"a mean {task.MAIN_TITLE} of {worst['mean']:.3f}"
    return [f"Its weakest institution for {words[task.LEADING]} is {where} with {said}."]


def _unseen_sentence(table: pd.DataFrame, words: Mapping[str, str]) -> list[str]:
    leading = words[task.LEADING].replace(" ", "-")
    rows = table[
        (table["arm"] == "federated") & table["unseen"] & (table["region"] == task.LEADING) & (table["n"] > 0)
    ]
    parts = [f"{row[task.MAIN]:.3f} at {row['site']}" for row in rows.to_dict(orient="records")]
    return (
        [f"Without having seen them in training it reached a {leading} {task.MAIN_TITLE} of {listed(parts)}."]
        if parts
        else []
    )


def quorum_sentence(run: RunFolder) -> str:
    """When a round counted; in a deployment, that fewer than all sites were enough is a decision of the study."""
    quorum = (run.config.get("strategy") or {}).get("quorum")
    if quorum is None:
        quorum = SIMULATED if run.simulation else STRICT
    if float(quorum) == STRICT:
        return "A round counted only with a usable reply of every institution that was asked to train."
    share = f"{100 * float(quorum):g} % of the institutions that were asked to train"
    if run.simulation:
        return f"A round counted with usable replies of at least {share}."
    return (
        f"The study decided that usable replies of {share} are enough for a round (strategy.quorum={quorum}); without "
        "this decision every one of them must answer."
    )


def skipped_cases(run: RunFolder) -> list[dict[str, Any]]:
    """Cases left out because of a problem, each problem once: {case, file, what}."""
    seen, out = set(), []
    for entry in [*(run.partition.get("skipped") or []), *(run.summary.get("skipped") or [])]:
        record = entry if isinstance(entry, dict) else {"case": str(entry)}
        key = tuple(str(record.get(name, "")) for name in ("case", "file", "what"))
        if key not in seen:
            seen.add(key)
            out.append(record)
    return out


def duration(seconds: float) -> str:
    """Seconds as "45 s", "3 min 05 s" or "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
