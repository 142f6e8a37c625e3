"""What a site's own table of one label per case is worth, before a study that classifies asks for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedbrats.checks.site.cases import SPLITS, own_partition
from fedbrats.checks.site.finding import FIX, OK, WARNING, Finding
from fedbrats.config.schema import PartitionConfig
from fedbrats.config.site_file import SiteFile
from fedbrats.config.targets import ConfigError
from fedbrats.config.task import CLASSIFICATION, REFUSE, TaskConfig
from fedbrats.data.case_labels import OF_SITE, labels_of, read_labels
from fedbrats.data.cases import Case
from fedbrats.data.partition import make_partition
from fedbrats.tasks.told import OF_CLASSES

CHECK = "label table"


def check_label_table(
    site: SiteFile, task: TaskConfig, study: PartitionConfig, cases: Sequence[Case]
) -> Finding | None:
    """Look whether every case has a label, and whether both labels have enough cases; None where nobody asks for any.

    Args:
        site: with its table.
        task: of the study; or the usual one, a segmentation.
        study: what holds of the split where the site says nothing of its own.
        cases: that can be used.
    """
    asked = task.name == CLASSIFICATION
    if not site.labels.table:
        if not asked:
            return None
        said = "site.yaml names none, and the study predicts a label of each case: set labels.table to a CSV of both."
        return Finding(CHECK, FIX, said)
    path = Path(site.labels.table)
    try:
        table = read_labels(path, site.labels.case_column, site.labels.label_column, OF_SITE)
    except ConfigError as error:
        said = "cannot be used: it takes a line per case with one label, 0 or 1; the screen of the site says more."
        return Finding(CHECK, FIX, said, str(error))
    try:
        labels = labels_of([case.name for case in cases], table, path, OF_SITE)
    except ConfigError as error:
        said = (
            "some cases have no label: add their rows, or name the column of the cases by labels.case_column."
        )
        return Finding(CHECK, FIX, said, str(error))
    if len(set(labels.values())) == 1:
        said = (
            "all cases have one label, so nothing here can tell the two apart: look at labels.label_column."
        )
        verdict = FIX if asked and task.one_class == REFUSE else WARNING
        return Finding(CHECK, verdict, said, f"{path}: all are {next(iter(labels.values()))}")
    return _counted(site, study, cases, labels)


def _counted(
    site: SiteFile, study: PartitionConfig, cases: Sequence[Case], labels: Mapping[str, int]
) -> Finding:
    """How many cases of each label a split has stands on the screen alone: of few it tells who they are."""
    dealt = make_partition(cases, own_partition(site, study), labels=labels)[0]
    counts = {split: Counter(labels[case] for case in getattr(dealt, split)) for split in SPLITS}
    here = "\n".join(
        f"{split}: {found[0]} with label 0, {found[1]} with label 1" for split, found in counts.items()
    )
    facts, least = {"cases": len(labels)}, site.policy.least_cases
    few = counts["test"].total() >= least and min(counts["test"][label] for label in (0, 1)) < least
    if few and not site.policy.per_case:
        said = (
            f"every case has a label, but of the test {', '.join(OF_CLASSES)} stay here, one label having fewer than "
            f"{least} cases (policy.least_cases)."
        )
        return Finding(CHECK, WARNING, said, here, facts)
    return Finding(CHECK, OK, "every case has a label, 0 or 1, and both are there", here, facts)
