"""fedbrats' preprocessing in MONAI's transforms: the same numbers, and what they cannot say is refused."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from monai.bundle import ConfigParser

from fedbrats.config.schema import Config, InferenceConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cache import prepare_case
from fedbrats.data.cases import MODALITIES
from fedbrats.data.family_table import BRATS_2017
from fedbrats.data.finding import find_cases
from fedbrats.data.intensity import clipped
from fedbrats.data.regions import labels_from_regions, to_source
from fedbrats.export.configuration import SCALED
from fedbrats.export.transforms import SAYABLE, _labels, check_sayable, preprocessing, tracking
from fedbrats.postprocess.inside_brain import InsideBrain
from fedbrats.postprocess.minimum_volume import MinimumVolume
from fedbrats.postprocess.steps import Step
from tests.commands.predict.small_cases import write_case

REAL = os.environ.get("FEDBRATS_REAL_DATA")
STEP = 2.0**-10  # the largest step of float16, relative; on eight real cases 0.08 % of the voxels at most


def both(root: Path, cache: Path, normalise: str) -> tuple[np.ndarray, np.ndarray]:
    """The first case as fedbrats prepares it, and as MONAI does."""
    case = min(find_cases(root, lambda text: None, unlabelled=True), key=lambda case: case.name)
    cached = prepare_case(replace(case, label=None), BRATS_2017, cache)
    ours = np.asarray(cached.image, np.float32)
    if normalise == "clip":
        ours = clipped(cached, ours)
    parser = ConfigParser({"imports": ["$import torch"], "all": {"_target_": "Compose"}})
    parser["all"]["transforms"] = preprocessing(normalise)
    with tracking():
        theirs = parser.get_parsed_content("all")({name: str(case.images[name].path) for name in MODALITIES})
    return ours, theirs["image"].numpy()


@pytest.mark.slow
@pytest.mark.parametrize(("codes", "normalise"), [("RAS", "zscore"), ("LPS", "zscore"), ("ASL", "clip")])
def test_numbers_are_those_of_the_cache(codes: str, normalise: str, tmp_path: Path) -> None:
    write_case(tmp_path / "data", "A", codes=codes)
    ours, theirs = both(tmp_path / "data", tmp_path / "cache", normalise)
    np.testing.assert_allclose(theirs, ours, rtol=STEP, atol=1e-6)
    assert ((theirs == 0) == (ours == 0)).all()
    least, greatest = SCALED[normalise][1]  # as the bundle says of itself
    assert least <= theirs.min() <= theirs.max() <= greatest
    assert (theirs.min() < 0) == (least < 0)
    assert SCALED.keys() == set(SAYABLE)


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="real BraTS cases not at hand")
def test_numbers_of_a_real_case_are_those_of_the_cache(tmp_path: Path) -> None:
    ours, theirs = both(Path(str(REAL), "brats"), tmp_path / "cache", "zscore")
    np.testing.assert_allclose(theirs, ours, rtol=STEP, atol=1e-6)
    assert (np.abs(theirs - ours) > 1e-6).mean() < 1e-3


def test_labels_of_region_channels_are_merged_by_the_same_table() -> None:
    """All eight combinations of WT, TC and ET."""
    channels = np.array(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij")).reshape(3, -1, 1, 1)
    merged = eval(_labels(3, BRATS_2017).removeprefix("$"))(channels)
    np.testing.assert_array_equal(
        merged[0], to_source(labels_from_regions(channels.astype(bool)), BRATS_2017)
    )


def test_classes_get_the_numbers_of_the_files() -> None:
    of_class = eval(_labels(4, BRATS_2017).removeprefix("$"))
    assert [int(of_class(np.array(value))) for value in range(4)] == [0, 1, 2, 4]
    assert int(eval(_labels(1, BRATS_2017).removeprefix("$"))(np.array(1))) == 2


def config(planes: Sequence[str] = ("axial",), normalise: str = "zscore", **inference: object) -> Config:
    rules = {"patch": [64, 64], "planes": list(planes), "normalise": normalise}
    return Config(
        model={"input": rules},
        loss={},
        strategy={},
        inference=InferenceConfig(**inference),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("asked", "steps", "words"),
    [
        (config(normalise="histogram"), [], r"model\.input\.normalise=histogram.*format=onnx"),
        (
            config(normalise="minmax"),
            [],
            r"model\.input\.normalise=minmax.*zscore or clip, or export format=onnx",
        ),
        (config(normalise="percentiles"), [], r"model\.input\.normalise=percentiles"),
        (config(planes=("axial", "coronal")), [], r"model\.input\.planes.*one plane"),
        (config(flips=True), [], r"inference\.flips=true.*inference\.flips=false"),
        (config(), [InsideBrain(), MinimumVolume(ml=1.0)], r"ET minimum 1 mL.*postprocess=inside_brain"),
    ],
)
def test_what_monai_cannot_say_is_refused_with_the_fix(asked: Config, steps: list[Step], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_sayable(asked, steps)


def test_what_it_can_say_is_not_refused() -> None:
    check_sayable(config(), [InsideBrain()])
