"""What is wrong with the data of a site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedbrats.checks.config import checked
from fedbrats.commands.run.run import run
from fedbrats.config.scenario import ScenarioConfig
from fedbrats.config.schema import load_config
from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import MODALITIES
from fedbrats.data.intensity import clipped
from fedbrats.data.regions import ED, ET, NCR
from fedbrats.federation.initial import initial_arrays
from fedbrats.federation.parts import parts_of
from fedbrats.federation.site import evaluation
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.warm import Warm
from fedbrats.federation.site.work import SiteWork
from fedbrats.inference.predict import Prediction
from fedbrats.scenario.faults import KINDS, check_faults, label_fault, seen_by, turned_axes
from tests.tiny import tiny

LINE = torch.tensor([[0, 0, ED, NCR, ET, ET, ET, 0, 0]], dtype=torch.uint8)
PLANE = LINE[:, None].expand(1, 5, 9)  # the same in every row


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("swapped", [0, 0, NCR, ED, ET, ET, ET, 0, 0]),
        ("no_et", [0, 0, ED, NCR, NCR, NCR, NCR, 0, 0]),
        ("erased", [0] * 9),
        ("dilated", [0, ED, ED, NCR, ET, ET, ET, ET, 0]),
        ("eroded", [0, 0, 0, NCR, ET, ET, 0, 0, 0]),
    ],
)
def test_labels_by_hand_in_two_and_three_dimensions(kind: str, expected: list[int]) -> None:
    for labels in (PLANE, PLANE[:, None].expand(1, 4, 5, 9)):
        found = KINDS[kind](labels)
        assert found.dtype == torch.uint8
        assert found.shape == labels.shape
        middle = found[0, 2] if labels.ndim == 3 else found[0, 2, 2]
        assert middle.tolist() == expected


def test_a_missing_modality_is_zero_after_whatever_else_is_done() -> None:
    scenario = ScenarioConfig(missing_modalities={"A": ["t2"]})
    image = np.ones((4, 2, 2, 2), np.float32)
    for normalise, value in ((None, 1.0), (lambda case, image: image * 3, 3.0)):
        found = seen_by(scenario, "A", normalise)
        assert found is not None
        changed = found(None, image)  # type: ignore[arg-type]
        assert [float(channel.mean()) for channel in changed] == [
            0.0 if name == "t2" else value for name in MODALITIES
        ]
    assert image.min() == 1  # the cache is not written to
    assert seen_by(scenario, "B", None) is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"wrong_labels": {"A": "odd"}}, r"scenario\.wrong_labels\.A=odd: choose one of swapped"),
        ({"missing_modalities": {"A": ["ct"]}}, r"scenario\.missing_modalities\.A=\['ct'\]"),
        ({"unlabelled": {"A": ["WT", "TC", "ET"]}}, r"scenario\.unlabelled\.A=.*partition\.holdout"),
        ({"unlabelled": {"A": ["NCR"]}}, r"scenario\.unlabelled\.A="),
        ({"scaled": {"A": 0.0}}, r"scenario\.scaled\.A=0\.0"),
        ({"turned": {"A": ["w"]}}, r"scenario\.turned\.A=\['w'\]: a list of some of x, y, z"),
        ({"turned": {"A": []}}, r"scenario\.turned\.A"),
        ({"normalise": {"A": "decimal"}}, r"scenario\.normalise\.A=decimal: choose one of zscore"),
        ({"missing_modalities": {"A": []}}, r"scenario\.missing_modalities\.A"),
        ({"missing_modalities": {"A": list(MODALITIES)}}, "not of all"),
    ],
)
def test_what_cannot_be_is_refused_by_key(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_faults(ScenarioConfig(**settings))
    assert label_fault(ScenarioConfig(), "A") is None


@pytest.mark.slow
def test_a_site_trains_on_them_and_others_do_not(cache: Path, tmp_path: Path) -> None:
    faults = ("+scenario.wrong_labels.CBICA=erased", "+scenario.missing_modalities.CBICA=[flair]")
    folder = run(tiny(cache, *faults, "arms=[federated]", "rounds=1"), tmp_path / "run")
    warm = Warm(folder)
    for name, wrong in (("CBICA", True), ("TCIA01", False)):
        work = SiteWork(Site(name, warm), "federated", 1)
        images, labels = zip(*work.batches("train"), strict=True)
        flair = torch.cat(images)[:, MODALITIES.index("flair")]
        assert (float(torch.cat(labels).max()) == 0) == wrong
        assert (float(flair.abs().max()) == 0) == wrong


@pytest.mark.slow
def test_a_site_without_labels_of_a_region_teaches_the_others_only(cache: Path, tmp_path: Path) -> None:
    """Its last layer: the channel of ET has weights of its own, which do not move."""
    for region, moved in (("ET", [True, True, False]), ("WT", [False, True, True])):
        more = (
            f"+scenario.unlabelled.CBICA=[{region}]",
            "arms=[local]",
            "rounds=1",
            "train/optimizer=sgd_plain",
        )
        folder = run(tiny(cache, *more), tmp_path / region)
        model = load_file(folder / "checkpoints" / "round_00001" / "local-CBICA.safetensors")
        start = initial_arrays(parts_of(load_config(folder / "config.yaml")), None)
        last = next(
            name for name in reversed(list(start)) if start[name].ndim > 1 and start[name].shape[0] == 3
        )
        assert [bool((model[last][c] != start[last][c]).any()) for c in range(3)] == moved, last


def test_exclusive_classes_cannot_be_left_out(cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"scenario\.unlabelled: model\.out_channels=4"):
        checked(tiny(cache, "+scenario.unlabelled.CBICA=[ET]", "model.out_channels=4"))


def test_inverted_labels_by_hand() -> None:
    labels = torch.tensor([[0, NCR, ED, ET]], dtype=torch.uint8)
    assert KINDS["inverted"](labels).tolist() == [[ET, ED, NCR, 0]]
    assert KINDS["inverted"](labels).dtype == torch.uint8


def test_intensities_are_scaled_after_whatever_else_is_done() -> None:
    scenario = ScenarioConfig(scaled={"A": 2.0}, missing_modalities={"A": ["t1"]})
    found = seen_by(scenario, "A", lambda case, image: image + 1)
    assert found is not None
    changed = found(None, np.ones((4, 2, 2, 2), np.float32))  # type: ignore[arg-type]
    assert changed.dtype == np.float32
    assert [float(channel.mean()) for channel in changed] == [0.0, 4.0, 4.0, 4.0]


def test_axes_are_counted_from_behind() -> None:
    scenario = ScenarioConfig(turned={"A": ["x", "z"]})
    assert (turned_axes(scenario, "A"), turned_axes(scenario, "B")) == ([-3, -1], [])


@pytest.mark.slow
def test_a_turned_site_sees_its_own_cases_turned_in_training_and_test(cache: Path, tmp_path: Path) -> None:
    """Its patches are those of the same draw, turned; what is predicted of a turned image is turned back."""
    whole = run(tiny(cache, "arms=[federated]", "rounds=1"), tmp_path / "plain")
    turned = run(tiny(cache, "arms=[federated]", "rounds=1", "+scenario.turned.CBICA=[z]"), tmp_path / "run")
    batches = []
    for folder in (whole, turned):
        images, labels = zip(
            *SiteWork(Site("CBICA", Warm(folder)), "federated", 1).batches("train"), strict=True
        )
        batches.append((torch.cat(images), torch.cat(labels)))
    for before, after in zip(*batches, strict=True):
        assert torch.equal(before.flip(-1), after)
        assert not torch.equal(before, after)
    site, seen = Site("CBICA", Warm(turned)), list[np.ndarray]()
    case = site.cases.test[0]

    def tumour_is_bright(network: object, image: np.ndarray, **options: object) -> Prediction:
        seen.append(image)
        return Prediction(torch.from_numpy(image[:3]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "predict", tumour_is_bright)
        found = evaluation.full_prediction(site, case).probabilities.numpy()
    image = np.asarray(case.image, np.float32)
    assert np.array_equal(seen[0], image[..., ::-1])
    assert np.array_equal(found, image[:3])


@pytest.mark.slow
def test_a_site_has_a_normalisation_of_its_own(cache: Path, tmp_path: Path) -> None:
    folder = run(tiny(cache, "arms=[local]", "rounds=1", "+scenario.normalise.CBICA=clip"), tmp_path / "run")
    warm = Warm(folder)
    assert Site("CBICA", warm).normalise is clipped
    assert Site("TCIA01", warm).normalise is None


@pytest.mark.parametrize("wrong", ["+scenario.turned.CBICA=[z]", "+scenario.poisoned.CBICA=backdoor"])
def test_a_network_of_slices_takes_neither_turned_volumes_nor_a_trigger(cache: Path, wrong: str) -> None:
    slices = ("model=dr_unet104", "model.size=small")
    with pytest.raises(ConfigError, match=r"scenario\.(turned|poisoned)\.CBICA.*network of whole volumes"):
        checked(tiny(cache, wrong, model=slices))
