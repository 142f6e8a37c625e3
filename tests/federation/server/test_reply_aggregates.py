"""A site that keeps its cases' results at home: what it tells in their place is checked, and a table of all sites."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from fedbrats.config.site_file import Policy
from fedbrats.data.partition import Site
from fedbrats.data.regions import REGIONS
from fedbrats.federation import questions
from fedbrats.federation.server import results
from fedbrats.federation.server.replies import BadReply, EvaluateReply, check_evaluate_reply
from fedbrats.federation.site.policy import decide
from fedbrats.metrics.aggregates import aggregates
from tests.federation.toy import case_row, evaluate_reply, request
from tests.scored import SCORES, facts

CASES = 12
Tables = dict[str, list[Any]]


def rows() -> list[dict[str, Any]]:
    return [case_row(f"A#{i:04d}", region, dice=i / CASES) for i in range(CASES) for region in REGIONS]


def told(change: Callable[[Tables], Any] | None = None) -> EvaluateReply:
    """What the server makes of what the policy of a site makes of a good reply, its tables changed on the way."""
    steps = [
        {
            "case": f"A#{i:04d}",
            "region": "WT",
            "order": 0,
            "step": "raw",
            "dice": 0.5,
            "hd95": 1.0,
            "changed_voxels": 0,
        }
        for i in range(CASES)
    ]
    reply = evaluate_reply(rows(), steps=json.dumps(steps), **{"num-examples": CASES})
    left = decide(Policy(), questions.TEST, reply.content, lambda: None).content  # type: ignore[arg-type,return-value]
    assert left is not None
    tables: Tables = {name: json.loads(str(text)) for name, text in left["aggregates"].items()}
    if change:
        change(tables)
    left["aggregates"] = ConfigRecord({name: json.dumps(table) for name, table in tables.items()})
    message = evaluate_reply(to=request())
    return check_evaluate_reply(type(message)(left, reply_to=request()), REGIONS, CASES, facts("brats2023"))


def test_what_a_policy_lets_out_is_what_the_server_takes() -> None:
    found = told()
    assert (found.rows, found.steps, found.cases) == ([], [], CASES)
    dice = next(
        r for r in found.aggregates if (r["region"], r["metric"], r.get("step")) == ("WT", "dice", None)
    )
    assert dice["mean"] == pytest.approx(sum(range(CASES)) / CASES**2)
    assert {row.get("step") for row in found.aggregates} == {None, "raw"}
    assert found.withheld == ["policy.per_case=false: aggregates in place of results of single cases"]


def set_(**values: Any) -> Callable[[Tables], Any]:
    return lambda tables: tables["rows"][0].update(values)


@pytest.mark.parametrize(
    "change",
    [
        set_(cases=CASES + 1),
        set_(cases=None),
        set_(mean=1.5),
        set_(mean=None),
        set_(mean="0.5"),
        set_(mean=float("nan")),
        set_(mean=-0.1),
        set_(median=2.0),
        set_(sd=-1.0),
        set_(sd=1e9),
        set_(failed=CASES + 1),
        set_(failed=-1),
        set_(failed=0.5),
        set_(region="LV"),
        set_(metric="accuracy"),
        set_(metric=["dice"]),
        set_(site="B"),
        set_(step="raw", order=0),
        lambda tables: tables["rows"].append(tables["rows"][0]),
        lambda tables: tables["rows"].pop(0),  # the main metric of a region
        lambda tables: tables["rows"].clear(),
        lambda tables: tables.update(rows={}),
        lambda tables: tables.update(rows=[1]),
        lambda tables: tables.update(rows=["x" * 100] * 10_000),
        lambda tables: tables.update(withheld=["x"] * 1000),
        lambda tables: tables.pop("withheld"),
        lambda tables: tables.pop("steps"),
        lambda tables: tables["steps"][0].update(order="0"),
        lambda tables: tables["steps"][0].update(step=7),
        lambda tables: tables["steps"][0].update(arm="local:B"),
        lambda tables: tables["steps"][0].update(metric="sensitivity"),
        lambda tables: tables["reliability"].append({"region": "WT"}),
    ],
)
def test_aggregates_that_cannot_be_are_refused(change: Callable[[Tables], Any]) -> None:
    with pytest.raises(BadReply, match="cannot be used"):
        told(change)


def test_a_metric_that_a_site_keeps_may_be_missing() -> None:
    found = told(lambda t: t.update(rows=[row for row in t["rows"] if row["metric"] == "dice"]))
    assert {row["metric"] for row in found.aggregates if "step" not in row} == {"dice"}


def test_aggregates_in_place_of_a_validation_are_refused() -> None:
    content = RecordDict(
        {"metrics": MetricRecord({"num-examples": 2}), "aggregates": ConfigRecord({"rows": "[]"})}
    )
    message = evaluate_reply(to=request())
    with pytest.raises(BadReply, match="records"):
        check_evaluate_reply(type(message)(content, reply_to=request()), REGIONS, 2)


def test_once_a_site_keeps_its_cases_all_sites_are_in_the_table_of_aggregates() -> None:
    names = tuple(f"B#{i:04d}" for i in range(2))
    sites = [
        Site("A", False, (), (), ("x",) * CASES),
        Site("B", False, (), (), names),
        Site("C", False, (), (), ("c",)),
    ]
    own = EvaluateReply(2, 0.5, {}, 0.1, rows=[case_row(n, r, dice=0.25) for n in names for r in REGIONS])
    replies = {"A": told(), "B": own}
    scored = results.case_rows("federated", sites, replies, facts("brats2023"))
    assert {row["site"] for row in scored} == {"B", "C"}  # C did not answer and weighs with the worst scores
    found = results.aggregate_rows("federated", replies, scored, SCORES)
    dice = {r["site"]: r for r in found if (r["metric"], r["region"], r["step"]) == ("dice", "WT", "")}
    assert {site: row["cases"] for site, row in dice.items()} == {"A": CASES, "B": 2, "C": 1}
    assert (dice["B"]["mean"], dice["B"]["failed"]) == (0.25, 0)
    assert (dice["C"]["mean"], dice["C"]["failed"]) == (0.0, 1)
    by_hand = aggregates([row for row in rows() if row["region"] == "WT"], ["dice"], 5)[0]
    assert dice["A"]["mean"] == by_hand["mean"]
    assert results.aggregate_rows("federated", {"B": own}, scored, SCORES) == []
