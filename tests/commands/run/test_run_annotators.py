"""A federation on counts of annotators: what is trained on, scored, reported and predicted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedbrats.commands.predict.arguments import read_arguments
from fedbrats.commands.predict.predict_cases import predict_cases
from fedbrats.commands.predict.reading import labels_for
from fedbrats.commands.run.run import run
from fedbrats.config.targets import ConfigError
from fedbrats.report.html import write_report
from tests.tiny import tiny

pytestmark = pytest.mark.slow  # a whole run

COUNTS = ("data.labels=annotators", "data.phantom.annotators=3", "metrics=qubiq", "loss=dice_counts")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("annotators")
    more = ("model.out_channels=4", "rounds=1", "arms=[federated]", "report.floor=null")
    return run(tiny(root / "cache", *COUNTS, *more), root / "job")


def phantom(folder: Path) -> Path:
    (root,) = (folder.parent / "cache" / "phantom").iterdir()
    return root


def test_the_truth_of_a_region_is_where_so_many_annotators_agree(folder: Path) -> None:
    with (folder / "cases.csv").open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["region"] for row in rows} == {"WT", "TC", "ET"}
    for case in {row["case"] for row in rows}:
        of_case = {row["region"]: row for row in rows if row["case"] == case}
        files = sorted((phantom(folder) / case).glob("*annotator*"))
        counts = np.sum([np.asarray(nib.load(file).dataobj) for file in files], axis=0)
        ml = float(np.prod(nib.load(files[0]).header.get_zooms())) / 1000
        for least, region in enumerate(("WT", "TC", "ET"), start=1):
            assert float(of_case[region]["volume_true_ml"]) == pytest.approx((counts >= least).sum() * ml)
        swept = 0.1 + 0.9 * np.mean([float(row["dice"]) for row in of_case.values()])
        assert [float(row["swept_dice"]) for row in of_case.values()] == pytest.approx([swept] * 3, abs=1e-6)


def test_the_report_says_what_its_regions_are(folder: Path) -> None:
    write_report(folder)
    text = (folder / "report.html").read_text()
    assert "at least 1 annotator" in text
    assert "whole tumour" not in text
    assert "WT is at least 1 of them, TC at least 2, ET all 3" in text
    assert "Dice over thresholds 0.0 to 0.9" in text
    assert json.loads((folder / "partition.json").read_text())["label_system"]["name"] == "annotators"


def test_a_prediction_is_a_count_and_its_map_a_share(folder: Path, tmp_path: Path) -> None:
    case = next(phantom(folder).glob("BraTS19_*"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / case.name).symlink_to(case)
    output = tmp_path / "out"
    words = [f"checkpoint={folder}", f"data={tmp_path / 'data'}", f"output={output}", "maps=true"]
    predict_cases(read_arguments([*words, "links=follow"]), lambda text: None)
    counts = np.asarray(nib.load(output / f"{case.name}.nii.gz").dataobj)
    share = np.asarray(nib.load(output / f"{case.name}_annotators_share.nii.gz").dataobj)
    assert set(np.unique(counts)) <= {0, 1, 2, 3}
    assert counts.any()
    assert share.dtype == np.float32
    np.testing.assert_allclose(share, counts / 3, atol=1e-6)


def test_other_labels_do_not_go_with_its_model(folder: Path, tmp_path: Path) -> None:
    assert labels_for("auto", folder) == "annotators"
    with pytest.raises(ConfigError, match=r"labels=gli2023: the model of .* is of counts"):
        labels_for("gli2023", folder)
    with pytest.raises(ConfigError, match=r"labels=annotators: the model of .* is not of counts"):
        labels_for("annotators", tmp_path)
