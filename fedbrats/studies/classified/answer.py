"""What a sweep of classifications answers, in the files of `studies.answer`.

compare/
    methods.csv .md .tex     mean and deviation over seeds, worst institution, and p of the AUC against chance
    institutions.csv         the same by institution
    tests.csv                every method against chance and against the reference, with a sentence each
    ranking.csv              mean ranks over institutions, and p of every pair; empty where there are too few
    curves.csv               validation over rounds, steps and bytes
    figures/*.pdf, *.svg
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.metrics.table import Facts
from fedbrats.report.compare.tables import printed_labels
from fedbrats.studies.answer import write_answer_files
from fedbrats.studies.classified.figures import figures_of
from fedbrats.studies.classified.paired import CHANCE, ranking, tests
from fedbrats.studies.curves import method_curves
from fedbrats.studies.job_table import job_table
from fedbrats.studies.jobs import Job
from fedbrats.studies.methods import Method, institution_means, method_table, methods_of, recipes
from fedbrats.studies.paired import reference_of
from fedbrats.tasks.classification import CLASSIFICATION, FACTS, MAIN

OF_REGIONS = ["region", "percent_of_pooled"]  # columns of which a label has nothing to say
COSTS = ["mb_to_95", "hours_to_95"]  # 95 % of a Brier score of chance is reached at once
TOLD = ["positives", "p_chance"]  # beside the scores


def write_classified(sweep: Path, jobs: Sequence[Job], over: str | None = None) -> dict[str, Any]:
    """Write the files below `sweep`/compare and return what the page prints of them; {} where no job finished.

    Args:
        sweep: folder of the jobs.
        jobs: of it, all of the task classification.
        over: method that the others are measured against.

    Raises:
        RunFolderError: no method is called `over`.
    """
    methods = methods_of(jobs)
    reference = reference_of(methods, over) or next(iter(methods), None)
    if reference is None:
        return {}
    found, left = tests(methods, reference)
    means, curves = institution_table(methods), method_curves(methods, CLASSIFICATION)
    table = methods_with_chance(methods, found, FACTS)
    ranks, p, unranked = ranking(methods, means)
    frames = {"methods": table, "institutions": means, "tests": found, "curves": curves}
    frames["ranking"] = ranks.join(p.reset_index(drop=True).add_prefix("p better than "))
    cells = printed_labels(table, FACTS, MAIN)
    figures = dict(figures_of(sweep, jobs, methods, means, curves, found))
    pictures = write_answer_files(sweep, frames, cells, figures)
    against = found["over"] == CHANCE
    return {
        "cells": cells,
        "recipes": recipes(jobs),
        "chance": found.loc[against, "sentence"].tolist(),
        "sentences": found.loc[~against, "sentence"].tolist(),
        "reference": reference.name,
        "left": left,
        "ranks": ranks.to_dict("records"),
        "unranked": unranked,
        "p": p.round(4).to_numpy().tolist(),
        "figures": pictures,
    }


def institution_table(methods: Iterable[Method]) -> pd.DataFrame:
    """Mean over the jobs of every method by institution: method, arm, site, unseen, n, positives, then the scores."""
    return institution_means(methods, ["positives", *FACTS]).drop(columns="region")


def methods_with_chance(
    methods: Sequence[Method], found: pd.DataFrame, facts: dict[str, Facts]
) -> pd.DataFrame:
    """`method_table` without what only regions have, and with p of chance beside the AUC.

    Args:
        methods: in the order of the rows.
        found: of `paired.tests`.
        facts: of the scores.
    """
    table = method_table(methods, facts, CLASSIFICATION).drop(columns=[*OF_REGIONS, *COSTS])
    p = found[found["over"] == CHANCE].set_index("method")["p"]
    chance = table["method"].map(p).where(table["metric"] == MAIN)
    table.insert(table.columns.get_loc("epsilon"), "p_chance", chance)
    return table


def label_jobs(jobs: list[Job]) -> pd.DataFrame:
    """`compare.csv`: one row per job, arm and institution, with p of chance as each run's own report has it."""
    frame = job_table(jobs).drop(columns=[*OF_REGIONS, "convention"])
    parts = [job.table.assign(job=job.name) for job in jobs if len(job.table)]
    keys = ["job", "arm", "site"]
    if not parts:
        return frame.assign(**dict.fromkeys(TOLD, float("nan")))
    return frame.merge(pd.concat(parts)[[*keys, *TOLD]], on=keys, how="left")
