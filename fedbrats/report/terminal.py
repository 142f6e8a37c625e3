"""The result table that a run prints at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedbrats.config.names import shown
from fedbrats.data.sentences import plural
from fedbrats.metrics.table import BY_NAME
from fedbrats.report.aggregates import told_by_sites
from fedbrats.report.arms import OF_TRAINING_SITES, arm_title
from fedbrats.report.cells import MISSING, SEEN_ONLY, number, shorten
from fedbrats.report.conditions import steps_in_words, truth_sentences, without_truth
from fedbrats.report.epsilon import NO_EPSILON, band, epsilon_text, of_budget
from fedbrats.report.secure import secure_sentence
from fedbrats.report.spent import read_spent
from fedbrats.report.tables import EVERY_SITE, institution_table, worst_institution
from fedbrats.report.words import listed
from fedbrats.runs.classified import read_institutions
from fedbrats.runs.privacy_files import asks_for_privacy
from fedbrats.runs.run_folder import RunFolder, read_run
from fedbrats.runs.taking_part import TakingPart, headline, missed_share, taking_part
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.classification import verdict
from fedbrats.tasks.told import KEPT


def plain(text: object) -> Text:
    """Foreign text as it is: no markup of rich, no control characters."""
    return Text(shown(str(text)))


def print_result_table(run: RunFolder | Path, console: Console) -> None:
    """Print arms by regions over all test cases: mean and 95 % interval, per cent of pooled, worst institution.

    Below it what secure aggregation used, and the epsilon of each institution, where the run has them. At most 80
    columns wide.

    Raises:
        RunFolderError: `run` is a path that cannot be read as a run folder.
    """
    run = run if isinstance(run, RunFolder) else read_run(run)
    if run.classifies:
        _print_classified(run, console)
        _print_rest(run, console)
        return
    table = institution_table(run)
    whole, told = table[table["site"] == EVERY_SITE], told_by_sites(run, public=False)
    if len(whole):
        _print_table(run, table, whole, console)
    elif not told:
        console.print("No test case was scored, so there is no result table.")
    _print_told(told, console)
    _print_rest(run, console)


def _print_classified(run: RunFolder, console: Console) -> None:
    """AUC of every arm over all test cases, and whether it is chance."""
    table = read_institutions(run.path)
    if not len(table):
        console.print("No test case was scored, so there is no result.")
    for row in table[table["site"] == EVERY_SITE].to_dict("records"):
        known = "" if pd.isna(row["auc_low"]) else f" [{row['auc_low']:.2f}, {row['auc_high']:.2f}]"
        text = f"{arm_title(row['arm'])}, {plural(int(row['n']), 'test case')}{known}: {verdict(row)}"
        console.print(plain(text), soft_wrap=True)
        for own in table[table["arm"] == row["arm"]].iloc[1:].to_dict("records") if row[KEPT] else ():
            of = f"{own['site']}, {plural(int(own['n']), 'test case')}"
            console.print(plain(f"  {of}: AUC {number(own['auc'], 3)}"), soft_wrap=True)


def _print_rest(run: RunFolder, console: Console) -> None:
    """What is said below the result of any task."""
    if said := secure_sentence(run.path, run.config, run.rounds):
        console.print(plain(said))
    for line in privacy_lines(run):
        console.print(line)
    print_taking_part(taking_part(run.rounds), missed_share(run.config), console, always=not run.simulation)
    if run.finished and run.status != "finished":
        console.print(Text(f"The run is {shown(run.status)}.", style="bold red"))


def print_taking_part(
    found: Sequence[TakingPart], share: float, console: Console, *, always: bool = True
) -> None:
    """Print who took part in the federated training; in a run that is under way, so far. Nothing for no round.

    Args:
        found: result of `taking_part`.
        share: `strategy.missed_share`; who missed more of the rounds is named first.
        console: at most 80 columns of it are used.
        always: else one line is enough where nobody missed anything.
    """
    if not found:
        return
    if said := headline(found, share):
        console.print(Text(shown(said), style="bold red"))
    if not (always or any(part.missed or part.unused or part.refused for part in found)):
        console.print(f"Took part: {plural(len(found), 'site')}, each in all rounds ({found[0].rounds}).")
        return
    out = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("Took part", "Rounds", "Missed", "% steps", "Last", "Why missed"):
        out.add_column(name, justify="left" if name in ("Took part", "Why missed") else "right")
    for part in found:
        why = "; ".join(filter(None, [part.reasons, *(f"refused: {n} x {what}" for what, n in part.refused)]))
        out.add_row(
            plain(shorten(part.site, 18)),
            f"{part.contributed}/{part.rounds}",
            Text(str(part.missed), style="red" if part.missed_more(share) else ""),
            number(None if part.share is None else 100 * part.share, 1),
            MISSING if part.last_seen is None else str(part.last_seen),
            plain(why or MISSING),
        )
    console.print(out)


def _print_told(told: list[dict[str, Any]], console: Console) -> None:
    """Mean and deviation of the main metric by region, where sites keep the results of single cases."""
    for table in told:
        out = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        out.add_column(Text(table["title"], style="bold"), no_wrap=True, overflow="ellipsis")
        for name in ("n", *(f"{task.MAIN_TITLE} {region}" for region in task.REGIONS)):
            out.add_column(name, justify="right", no_wrap=True)
        for row in table["rows"]:
            out.add_row(plain(row["site"]), str(row["n"]), *row["cells"][: len(task.REGIONS)])
        console.print(out)


def _print_table(run: RunFolder, table: pd.DataFrame, whole: pd.DataFrame, console: Console) -> None:
    gap = 2 if console.width >= 90 else 1
    out = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False)
    out.add_column("All test cases", no_wrap=True)
    for name in ("n", *(_heading(m) for m in task.SHOWN), "% pooled"):
        out.add_column(name, justify="right", no_wrap=True)
    out.add_column("Worst site", no_wrap=True, overflow="ellipsis")
    for arm in dict.fromkeys(whole["arm"]):
        out.add_row(Text(arm_title(arm), style="bold"))
        for row in whole[whole["arm"] == arm].to_dict(orient="records"):
            out.add_row(
                plain(f"  {row['region']}"),
                str(row["n"]),
                *(_with_interval(row, metric) for metric in task.SHOWN),
                number(row["percent_of_pooled"], 1),
                Text(_worst(table, arm, row["region"])),
            )
    console.print(out)
    notes = sorted({note for text in whole["note"] for note in text.split("; ") if note})
    console.print(
        plain(
            f"{task.CONVENTION_TITLE} {run.convention}; n = test cases; [ ] = 95 % interval; "
            f"worst by mean {task.MAIN_TITLE}."
        )
    )
    if notes:
        console.print(plain(f"{MISSING} = {'; '.join(notes)}."))
    for line in (
        f"Optimiser steps in a row: {steps_in_words(run)}.",
        *truth_sentences(without_truth(run), run.in_words),
    ):
        console.print(plain(line))
    seen = [arm_title(arm) for arm in dict.fromkeys(whole["arm"]) if arm in OF_TRAINING_SITES]
    if seen and run.holdout:
        console.print(plain(f"{listed([f'“{name}”' for name in seen])}: {SEEN_ONLY}."))


def privacy_lines(run: RunFolder) -> list[Text]:
    """One line per institution with its epsilon, one for noise at the server; none for a run that is not private.

    Raises:
        RunFolderError: `privacy.json` cannot be read.
    """
    privacy = read_spent(run.path, run.config)
    if privacy is None:
        return [Text(NO_EPSILON, style="red")] if asks_for_privacy(run.config) else []
    if privacy.central is not None:
        spent = [("Server", privacy.central.epsilon, privacy.central.delta, privacy.central.accountant, "")]
    else:
        spent = [(shorten(s.site, 18), s.epsilon, s.delta, s.accountant, s.stopped) for s in privacy.sites]
    out = [Text(f"Differential privacy of one {privacy.unit}", style="bold")]
    for name, epsilon, delta, accountant, stopped in spent:
        worth = {"weak": ", weak", "empty": ", worth nothing"}.get(band(epsilon), "")
        text = f"  {shown(name)}: epsilon {epsilon_text(epsilon)} at delta {delta:g} ({accountant}){worth}"
        out.append(Text(text + (", stopped" if stopped else "")))
    out += [
        Text(f"  {shown(shorten(s.site, 18))}: noisy validation, epsilon {said} for those who validate")
        for s in privacy.sites
        if (said := of_budget(s.validation_epsilon, s.validation_budget)) != MISSING
    ]
    out += [Text(shown(fault), style="bold red") for fault in privacy.faults]
    out += [
        Text(f"  {shown(shorten(name, 18))}: epsilon unknown", style="red") for name, _ in privacy.unknown
    ]
    if privacy.insecure_seed:
        out.append(
            Text("The noise can be reproduced (insecure_seed): not valid for a release.", style="bold red")
        )
    return out


def _heading(metric: str) -> str:
    return f"{BY_NAME[metric].title} {BY_NAME[metric].unit}".strip()


def _with_interval(row: dict[str, float], metric: str) -> Text:
    decimals = BY_NAME[metric].decimals
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    mean = number(row[metric], decimals)
    short = 2 if decimals == 3 else 1 if max(abs(high), abs(low)) < 100 else 0
    return Text(mean if pd.isna(low) else f"{mean} [{low:.{short}f}, {high:.{short}f}]")


def _worst(table: pd.DataFrame, arm: str, region: str) -> str:
    worst = worst_institution(table, arm, region)
    return MISSING if worst is None else f"{worst['mean']:.2f} {shorten(worst['site'], 18)}"
