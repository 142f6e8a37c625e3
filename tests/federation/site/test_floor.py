"""The floor at a site: scored as a model is, only of WT, without a model, and only where the site's own file asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from fedbrats.config.scenario import ScenarioConfig
from fedbrats.config.schema import ReportConfig
from fedbrats.config.site_file import Policy
from fedbrats.data.cache import CachedCase
from fedbrats.data.entries import write_entry
from fedbrats.federation import questions
from fedbrats.federation.server.replies import BadReply, check_evaluate_reply
from fedbrats.federation.site.app import ANSWERS
from fedbrats.federation.site.permits import Refused, check_question
from fedbrats.federation.site.policy import decide
from fedbrats.metrics.overlap import dice
from fedbrats.runs.site_cases import write_site_cases
from tests.federation.toy import Site, request, write_toy_run
from tests.federation.toy_sites import Process, question
from tests.scored import facts

TESTS = ["BraTS-GLI-00010-000", "BraTS-GLI-00011-000"]
HOSPITAL = {"A": {"train": ["BraTS-GLI-00005-000"], "test": TESTS}}
TUMOUR = 30  # voxels, all bright in FLAIR and in nothing else


def write_heads(folder: Path, cached: dict[str, CachedCase], background: float = 0.5) -> None:
    """In the place of the toy's noise: a brain of 10 x 10 x 10 with a ramp of greys and 30 voxels of bright oedema."""
    for case in (cached[name] for name in TESTS):
        meta = dict(case.meta)
        image, label = np.zeros((4, 12, 12, 12), np.float16), np.zeros((12, 12, 12), np.uint8)
        image[:, 1:-1, 1:-1, 1:-1] = 1 + np.arange(1000).reshape(10, 10, 10) % 9
        label[5:7, 3:6, 3:8] = 2
        image[3][label > 0] = 12
        meta |= {"crop": [[0, 12]] * 3, "full_shape": [12] * 3, "background": background}
        meta["volumes_ml"] = {"WT": TUMOUR / 1000, "TC": 0.0, "ET": 0.0}
        meta["source"] = {**meta["source"], "shape": [12] * 3}
        arrays = {"image.npy": image, "label.npy": label, "tumour.npy": np.argwhere(label).astype(np.int16)}
        new = case.folder.parent / f"head-{case.folder.name}"
        write_entry(new, arrays, meta, folder.parent / "cache")
        cached[case.name] = CachedCase(case.name, new)
    parts = {split: tuple(HOSPITAL["A"].get(split, ())) for split in ("train", "val", "test")}
    write_site_cases(folder, Site("A", False, **parts), cached, {name: name for name in cached})


def asked(root: Path, background: float = 0.5, **changed: Any) -> RecordDict:
    """What site A answers."""
    changed = {"report": ReportConfig(floor=0.96), **changed}
    folder, cached = write_toy_run(root, HOSPITAL, arms=["federated"], **changed)
    write_heads(folder, cached, background)
    site, content = Process(folder).site("A"), question(questions.FLOOR, arm="floor")
    check_question(site, questions.FLOOR, content)
    return RecordDict(ANSWERS[questions.FLOOR](site, content))


def checked(content: RecordDict) -> Any:
    from flwr.app import Message

    reply = Message(content, reply_to=request(kind=questions.FLOOR))
    return check_evaluate_reply(reply, ("WT",), 2, facts("brats2023"), floor=True)


def test_every_test_case_is_scored_of_wt_alone_and_the_server_takes_it(tmp_path: Path) -> None:
    content = asked(tmp_path)
    reply = checked(content)
    assert [(row["case"], row["region"], row["status"]) for row in reply.rows] == [
        ("A#0000", "WT", "ok"),
        ("A#0001", "WT", "ok"),
    ]
    # A cut of .96 of 1000 voxels keeps at most 40; the 30 that are bright are found, the greys below are not.
    assert [row["dice"] for row in reply.rows] == [1.0, 1.0]
    assert reply.rows[0]["volume_pred_ml"] == pytest.approx(TUMOUR / 1000)
    assert reply.scores == {"WT": 1.0}
    assert set(content) == {"metrics", "cases"}  # nothing else is sent, no array above all
    assert content["metrics"].keys() == {"dice-wt", "num-examples", "seconds"}
    assert reply.columns()["loss"] == ""  # a threshold has none; 0 would be one
    assert "uncertainty" not in reply.rows[0]
    assert not any(name in json.dumps(dict(content["cases"])) for name in TESTS)


def test_a_lower_cut_calls_more_of_the_brain_tumour(tmp_path: Path) -> None:
    row = checked(asked(tmp_path, report=ReportConfig(floor=0.85))).rows[0]
    truth, guess = np.zeros(1000, bool), np.zeros(1000, bool)
    truth[:TUMOUR], guess[: round(1000 * row["volume_pred_ml"])] = True, True
    assert np.count_nonzero(guess) > TUMOUR
    assert row["dice"] == pytest.approx(dice(guess, truth))


def test_an_image_with_its_skull_fails_by_name_and_counts_as_the_worst(tmp_path: Path) -> None:
    rows = checked(asked(tmp_path, background=0.0)).rows
    assert {row["status"] for row in rows} == {
        "failed: the image is not skull-stripped, so a threshold would find scalp and fat"
    }
    assert {row["dice"] for row in rows} == {0.0}
    assert {row["volume_true_ml"] for row in rows} == {TUMOUR / 1000}


def test_a_site_without_flair_has_nothing_to_threshold(tmp_path: Path) -> None:
    rows = checked(asked(tmp_path, scenario=ScenarioConfig(missing_modalities={"A": ["flair"]}))).rows
    assert {row["status"] for row in rows} == {
        "failed: there is no FLAIR to threshold: every voxel is 0",
    }


def test_a_site_whose_file_has_none_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"evaluate\.floor for arm 'floor': site A answers it for no arm"):
        asked(tmp_path, report=ReportConfig(floor=None))


def test_a_model_does_not_come_with_the_question(tmp_path: Path) -> None:
    folder, _ = write_toy_run(tmp_path, HOSPITAL)
    site = Process(folder).site("A")
    for bent in ({"arm": "federated"}, {"arm": "floor", "steps": "[]"}, {"arm": "floor", "round": 0}):
        with pytest.raises(Refused):
            check_question(site, questions.FLOOR, question(questions.FLOOR, **bent))


def test_it_obeys_the_policy_as_the_test_of_a_model_does(tmp_path: Path) -> None:
    content = asked(tmp_path)
    few = decide(Policy(least_cases=5), questions.FLOOR, content, lambda: None)  # type: ignore[arg-type, return-value]
    assert (few.verdict, few.why) == ("refused", ("policy.least_cases=5: fewer cases",))
    closed = decide(Policy(per_case=False, least_cases=1), questions.FLOOR, content, lambda: None)  # type: ignore[arg-type, return-value]
    assert closed.verdict == "changed"
    assert closed.content is not None
    reply = checked(closed.content)
    assert reply.rows == []
    assert {row["region"] for row in reply.aggregates} == {"WT"}
    assert next(row for row in reply.aggregates if row["metric"] == "dice")["mean"] == 1.0


@pytest.mark.parametrize(
    "bent",
    [
        {"rows": [{"region": "TC"}]},
        {"rows": [{"region": "WT", "dice": 2.0}]},
        {"metrics": {"num-examples": 3}},
        {"metrics": {"dice-wt": 1.5}},
    ],
)
def test_the_server_takes_no_other_reply(tmp_path: Path, bent: dict[str, Any]) -> None:
    content = asked(tmp_path)
    rows = json.loads(str(content["cases"]["rows"]))
    for row, other in zip(rows, bent.get("rows", []), strict=False):
        row |= other
    content["cases"] = ConfigRecord({**content["cases"], "rows": json.dumps(rows)})
    content["metrics"] = MetricRecord({**content["metrics"], **bent.get("metrics", {})})
    with pytest.raises(BadReply):
        checked(content)
