"""What preflight says of a site's own table of labels; none of it names a case, and counts stay on the screen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedbrats.checks.site.finding import FIX, OK, WARNING, Finding
from fedbrats.checks.site.label_table import check_label_table
from fedbrats.config.schema import PartitionConfig
from fedbrats.config.site_file import CaseLabels, Policy, SiteFile
from fedbrats.config.task import TaskConfig
from fedbrats.data.cases import Case

NAMES = [f"BraTS19_TCIA02_{600 + i}_1" for i in range(12)]
CASES = [Case(name, {}, None, "brats2017-2021") for name in NAMES]
CLASSIFIES = TaskConfig("classification")


@pytest.fixture
def site(tmp_path: Path) -> SiteFile:
    labels = CaseLabels(str(tmp_path / "secret.csv"))
    return SiteFile(name="Bonn", storage=str(tmp_path), labels=labels, policy=Policy(least_cases=1))


def look(site: SiteFile, rows: str | None = None, task: TaskConfig = CLASSIFIES) -> Finding:
    if rows is not None:
        Path(str(site.labels.table)).write_text(rows)
    found = check_label_table(site, task, PartitionConfig(), CASES)
    assert found is not None
    sent = str(found.to_json())
    assert not [name for name in (*NAMES, "secret") if name in sent]
    return found


def lines(*labels: str) -> str:
    return "case,label\n" + "".join(f"{n},{y}\n" for n, y in zip(NAMES, labels, strict=False))


def test_a_sound_table_has_its_counts_on_the_screen_only(site: SiteFile) -> None:
    found = look(site, lines(*"010101010101"))
    assert (found.check, found.verdict, found.facts) == ("label table", OK, {"cases": 12})
    assert "test: 2 with label 0, 1 with label 1" in found.here  # 0.25 of 12
    assert look(site, None, TaskConfig()).verdict == OK  # named, so it is looked at whatever the study


@pytest.mark.parametrize(
    ("rows", "said", "here"),
    [
        (None, "cannot be used", "labels.table: no such file"),
        (lines(*"0101010101x1"), "one label, 0 or 1", "BraTS19_TCIA02_610_1 has 'x'"),
        (lines(*"010101010101") + f"{NAMES[0]},1\n", "cannot be used", "in two classes"),
        ("case,grade\nA,0\n", "cannot be used", "set labels.label_column to one of"),
        (lines(*"0101"), "some cases have no label", "no label of 8 of 12 cases"),
        (lines(*"1" * 12), "look at labels.label_column", "all are 1"),
    ],
)
def test_what_is_wrong_with_it(site: SiteFile, rows: str | None, said: str, here: str) -> None:
    found = look(site, rows)
    assert found.verdict == FIX
    assert said in found.said
    assert here in found.here


def test_one_label_is_right_for_a_study_that_takes_it(site: SiteFile) -> None:
    assert look(site, lines(*"0" * 12), replace(CLASSIFIES, one_class="keep")).verdict == WARNING
    assert look(site, None, TaskConfig()).verdict == WARNING


def test_what_few_cases_of_a_label_keep_at_home_is_said_before(site: SiteFile) -> None:
    strict = replace(site, policy=Policy(least_cases=2))
    found = look(strict, lines(*"010101010101"))
    assert found.verdict == WARNING
    assert "auc, sensitivity, specificity stay here" in found.said
    assert look(replace(site, policy=Policy(least_cases=2, per_case=True))).verdict == OK


def test_without_a_table_only_a_study_of_labels_asks_for_one(site: SiteFile) -> None:
    bare = replace(site, labels=CaseLabels())
    assert check_label_table(bare, TaskConfig(), PartitionConfig(), CASES) is None
    found = look(bare)
    assert (found.verdict, "set labels.table" in found.said) == (FIX, True)
