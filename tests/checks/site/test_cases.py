"""What preflight says of a site's own cases: real files, sound and otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedbrats.checks.site.cases import look_at_cases, own_partition
from fedbrats.checks.site.finding import FIX, OK, WARNING, Finding
from fedbrats.config.schema import DataConfig, PartitionConfig
from fedbrats.config.site_file import OwnPartition, Policy, SiteFile
from tests.data.brats_files import AFFINE, save, segmentation, write_case

NAMES = [f"BraTS19_TCIA02_{600 + i}_1" for i in range(8)]


@pytest.fixture
def site(tmp_path: Path) -> SiteFile:
    """Eight cases of eight patients of which at least one is behind any number."""
    for name in NAMES:
        write_case(tmp_path / "data", name)
    storage = tmp_path / "storage"
    data = DataConfig(root=str(tmp_path / "data"), cache=str(storage / "cache"))
    return SiteFile(name="Bonn", storage=str(storage), data=data, policy=Policy(least_cases=1))


def look(site: SiteFile, private: bool = False) -> dict[str, Finding]:
    findings = look_at_cases(site, PartitionConfig(), private, workers=0).findings
    assert all(name not in str(finding.to_json()) for finding in findings for name in NAMES)
    assert all(str(site.data.root) not in str(finding.to_json()) for finding in findings)
    return {finding.check: finding for finding in findings}


def file_of(site: SiteFile, kind: str, case: str = NAMES[3]) -> Path:
    return Path(str(site.data.root)) / case / f"{case}_{kind}.nii.gz"


def test_sound_cases(site: SiteFile) -> None:
    found = look(site)
    assert {check: finding.verdict for check, finding in found.items()} == dict.fromkeys(
        ("data", "orientation", "labels", "patients", "splits"), OK
    )
    assert found["labels"].facts == {"numbers": "0 1 2 4"}
    assert found["patients"].facts == {"scans": 8, "patients": 8, "unknown": 0}
    assert found["splits"].said == "train 5, val 1, test 2"  # 0.15 and 0.25 of 8


def test_the_cases_of_many_institutions_are_all_the_sites_own(site: SiteFile) -> None:
    write_case(Path(str(site.data.root)), "BraTS19_CBICA_AAB_1")
    write_case(Path(str(site.data.root)), "UPENN-GBM-00006_11")
    assert sum(look(site)["splits"].facts[split] for split in ("train", "val", "test")) == 10


def test_a_broken_case_is_counted_and_named_on_the_screen_only(site: SiteFile) -> None:
    file_of(site, "t2").write_bytes(b"")
    found = look(site)["data"]
    assert (found.verdict, found.facts["unusable"]) == (FIX, 1)
    assert "data.on_bad_case=skip" in found.said
    assert f"{file_of(site, 't2')}: empty file" in found.here
    left_out = replace(site, data=replace(site.data, on_bad_case="skip"))
    found = look(left_out)["data"]
    assert (found.verdict, "will be left out" in found.said) == (WARNING, True)
    assert len(look_at_cases(left_out, PartitionConfig(), workers=0).usable) == 7


def test_no_data(site: SiteFile, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for root in (None, str(tmp_path / "Nowhere"), str(tmp_path / "empty")):
        (found,) = look(replace(site, data=replace(site.data, root=root))).values()
        assert (found.check, found.verdict) == ("data", FIX)
        assert str(tmp_path) not in str(found.to_json())


def test_a_file_that_lies_elsewhere_and_one_that_does_not_say(site: SiteFile) -> None:
    bare = nib.load(file_of(site, "flair"))
    bare.header.set_sform(None, 0)
    bare.header.set_qform(None, 0)
    data = np.asarray(bare.dataobj)
    silent = nib.Nifti1Image(data, None, bare.header)
    for kind in ("t1", "t1ce", "t2", "flair", "seg"):
        voxels = np.asarray(nib.load(file_of(site, kind)).dataobj)
        nib.save(nib.Nifti1Image(voxels, None, silent.header), file_of(site, kind))
    found = look(site)["orientation"]
    assert (found.verdict, found.facts) == (WARNING, {"errors": 0, "warnings": 1})
    moved = AFFINE.copy()
    moved[0, 3] += 50
    save(file_of(site, "seg", NAMES[5]), segmentation(), moved)
    found = look(site)["orientation"]
    assert (found.verdict, found.facts["errors"]) == (FIX, 1)
    assert NAMES[5] in found.here


def test_labels_in_doubt(site: SiteFile) -> None:
    for name in NAMES:
        save(file_of(site, "seg", name), segmentation((1, 2, 7)))
    assert look(site)["labels"].verdict == FIX


@pytest.mark.parametrize(
    ("least", "role", "verdict", "said"),
    [
        (2, "train", WARNING, "results on val stay here"),
        (5, "train", WARNING, "results on val and test stay here"),
        (6, "train", FIX, "nothing may leave this site"),
        (8, "test", OK, "train 0, val 0, test 8"),
        (9, "test", WARNING, "results on test stay here"),
    ],
)
def test_splits_against_the_policy(least: int, role: str, verdict: str, said: str, site: SiteFile) -> None:
    found = look(replace(site, policy=Policy(least_cases=least), partition=OwnPartition(role=role)))["splits"]
    assert found.verdict == verdict
    assert said in found.said


def test_patients(site: SiteFile) -> None:
    """Names that no rule knows: a warning, and refused where patients are protected; a pattern tells them."""
    for name in ("own7a", "own7b"):
        write_case(Path(str(site.data.root)), name)
    found = look(site)["patients"]
    assert (found.verdict, found.facts) == (WARNING, {"scans": 10, "patients": 10, "unknown": 2})
    assert look(site, private=True)["patients"].verdict == FIX
    told = replace(site, partition=OwnPartition(patient_pattern=r"(own\d)."))
    found = look(told, private=True)["patients"]
    assert (found.verdict, found.facts["patients"]) == (OK, 9)


def test_what_the_site_says_goes_before_the_study() -> None:
    site = SiteFile(name="Bonn", partition=OwnPartition(val=0.5))
    study = PartitionConfig(method="fets", table="theirs.csv", holdout=["Bonn"], val=0.1, test=0.3)
    found = own_partition(site, study)
    assert (found.val, found.test, found.table, found.holdout) == (0.5, 0.3, None, [])
    assert (found.method, found.unknown) == ("own", "Bonn")
