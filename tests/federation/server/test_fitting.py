"""Thresholds fitted at the sites, their median at the server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from fedbrats.federation.server.fitting import FitReply, check_fit_reply, describe_steps, fit_steps_of
from fedbrats.federation.server.replies import BadReply
from fedbrats.federation.server.state import Member
from fedbrats.federation.wire import to_record
from fedbrats.postprocess.largest_component import LargestComponent
from fedbrats.postprocess.minimum_volume import MinimumVolume
from fedbrats.runs import rounds
from tests.federation.toy import ARRAYS, FakeGrid, error_message, federation, request
from tests.federation.toy_rounds import rows_of

STEPS = [LargestComponent(), MinimumVolume(region="ET")]
NONE: dict[str, float] = {}


def fit_reply(values: Any, to: Message | None = None, **changed: Any) -> Message:
    text = values if isinstance(values, str) else json.dumps(values)
    metrics = MetricRecord({"num-examples": 2, "seconds": 0.5, **changed})
    content = RecordDict({"metrics": metrics, "fitted": ConfigRecord({"values": text})})
    return Message(content, reply_to=to or request())


def site(values: Any) -> Callable[[Message], Message]:
    return lambda message: fit_reply(values, to=message)


def ask(folder: Path, *values: Any) -> tuple[list[Any], list[dict[str, float]], dict[str, Any]]:
    everyone = {name: Member(i, 3, 2, 1) for i, name in enumerate("ABC"[: len(values)], start=2)}
    fed = federation(folder, everyone)
    handlers = [v if callable(v) else site(v) for v in values]
    return fit_steps_of(
        FakeGrid(handlers), fed, fed.cohorts[0], dict.fromkeys(everyone, to_record(ARRAYS)), 4, STEPS
    )


def test_the_median_of_the_sites_is_what_all_use(tmp_path: Path) -> None:
    rows, parameters, by_site = ask(tmp_path, [NONE, {"ml": 0.1}], [NONE, {"ml": 0.9}], [NONE, {"ml": 0.2}])
    assert parameters == [{}, {"ml": 0.2}]
    assert by_site["B"][1] == {"ml": 0.9}
    assert [(r["site"], r["phase"], r["round"], r["status"]) for r in rows] == [
        (s, "fit", 4, "ok") for s in "ABC"
    ]


def test_a_site_that_fails_is_left_out_and_reported(tmp_path: Path) -> None:
    gone = lambda message: error_message("gone", message)  # noqa: E731
    rows, parameters, by_site = ask(tmp_path, [NONE, {"ml": 0.1}], gone, [NONE, {"ml": 0.3}])
    assert parameters[1]["ml"] == pytest.approx(0.2)
    assert by_site.keys() == {"A", "C"}
    assert "gone" in rows[1]["status"]


def test_without_any_usable_site_the_run_says_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"postprocess\.steps"):
        ask(tmp_path, lambda message: error_message("gone", message))


def test_nothing_is_asked_when_every_step_has_its_values(tmp_path: Path) -> None:
    fed = federation(tmp_path, {"A": Member(2, 3, 2, 1)})
    steps = [LargestComponent(), MinimumVolume(region="ET", ml=0.1)]
    grid = FakeGrid([site("never read")])
    assert fit_steps_of(grid, fed, fed.cohorts[0], {"A": to_record(ARRAYS)}, 1, steps) == ([], [{}, {}], {})
    assert grid.count == 0


@pytest.mark.parametrize(
    "values",
    [
        "no json",
        "{}",
        [],
        [NONE],
        [NONE, NONE],
        [{"ml": 1.0}, {"ml": 1.0}],
        [NONE, {"ml": -1.0}],
        [NONE, {"voxels": 1.0, "ml": 1.0}],
        [NONE, {"ml": float("nan")}],
        [NONE, {"ml": "much"}],
        [NONE, 3],
        "[" * 50_000,
        json.dumps([{}, {"ml": 1.0}]) + " " * 200_000,
    ],
    ids=lambda v: str(v)[:30],
)
def test_what_is_no_set_of_parameters_is_refused(values: Any) -> None:
    with pytest.raises(BadReply, match="fitted values cannot be used"):
        check_fit_reply(fit_reply(values), 2, STEPS)


def test_the_weight_is_checked() -> None:
    assert check_fit_reply(fit_reply([NONE, {"ml": 1}]), 2, STEPS) == FitReply([{}, {"ml": 1.0}], 0.5)
    with pytest.raises(BadReply, match="registered"):
        check_fit_reply(fit_reply([NONE, {"ml": 1}], **{"num-examples": 3}), 2, STEPS)


def test_the_description_holds_the_values_and_where_they_come_from() -> None:
    first, second = describe_steps(STEPS, [{}, {"ml": 0.2}], {"B": [{}, {"ml": 0.2}]})
    assert (first["step"], first["sites"]) == ("LargestComponent", {})
    assert second["parameters"] == {"ml": 0.2}
    assert second["sites"] == {"B": {"ml": 0.2}}
    assert "0.2" in second["name"]


def test_rows_of_fitting_do_not_survive_a_resume(tmp_path: Path) -> None:
    """They belong to the test at the end, which a resumed run does again."""
    rounds.start(tmp_path, 0)
    rows = [rounds.row(1, "federated", "A", phase) for phase in ("train", "fit", "test")]
    rounds.append(tmp_path, rows)
    rounds.start(tmp_path, 1)
    assert [r["phase"] for r in rows_of(tmp_path)] == ["train"]
