"""Labels of whole cases: read from a table, checked against the cases, dealt in their shares."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fedbrats.config.schema import PartitionConfig
from fedbrats.config.targets import ConfigError
from fedbrats.config.task import TaskConfig, check_task
from fedbrats.data.case_labels import check_classes, labels_of, read_labels, task_labels
from fedbrats.data.cases import Case
from fedbrats.data.partition import make_partition

CLASSIFIES = TaskConfig("classification", "mgmt.csv")


def table(folder: Path, text: str) -> Path:
    file = folder / "mgmt.csv"
    file.write_text(text)
    return file


def many(site: str, labels: str) -> tuple[list[Case], dict[str, int]]:
    names = [f"BraTS19_{site}_{i:03d}_1" for i in range(len(labels))]
    cases = [Case(name, {}, None, "brats2017-2021") for name in names]
    return cases, {name: int(label) for name, label in zip(names, labels, strict=True)}


@pytest.mark.parametrize(
    "text",
    [
        "case,label\nA,0\nB,1\n",
        "name;age;MGMT_value\nA;50;0.0\nB;61;1\n;;\n",
        "BraTS21ID\tMGMT\nA\t0\nB\t1\n",
    ],
)
def test_usual_headers_and_separators(tmp_path: Path, text: str) -> None:
    assert read_labels(table(tmp_path, text)) == {"A": 0, "B": 1}


def test_columns_that_are_named(tmp_path: Path) -> None:
    file = table(tmp_path, "who,label,codeletion\nA,1,0\n")
    assert read_labels(file, "who", "codeletion") == {"A": 0}
    with pytest.raises(ConfigError, match=r"task\.case_column"):
        read_labels(file)
    with pytest.raises(ConfigError, match=r"no column 'IDH'; set task\.label_column to one of"):
        read_labels(file, "who", "IDH")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,label\nA,2\n", "A has '2' in column label, expected 0 or 1.*task.label_column"),
        ("case,label\nA,\n", "A has 'no value' in column label"),
        ("case,label\nA,methylated\n", "A has 'methylated'"),
        ("case,label\nA,0\na,1\n", "a is in two classes, 0 and 1; keep one line"),
        ("case,label\n", "lists no case"),
    ],
)
def test_a_wrong_table_is_refused_and_named(tmp_path: Path, text: str, words: str) -> None:
    file = table(tmp_path, text)
    with pytest.raises(ConfigError, match=f"mgmt.csv: {words}"):
        read_labels(file)


def test_no_table_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task\.labels: no such file"):
        read_labels(tmp_path / "no.csv")


def test_cases_are_found_by_name_and_those_of_task_2_by_number() -> None:
    known = {"00002": 1, "00014": 0, "a": 1, "stranger": 0}
    names = ["BraTS2021_00002", "BraTS2021_00014", "A"]
    assert labels_of(names, known, "t.csv") == {"BraTS2021_00002": 1, "BraTS2021_00014": 0, "A": 1}
    with pytest.raises(
        ConfigError, match=r"no label of 1 of 2 cases, such as BraTS19_00002.*task\.case_column"
    ):
        labels_of(["BraTS19_00002", "A"], known, "t.csv")  # numbers mean nothing in other names


def test_a_segmentation_reads_no_table(tmp_path: Path) -> None:
    assert task_labels(TaskConfig(), tmp_path, many("A", "01")[0]) == {}


@pytest.mark.parametrize(
    ("labels", "test", "val", "train"),
    [
        ("0" * 10 + "1" * 10, (2, 3), (2, 1), (6, 6)),  # 5 test, 3 validate
        ("0" * 15 + "1" * 5, (4, 1), (2, 1), (9, 3)),
        ("0011", (0, 1), (1, 0), (1, 1)),
    ],
)
def test_a_split_holds_the_labels_in_their_shares(labels: str, test, val, train) -> None:
    cases, known = many("CBICA", labels)
    for seed in range(10):  # a split by chance would hold them in one or the other
        (site,) = make_partition(cases, PartitionConfig(seed=seed), labels=known)
        found = [Counter(known[case] for case in part) for part in (site.test, site.val, site.train)]
        for got, expected in zip(found, (test, val, train), strict=True):
            assert got.total() == sum(expected)
            assert abs(got[0] - expected[0]) <= 1
        assert make_partition(cases[::-1], PartitionConfig(seed=seed), labels=known) == [
            site
        ]  # whatever the files' order


@pytest.mark.parametrize("folds", [2, 5])
def test_folds_hold_the_labels_in_their_shares(folds: int) -> None:
    cases, known = many("CBICA", "01" * 10)
    seen: list[str] = []
    for fold in range(folds):
        cfg = PartitionConfig(fold=fold, folds=folds, test=0.0)
        (site,) = make_partition(cases, cfg, labels=known)
        ones = sum(known[case] for case in site.val)
        assert abs(ones - (len(site.val) - ones)) <= 1
        seen += site.val
    assert sorted(seen) == sorted(known)


def test_scans_of_a_patient_stay_together_whatever_their_labels() -> None:
    names = [f"BraTS-GLI-{person:05d}-{scan:03d}" for person in range(8) for scan in (0, 1)]
    cases = [Case(name, {}, None, "brats2023") for name in names]
    known = {name: int(name.endswith("1")) for name in names}  # a label that changes from scan to scan
    sites = make_partition(cases, PartitionConfig(method="own", unknown="Basel"), labels=known)
    for part in (sites[0].train, sites[0].val, sites[0].test):
        assert {n[:-4] for n in part if n.endswith("0")} == {n[:-4] for n in part if n.endswith("1")}


def test_one_class_at_a_site_is_refused_with_its_fixes() -> None:
    (some, known), (others, more) = many("CBICA", "0101"), many("TMC", "111")
    known |= more
    sites = make_partition([*some, *others], PartitionConfig(), labels=known)
    with pytest.raises(
        ConfigError, match=r"all cases of TMC \(1\) have one label.*table.*least.*one_class=keep"
    ):
        check_classes(CLASSIFIES, sites, known)
    check_classes(TaskConfig("classification", "t", one_class="keep"), sites, known)
    check_classes(TaskConfig(), sites, {})


@pytest.mark.parametrize(
    ("task", "strength", "phantom", "words"),
    [
        (
            TaskConfig("regression"),
            None,
            True,
            r"task\.name=regression: choose segmentation or classification",
        ),
        (TaskConfig(one_class="drop"), None, True, r"task\.one_class=drop: choose refuse or keep"),
        (TaskConfig(labels="t.csv"), None, True, r"task\.labels=t\.csv: .*task=classification"),
        (TaskConfig("classification"), None, False, r"task\.labels: name the table"),
        (TaskConfig("classification", label_column="a"), None, False, "task.labels names no table"),
        (TaskConfig("classification"), None, True, r"label_strength=null: .*strength from 0"),
    ],
)
def test_settings_that_do_not_fit_are_named(task: TaskConfig, strength, phantom: bool, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_task(task, strength, phantom)


def test_settings_that_fit() -> None:
    check_task(TaskConfig(), None, False)
    check_task(TaskConfig("classification"), 0.0, True)
    check_task(TaskConfig("classification", "t.csv"), None, False)
