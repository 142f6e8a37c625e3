"""The list of steps: built from config, fitted in order, median over sites, measured one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from fedbrats.config.schema import PostprocessConfig
from fedbrats.postprocess.et_suppression import EtSuppression
from fedbrats.postprocess.fitting import Predicted, first_best
from fedbrats.postprocess.inside_brain import InsideBrain
from fedbrats.postprocess.largest_component import LargestComponent
from fedbrats.postprocess.minimum_volume import MinimumVolume
from fedbrats.postprocess.sequential_thresholds import SequentialThresholds
from fedbrats.postprocess.small_components import SmallComponents
from fedbrats.postprocess.steps import (
    FitCase,
    apply_steps,
    build_steps,
    check_parameters,
    check_steps,
    fit_steps,
    median_parameters,
)
from tests.postprocess.toy_cases import CUBIC, case, et, line, sure

CONF = Path(__file__).resolve().parents[2] / "conf" / "postprocess"
STEPS = "fedbrats.postprocess"


def node(path: str, **settings: object) -> dict:
    return {"_target_": f"{STEPS}.{path}", **settings}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", []),
        ("inside_brain", [InsideBrain()]),
        ("et_minimum", [InsideBrain(), MinimumVolume("ET")]),
        ("et_minimum_200", [InsideBrain(), MinimumVolume("ET", voxels=200)]),
        ("et_minimum_500", [InsideBrain(), MinimumVolume("ET", voxels=500)]),
        ("et_minimum_600", [InsideBrain(), MinimumVolume("ET", voxels=600)]),
        ("et_minimum_750", [InsideBrain(), MinimumVolume("ET", voxels=750)]),
        ("et_minimum_ml", [InsideBrain(), MinimumVolume("ET", ml=0.6)]),
        ("et_components", [InsideBrain(), SmallComponents("ET", 0.05)]),
        ("largest_component", [InsideBrain(), LargestComponent("WT")]),
        ("nnsegnet", [SequentialThresholds(), InsideBrain(), EtSuppression()]),
        (
            "cleanup",
            [
                InsideBrain(),
                LargestComponent("WT"),
                SmallComponents("TC", 0.05),
                SmallComponents("ET", 0.05),
                MinimumVolume("ET"),
            ],
        ),
    ],
)
def test_files_of_conf(name: str, expected: list) -> None:
    assert (
        build_steps(PostprocessConfig(**OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))))
        == expected
    )


def test_every_file_is_tested() -> None:
    names = {path.stem for path in CONF.glob("*.yaml")}
    assert names == {
        "none",
        "inside_brain",
        "et_minimum",
        "et_minimum_ml",
        "et_minimum_200",
        "et_minimum_500",
        "et_minimum_600",
        "et_minimum_750",
        "et_components",
        "largest_component",
        "nnsegnet",
        "cleanup",
    }


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([node("minimum_volume.MinimumVolume", region="XX")], r"steps\[0\]: region=XX"),
        ([node("minimum_volume.MinimumVolume"), node("nothing.Nothing")], r"steps\[1\]: "),
        ([{"_target_": "builtins.dict"}], r"steps\[0\]: .* is no step"),
        (
            [node("largest_component.LargestComponent"), node("sequential_thresholds.SequentialThresholds")],
            r"steps\[1\]: .*put it first",
        ),
    ],
)
def test_bad_steps_are_named(steps: list, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_steps(PostprocessConfig(steps=steps))


def test_each_stage_is_kept() -> None:
    labels = line(3, 0, 2, 3, 2)
    stages = apply_steps(
        [LargestComponent("WT"), MinimumVolume("ET", ml=2)], Predicted(labels, sure(labels), CUBIC)
    )
    assert [stage.ravel().tolist() for stage in stages] == [[3, 0, 2, 3, 2], [0, 0, 2, 3, 2], [0, 0, 2, 1, 2]]
    assert labels.ravel().tolist() == [3, 0, 2, 3, 2]
    assert len(apply_steps([], Predicted(labels, sure(labels), CUBIC))) == 1


def test_a_whole_tumour_network_takes_no_step_about_et() -> None:
    labels = line(0, 2)
    check_steps([LargestComponent("WT")], 1)
    with pytest.raises(
        ValueError, match=r"steps\[1\] \(MinimumVolume\) needs ET, but the network predicts only WT"
    ):
        apply_steps(
            [LargestComponent("WT"), MinimumVolume("ET", ml=1)], Predicted(labels, labels[None] / 2, CUBIC)
        )
    with pytest.raises(ValueError, match="SequentialThresholds"):
        check_steps([SequentialThresholds()], 1)


def test_unfitted_and_mismatched_are_refused() -> None:
    labels = line(0, 2)
    with pytest.raises(ValueError, match=r"steps\[0\] \(MinimumVolume\) has not been fitted"):
        apply_steps([MinimumVolume("ET")], Predicted(labels, sure(labels), CUBIC))
    with pytest.raises(ValueError, match="do not belong together"):
        apply_steps([], Predicted(labels, sure(line(0, 2, 2)), CUBIC))


class Passes:
    """Cases that count how often they are gone through, and how many are alive at once."""

    def __init__(self, cases: list[FitCase]) -> None:
        self.cases, self.begun = cases, 0

    def __call__(self) -> Iterator[FitCase]:
        self.begun += 1
        yield from self.cases


def test_a_step_is_fitted_after_those_before_it() -> None:
    """The false ET of 5 voxels is in two pieces, of 3 and 2; the largest component leaves 3 to be emptied."""
    split = line(3, 3, 3, 0, 3, 3, 0, 0)
    cases = Passes([case(split, line(*[2] * 3, *[0] * 5)), case(et(4), et(4))])
    alone = fit_steps([MinimumVolume("ET")], cases)
    assert alone == [{"ml": 0.0}]  # a threshold above 5 would empty the true 4 as well
    both = fit_steps([LargestComponent("WT"), MinimumVolume("ET")], cases)
    assert both == [{}, {"ml": 4.0}]


def test_what_was_fitted_first_is_used_for_the_next() -> None:
    cases = Passes([case(et(1), et(0)), case(et(4, ncr=2), et(4, ncr=2))])
    found = fit_steps([MinimumVolume("ET"), MinimumVolume("TC")], cases)
    assert found == [
        {"ml": 2.0},
        {"ml": 2.0},
    ]  # the false ET became NCR, which is TC of one voxel: goes in its turn


def test_ties_up_to_rounding_go_to_the_first() -> None:
    assert first_best(["a", "b", "c"], [0.3, 0.1 + 0.2, 0.2]) == "a"  # 0.1 + 0.2 is a little more than 0.3
    assert first_best(["a", "b"], [0.3, 0.3001]) == "b"
    with pytest.raises(ValueError, match="no validation case"):
        first_best([], [])


def test_nothing_to_fit_goes_through_no_case() -> None:
    cases = Passes([case(et(1), et(0))])
    assert fit_steps([LargestComponent("WT"), MinimumVolume("ET", ml=1)], cases) == [{}, {}]
    assert cases.begun == 0


def test_a_site_without_cases() -> None:
    assert fit_steps([MinimumVolume("ET")], Passes([])) == []


def test_median_over_sites() -> None:
    sites = [[{}, {"ml": 1.0}], [], [{}, {"ml": 9.0}], [{}, {"ml": 2.0}]]
    assert median_parameters(sites) == [{}, {"ml": 2.0}]
    assert median_parameters(sites[:3]) == [{}, {"ml": 5.0}]  # two sites: their mean
    with pytest.raises(ValueError, match=r"postprocess\.steps .* partition\.val"):
        median_parameters([[], []])
    with pytest.raises(ValueError, match="different steps"):
        median_parameters([[{"ml": 1.0}], [{"et": 1.0}]])


def test_values_of_a_site_are_checked_against_the_steps() -> None:
    steps = [LargestComponent("WT"), MinimumVolume("ET"), EtSuppression()]
    good = [{}, {"ml": 1.0}, {"et_ml": 1.0, "ncr_ml": 2.0}]
    check_parameters(steps, good)
    for place, bad, said in (
        (0, {"ml": 1.0}, "nothing to fit, got ml"),
        (1, {}, "a value is missing, got none"),
        (1, {"ml": -1.0}, "ml=-1"),
        (2, {"et_ml": 1.0}, "a value is missing, got et_ml"),
        (2, {"et_ml": 1.0, "ncr_ml": 2.0, "wt": 0.5}, "wt is not fitted here"),
    ):
        with pytest.raises(ValueError, match=said):
            check_parameters(steps, [*good[:place], bad, *good[place + 1 :]])
    with pytest.raises(ValueError, match="values for 1 steps"):
        check_parameters(steps, [{}])


def test_the_median_can_be_used(tmp_path: Path) -> None:
    steps = [SequentialThresholds(), EtSuppression()]
    truth = line(0, 2, 1, 3)
    sites = [fit_steps(steps, Passes([case(truth, truth)])) for _ in range(2)]
    ready = [step.with_parameters(values) for step, values in zip(steps, median_parameters(sites))]
    assert np.array_equal(apply_steps(ready, Predicted(truth, sure(truth), CUBIC))[-1], truth)
