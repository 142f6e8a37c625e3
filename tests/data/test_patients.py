"""Scans of one person stay one person, whoever named them; what nothing tells is said, or refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fedbrats.config.schema import PartitionConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import Case
from fedbrats.data.institutions import assign, check_options, find_institutions, patients_of
from fedbrats.data.partition import make_partition
from fedbrats.data.patients import FAMILIES, NO_RULE, check_known, find_patients, patient_of

# Names as their publishers write them, those of one person together.
PEOPLE = {
    "BraTS 2015": (["brats_tcia_pat153_0001", "brats_tcia_pat153_0181"], ["brats_2013_pat0001_1"]),
    "BraTS 2017-2019": (["Brats18_TCIA02_135_1", "BraTS19_TCIA02_135_1"], ["BraTS19_TMC_06290_1"]),
    "BraTS 2020": (["BraTS20_Training_001"], ["BraTS20_Training_002"], ["BraTS20_Validation_001"]),
    "FeTS 2021": (["FeTS21_Training_001"], ["FeTS21_Training_002"]),
    "FeTS 2022, BraTS 2021": (["FeTS2022_01341", "BraTS2021_01341"], ["BraTS2021_00003"]),
    "BraTS 2023 and later": (
        ["BraTS-GLI-00005-000", "BraTS-GLI-00005-001"],
        ["BraTS-MET-00005-000", "BraTS-MET-00005-003"],
        ["BraTS-PED-00030-000"],
        ["BraTS-SSA-00002-000"],
        ["BraTS-MEN-00004-000"],
    ),
    "BraTS-MEN-RT": (["BraTS-MEN-RT-0001-1", "BraTS-MEN-RT-0001-2"], ["BraTS-MEN-RT-0402-1"]),
    "UPENN-GBM": (["UPENN-GBM-00006_11", "UPENN-GBM-00006_21"], ["UPENN-GBM-00007_11"]),
    "UCSF-PDGM": (
        ["UCSF-PDGM-0429", "UCSF-PDGM-0429_FU003d", "UCSF-PDGM-0429_FU003d_nifti"],
        ["UCSF-PDGM-0004_nifti"],
    ),
    "UCSD-PTGBM": (["UCSD-PTGBM-0002_01", "UCSD-PTGBM-0002_02"], ["UCSD-PTGBM-0003_01"]),
    "RHUH-GBM": (["RHUH-0001_0", "RHUH-0001_1"], ["RHUH-0002_0"]),
    "MU-Glioma-Post": (
        ["PatientID_0003_Timepoint_1", "PatientID_0003_Timepoint_2"],
        ["PatientID_0004_Timepoint_1"],
    ),
    "Erasmus Glioma Database": (["EGD-0001"], ["EGD-0002"]),
    "TCGA": (["TCGA-02-0003", "TCGA-02-0003_1997.06.08", "TCGA-02-0003-01A"], ["TCGA-02-0006"]),
    "CPTAC": (["C3L-00016", "C3L-00016_2010.01.01"], ["C3N-00662"]),
    "BIDS": (["sub-001_ses-01", "sub-001_ses-02_run-1"], ["sub-002"]),
}


def cases(*names: str) -> list[Case]:
    return [Case(name, {}, None, "brats2017-2021") for name in names]


@pytest.mark.parametrize("family", PEOPLE)
def test_scans_of_one_person_are_one_patient_in_every_family(family: str) -> None:
    found = find_patients(name for person in PEOPLE[family] for name in person)
    patients = [{found.of[name] for name in person} for person in PEOPLE[family]]
    assert all(len(of_one) == 1 for of_one in patients)
    assert len(set.union(*patients)) == len(PEOPLE[family])
    assert [(u.rule, u.patients, u.known) for u in found.counts()] == [(family, len(patients), True)]


def test_every_family_has_its_names_here() -> None:
    assert {f.title for f in FAMILIES if "(" in f.pattern.replace("(?", "")} == PEOPLE.keys()


def test_no_name_is_of_two_families() -> None:
    everyone = [name for people in PEOPLE.values() for person in people for name in person]
    for name in (*everyone, "BRATS_001", "BraTS-GoAT-00001"):
        assert len([family for family in FAMILIES if family.match(name)]) == 1, name


def test_what_was_understood_is_said_by_rule() -> None:
    names = ["UCSF-PDGM-0429", "UCSF-PDGM-0429_FU003d", "UCSF-PDGM-0001", "BRATS_001", "A1", "A2"]
    assert [str(understood) for understood in find_patients(names).counts()] == [
        "1 scan of 1 patient: Medical Segmentation Decathlon numbers scans, not patients, so each scan is taken as a "
        "patient of its own",
        "3 scans of 2 patients, rule UCSF-PDGM",
        "2 scans of 2 patients: no rule knows the names, so each scan is taken as a patient of its own",
    ]


def test_a_pattern_of_ones_own_goes_before_the_families_and_leaves_other_names_to_them() -> None:
    names = ["HOSP_0001_20240101", "hosp_0001_20240630", "sub-01_ses-1", "sub-01_ses-2", "Smith"]
    found = find_patients(names, r"(HOSP_\d+)_\d{8}")
    assert len(set(found.of.values())) == 3
    assert Counter(told.rule for told in found.told.values()) == {
        "partition.patient_pattern": 2,
        "BIDS": 2,
        NO_RULE: 1,
    }
    assert (
        find_patients(["sub-01_ses-1", "sub-01_ses-2"], r"(sub-\d+_ses-\d+)").of["sub-01_ses-1"] != "sub-01"
    )


def test_a_column_of_the_table_goes_before_everything(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("case;Person;site\nHOSP_1_a;Ann;X\nhosp_2_b;ann;X\nHOSP_3_c;;X\nBRATS_001;Bob;Y\n")
    cfg = PartitionConfig(table=str(table), patient_column="Person", patient_pattern=r"(HOSP_\d+)_.*")
    some = cases("HOSP_1_a", "HOSP_2_b", "HOSP_3_c", "BRATS_001")
    assert patients_of(some, cfg).of == {
        "HOSP_1_a": "Ann",
        "HOSP_2_b": "Ann",
        "HOSP_3_c": "HOSP_3",
        "BRATS_001": "Bob",
    }
    (x, y) = make_partition(some, PartitionConfig(**{**vars(cfg), "val": 0.0, "test": 0.5}))
    assert {"HOSP_1_a", "HOSP_2_b"} in ({*x.train}, {*x.test})
    assert y.train == ("BRATS_001",)


def test_a_table_may_tell_patients_alone(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("case,patient_id\nBraTS19_CBICA_A_1,p1\nBraTS19_CBICA_B_1,p1\n")
    some = cases("BraTS19_CBICA_A_1", "BraTS19_CBICA_B_1", "BraTS19_TMC_C_1")
    for method in ("institution", "iid"):
        cfg = PartitionConfig(method=method, table=str(table), patient_column="patient_id", sites=2)
        check_options(cfg)
        assert [u.patients for u in patients_of(some, cfg).counts()] == [1, 1]
    cfg = PartitionConfig(table=str(table), patient_column="patient_id")
    assert find_institutions(some, cfg) == {
        "BraTS19_CBICA_A_1": "CBICA",
        "BraTS19_CBICA_B_1": "CBICA",
        "BraTS19_TMC_C_1": "TMC",
    }


def test_letter_case_makes_no_second_patient_and_no_second_institution(tmp_path: Path) -> None:
    some = cases("BraTS19_TCIA01_200_1", "brats19_tcia01_200_2", "BraTS19_tcia01_300_1")
    assert set(assign(some, PartitionConfig()).values()) == {"TCIA01"}
    (site,) = make_partition(some, PartitionConfig())
    assert {"BraTS19_TCIA01_200_1", "brats19_tcia01_200_2"} in ({*site.train}, {*site.test})
    table = tmp_path / "t.csv"
    table.write_text("case,site\nA,Universit\u00e4t\nB,UNIVERSITA\u0308T\n", encoding="utf-8")
    found = assign(cases("A", "B", "C"), PartitionConfig(table=str(table), unknown="universit\u00e4t"))
    assert len(set(found.values())) == 1


@pytest.mark.parametrize(
    ("names", "options", "private", "message"),
    [
        (
            ["HOSP_1_a"],
            {},
            True,
            r"1 case \(HOSP_1_a\); with privacy.*patient_pattern.*patient_column.*=scan",
        ),
        (["BRATS_001", "A", "B", "C"], {}, True, r"4 cases \(A, B, BRATS_001 and 1 more\)"),
        (["HOSP_1_a"], {"unknown_patients": "refuse"}, False, r"HOSP_1_a\); refused as asked"),
        (
            ["HOSP_1_a"],
            {"patient_pattern": r"(HOSP_\d)"},
            False,
            r"matches none of the 1 cases, such as HOSP",
        ),
        (["HOSP_1_a"], {}, False, ""),
        (["HOSP_1_a"], {"unknown_patients": "scan"}, True, ""),
        (["UPENN-GBM-00006_11"], {"unknown_patients": "refuse"}, True, ""),
    ],
)
def test_names_that_nothing_tells(names: list[str], options: dict, private: bool, message: str) -> None:
    cfg = PartitionConfig(**options)
    patients = patients_of(cases(*names), cfg)
    if not message:
        check_known(patients, cfg, private)
        return
    with pytest.raises(ConfigError, match=message):
        check_known(patients, cfg, private)


def test_a_column_that_lists_no_case_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("case,person\nB,Ann\n")
    cfg = PartitionConfig(method="iid", table=str(table), patient_column="person")
    with pytest.raises(ConfigError, match=r"patient_column=person: .*t\.csv lists none of the cases"):
        check_known(patients_of(cases("UPENN-GBM-00006_11"), cfg), cfg, private=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patient_pattern": "(a"}, r"patient_pattern=\(a: not a regular expression"),
        ({"patient_pattern": "a"}, "has 0 groups, one is needed"),
        ({"patient_pattern": "(a)(b)"}, "has 2 groups, one is needed"),
        ({"patient_column": "x"}, r"partition\.patient_column has no effect without partition\.table"),
        ({"unknown_patients": "yes"}, "unknown_patients is 'yes'; choose scan, refuse or null"),
        ({"method": "iid", "table": "t.csv"}, r"partition\.table has no effect with partition\.method=iid"),
    ],
)
def test_options_that_cannot_work(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_options(PartitionConfig(**options))


def test_a_column_must_be_there_and_give_one_patient(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("case,person\nA,Ann\nA,Bob\n")
    with pytest.raises(ConfigError, match="A is in two patients, Ann and Bob"):
        patients_of(cases("A"), PartitionConfig(table=str(table), patient_column="person"))
    with pytest.raises(ConfigError, match=r"no column 'who'; set partition\.patient_column to one of"):
        patients_of(cases("A"), PartitionConfig(table=str(table), patient_column="who"))
    table.write_text("case,person\nUPENN-GBM-1,Ann\nupenn-gbm-1,Bob\n")
    with pytest.raises(ConfigError, match="upenn-gbm-1 is in two patients, Ann and Bob"):
        patients_of(cases("A"), PartitionConfig(table=str(table), patient_column="person"))
    assert patient_of("A") == "A"
