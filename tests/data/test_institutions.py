"""Institutions from names, TCGA ids and tables, against the published tables."""

import os
from collections import Counter
from pathlib import Path

import pytest

from fedbrats.config.schema import PartitionConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import Case
from fedbrats.data.institutions import assign, check_options
from fedbrats.data.listed import read_table
from fedbrats.data.site_names import institution_from_name

REAL = os.environ.get("FEDBRATS_REAL_DATA")
needs_tables = pytest.mark.skipif(not REAL, reason="real BraTS cases not at hand")


def cases(*names: str) -> list[Case]:
    return [Case(name, {}, None, "brats2017-2021") for name in names]


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("name", "institution"),
    [
        ("Brats18_TCIA02_135_1", "TCIA02"),
        ("BraTS19_TCIA13_611_1", "TCIA13"),
        ("brats19_tcia13_611_1", "TCIA13"),
        ("Brats18_CBICA_AAB_1", "CBICA"),
        ("BraTS19_2013_10_1", "2013"),
        ("BraTS19_TMC_06290_1", "TMC"),
        ("TCGA-06-0187", "TCIA02"),
        ("TCGA-02-0003_1997.06.08", "TCIA01"),
        ("TCGA-HT-A61A", "TCIA13"),
        ("TCGA-ZZ-1234", "TCGA-ZZ"),
        ("Brats17_TCIA_135_1", None),
        ("BraTS20_Training_001", None),
        ("BraTS2021_01341", None),
        ("FeTS2022_01341", None),
        ("BraTS-GLI-01341-000", None),
        ("UPENN-GBM-00006_11", None),
        ("BRATS_001", None),
    ],
)
def test_institution_from_name(name: str, institution: str | None) -> None:
    assert institution_from_name(name) == institution


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("Subject_ID,Partition_ID", {}),
        ("Case;Institution", {}),
        ("case id\tcentre", {}),
        ("who,where", {"case_column": "who", "site_column": "where"}),
        ("\ufeffSubject_ID,Site", {}),
    ],
)
def test_table_headers_and_separators(tmp_path: Path, header: str, options: dict[str, str]) -> None:
    sep = next(s for s in ",;\t" if s in header)
    path = write(tmp_path / "t.csv", header, f"UPENN-GBM-00006_11{sep}NA", f"A{sep} 01 ")
    assert read_table(path, **options) == {"UPENN-GBM-00006_11": "NA", "A": "01"}


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (("a,b", "x,y"), {}, r"set partition\.case_column to one of \['a', 'b'\]"),
        (("case,b", "x,y"), {}, r"set partition\.site_column"),
        (("case,site", "x,y"), {"site_column": "centre"}, r"no column 'centre'.*partition\.site_column"),
        (("case,site", "x,y", "x,z"), {}, "x is in two institutions, y and z"),
        (("case,site", "x,y"), {"case_column": "site"}, "both 'site'"),
    ],
)
def test_bad_tables_name_the_fix(tmp_path: Path, lines, options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        read_table(write(tmp_path / "t.csv", *lines), **options)


def test_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"partition\.table: no such file"):
        read_table(tmp_path / "t.csv")


def test_table_wins_and_names_serve_for_the_rest(tmp_path: Path) -> None:
    table = write(
        tmp_path / "t.csv", "case,institution", "UPENN-GBM-00006_11,UPENN", "Brats18_TCIA01_201_1,X"
    )
    found = assign(
        cases("UPENN-GBM-00006_11", "Brats18_TCIA01_201_1", "Brats18_TCIA01_378_1"),
        PartitionConfig(table=table),
    )
    assert found == {
        "UPENN-GBM-00006_11": "UPENN",
        "Brats18_TCIA01_201_1": "X",
        "Brats18_TCIA01_378_1": "TCIA01",
    }


def test_table_may_name_the_patient_and_ignore_case(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "patient,site", "UPENN-GBM-00006,UPENN", "brats18_cbica_aab_1,Y")
    found = assign(cases("UPENN-GBM-00006_11", "BraTS19_CBICA_AAB_1"), PartitionConfig(table=table))
    assert found == {"UPENN-GBM-00006_11": "UPENN", "BraTS19_CBICA_AAB_1": "Y"}


def test_cases_without_institution_are_listed_unless_unknown_takes_them() -> None:
    some = cases("UPENN-GBM-00006_11", "Brats18_CBICA_AAB_1", "BraTS2021_00003")
    with pytest.raises(
        ConfigError, match=r"2 cases.*UPENN-GBM-00006_11, BraTS2021_00003.*partition\.unknown"
    ):
        assign(some, PartitionConfig())
    found = assign(some, PartitionConfig(unknown="elsewhere"))
    assert Counter(found.values()) == {"elsewhere": 2, "CBICA": 1}


def test_fets_digits_stand_for_brats2021_but_not_for_gli(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "Partition_ID,Subject_ID", "1,FeTS2022_01341", "2,FeTS2022_00003")
    cfg = PartitionConfig(method="fets", table=table)
    assert assign(cases("BraTS2021_01341", "FeTS2022_00003"), cfg) == {
        "BraTS2021_01341": "1",
        "FeTS2022_00003": "2",
    }
    with pytest.raises(ConfigError, match=r"lists none.*FeTS2022_01341.*BraTS-GLI-01341-000.*check it"):
        assign(cases("BraTS-GLI-01341-000"), cfg)


def test_fets_counts_the_table_alone(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "Partition_ID,Subject_ID", "1,FeTS2022_01341")
    with pytest.raises(ConfigError, match=r"1 cases have no institution.*Brats18_CBICA_AAB_1"):
        assign(cases("FeTS2022_01341", "Brats18_CBICA_AAB_1"), PartitionConfig(method="fets", table=table))


def test_a_patient_in_two_institutions_is_refused(tmp_path: Path) -> None:
    lines = ("case,site", "UPENN-GBM-00006_11,A", "UPENN-GBM-00006_21,B")
    table = write(tmp_path / "t.csv", *lines)
    with pytest.raises(ConfigError, match="patient UPENN-GBM-00006 is in 2 institutions"):
        assign(cases("UPENN-GBM-00006_11", "UPENN-GBM-00006_21"), PartitionConfig(table=table))
    with pytest.raises(ConfigError, match=r"several institutions.*UPENN-GBM-00006_31"):
        assign(cases("UPENN-GBM-00006_31"), PartitionConfig(table=table))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"method": "sites"}, r"partition\.method=sites: choose one of institution"),
        ({"method": "fets"}, r"needs partition\.table"),
        ({"method": "iid", "table": "t.csv"}, r"partition\.table has no effect"),
        ({"method": "dirichlet", "unknown": "x"}, r"partition\.unknown has no effect"),
        ({"method": "iid", "sites": 0}, r"partition\.sites is 0"),
        ({"method": "quantity", "alpha": 0.0}, r"partition\.alpha is 0"),
        ({"case_column": "x"}, r"partition\.case_column has no effect"),
        ({"val": 0.5, "test": 0.5}, r"partition\.val=0\.5"),
    ],
)
def test_options_without_effect_are_refused(options: dict, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        check_options(PartitionConfig(**options))


@needs_tables
def test_real_fets_tables() -> None:
    folder = Path(str(REAL)) / "partitions"
    first = read_table(folder / "fets2022_partitioning_1.csv")
    sizes = sorted(Counter(first.values()).values(), reverse=True)
    expected = [511, 382, 47, 35, 35, 34, 33, 30, 22, 15, 14, 13, 12, 11, 9, 8, 8, 7, 6, 6, 5, 4, 4]
    assert sizes == expected
    second = read_table(folder / "fets2022_partitioning_2.csv")
    assert len(second) == 1251
    assert len(set(second.values())) == 33
    named = cases(*(name.replace("FeTS2022", "BraTS2021") for name in first))
    cfg = PartitionConfig(method="fets", table=str(folder / "fets2022_partitioning_1.csv"))
    assert sorted(Counter(assign(named, cfg).values()).values(), reverse=True) == expected


@needs_tables
def test_real_name_mapping() -> None:
    path = Path(str(REAL)) / "partitions" / "brats2019_name_mapping.csv"
    table = read_table(path)
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    names_2019 = [row[4].strip() for row in rows]
    groups = Counter(table[name] for name in names_2019)
    assert len(groups) == 14
    assert (groups["CBICA"], groups["TMC"], groups["2013"]) == (129, 9, 30)
    assert sum(n for site, n in groups.items() if site.startswith("TCIA")) == 167
    # the institutions that 2017 names leave out come from the same line
    assert table["Brats17_TCIA_135_1"] == "TCIA02"
    # a TCGA id alone tells the same as the 2019 name beside it, in every line that has one
    with_tcga = [(row[3], row[4].strip()) for row in rows if row[3] != "NA"]
    assert len(with_tcga) == 167
    assert all(institution_from_name(tcga) == institution_from_name(name) for tcga, name in with_tcga)
    found = assign(cases("Brats17_TCIA_135_1", "Brats17_CBICA_AAB_1"), PartitionConfig(table=str(path)))
    assert found == {"Brats17_TCIA_135_1": "TCIA02", "Brats17_CBICA_AAB_1": "CBICA"}
