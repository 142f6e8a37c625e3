"""What is a site's own in a study: what its `site.yaml` refuses, and what it puts in the place of what a study says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedbrats.checks.annotators import counts_annotators
from fedbrats.checks.site.cases import own_partition
from fedbrats.config.schema import Config, RunConfig, RuntimeConfig
from fedbrats.config.site_file import SiteFile
from fedbrats.config.task import CLASSIFICATION, TaskConfig
from fedbrats.devices import cores, pick_device
from fedbrats.models.planned import asks_sites


class StudyRefused(RuntimeError):
    """A study, or a question in it, that the site does not take; the message holds nothing of the site's own."""


def check_own(site: SiteFile, asked: Config) -> None:
    """Refuse a network planned for more memory than the site gives, and labels that it has not or counts otherwise.

    Raises:
        StudyRefused: naming the key of `site.yaml`, and nothing that is there.
    """
    most, wanted = site.limits.plan_memory_gb, asked.model.get("plan_memory", 0)
    if most is not None and asks_sites(asked) and isinstance(wanted, int | float) and wanted > most:
        raise StudyRefused(
            f"limits.plan_memory_gb={most:g}: the study plans its network for model.plan_memory={wanted:g} GB"
        )
    # Of the two, the same channels mean different things.
    if counts_annotators(site.data) != counts_annotators(asked.data):
        raise StudyRefused(
            f"data.labels={site.data.labels}: the study is set up with data.labels={asked.data.labels}, and counts of "
            "annotators train with counts only"
        )
    if asked.task.name == CLASSIFICATION and not site.labels.table and site.data.source != "phantom":
        raise StudyRefused(
            f"labels.table: the study predicts a label of each case (task={CLASSIFICATION}), and site.yaml names no "
            "table of them; set labels.table to a CSV of case and label, 0 or 1"
        )


def own_task(site: SiteFile, asked: TaskConfig) -> TaskConfig:
    """The task of a study with the site's own table of labels; of a segmentation as it is."""
    if asked.name != CLASSIFICATION:
        return asked
    own = site.labels
    return replace(asked, labels=own.table, case_column=own.case_column, label_column=own.label_column)


def lay_over(site: SiteFile, asked: Config) -> Config:
    """`asked` with the site's own data, labels, partition, device and limits in the place of what the study says."""
    runtime = RuntimeConfig(
        engine=asked.runtime.engine,
        workers=0,
        threads=site.limits.threads or cores(),
        device=pick_device(site.device).type,
        amp=asked.runtime.amp,
        memory_fraction=site.limits.memory_fraction,
        evaluate_every=asked.runtime.evaluate_every,
        checkpoint_every=asked.runtime.checkpoint_every,
        keep_checkpoints=asked.runtime.keep_checkpoints,
    )
    privacy = dict(asked.privacy)
    if "ledger" in privacy:  # one for all studies: what patients have spent does not begin anew
        privacy["ledger"] = str(Path(site.storage) / "ledgers")
    return replace(
        asked,
        task=own_task(site, asked.task),
        data=site.data,
        partition=own_partition(site, asked.partition),
        runtime=runtime,
        privacy=privacy,
        report=replace(asked.report, predictions=False, html=False),
        run=RunConfig(versions=asked.run.versions),
    )
