"""Predictions that a run itself has written: each arm for itself, and the cases that it tested."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedbrats.commands.evaluate.arguments import read_arguments
from fedbrats.commands.evaluate.batches import batches_of
from fedbrats.commands.evaluate.evaluate_files import evaluate
from fedbrats.config.targets import ConfigError


def labels(shift: int = 0) -> nib.Nifti1Image:
    volume = np.zeros((12, 12, 12), np.uint8)
    volume[2 + shift : 8 + shift, 2:8, 2:8] = 2
    volume[3 + shift : 7 + shift, 3:7, 3:7] = 4
    return nib.Nifti1Image(volume, np.diag([-1, -1, 1, 1]))


def save(image: nib.Nifti1Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, file)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two test cases; the local model has failed on one of them, as the table of the run says."""
    folder, names = tmp_path / "run", ("Brats18_CBICA_AAA_1", "Brats18_CBICA_AAB_1")
    for name in (*names, "Brats18_CBICA_AAC_1"):
        save(labels(), tmp_path / "data" / name / f"{name}_seg.nii.gz")
    for arm, name, shift in (("federated", 0, 0), ("federated", 1, 1), ("local-CBICA", 0, 1)):
        save(labels(shift), folder / "predictions" / arm / "CBICA" / f"{names[name]}.nii.gz")
    (folder / "config.yaml").touch()
    (folder / "environment.json").touch()
    rows = [f"{arm},{name}" for arm in ("federated", "local:CBICA") for name in names]
    (folder / "cases.csv").write_text("\n".join(["arm,case", *rows]) + "\n")
    return folder


@pytest.mark.parametrize("below", ["", "predictions"])
def test_every_arm_with_its_test_cases(run: Path, below: str) -> None:
    batches = batches_of(run / below)
    assert [batch.arm for batch in batches] == ["federated", "local:CBICA"]
    assert {len(batch.asked or ()) for batch in batches} == {2}
    (one,) = batches_of(run / "predictions" / "local-CBICA")
    assert (one.arm, len(one.asked or ())) == ("local:CBICA", 2)


def test_a_run_is_scored_by_its_test_cases(run: Path) -> None:
    words = [f"predictions={run}", f"references={run.parent / 'data'}", f"output={run.parent / 'out'}"]
    found = evaluate(read_arguments(words), lambda row: None, lambda text: None)
    dice = found.cases[found.cases["region"] == "WT"].set_index(["arm", "case"])["dice"]
    assert dice.to_dict() == pytest.approx(
        {
            ("federated", "Brats18_CBICA_AAA_1"): 1,
            ("federated", "Brats18_CBICA_AAB_1"): 5 / 6,
            ("local:CBICA", "Brats18_CBICA_AAA_1"): 5 / 6,
            ("local:CBICA", "Brats18_CBICA_AAB_1"): 0,  # not AAC, which no arm tested
        }
    )
    assert list(found.failed) == ["local:CBICA/Brats18_CBICA_AAB_1"]
    (run / "cases.csv").unlink()  # a run that was killed: what is there counts
    found = evaluate(read_arguments([*words, "only_predicted=true"]), lambda row: None, lambda text: None)
    assert found.complete
    assert len(found.scored) == 3


def test_a_run_without_predictions_is_named_with_the_fix(run: Path, tmp_path: Path) -> None:
    (run / "predictions").rename(tmp_path / "elsewhere")
    with pytest.raises(
        ConfigError, match=r"run: a run folder without predictions; .*report\.predictions=true"
    ):
        batches_of(run)
    assert [batch.arm for batch in batches_of(tmp_path / "elsewhere")] == ["elsewhere"]
