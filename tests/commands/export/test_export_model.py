"""Whole exports: MONAI runs a bundle without fedbrats, fedbrats predicts with it, nobody is named in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import get_track_meta, set_track_meta

from fedbrats.commands.export.arguments import read_arguments
from fedbrats.commands.export.command import main
from fedbrats.commands.export.export_model import export_model
from fedbrats.config.targets import ConfigError
from fedbrats.export.proof import Proof
from tests.commands.predict.small_cases import labels, predict, write_case
from tests.inference.run_folders import make_run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PLANTED = ("BraTS2021_77777", "TCIA77", "/home/somebody", "secretcache")
BY_MONAI = """
import sys
class Nobody:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("fedbrats", "hydra", "flwr", "safetensors"):
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Nobody())
from monai.bundle import run
bundle, data, output = sys.argv[1:]
run(config_file=bundle + "/configs/inference.json", meta_file=bundle + "/configs/metadata.json", bundle_root=bundle,
    dataset_dir=data, output_dir=output, device="$torch.device('cpu')")
assert not [name for name in sys.modules if name.startswith("fedbrats")]
"""


def export(run: Path | str, data: Path, output: Path, *more: str) -> Proof:
    return export_model(
        read_arguments([str(run), f"data={data}", f"output={output}", *more]), lambda text: None
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose sites, cases and folders have names, and two cases of which one is stored otherwise."""
    home = tmp_path_factory.mktemp("export")
    more = ["postprocess=inside_brain", "partition.holdout=[TCIA77]", "model.out_channels=3"]
    make_run(home / "run", *more)
    partition = json.loads((home / "run" / "partition.json").read_text())
    sites = [
        {"name": name, "holdout": name == "TCIA77", "train": ["BraTS2021_77777"], "val": [], "test": []}
        for name in ("CBICA", "TCIA77")
    ]
    (home / "run" / "partition.json").write_text(json.dumps({**partition, "sites": sites}))
    write_case(home / "data", "A", codes="LPS")
    write_case(home / "data", "B", seed=1, label=False)
    return home


@pytest.fixture(scope="module")
def bundle(home: Path) -> Path:
    proof = export(home / "run", home / "data", home / "bundle")
    assert (proof.cases, proof.labelled) == (2, 1)
    return home / "bundle"


def test_a_process_that_has_trained_exports_too_and_can_train_on(home: Path, tmp_path: Path) -> None:
    before = get_track_meta()
    set_track_meta(False)  # as augmentation leaves it
    try:
        assert export(home / "run", home / "data", tmp_path / "bundle", "cases=1").cases == 1
        assert not get_track_meta()
    finally:
        set_track_meta(before)


def test_monai_alone_writes_the_labels_of_the_run(home: Path, bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", BY_MONAI, str(bundle), str(home / "data"), str(tmp_path / "monai")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    predict(home / "run", home / "data", tmp_path / "run")
    for name in ("A", "B"):
        ours, theirs = tmp_path / "run" / f"{name}.nii.gz", tmp_path / "monai" / f"{name}_t1_seg.nii.gz"
        assert len(np.unique(labels(ours))) == 4
        np.testing.assert_array_equal(labels(theirs), labels(ours))
        np.testing.assert_allclose(nib.load(theirs).affine, nib.load(ours).affine, atol=1e-5)


def test_predict_takes_a_bundle(home: Path, bundle: Path, tmp_path: Path) -> None:
    predict(home / "run", home / "data", tmp_path / "run")
    predict(bundle, home / "data", tmp_path / "bundle")
    for name in ("A", "B"):
        files = [tmp_path / folder / f"{name}.nii.gz" for folder in ("run", "bundle")]
        np.testing.assert_array_equal(labels(files[0]), labels(files[1]))
    with pytest.raises(ConfigError, match="named twice"):
        predict(f"[{bundle},{bundle}]", home / "data", tmp_path / "twice")


def test_nobody_is_named_in_a_bundle(home: Path, bundle: Path) -> None:
    files = [file for file in bundle.rglob("*") if file.is_file()]
    assert {file.relative_to(bundle).as_posix() for file in files} == {
        *("configs/inference.json", "configs/metadata.json", "docs/README.md", "docs/proof.json"),
        *("models/model.pt2", "models/model.safetensors", "run/config.yaml", "run/partition.json"),
    }
    for file in files:
        content = file.read_bytes().decode("utf-8", "replace")
        for name in (*PLANTED, str(home), "CBICA", str(Path.home()) + "/"):
            assert name not in content, (file, name)
    card = (bundle / "docs" / "README.md").read_text()
    assert "| 2 | 1 | 0 | 0 | unseen: took no part in training |" in card
    assert "Myronenko" in card


def test_over_a_limit_nothing_is_left(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_difference=0: .*nothing was exported"):
        export(home / "run", home / "data", tmp_path / "out", "max_difference=0", "cases=1")
    assert list(tmp_path.iterdir()) == []


def test_locate_then_refine_is_two_networks(home: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "slices", "model.input.patch=[40,40]", model="dr_unet104")
    locate = f"inference.locate={home / 'run'}"
    with pytest.raises(ConfigError, match=r"inference\.locate=.*2D network.*inference\.locate=null"):
        export(tmp_path / "slices", home / "data", tmp_path / "out", locate)


def test_monte_carlo_passes_need_a_dropout_that_a_graph_does_not_have(home: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "slices", "model.input.patch=[40,40]", model="dr_unet104")
    with pytest.raises(ConfigError, match=r"inference\.mc_passes=2: .*inference\.mc_passes=0"):
        export(tmp_path / "slices", home / "data", tmp_path / "out", "inference.mc_passes=2", "format=bundle")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data=x"], "name one run"),
        (["run", "data=x", "format=pickle"], "format=pickle: choose one of bundle, onnx, int8"),
        (["run"], "missing: data="),
        (["run", "data=x", "cases=0"], "cases=0"),
        (["run", "data=x", "max_score_lost=1"], r"max_score_lost=1.0: must lie in \[0, 1\)"),
        (["run", "data=x", "calibration=2"], "calibration=2: is for format=int8 only"),
        (["run", "data=x", "format=int8", "calibration=0"], "calibration=0: .*at least one case"),
        (["run", "data=x", "inference.flip=true"], "inference.flip"),
        (["run", "data=x", "colour=red"], "colour"),
    ],
)
def test_bad_arguments_are_named(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=words):
        read_arguments(arguments)
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("fedbrats: ")


def test_what_is_there_already_is_left_alone(home: Path, bundle: Path) -> None:
    with pytest.raises(ConfigError, match=r"output=.*is there already"):
        export(home / "run", home / "data", bundle)
