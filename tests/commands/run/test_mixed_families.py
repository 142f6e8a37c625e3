"""Two families of label numbers in one federation: the same tumours under other numbers give the same run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from fedbrats.commands.run.run import run
from fedbrats.data.phantom import write_phantom
from fedbrats.runs.rounds import TABLE
from tests.tiny import tiny

ENDINGS = {"_t1": "-t1n", "_t1ce": "-t1c", "_t2": "-t2w", "_flair": "-t2f", "_seg": "-seg"}
SITES = {"TCIA01": 4, "CBICA": 4}
RUN = ("partition.holdout=[]", "arms=[federated]", "rounds=1", "data=brats")


def renamed(source: Path, target: Path, number: int) -> str:
    """A case under a name and with the endings and numbers of BraTS 2023: ET is 3 in place of 4. Its new name."""
    name = f"BraTS-GLI-{number:05d}-000"
    (target / name).mkdir(parents=True)
    for file in source.iterdir():
        ending = file.name.removeprefix(source.name).split(".")[0]
        image = nibabel.load(file)
        if ending == "_seg":
            labels = np.asanyarray(image.dataobj).astype(np.uint8)
            labels[labels == 4] = 3
            image = nibabel.Nifti1Image(labels, image.affine, image.header)
        nibabel.save(image, target / name / f"{name}{ENDINGS[ending]}.nii.gz")
    return name


def volumes(partition: dict[str, Any]) -> list[dict[str, Any]]:
    """What the run read of the regions of each institution."""
    return sorted(partition["table"], key=lambda row: row["site"])


@pytest.mark.slow
def test_each_institution_is_read_by_its_own_numbers(tmp_path: Path) -> None:
    old, mixed = tmp_path / "old", tmp_path / "mixed"
    cases = write_phantom(old, sites=SITES, shape=(32, 32, 24), workers=0)
    rows = ["case,institution"]
    for number, case in enumerate(sorted(cases)):
        site = case.name.split("_")[1]
        if site == "CBICA":
            rows.append(f"{renamed(case, mixed, number)},CBICA")
        else:
            shutil.copytree(case, mixed / case.name)
    (tmp_path / "table.csv").write_text("\n".join(rows) + "\n")
    of = {}
    for root, more in ((old, ()), (mixed, (f"partition.table={tmp_path / 'table.csv'}",))):
        config = tiny(tmp_path / "cache" / root.name, *RUN, f"data.root={root}", *more)
        of[root.name] = run(config, tmp_path / "runs" / root.name)
    partition = {name: json.loads((folder / "partition.json").read_text()) for name, folder in of.items()}
    assert partition["old"]["label_system"]["et"] == 4
    assert partition["mixed"]["label_system"] is None
    said = partition["mixed"]["et_recognised"]
    assert "ET 4" in said
    assert "ET 3" in said
    assert volumes(partition["mixed"]) == volumes(partition["old"])
    rows_of = [[(r["site"], r["phase"], r["status"], r["cases"]) for r in TABLE.rows(f)] for f in of.values()]
    assert sorted(rows_of[0]) == sorted(rows_of[1])
    assert {status for _, _, status, _ in rows_of[1]} == {"ok"}
