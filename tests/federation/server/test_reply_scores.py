"""The scores of a classification from a site that keeps single cases are checked like everything that a site says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fedbrats.config.site_file import Policy
from fedbrats.data.partition import Site
from fedbrats.federation import questions
from fedbrats.federation.server import results
from fedbrats.federation.server.replies import BadReply, EvaluateReply, check_evaluate_reply
from fedbrats.federation.site.policy import decide
from fedbrats.tasks.classification import CLASSIFICATION, LABEL
from tests.federation.toy import request

CASES = 12
Tables = dict[str, list[Any]]


def told(change: Callable[[Tables], Any] | None = None, positives: int = 6, **policy: Any) -> EvaluateReply:
    """What the server makes of what the policy of a site makes of a good reply, its tables changed on the way."""
    rows = [
        {"case": f"A#{i:04d}", "region": LABEL, "score": i / CASES, "label": int(i >= CASES - positives)}
        | {"status": "ok"}
        for i in range(CASES)
    ]
    metrics = MetricRecord({"num-examples": CASES, "seconds": 1.0, "loss": 0.5, "brier-label": 0.1})
    cases = ConfigRecord({"rows": json.dumps(rows), "steps": "[]", "reliability": "[]"})
    reply = RecordDict({"metrics": metrics, "cases": cases})
    left = decide(Policy(**policy), questions.TEST, reply, lambda: None).content  # type: ignore[arg-type,return-value]
    assert left is not None
    if "aggregates" in left:
        tables: Tables = {name: json.loads(str(text)) for name, text in left["aggregates"].items()}
        if change:
            change(tables)
        left["aggregates"] = ConfigRecord({name: json.dumps(table) for name, table in tables.items()})
    return check_evaluate_reply(Message(left, reply_to=request()), (LABEL,), CASES, {}, CLASSIFICATION)


def test_what_a_policy_lets_out_is_what_the_server_takes() -> None:
    found = told()
    assert (found.rows, found.steps, found.scores) == ([], [], {LABEL: 0.1})
    assert {row["metric"]: row["cases"] for row in found.aggregates if row["metric"] != "failed"} == {
        **dict.fromkeys(("auc", "accuracy", "brier", "calibration_error", "p_chance", "positives"), CASES),
        **dict.fromkeys(("sensitivity", "specificity"), 6),
    }
    assert found.withheld == ["policy.per_case=false: aggregates in place of results of single cases"]
    assert "auc" not in {row["metric"] for row in told(positives=2).aggregates}
    assert len(told(per_case=True).rows) == CASES


def set_(of: str, **values: Any) -> Callable[[Tables], Any]:
    return lambda tables: next(r for r in tables["rows"] if r["metric"] == of).update(values)


@pytest.mark.parametrize(
    "change",
    [
        set_("auc", value=1.5),
        set_("auc", value=float("nan")),
        set_("auc", value=None),
        set_("auc", value="1"),
        set_("auc", value=True),
        set_("auc", cases=CASES - 1),
        set_("auc", metric="dice"),
        set_("auc", metric="brier"),  # twice
        set_("auc", metric=["auc"]),
        set_("auc", site="B"),
        set_("sensitivity", cases=5),
        set_("specificity", cases=CASES),
        set_("positives", value=0),
        set_("positives", value=CASES),
        set_("positives", value=5.5),
        set_("failed", value=CASES + 1),
        set_("failed", value=-1),
        lambda tables: tables["rows"].remove(next(r for r in tables["rows"] if r["metric"] == "brier")),
        lambda tables: tables["rows"].remove(next(r for r in tables["rows"] if r["metric"] == "positives")),
        lambda tables: tables["rows"].clear(),
        lambda tables: tables["rows"].append(1),
        lambda tables: tables.update(rows={}),
        lambda tables: tables.update(withheld=["x"] * 1000),
        lambda tables: tables["steps"].append({}),
        lambda tables: tables["reliability"].append({"region": LABEL}),
        lambda tables: tables.pop("withheld"),
        lambda tables: tables.pop("steps"),
    ],
)
def test_scores_that_cannot_be_are_refused(change: Callable[[Tables], Any]) -> None:
    with pytest.raises(BadReply, match="cannot be used"):
        told(change)


def test_a_site_that_keeps_its_cases_has_no_row_of_a_case_and_one_that_does_not_answer_has() -> None:
    sites = [Site(name, False, (), (), ("x",) * CASES) for name in "AB"]
    replies = {"A": told()}
    assert {row["site"] for row in results.classified_rows("federated", sites, replies)} == {"B"}
    rows = results.told_rows("federated", replies)
    assert {(row["arm"], row["site"]) for row in rows} == {("federated", "A")}
    assert len(rows) == len(replies["A"].aggregates) == 9
