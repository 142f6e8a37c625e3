"""Tables as people have them: other encodings, Excel files, blank cells, the mapping that BraTS publishes."""

from pathlib import Path

import pytest

from fedbrats.config.schema import PartitionConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.institutions import table_notes
from fedbrats.data.listed import read_patients, read_table

MAPPING = "Site No (represents the originating institution)"


def written(path: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(("\n".join(lines) + "\n").encode(encoding))
    return path


@pytest.mark.parametrize(
    ("encoding", "said"), [("utf-8", ""), ("utf-8-sig", ""), ("cp1252", "Windows-1252"), ("utf-16", "UTF-16")]
)
def test_what_excel_writes_in_europe_is_read_and_said(tmp_path: Path, encoding: str, said: str) -> None:
    lines = ("Hospital;Case", "Universitätsklinikum;Brats18_CBICA_AAA_1")
    path = written(tmp_path / "t.csv", *lines, encoding=encoding)
    assert read_table(path) == {"Brats18_CBICA_AAA_1": "Universitätsklinikum"}
    notes = table_notes(PartitionConfig(table=str(path)))
    assert notes == ([f"{path}: no UTF-8, read as {said}"] if said else [])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04\x14\0\x06\0", "an Excel file; save it as 'CSV UTF-8'"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an Excel file; save it as 'CSV UTF-8'"),
        (b"", "no table with a header line"),
        (b"case,site\na,b\nc,d,e\n", "no table with a header line.*line 3"),
        (b"case,site\n\x81\x8d,b\n", "no text in UTF-8, UTF-16 or Windows-1252"),
    ],
)
def test_what_is_no_table_is_named_with_the_fix(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"t\.csv: {words}"):
        read_table(tmp_path / "t.csv")


def test_rows_that_lack_a_cell_are_passed_over_and_said(tmp_path: Path) -> None:
    rows = ("a,X", ",Y", "NA,Y", "b,", "c,Z")
    path = written(tmp_path / "t.csv", "case,site", *rows)
    assert read_table(path) == {"a": "X", "c": "Z"}
    assert table_notes(PartitionConfig(table=str(path))) == [
        f"{path}: rows without a name in case passed over: 2",
        f"{path}: rows without site passed over: b",
    ]


def test_the_mapping_of_2017_to_2023(tmp_path: Path) -> None:
    """One column of names per year, of which a scan has those of the years that it was part of."""
    path = written(
        tmp_path / "t.csv",
        f'BraTS2023,BraTS2021,BraTS2020,BraTS2017,"{MAPPING}",Cohort Name (if publicly available)',
        "BraTS-GLI-00005-000,BraTS2021_00005,NA,Brats17_TCIA_1_1,1,TCGA",
        "BraTS-GLI-00006-000,,BraTS20_Training_006,,18,",
        ",,,,9,",
    )
    assert read_table(path) == {
        "BraTS-GLI-00005-000": "1",
        "BraTS2021_00005": "1",
        "Brats17_TCIA_1_1": "1",
        "BraTS-GLI-00006-000": "18",
        "BraTS20_Training_006": "18",
    }
    (note,) = table_notes(PartitionConfig(table=str(path)))
    assert note.endswith(
        "rows without a name in BraTS2023 or BraTS2021 or BraTS2020 or BraTS2017 passed over: 1"
    )
    assert read_patients(path, MAPPING)["BraTS2021_00005"] == "1"


def test_one_institution_in_two_spellings_is_no_contradiction(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "case,site", "a,CBICA", "a,cbica")
    assert list(read_table(path)) == ["a"]


def test_rows_of_a_wide_table_that_tell_no_institution_are_said(tmp_path: Path) -> None:
    header = "BraTS_2017_subject_ID,BraTS_2018_subject_ID"
    path = written(tmp_path / "t.csv", header, "Brats17_TCIA_1_1,Brats18_TCIA02_1_1", "Brats17_TCIA_2_1,NA")
    assert read_table(path) == {"Brats17_TCIA_1_1": "TCIA02", "Brats18_TCIA02_1_1": "TCIA02"}
    (note,) = table_notes(PartitionConfig(table=str(path)))
    assert note.endswith("rows whose names tell no institution passed over: Brats17_TCIA_2_1")
