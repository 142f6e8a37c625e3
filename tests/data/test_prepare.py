"""What a run says of its cases before it trains: who was left out, who left with them, what was decided."""

from pathlib import Path

import pytest

from fedbrats.config.schema import DataConfig, PartitionConfig
from fedbrats.data.prepare import SHOWN, DataError, prepare
from tests.data.brats_files import save, segmentation, write_case


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four cases of CBICA, one of which has an adopted label, and the only case of TMC, without a t1."""
    for number in range(4):
        write_case(tmp_path / "data", f"Brats18_CBICA_AA{number}_1")
    own = tmp_path / "data" / "Brats18_CBICA_AA2_1"
    (own / f"{own.name}_seg.nii.gz").rename(own / "W39_1998.09.19_Segm.nii.gz")
    folder = write_case(tmp_path / "data", "Brats18_TMC_06290_1")
    (folder / "Brats18_TMC_06290_1_t1.nii.gz").unlink()
    return tmp_path / "data"


def said_of(root: Path, on_bad_case: str, **partition: object) -> list[str]:
    said: list[str] = []
    data = DataConfig(root=str(root), cache=str(root.parent / "cache"), on_bad_case=on_bad_case)
    prepare(data, PartitionConfig(**partition), 1, said.append)  # type: ignore[arg-type]
    return said


def test_an_institution_that_leaves_with_its_cases_is_named(root: Path) -> None:
    said = said_of(root, "skip")
    assert "left out by data.on_bad_case=skip: 1 of 5 cases" in said
    assert any("Brats18_TMC_06290_1_t1.nii.gz: modality t1 is missing" in text for text in said)
    assert "TMC is no longer in this federation: none of its 1 cases can be used" in said
    said = said_of(root, "skip", method="iid", sites=2)
    assert "left out by data.on_bad_case=skip: 1 of 5 cases" in said
    assert not any("federation" in text for text in said)


def test_an_institution_that_is_too_small_is_named_for_that_and_not_for_its_cases(root: Path) -> None:
    write_case(root, "Brats18_TCIA01_101_1")
    said = said_of(root, "skip", least=2)
    assert "partition.least=2: without TCIA01, of 1 case together" in said
    assert [text for text in said if "no longer" in text] == [
        "TMC is no longer in this federation: none of its 1 cases can be used"
    ]
    assert not any("partition.least" in text for text in said_of(root, "skip"))


def test_an_adopted_label_is_said(root: Path) -> None:
    (note,) = [text for text in said_of(root, "skip") if "W39_1998.09.19_Segm.nii.gz" in text]
    assert note.startswith(
        "warning: Brats18_CBICA_AA2_1: W39_1998.09.19_Segm.nii.gz was taken as its segmentation"
    )


def test_many_warnings_are_counted(root: Path) -> None:
    for number in range(SHOWN + 5):
        name = f"Brats18_CBICA_B{number:02d}_1"
        folder = write_case(root, name)
        save(folder / f"{name}_seg.nii.gz", segmentation(()))
    said = said_of(root, "skip")
    assert sum("no voxel is labelled as tumour" in text for text in said) <= SHOWN
    assert "and 6 more of these, all of them in partition.json" in said


def test_without_skip_the_case_is_named_with_the_fix(root: Path) -> None:
    with pytest.raises(DataError, match=r"1 cases cannot be used; .*data\.on_bad_case=skip"):
        said_of(root, "fail")
