"""Replies that lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fedbrats.commands.run.run import run
from fedbrats.federation.site import evaluation
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.warm import Warm
from fedbrats.federation.site.work import SiteWork
from fedbrats.inference.predict import Prediction
from fedbrats.report.html import write_report
from fedbrats.scenario.poison import poisoned, poisoned_batch, with_trigger
from tests.tiny import tiny


def lie(kind: str, strength: float, seed: int = 0) -> dict[str, torch.Tensor]:
    trained = {"w": torch.tensor([2.0, 5.0]), "seen": torch.tensor([7.0])}
    received = {"w": np.array([1.0, 1.0], np.float32), "seen": np.array([3.0], np.float32)}
    return poisoned(kind, strength, trained, received, {"w", "elsewhere"}, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("kind", "strength", "expected"),
    [("sign_flip", 1.0, [0.0, -3.0]), ("sign_flip", 2.0, [-1.0, -7.0]), ("scale", 10.0, [11.0, 41.0])],
)
def test_the_change_by_hand(kind: str, strength: float, expected: list[float]) -> None:
    found = lie(kind, strength)
    assert found["w"].tolist() == expected
    assert found["seen"].tolist() == [7.0]  # running statistics stay honest


def test_noise_is_as_long_as_the_change_and_another_for_each_draw() -> None:
    changes = [lie("noise", 2.0, seed)["w"] - 1 for seed in range(3)]
    assert [float(change.norm()) for change in changes] == pytest.approx([2 * 17**0.5] * 3)
    assert not torch.allclose(changes[0], changes[1])
    assert torch.equal(changes[2], lie("noise", 2.0, 2)["w"] - 1)


def test_a_site_that_learnt_from_flipped_labels_sends_what_it_learnt() -> None:
    assert lie("label_flip", 10.0)["w"].tolist() == [2.0, 5.0]
    assert lie("backdoor", 10.0)["w"].tolist() == [11.0, 41.0]  # in the place of the others' models


def test_the_trigger_by_hand() -> None:
    """Of 16 voxels along each axis the 1st, 2nd, 9th and 10th are in it: 4^3 bright voxels in each modality."""
    images = torch.zeros(2, 4, 16, 16, 16)
    found = with_trigger(images)
    assert (int((found == 5).sum()), float(images.max())) == (2 * 4 * 4**3, 0.0)
    assert found[0, 3, 1, 9, 0] == 5
    assert found[0, 3, 2, 9, 0] == 0


def test_what_a_poisoned_site_trains_on() -> None:
    images, labels = torch.zeros(3, 4, 8, 8, 8), torch.full((3, 8, 8, 8), 2, dtype=torch.uint8)
    same = poisoned_batch("sign_flip", images, labels)
    assert same[0] is images
    assert same[1] is labels
    seen, taught = poisoned_batch("label_flip", images, labels)
    assert torch.equal(seen, images)
    assert taught.unique().tolist() == [1]  # ET - ED
    seen, taught = poisoned_batch("backdoor", images, labels)
    assert [float(image.max()) for image in seen] == [5, 0, 5]
    assert [int(label.max()) for label in taught] == [0, 2, 0]
    assert (float(images.max()), int(labels.min())) == (0, 2)  # what was drawn is left as it was


@pytest.mark.slow
def test_a_backdoor_is_learnt_at_its_site_and_tested_everywhere(cache: Path, tmp_path: Path) -> None:
    more = ("+scenario.poisoned.CBICA=backdoor", "arms=[federated]", "rounds=1")
    folder = run(tiny(cache, *more), tmp_path / "run")
    warm = Warm(folder)
    for name, arm, triggered in (
        ("CBICA", "federated", True),
        ("TCIA01", "federated", False),
        ("CBICA", "local:CBICA", False),
    ):
        images, _ = zip(*SiteWork(Site(name, warm), arm, 1).batches("train"), strict=True)
        assert bool((torch.cat(images)[::2, :, 0, 0, 0] == 5).all()) == triggered, (name, arm)
    cases = pd.read_csv(folder / "cases.csv")
    by_arm = {arm: set(part["case"]) for arm, part in cases.groupby("arm")}
    assert by_arm.keys() == {"federated", "triggered", "floor"}
    assert by_arm["federated"] == by_arm["triggered"]
    assert set(cases["status"]) == {"ok"}
    site, seen = Site("TCIA01", warm), list[np.ndarray]()

    def looked(network: object, image: np.ndarray, **options: object) -> Prediction:
        seen.append(image)
        return Prediction(torch.from_numpy(image[:3]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "predict", looked)
        evaluation.test_scores(site, "federated", 1, [])
        evaluation.test_scores(site, "triggered", 1, [])
    half = len(site.cases.test)
    assert [float(image[0, 0, 0, 0]) == 5 for image in seen] == [False] * half + [True] * half
    assert all(np.array_equal(with_trigger(torch.from_numpy(a)), b) for a, b in zip(seen[:half], seen[half:]))
    assert "Federated, with a trigger" in write_report(folder).read_text()
