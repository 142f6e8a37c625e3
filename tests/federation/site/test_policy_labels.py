"""The policy of a site and a classification: what a study needs, and what leaves of the test in place of cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from fedbrats.config.schema import Config
from fedbrats.config.site_file import Policy
from fedbrats.config.task import TaskConfig
from fedbrats.federation import questions
from fedbrats.federation.parts import Parts
from fedbrats.federation.site.policy import Decision, PolicyError, decide, refuse_study
from tests.federation.toy import toy_config

EVERY = ("auc", "accuracy", "sensitivity", "specificity", "brier", "calibration_error")
MODEL = {"_target_": "tests.federation.site.test_policy_labels.whole_network"}


def whole_network() -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), torch.nn.Linear(4, 1))


def study(root: Path) -> Config:
    entropy = {"_target_": "fedbrats.losses.cross_entropy.CrossEntropy"}
    return toy_config(root, model=MODEL, loss=entropy, task=TaskConfig("classification"))


def never() -> Parts:
    raise AssertionError("no array leaves")


def answer(labels: list[int], failed: int = 0) -> RecordDict:
    rows = [
        {"case": f"A#{i:04d}", "region": "label", "score": 0.3 + 0.4 * label, "label": label}
        | {"status": "failed: Smith" if i < failed else "ok"}
        for i, label in enumerate(labels)
    ]
    metrics = MetricRecord({"num-examples": len(rows), "seconds": 1.0, "loss": 0.5, "brier-label": 0.09})
    cases = ConfigRecord({"rows": json.dumps(rows), "steps": "[]", "reliability": "[]"})
    return RecordDict({"metrics": metrics, "cases": cases})


def decided(labels: list[int], failed: int = 0, **policy: Any) -> tuple[Decision, dict[str, Any], list[str]]:
    """What the policy says, the numbers that leave by name, and what stays in words."""
    found = decide(Policy(**policy), questions.TEST, answer(labels, failed), never)
    assert found.content is not None
    tables = {name: json.loads(str(text)) for name, text in found.content["aggregates"].items()}
    assert "A#" not in str(found.content)
    assert (tables["steps"], tables["reliability"]) == ([], [])
    return found, {r["metric"]: (r["value"], r["cases"]) for r in tables["rows"]}, tables["withheld"]


def test_a_study_needs_the_score_of_its_own_task(tmp_path: Path) -> None:
    config = study(tmp_path)
    refuse_study(config, Policy(metrics=["loss", "brier"]), "A")
    with pytest.raises(PolicyError, match=r"metrics=\[loss, dice\]: .* task=classification needs brier"):
        refuse_study(config, Policy(metrics=["loss", "dice"]), "A")


def test_validation_tells_its_brier_score_where_the_policy_lets_it() -> None:
    content = RecordDict({"metrics": answer([0, 1] * 3)["metrics"]})
    assert decide(Policy(metrics=["loss", "brier"]), questions.VALIDATE, content, never).verdict == "left"
    assert decide(Policy(metrics=["loss"]), questions.VALIDATE, content, never).verdict == "refused"
    few = RecordDict({"metrics": answer([0, 1] * 2)["metrics"]})
    assert decide(Policy(), questions.VALIDATE, few, never).why == ("policy.least_cases=5: fewer cases",)


def test_scores_over_all_cases_leave_in_place_of_cases() -> None:
    found, told, withheld = decided([0, 1] * 5)
    assert found.verdict == "changed"
    assert told["auc"] == (1.0, 10)
    assert told["sensitivity"] == told["specificity"] == (1.0, 5)
    assert told["brier"] == (pytest.approx(0.09), 10)
    assert told["positives"] == (5, 10)
    assert withheld == ["policy.per_case=false: aggregates in place of results of single cases"]


@pytest.mark.parametrize("labels", [[1] * 4 + [0] * 8, [1] * 8 + [0] * 4, [0] * 9])
def test_with_few_cases_of_one_label_nothing_by_label_leaves(labels: list[int]) -> None:
    _, told, withheld = decided(labels)
    assert told.keys() == {"accuracy", "brier", "calibration_error", "failed"}
    assert withheld[1:] == [
        "policy.least_cases=5: fewer cases of one label: without auc, sensitivity, specificity"
    ]


def test_metrics_that_may_not_leave_stay() -> None:
    for per_case in (False, True):  # rows would tell all of them
        _, told, withheld = decided([0, 1] * 5, metrics=["loss", "brier", "auc"], per_case=per_case)
        assert told.keys() == {"brier", "auc", "p_chance", "positives", "failed"}
        assert withheld[1] == (
            "policy.metrics=[loss, brier, auc]: without accuracy, sensitivity, specificity, calibration_error"
        )
    _, told, withheld = decided([0] * 6, metrics=["loss", "brier"])
    assert told.keys() == {"brier", "failed"}
    assert len(withheld) == 2  # what may not leave at all is named once


def test_rows_leave_where_the_policy_lets_them_without_the_words_of_a_failure() -> None:
    content = answer([0, 1, 1])
    assert decide(Policy(per_case=True, least_cases=3), questions.TEST, content, never).content == content
    found = decide(Policy(per_case=True, least_cases=3), questions.TEST, answer([0, 1, 1], failed=1), never)
    assert found.content is not None
    assert "Smith" not in str(found.content["cases"]["rows"])
