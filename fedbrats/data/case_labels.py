"""The label of a whole case, 0 or 1, from a table: MGMT methylation, IDH mutation, a subtype."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedbrats.config.targets import ConfigError
from fedbrats.config.task import CLASSIFICATION, KEEP, TaskConfig
from fedbrats.data.cases import Case
from fedbrats.data.partition import Site
from fedbrats.data.patients import same
from fedbrats.data.phantom import PHANTOM_LABELS
from fedbrats.data.sentences import some
from fedbrats.data.tables import CASE_HEADERS, find_column, open_table, unique

HEADERS = ("label", "class", "mgmt_value", "mgmt", "idh", "idh_status")
CASES = ("brats21id", *CASE_HEADERS)
VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
# Task 2 of BraTS 2021 (Baid et al., arXiv 2107.02314, section 2.2) has the number of the case alone.
_NUMBER = re.compile(r"brats2021_(\d+)")


@dataclass(frozen=True)
class Keys:
    """What messages call the table, its columns, and what to do about an institution whose cases have one label."""

    table: str
    case_column: str
    label_column: str
    one_class: str


OF_RUN = Keys(
    "task.labels",
    "task.case_column",
    "task.label_column",
    "put them together with others by partition.table, leave small institutions out by partition.least, or set "
    "task.one_class=keep: they train, and have no AUC of their own",
)
OF_SITE = Keys(  # of site.yaml
    "labels.table",
    "labels.case_column",
    "labels.label_column",
    "look at labels.label_column, or ask for a study with task.one_class=keep: the site trains, and has no AUC of its "
    "own",
)


def read_labels(
    path: Path | str,
    case_column: str | None = None,
    label_column: str | None = None,
    keys: Keys = OF_RUN,
) -> dict[str, int]:
    """Read a table that has a label for every case; other columns are passed over.

    Args:
        path: comma, semicolon or tab separated, with a header line.
        case_column: header of the case names; None recognises the usual ones, such as BraTS21ID.
        label_column: header of the labels; None recognises the usual ones, such as MGMT_value.
        keys: that messages name.

    Returns:
        Case name, as written in the table -> 0 or 1.

    Raises:
        ConfigError: no such file, columns not found, no case, a label that is neither 0 nor 1, or two labels of a case.
    """
    path = Path(path)
    table = open_table(path, keys.table)
    names = find_column(path, table.columns, case_column, CASES, keys.case_column)
    labels = find_column(path, table.columns, label_column, HEADERS, keys.label_column)
    rows = [(case.strip(), label.strip()) for case, label in zip(table[names], table[labels], strict=True)]
    rows = [(case, label) for case, label in rows if case]
    if not rows:
        raise ConfigError(f"{path}: lists no case")
    for case, label in rows:
        if label not in VALUES:
            raise ConfigError(
                f"{path}: {case} has {label or 'no value'!r} in column {labels}, expected 0 or 1; mend it, or choose "
                f"another column by {keys.label_column}"
            )
    pairs = ((case, str(VALUES[label])) for case, label in rows)
    return {case: int(label) for case, label in unique(path, pairs, "classes").items()}


def labels_of(
    cases: Collection[str], table: Mapping[str, int], path: Path | str, keys: Keys = OF_RUN
) -> dict[str, int]:
    """The label of each of the `cases`; rows of other cases are passed over, as of a challenge of more cases.

    A case BraTS2021_00002 is also found by its number alone, 00002 or 2.

    Raises:
        ConfigError: a case is not in the table; the message names some of them and what the table has instead.
    """
    known = {same(name): label for name, label in table.items()}
    numbers = {str(int(name)): label for name, label in table.items() if name.isdecimal()}
    found = {}
    for case in cases:
        number = _NUMBER.fullmatch(case.lower())
        label = known.get(same(case), numbers.get(str(int(number[1]))) if number else None)
        if label is not None:
            found[case] = label
    if missing := sorted(set(cases) - found.keys()):
        raise ConfigError(
            f"{path}: no label of {len(missing)} of {len(cases)} cases, such as {some(missing)}; the table has names "
            f"such as {next(iter(table))}. Add their rows, choose another column by {keys.case_column}, or take "
            "these cases out of data.root"
        )
    return found


def task_labels(task: TaskConfig, root: Path, cases: Sequence[Case], keys: Keys = OF_RUN) -> dict[str, int]:
    """The labels of a run by case, {} for a segmentation.

    Args:
        task: of the run.
        root: folder of the cases, which has the table of a phantom.
        cases: all of them.
        keys: that messages name.

    Raises:
        ConfigError: all that `read_labels` and `labels_of` refuse.
    """
    if task.name != CLASSIFICATION:
        return {}
    path = Path(task.labels) if task.labels else root / PHANTOM_LABELS
    table = read_labels(path, task.case_column, task.label_column, keys)
    return labels_of([case.name for case in cases], table, path, keys)


def check_classes(
    task: TaskConfig, sites: Sequence[Site], labels: Mapping[str, int], keys: Keys = OF_RUN
) -> None:
    """Check that every site has cases of both labels, unless `task.one_class=keep`.

    Raises:
        ConfigError: naming the sites and the fixes.
    """
    if not labels or task.one_class == KEEP:
        return
    alone = {site.name: {labels[case] for case in site.cases} for site in sites}
    if wrong := [f"{name} ({found.pop()})" for name, found in alone.items() if len(found) == 1]:
        raise ConfigError(
            f"task: all cases of {some(wrong)} have one label, so nothing there can tell the two apart; "
            f"{keys.one_class}"
        )
