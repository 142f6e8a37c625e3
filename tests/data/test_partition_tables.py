"""Test cases by a table of names, and institutions that are too small to take part."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.config.schema import PartitionConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.partition import make_partition
from tests.data.test_partition import cases, many


def test_the_cases_of_a_table_test_and_no_others(tmp_path: Path) -> None:
    """As the five-fold files of the benchmark of FeTS 2022 list them, beside other columns."""
    table = tmp_path / "test_fold_0.csv"
    listed = [f"BraTS19_CBICA_{i:03}_1" for i in range(6)]
    found = cases(*listed)
    table.write_text(",Subject_ID,Partition_ID\n" + "".join(f"{i},{listed[i]},1\n" for i in (1, 4)))
    (site,) = make_partition(found, PartitionConfig(test_table=str(table), val=0.2, test=0.5))
    assert site.test == (listed[1], listed[4])
    assert (len(site.val), len(site.train)) == (1, 3)
    table.write_text("Subject_ID\n" + "\n".join(name.lower() for name in listed))
    (site,) = make_partition(found, PartitionConfig(test_table=str(table)))
    assert (len(site.test), site.val, site.train) == (6, (), ())
    table.write_text("Subject_ID\nFeTS2022_00001\n")
    with pytest.raises(ConfigError, match="lists none of the 6 cases; it has names such as FeTS2022_00001"):
        make_partition(found, PartitionConfig(test_table=str(table)))
    table.write_text("Subject_ID\n")
    with pytest.raises(ConfigError, match="lists no case"):
        make_partition(found, PartitionConfig(test_table=str(table)))


def test_five_folds_by_tables_test_each_case_once(tmp_path: Path) -> None:
    found, tested = many(10), list[str]()
    for fold in range(5):
        table = tmp_path / f"{fold}.csv"
        table.write_text("Subject_ID\n" + "\n".join(c.name for c in found[fold::5]))
        sites = make_partition(found, PartitionConfig(test_table=str(table)))
        tested += [name for site in sites for name in site.test]
    assert sorted(tested) == sorted(c.name for c in found)


def test_an_institution_with_few_patients_has_no_part() -> None:
    names = [f"BraTS19_CBICA_{i:03}_1" for i in range(4)] + ["BraTS19_TMC_001_1", "BraTS19_TMC_002_1"]
    found = cases(*names)
    assert [s.name for s in make_partition(found, PartitionConfig(least=3))] == ["CBICA"]
    assert len(make_partition(found, PartitionConfig(least=2))) == 2
    with pytest.raises(ConfigError, match=r"partition\.least=5: no institution has as many"):
        make_partition(found, PartitionConfig(least=5))
    with pytest.raises(ConfigError, match=r"partition\.least is 0"):
        make_partition(found, PartitionConfig(least=0))
