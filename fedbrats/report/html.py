"""`report.html`: one file that needs nothing else, built from a run folder."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from matplotlib.figure import Figure

from fedbrats import __version__
from fedbrats.files import write_text
from fedbrats.report import figures, overlays, partition_figures, words
from fedbrats.report.arms import arm_title
from fedbrats.report.audit import audit_context
from fedbrats.report.cells import MISSING, Footnotes, arm_rows, number, statistic_rows, worst_rows
from fedbrats.report.personal_tables import personal_context
from fedbrats.report.postprocess_tables import postprocess_context
from fedbrats.report.privacy_figures import privacy_context
from fedbrats.report.privacy_tables import NO_EPSILON
from fedbrats.report.style import styled
from fedbrats.report.tables import (
    EVERY_SITE,
    cost_table,
    counts_pairs,
    failures,
    institution_table,
    statistics,
)
from fedbrats.report.uncertainty_figures import uncertainty_context
from fedbrats.runs.privacy_files import asks_for_privacy
from fedbrats.runs.run_folder import RunFolder, read_run
from fedbrats.tasks import segmentation as task

REPORT_NAME = "report.html"


def write_report(run_folder: Path) -> Path:
    """Build `report.html` in a run folder from its files, replacing an older one at once.

    A run that is not finished, or lacks arms, gives a report that says what is missing.

    Returns:
        Path of the report.

    Raises:
        RunFolderError: the folder is no run folder, or a file in it cannot be read.
    """
    run = read_run(run_folder)
    return write_page(run.path / REPORT_NAME, "report.html.j2", report_context(run))


def write_page(path: Path, template: str, context: dict[str, Any]) -> Path:
    """Fill a template of this package and write it atomically."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names of cases and institutions come from folders and tables
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(version=__version__, task=task, **context)
    write_text(path, text)
    return path


def write_prediction_report(folder: Path) -> Path:
    """Build `report.html` in a folder of predictions: post-processing, what the uncertainty is worth, what to look at.

    Raises:
        RunFolderError: a CSV file in it cannot be read.
    """
    found = _uncertainty(folder, "scores.csv", True)
    context = {"folder": "/".join(folder.resolve().parts[-2:]), "u": found, "convention": ""}
    context["post"] = postprocess_context(folder)
    return write_page(folder / REPORT_NAME, "predictions.html.j2", context)


def report_context(run: RunFolder) -> dict[str, Any]:
    """Everything the template prints."""
    table = institution_table(run)
    footnotes = Footnotes()
    overall = arm_rows(table, EVERY_SITE, footnotes)
    blocks = [
        {"site": site, "unseen": site in run.holdout, "rows": arm_rows(table, site, footnotes)}
        for site in run.sites
    ]
    privacy, personal = privacy_context(run), personal_context(run, blocks)
    lost = privacy is None and asks_for_privacy(run.config)
    return {
        "title": words.title(run),
        "folder": "/".join(run.path.resolve().parts[-2:]),
        "status": run.status,
        "finished": run.finished,
        "missing": [*run.missing, *([NO_EPSILON] if lost else [])],
        "facts": [*words.facts(run), *(part["fact"] for part in (privacy, personal) if part)],
        "sentences": words.result_sentences(run, table),
        "convention": run.convention,
        "regions": run.regions,
        "shown": run.shown,
        "all_regions": task.REGIONS,
        "pairs": counts_pairs(run, table),
        "overall": overall,
        "worst": worst_rows(table),
        "institutions": blocks,
        "personal": _pictured(personal, ("gain",)),
        "privacy": _pictured(privacy, ("epsilon", "norms", "central")),
        "audit": audit_context(run.path),
        "footnotes": footnotes.texts,
        "statistics": statistic_rows(statistics(run), run.metrics),
        "figures": _figures(run),
        "overlays": _overlays(run),
        "post": postprocess_context(run.path),
        "u": _uncertainty(run.path, "cases.csv", run.simulation),
        "partition": _partition_rows(run),
        "costs": _cost_rows(run),
        "failures": [
            {**row, "arm": arm_title(str(row["arm"]))}
            for row in failures(run).astype(object).to_dict("records")
        ],
        "skipped": words.skipped_cases(run),
        "warnings": [str(warning) for warning in run.partition.get("warnings") or []],
        "environment": words.flat(run.environment),
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
    }


def _figures(run: RunFolder) -> dict[str, str]:
    """Data URIs by name; a figure without anything to show is left out."""
    has_sites, has_cases = bool(run.partition.get("sites")), bool(len(run.cases))
    wanted: dict[str, tuple[bool, Callable[[], Figure]]] = {
        "curves": (bool(len(run.rounds)), lambda: figures.learning_curves(run)),
        **{m: (has_cases, partial(figures.metric_boxes, run, m)) for m in run.shown},
        "cost": (bool(len(run.rounds)), lambda: figures.cost_figure(run)),
        "partition": (has_sites, lambda: partition_figures.partition_figure(run)),
        "intensity": (has_sites, lambda: partition_figures.intensity_figure(run)),
    }
    return {name: data_uri(draw(), "svg") if there else "" for name, (there, draw) in wanted.items()}


def _uncertainty(folder: Path, scores: str, names: bool) -> dict[str, Any] | None:
    """Context of the section on uncertainty; `names`: whether cases may be named."""
    found = uncertainty_context(folder, scores)
    if found is None:
        return None
    sites = any(row["site"] for row in found["cases"])
    extra = {"names": names, "sites": sites, "title": arm_title(found["arm"])}
    return _pictured({**found, **extra}, ("reliability", "retained"))


def _pictured(found: dict[str, Any] | None, names: tuple[str, ...]) -> dict[str, Any] | None:
    """A section's context with its figures as data URIs; "" for a figure that it does not have."""
    if found is None:
        return None
    drawn = {name: data_uri(figure, "svg") for name, figure in found["figures"].items()}
    return {**found, "figures": dict.fromkeys(names, "") | drawn}


def data_uri(figure: Figure, kind: str) -> str:
    """A figure as a data URI, "svg" or "png". An image of its own keeps the ids of several SVG apart."""
    stream = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with styled():
        figure.savefig(stream, format=kind, dpi=130, metadata=metadata)
    mime = "image/svg+xml" if kind == "svg" else "image/png"
    return f"data:{mime};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _overlays(run: RunFolder) -> list[dict[str, str]]:
    out = []
    for overlay in overlays.choose_overlays(run):
        scores = ", ".join(f"{region} {overlay.scores[region]:.3f}" for region in run.regions)
        unseen = ", unseen" if overlay.site in run.holdout else ""
        name = f"{overlay.case}, " if run.simulation else ""
        title = f"{overlay.rank}: {name}{overlay.site}{unseen}. {task.MAIN_TITLE} {scores}"
        out.append({"title": title, "image": data_uri(overlays.overlay_figure(overlay), "png")})
    return out


def _partition_rows(run: RunFolder) -> list[dict[str, Any]]:
    rows = []
    for row in partition_figures.partition_frame(run).to_dict(orient="records"):
        volumes = [_mean_sd(row, f"{region.lower()}_ml") for region in task.REGIONS]
        free = row.get("et_free")
        rows.append(
            {**row, "volumes": volumes, "et_free": MISSING if free is None or pd.isna(free) else int(free)}
        )
    return rows


def _mean_sd(row: dict[str, Any], name: str) -> str:
    mean, spread = number(row.get(f"{name}_mean"), 1), number(row.get(f"{name}_sd"), 1)
    return mean if spread == MISSING or row["cases"] < 2 else f"{mean} ± {spread}"


def _cost_rows(run: RunFolder) -> list[dict[str, str]]:
    costs = cost_table(run)
    return [
        {
            "title": "Local models" if row["arm"] == "local" else arm_title(row["arm"]),
            "rounds": f"{row['rounds']}",
            "failed": f"{row['failed_rounds']}",
            **{name: number(row[name], 1) for name in costs.columns[3:]},
        }
        for row in costs.to_dict(orient="records")
    ]
