"""What leaves beside the arrays of a training, or as only a part of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import MetricRecord, RecordDict

from fedbrats.config.site_file import Policy
from fedbrats.federation import questions
from fedbrats.federation.parts import Parts, parts_of
from fedbrats.federation.site.policy import decide
from fedbrats.federation.transfer import PLACES
from fedbrats.federation.wire import PROGRESS, VALIDATION, to_record
from tests.federation.site.test_policy import metrics, network_parts, trained
from tests.federation.toy import toy_config


def beside(cases: int, **more: Any) -> RecordDict:
    """A training reply of 6 cases with the validation of `cases` beside it, as `runtime.one_exchange` has it."""
    return RecordDict({**trained(), VALIDATION: metrics(cases, dice=0.5, **more)})


def test_a_validation_beside_training_is_decided_like_one_that_is_alone() -> None:
    content = beside(5)
    kept = decide(Policy(), questions.TRAIN, content, network_parts)
    assert (kept.verdict, kept.why, dict(kept.content or {})) == ("left", (), dict(content))
    few = decide(Policy(), questions.TRAIN, beside(4), network_parts)
    alone = decide(Policy(), questions.VALIDATE, RecordDict({"metrics": metrics(4)}), network_parts)
    assert few.verdict == "changed"
    assert few.why == tuple(f"validation: {reason}" for reason in alone.why)
    assert set(few.content or {}) == set(trained())
    assert decide(Policy(), questions.FIT, beside(5), network_parts).verdict == "refused"


def with_progress(cases: int) -> RecordDict:
    """A training reply of 6 cases with the loss of its `cases` validation cases before and after it."""
    told = {"num-examples": cases, "loss-before": 0.75, "loss-after": 0.5}
    return RecordDict({**trained(), PROGRESS: MetricRecord(told)})


def test_the_loss_of_few_validation_cases_stays_and_the_training_leaves() -> None:
    whole = decide(Policy(), questions.TRAIN, with_progress(5), network_parts)
    assert (whole.verdict, set(whole.content or {})) == ("left", {*trained(), PROGRESS})
    few = decide(Policy(), questions.TRAIN, with_progress(4), network_parts)
    assert (few.verdict, few.why) == ("changed", ("progress: policy.least_cases=5: fewer cases",))
    assert set(few.content or {}) == set(trained())
    silent = decide(Policy(metrics=["dice"]), questions.VALIDATE, with_progress(5), network_parts)
    assert silent.content is None  # it belongs to a training


def parts_with(kind: str) -> Parts:
    way = {"transfer": kind, "transfer_share": 0.5} if kind != "full" else {}
    strategy = {"_target_": "fedbrats.algorithms.fedavg.FedAvg", **way}
    return parts_of(toy_config(Path("/nowhere"), strategy=strategy))


@pytest.mark.parametrize("kind", ["top_k", "partial"])
def test_places_leave_with_the_array_that_they_belong_to(kind: str) -> None:
    """Not under a pattern of their own, and not where the study sends whole arrays."""
    sent = {"0.weight": torch.ones(2), f"0.weight{PLACES}": torch.tensor([3, 5], dtype=torch.int32)}
    content = RecordDict({"arrays": to_record(sent), "metrics": metrics(steps=2, loss=0.5)})
    sparse = parts_with(kind)
    for patterns, verdict in ((["0.weight"], "left"), (["0.*"], "left"), (["1.*", f"*{PLACES}"], "refused")):
        found = decide(Policy(arrays=patterns), questions.TRAIN, content, lambda: sparse)
        assert found.verdict == verdict, patterns
    whole = parts_with("full")
    found = decide(Policy(), questions.TRAIN, content, lambda: whole)
    assert (found.verdict, f"the array 0.weight{PLACES} may not leave" in found.why[0]) == ("refused", True)
