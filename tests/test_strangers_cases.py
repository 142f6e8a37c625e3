"""Files of strangers with the right answer beside each: the rows of a table that is not ours, where it is at hand.

`FEDBRATS_CASES` names the folder of the table (README.md) and of make.py, which rebuilds the files. Every row of the
table needs a check here, so a row that is added fails until somebody has read it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fedbrats.commands.run.run import run
from tests.tiny import tiny, tiny_overrides
from tests.warm_command import Said, fedbrats

TABLE = os.environ.get("FEDBRATS_CASES")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not TABLE, reason="the strangers' cases are not at hand"),
]


@dataclass(frozen=True)
class Home:
    """Where the cases were built, with a trained model beside them."""

    cases: Path
    model: Path

    def fedbrats(self, *words: str) -> Said:
        """Run a command in the folder of the cases."""
        return fedbrats(*words, cwd=self.cases, more={"COLUMNS": "250", "OMP_NUM_THREADS": "1"})

    def check_data(self, folder: str, *more: str) -> Said:
        return self.fedbrats("check-data", f"data.root={folder}", f"data.cache=cache/{folder}", *more)

    def evaluate(self, predictions: str, references: str, *more: str) -> Said:
        output = f"evaluated/{predictions.replace('/', '_')}"
        words = (f"predictions={predictions}", f"references={references}", f"output={output}")
        return self.fedbrats("evaluate", *words, *more)

    def predict(self, folder: str, output: str, *more: str) -> Said:
        words = (f"checkpoint={self.model}", f"data={folder}", f"output={output}", "cache=cache/predict")
        return self.fedbrats("predict", *words, *more)

    def sites(self, folder: str, *more: str) -> dict[str, dict[str, list[str]]]:
        """Site -> its training, validation and test cases in a run."""
        done = self.fedbrats(
            "run",
            *tiny_overrides(self.cases / "cache" / "runs"),
            "data=brats",
            f"data.root={folder}",
            "partition.holdout=[]",
            "rounds=1",
            "arms=[federated]",
            *more,
            f"hydra.run.dir=runs/{folder}",
        )
        assert done.status == 0, done.text
        partition = json.loads((self.cases / "runs" / folder / "partition.json").read_text())
        return {site["name"]: site for site in partition["sites"]}


def dice(said: Said) -> dict[str, list[float]]:
    """Region -> Dice of each case, from what `evaluate` prints for programs."""
    found: dict[str, list[float]] = {}
    for line in said.out.splitlines():
        row = json.loads(line)
        found.setdefault(row["region"], []).append(row["dice"])
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("strangers")
    subprocess.run([sys.executable, str(Path(str(TABLE)) / "make.py"), str(folder / "cases")], check=True)
    trained = run(tiny(folder / "phantom", "rounds=1", "arms=[federated]"), folder / "model")
    return Home(folder / "cases", trained)


def ped_without_4(home: Home) -> None:
    said = home.check_data("ped_without_4", "partition.unknown=CHILDREN")
    assert said.status != 0  # 1, 2 and 3 are numbers of 2023 and of 2024, with another meaning each
    assert "label numbers are in doubt" in said.text
    named = home.check_data("ped_without_4", "partition.unknown=CHILDREN", "data.labels=ped2024")
    assert named.status == 0, named.text
    assert "ET 1" in named.text
    assert "ET 3" not in named.text


def orphan_label(home: Home) -> None:
    said = home.check_data("orphan_label", "partition.test=0", "partition.val=0")
    assert said.status != 0
    assert "Errors: 2," in said.text
    assert re.search(r"Brats18_2013_AAA_1_seg\S*: segmentation is missing", said.text)
    assert re.search(r"Brats18_TCIA01_BBB_1_seg\S*: a segmentation without images", said.text)
    own = home.cases / "own_folder" / "BraTS20_Training_355"
    own.mkdir(parents=True)
    for name in ("t1", "t1ce", "t2", "flair", "seg"):
        source = home.cases / "orphan_label" / f"Brats18_CBICA_AAA_1_{name}.nii.gz"
        target = "W39_1998.09.19_Segm" if name == "seg" else f"BraTS20_Training_355_{name}"
        nibabel.save(nibabel.load(source), own / f"{target}.nii")
    said = home.check_data("own_folder", "partition.unknown=A", "partition.test=0", "partition.val=0")
    assert said.status == 0, said.text
    assert re.search(r"W39_1998.09.19_Segm.nii", said.text)


def letter_case(home: Home) -> None:
    said = home.check_data("letter_case", "partition.test=0", "partition.val=0")
    assert "2 cases, 1 institutions" in said.text
    assert "2 scans of 1 patient" in said.text
    (site,) = home.sites("letter_case", "partition.test=0", "partition.val=0").values()
    assert len(site["train"]) == 2


def unlabelled_2023(home: Home) -> None:
    said = home.predict("unlabelled_2023", "out_2023", "postprocess=none")
    assert said.status == 0, said.text
    files = sorted((home.cases / "out_2023").glob("*.nii.gz"))
    found = {int(v) for file in files for v in np.unique(np.asanyarray(nibabel.load(file).dataobj))}
    assert len(files) == 2
    assert found <= {0, 1, 2, 3}
    assert "GLI" in said.text
    assert "names" in said.text


def wrapped(home: Home) -> None:
    said = home.check_data("wrapped", "partition.unknown=A")
    assert "6 cases" in said.text
    assert "Errors: 0," in said.text
    assert "BraTS2021_00000_flair.nii/00000057_brain_flair.nii" in said.text


def msd_predictions(home: Home) -> None:
    said = home.evaluate("msd_predictions", "msd/Task01_BrainTumour/labelsTr")
    assert said.status == 0, said.text
    assert np.mean(dice(said)["TC"]) == pytest.approx(0.8974, abs=5e-5)
    assert dice(said)["WT"] == [1.0] * 9


def msd(home: Home) -> None:
    for number, folder in enumerate(("msd/Task01_BrainTumour", "msd/Task01_BrainTumour/imagesTs")):
        said = home.predict(folder, f"out_msd_{number}")
        assert said.status == 0, said.text
        written = {file.name for file in (home.cases / f"out_msd_{number}").glob("*.nii.gz")}
        assert {f"BRATS_0{i}.nii.gz" for i in (10, 11, 12)} <= written


def foreign_json(home: Home) -> None:
    said = home.check_data("foreign_json")
    assert said.status == 0, said.text
    assert "6 cases, 1 institutions" in said.text
    assert said.text.count("nnunet_v1/dataset.json") == 1


def named_by_folder(home: Home) -> None:
    said = home.check_data("named_by_folder", "partition.unknown=A", "partition.test=0", "partition.val=0")
    assert said.status == 0, said.text
    assert "pat123" in said.text


def identity_affine(home: Home) -> None:
    refused = home.evaluate("evaluate/identity_affine", "evaluate/references")
    assert refused.status != 0
    assert "Brats18_CBICA_AAA_1.nii.gz" in refused.text
    option = re.search(r"\b(grids?=\w+)", refused.text)  # the way out is named
    assert option, refused.text
    said = home.evaluate("evaluate/identity_affine", "evaluate/references", option[1])
    assert said.status == 0, said.text
    assert dice(said) == {"WT": [1.0], "TC": [1.0], "ET": [1.0]}


def almost_whole(home: Home) -> None:
    said = home.evaluate("evaluate/almost_whole", "evaluate/references")
    assert said.status == 0, said.text
    assert dice(said) == {"WT": [1.0], "TC": [1.0], "ET": [1.0]}


def patients(home: Home) -> None:
    unknown = ("partition.unknown=A", "partition.test=0", "partition.val=0", "data.on_bad_case=skip")
    said = home.check_data("patients", *unknown)
    for rule in ("2 scans of 1 patient, rule UCSF", "2 scans of 1 patient, rule BIDS", "rule UCSD"):
        assert rule in said.text
    assert "2 scans of 2 patients: no rule knows the names" in said.text  # of HOSP_0001
    private = ("privacy=dp_sgd", "privacy.target_epsilon=8", "report.select=last")
    refused = home.fedbrats(
        "run",
        *tiny_overrides(home.cases / "cache" / "runs", *private),
        "data=brats",
        "data.root=patients",
        "partition.holdout=[]",
        "hydra.run.dir=runs/patients",
        *unknown,
    )
    assert refused.status != 0
    assert "HOSP_0001_20240" in refused.text
    assert "partition.patient_pattern" in refused.text


def _tabled(home: Home, table: str, *more: str) -> Said:
    cases = home.cases / "one" / "Brats18_CBICA_AAA_1"
    if not cases.exists():
        cases.mkdir(parents=True)
        for name in ("t1", "t1ce", "t2", "flair", "seg"):
            file = f"Brats18_CBICA_AAA_1_{name}.nii.gz"
            (cases / file).write_bytes((home.cases / "orphan_label" / file).read_bytes())
    words = (f"partition.table=tables/{table}", "partition.test=0", "partition.val=0", *more)
    return home.check_data("one", *words)


def cp1252(home: Home) -> None:
    said = _tabled(home, "cp1252.csv", "partition.site_column=Hospital", "partition.case_column=Case")
    read = said.status == 0 and "Universitätsklinikum" in said.text
    named = said.status != 0 and "cp1252.csv" in said.text and "UTF-8" in said.text
    assert read or named, said.text


def blank_cells(home: Home) -> None:
    said = _tabled(home, "blank_cells.csv")
    assert said.status == 0, said.text
    assert "rows without a name in BraTS2021 passed over: 1" in said.text


CHECKS: dict[str, Callable[[Home], None]] = {
    "ped_without_4": ped_without_4,
    "orphan_label": orphan_label,
    "letter_case": letter_case,
    "unlabelled_2023": unlabelled_2023,
    "wrapped": wrapped,
    "msd, msd_predictions": msd_predictions,
    "msd": msd,
    "foreign_json": foreign_json,
    "named_by_folder": named_by_folder,
    "evaluate/identity_affine": identity_affine,
    "evaluate/almost_whole": almost_whole,
    "patients": patients,
    "tables/cp1252.csv": cp1252,
    "tables/blank_cells.csv": blank_cells,
}


def rows() -> list[str]:
    """The first cells of the table."""
    if not TABLE:
        return list(CHECKS)
    lines = (Path(TABLE) / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    return [cell for cell in cells if cell != "folder" and not set(cell) <= set("- :")]


@pytest.mark.parametrize("row", rows())
def test_the_right_answer(row: str, home: Home) -> None:
    assert row in CHECKS, f"the table has a row without a check: {row}"
    CHECKS[row](home)


def test_the_table_has_the_rows_that_are_checked() -> None:
    assert set(rows()) == set(CHECKS)
