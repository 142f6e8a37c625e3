"""Real predictions against what four public tools print for them."""

import json
import os
from pathlib import Path

import pytest

from fedbrats.data.family_table import BRATS_2017
from fedbrats.data.nifti import read_volume
from fedbrats.data.regions import REGIONS, regions_from_labels, to_canonical
from fedbrats.metrics.lesionwise import lesionwise
from fedbrats.metrics.score import score_case

pytestmark = pytest.mark.skipif(
    not os.environ.get("FEDBRATS_REAL_DATA"), reason="real BraTS cases not at hand"
)
NAMES = ["PIM", "Consensus"]


def load(name):
    folder = Path(os.environ["FEDBRATS_REAL_DATA"]) / "metrics"
    return to_canonical(read_volume(folder / f"BraTS19_TCIA02_606_1_seg_{name}.nii.gz")[0], BRATS_2017)


def expected(tool, name):
    text = (Path(os.environ["FEDBRATS_REAL_DATA"]) / "metrics" / "reference_values.json").read_text()
    return json.loads(text)[tool][f"BraTS19_TCIA02_606_1|{name}"]


@pytest.mark.parametrize("name", NAMES)
def test_brats2023(name):
    scores, theirs = (
        score_case(load(name), load("GroundTruth"), (1, 1, 1), "brats2023"),
        expected("ref_brats2023", name),
    )
    columns = {
        **{"dice": "Legacy_Dice", "hd95": "Legacy_HD95", "sensitivity": "Sensitivity"},
        **{"specificity": "Specificity", "lesion_dice": "LesionWise_Score_Dice"},
        **{"lesion_hd95": "LesionWise_Score_HD95"},
    }
    for region in REGIONS:
        for ours, column in columns.items():
            assert scores[region][ours] == pytest.approx(theirs[region][column], abs=1e-3), (region, ours)
        assert scores[region]["volume_true_ml"] * 1000 == pytest.approx(theirs[region]["GT_Complete_Volume"])


@pytest.mark.parametrize("name", NAMES)
def test_brats2023_lesion_counts(name):
    theirs = expected("ref_brats2023", name)
    pairs = zip(
        REGIONS, regions_from_labels(load(name)), regions_from_labels(load("GroundTruth")), strict=True
    )
    for region, guess, truth in pairs:
        counts = [theirs[region][f"Num_{kind}"] for kind in ("TP", "FN", "FP")]
        assert list(lesionwise(guess, truth, (1.0, 1.0, 1.0))[2:]) == counts


@pytest.mark.parametrize("name", NAMES)
def test_captk(name):
    scores, theirs = (
        score_case(load(name), load("GroundTruth"), (1, 1, 1), "captk"),
        expected("ref_sd_medpy", name),
    )
    for region in REGIONS:
        assert scores[region]["dice"] == pytest.approx(theirs[region]["medpy_dc"], abs=1e-3)
        assert scores[region]["hd95"] == pytest.approx(theirs[region]["medpy_hd95"], abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_monai(name):
    scores, theirs = (
        score_case(load(name), load("GroundTruth"), (1, 1, 1), "monai"),
        expected("ref_monai", name),
    )
    assert [scores[r]["dice"] for r in REGIONS] == pytest.approx(theirs["dice"], abs=1e-3)
    assert [scores[r]["hd95"] for r in REGIONS] == pytest.approx(theirs["hd95"], abs=1e-3)
