"""The model card: what a run tells about one of its models, for those who get the model and not the run.

Institutions are numbers, as the report orders them; no name of one, no case and no path is in it. Scores are those that
`report_public.html` hands out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import torch

from fedbrats import __version__
from fedbrats.config.schema import FEDERATED, LOCAL, POOLED
from fedbrats.export.configuration import PURPOSE, Model
from fedbrats.export.int8 import Quantised
from fedbrats.export.numbered import Numbers, numbered_privacy
from fedbrats.export.proof import Proof
from fedbrats.files import write_text
from fedbrats.inference.members import Spec
from fedbrats.metrics.interval import MIN_CASES
from fedbrats.metrics.table import BY_NAME
from fedbrats.models.build import input_rules, window_of
from fedbrats.report.cells import MISSING, number
from fedbrats.report.results import Results
from fedbrats.report.sections.privacy_tables import privacy_sentences, warnings
from fedbrats.report.tables import EVERY_SITE, worst_institution
from fedbrats.report.words import strategy_name, target_name
from fedbrats.runs.run_folder import RunFolder, read_run
from fedbrats.studies.citing import papers
from fedbrats.tasks import segmentation as task

IN_WORDS = {
    FEDERATED: "a federation of institutions",
    POOLED: "pooled training on the data of all institutions",
    LOCAL: "one institution alone",
}
FORMATS_IN_WORDS = {"bundle": "a MONAI bundle", "onnx": "ONNX", "int8": "ONNX with weights in 8 bits (INT8)"}
NOT_PRIVATE = "Trained without differential privacy: nothing bounds what the weights tell about a patient."


@dataclass(frozen=True)
class Card:
    """What a model card says of the run; `results` and `institutions` are rows for the template."""

    network: str
    facts: list[tuple[str, str]]
    split: str
    institutions: list[dict[str, Any]]
    tested: str
    columns: list[str]
    results: list[dict[str, Any]]
    worst: str
    privacy: list[str]
    not_covered: list[str]
    papers: list[tuple[str, str, str]]
    numbers: Numbers


def arm_in_words(spec: Spec) -> str:
    """How the model of an arm was trained, without the name of an institution."""
    return IN_WORDS[spec.arm.split(":")[0]]


def references(card: Card) -> list[str]:
    """The papers to cite, one line each."""
    dated = [(part, source) for _, part, source in card.papers if re.search(r"\b(?:19|20)\d\d\b", source)]
    return [f"{part}: {source}" for part, source in dated]


def read_card(spec: Spec) -> Card:
    """What the run of `spec` tells.

    Raises:
        RunFolderError: a file of the run cannot be read.
    """
    results = Results(read_run(spec.run), public=True)
    run, arm = results.run, spec.arm.split(":")[0]
    numbers = Numbers.of(run.sites)
    rows, columns = _scores(results, arm, numbers)
    privacy, not_covered = _privacy(results, arm, numbers)
    return Card(
        network=target_name(run.config.get("model")),
        facts=_facts(run, spec, numbers),
        split=_split(run),
        institutions=_institutions(run, numbers),
        tested=_tested(run, spec),
        columns=columns,
        results=rows,
        worst=_worst(results, arm, numbers),
        privacy=privacy,
        not_covered=not_covered,
        papers=papers(run.config),
        numbers=numbers,
    )


def write_card(
    file: Path, card: Card, model: Model, proof: Proof, format: str, quantised: Quantised | None = None
) -> None:
    """Write the card as Markdown; `quantised` of a model in 8 bits."""
    template = jinja2.Environment(
        loader=jinja2.PackageLoader("fedbrats.export", "."),
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown; what comes from a run is escaped by `_cell`
    ).get_template("card.md.j2")
    window, inference = window_of(model.config), model.config.inference
    facts = [
        ("Round", str(model.round)),
        ("Window", " x ".join(map(str, window))),
        ("Inference", f"overlap {inference.overlap:g}, mirrorings {'on' if inference.flips else 'off'}"),
        ("Post-processing", "; ".join(step.name for step in model.steps) or "none"),
        ("Numbers of labels", str(model.numbers)),
    ]
    text = template.render(
        card=card,
        facts=[(name, _cell(value)) for name, value in facts],
        format=format,
        format_in_words=FORMATS_IN_WORDS[format],
        least=MIN_CASES,
        model=model,
        normalise=input_rules(model.config.model).normalise,
        proof=proof,
        purpose=PURPOSE,
        quantised=quantised,
        references=references(card),
        threads=torch.get_num_threads(),
        title=task.MAIN_TITLE,
        version=__version__,
        window=window,
    )
    write_text(file, card.numbers.hide(text))


def _cell(text: str) -> str:
    """Text of a run inside a table of Markdown: one line, and no sign that ends a cell or begins a tag."""
    return re.sub(r"\s+", " ", text).replace("|", "/").replace("<", "&lt;")


def _facts(run: RunFolder, spec: Spec, numbers: Numbers) -> list[tuple[str, str]]:
    config, train = run.config, run.config.get("train") or {}
    arm, _, site = spec.arm.partition(":")
    steps, epochs = train.get("local_steps"), train.get("local_epochs")
    work = f"{steps} steps" if steps is not None else f"{epochs} epochs"
    personal, privacy = config.get("personalization"), config.get("privacy") or {}
    facts = [
        ("Trained by", IN_WORDS[arm] + (f": {numbers.name(site)}" if site else "")),
        ("Method", strategy_name(config) if arm == FEDERATED else "plain training"),
        (
            "Rounds",
            f"{config.get('rounds', '?')}, {work} per site and round, batch {train.get('batch', '?')}",
        ),
        ("Loss", target_name(config.get("loss"))),
        ("Personalisation", target_name(personal) if personal else "none"),
        ("Secure aggregation", "yes" if privacy.get("secure_aggregation") else "no"),
        ("Seed", str(config.get("seed", "?"))),
    ]
    return [(name, _cell(value)) for name, value in facts]


def _split(run: RunFolder) -> str:
    config, part = run.config.get("data") or {}, run.config.get("partition") or {}
    kind = (
        "Synthetic cases (the phantom of fedbrats), no patients"
        if config.get("source") == "phantom"
        else "Cases in files"
    )
    labels = (run.partition.get("label_system") or {}).get("name", "of several kinds")
    shares = f"{part.get('val', '?')} of a site's patients validate, {part.get('test', '?')} test"
    if part.get("fold") is not None:
        shares = f"fold {part['fold']} of {part.get('folds', '?')} validates, {part.get('test', '?')} test"
    if part.get("test_table"):
        shares = "a table names the cases that test"
    return _cell(
        f"{kind}, label numbers {labels}. Partition: {part.get('method', '?')}, seed {part.get('seed', '?')}. Split by "
        f"patient: {shares}."
    )


def _institutions(run: RunFolder, numbers: Numbers) -> list[dict[str, Any]]:
    rows = []
    for site in run.partition.get("sites", []):
        counts = {split: len(site.get(split, ())) for split in ("train", "val", "test")}
        unseen = bool(site.get("holdout"))
        rows.append({"number": numbers.number(str(site["name"])), "unseen": unseen, **counts})
    return sorted(rows, key=lambda row: row["number"])


def _tested(run: RunFolder, spec: Spec) -> str:
    select = str((run.config.get("report") or {}).get("select", "?"))
    if spec.which in ("", select):
        return f"It is the model that the run itself tested ({select})."
    return f"The run tested another round of this arm ({select}) than this one ({spec.which}): its results are below."


def _scores(results: Results, arm: str, numbers: Numbers) -> tuple[list[dict[str, Any]], list[str]]:
    table, regions = results.table, results.run.regions
    mine = table[table["arm"] == arm]
    columns = [f"{BY_NAME[metric].title} {region}" for metric in task.SHOWN for region in regions]
    rows = []
    for site in dict.fromkeys(mine["site"]):
        part = mine[mine["site"] == site].set_index("region")
        if not part["n"].max() > 0:
            continue
        cells = [
            _mean(part.loc[region], metric) if region in part.index else MISSING
            for metric in task.SHOWN
            for region in regions
        ]
        who = "all" if site == EVERY_SITE else str(numbers.number(site))
        rows.append({"who": who, "n": int(part["n"].max()), "cells": cells})
    return rows, columns


def _mean(row: pd.Series, metric: str) -> str:
    decimals = BY_NAME[metric].decimals
    if pd.isna(row[metric]):
        return "withheld" if row["n"] > 0 else MISSING
    low, high = (number(row[f"{metric}_{end}"], decimals) for end in ("low", "high"))
    interval = "" if MISSING in (low, high) else f" ({low} to {high})"
    return f"{number(row[metric], decimals)}{interval}"


def _worst(results: Results, arm: str, numbers: Numbers) -> str:
    said = []
    for region in results.run.regions:
        found = worst_institution(results.table, arm, region)
        if found:
            value = number(found["mean"], BY_NAME[task.MAIN].decimals)
            unseen = ", unseen" if found["unseen"] else ""
            said.append(
                f"{region} {task.MAIN_TITLE} {value} at {numbers.name(found['site'])} (n = {found['n']}{unseen})"
            )
    return "; ".join(said) or f"none has {MIN_CASES} test cases"


def _privacy(results: Results, arm: str, numbers: Numbers) -> tuple[list[str], list[str]]:
    if results.privacy is None or arm != FEDERATED:
        return [NOT_PRIVATE], []
    privacy = numbered_privacy(results.privacy, numbers)
    return [*privacy_sentences(privacy, ()), *warnings(privacy)], list(privacy.not_covered)
