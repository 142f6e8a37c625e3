"""Everything that crosses has passed the policy and stands in the log, digest by digest; what cannot does not cross."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.proto.message_pb2 import PushObjectRequest, PushObjectResponse
from flwr.proto.runtime_pb2 import PushAppMessagesRequest, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, iterate_object_tree
from flwr.supernode.runtime.run_clientapp import push_message

from fedbrats.engines.sites import new_context
from fedbrats.federation import bundle, questions
from fedbrats.federation.site import door, egress
from fedbrats.federation.site.app import SiteError
from fedbrats.federation.site.chain import read, verify
from fedbrats.federation.site.door import NOT_LOGGED, guarded
from fedbrats.federation.site.policy import LEFT, Decision
from fedbrats.federation.wire import own_tensor, to_record
from tests.federation.toy import request, write_toy_run
from tests.federation.toy_door import HOSPITALS, STUDY, Served, doors, egress_of, federate, site_file
from tests.federation.toy_private import DP

LARGEST = [{"_target_": "fedbrats.postprocess.minimum_volume.MinimumVolume", "region": "ET"}]


def run_of(folder: Path, **changed: Any) -> Path:
    return write_toy_run(folder, HOSPITALS, rounds=2, arms=["federated"], **changed)[0]


def lines(folder: Path, site: str = "A") -> list[dict[str, Any]]:
    return [line for _, line in read(egress_of(folder, site)) if "question" in line]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Served]:
    folder = tmp_path_factory.mktemp("door")
    config = run_of(folder)
    return folder, federate(config, folder / "server", doors(config, folder))


# The whole of a study


def captured(reply: Message) -> dict[str, bytes]:
    """What Flower puts on the wire for `reply`: bytes by the SHA-256 of them, worked out here."""
    found = [part.deflate() for part in get_all_nested_objects(reply).values()]
    return {hashlib.sha256(content).hexdigest(): content for content in found}


def test_what_crosses_is_what_the_log_says_digest_by_digest(study: tuple[Path, Served]) -> None:
    folder, served = study
    for site in HOSPITALS:
        logged, crossed = lines(folder, site), [r for s, _, r in served.doors.sent if s == site]
        assert len(logged) == len(crossed) > 1
        for line, reply in zip(logged, crossed, strict=True):
            wire = captured(reply)
            assert line["objects"] == list(wire)
            assert line["digest"] == line["objects"][-1]
            assert line["bytes"] == sum(map(len, wire.values()))
        assert verify(egress_of(folder, site)).wrong == 0


class Wire:
    """What Flower's own program of a ClientApp sends, request by request."""

    def __init__(self) -> None:
        self.messages: list[PushAppMessagesRequest] = []
        self.objects: list[PushObjectRequest] = []

    def PushMessages(self, request: PushAppMessagesRequest) -> PushAppMessagesResponse:
        self.messages.append(request)
        tree = request.message_object_trees[0]
        wanted = [part.object_id for part in iterate_object_tree(tree)]
        return PushAppMessagesResponse(message_ids=[tree.object_id], objects_to_push=wanted, session_id="s")

    def PushObject(self, request: PushObjectRequest) -> PushObjectResponse:
        self.objects.append(request)
        return PushObjectResponse(stored=True)


def test_what_flower_itself_sends_is_what_the_log_says(study: tuple[Path, Served]) -> None:
    """Its own code makes messages and objects of the replies; every byte of them is hashed here and looked for."""
    folder, served = study
    for line, reply in zip(lines(folder), [r for s, _, r in served.doors.sent if s == "A"], strict=True):
        wire = Wire()
        push_message(wire, reply, new_context(2))  # type: ignore[arg-type]
        (message,) = wire.messages
        assert message.message_object_trees[0].object_id == line["digest"]
        assert not message.messages_list[0].content.ListFields()  # what it holds travels as objects
        sent = [hashlib.sha256(request.object_content).hexdigest() for request in wire.objects]
        assert sorted(sent) == sorted(line["objects"])
        assert sum(len(request.object_content) for request in wire.objects) == line["bytes"]


def test_a_line_tells_what_was_asked_and_every_array(study: tuple[Path, Served]) -> None:
    folder, served = study
    line = next(line for line in lines(folder) if line["question"] == questions.TRAIN)
    _, question, reply = next(x for x in served.doors.read() if x[1].metadata.message_type == questions.TRAIN)
    assert (line["study"], line["round"], line["arm"], line["decision"]) == (STUDY, 1, "federated", "left")
    assert (line["why"], line["error"], line["epsilon"]) == ([], None, None)
    sent, received = reply.content["arrays"], question.content["arrays"]
    assert isinstance(sent, ArrayRecord)
    assert isinstance(received, ArrayRecord)
    assert [array["name"] for array in line["arrays"]] == list(sent)
    for array in line["arrays"]:
        new, old = own_tensor(sent[array["name"]]).numpy(), own_tensor(received[array["name"]]).numpy()
        by_hand = np.sqrt(((new.astype(float) - old.astype(float)) ** 2).sum())
        assert array["norm"] == pytest.approx(by_hand, rel=1e-12)
        assert (array["shape"], array["dtype"], array["of"]) == (list(new.shape), "float32", "update")
        assert array["bytes"] == len(sent[array["name"]].data)
    numbers = {n["name"]: (n["value"], n["cases"]) for n in line["numbers"]}
    assert numbers.keys() == {"num-examples", "steps", "loss", "seconds"}
    assert numbers["num-examples"] == (6, 6)
    assert numbers["loss"] == (reply.content["metrics"]["loss"], 6)


def test_every_question_of_a_study_is_in_the_log(study: tuple[Path, Served]) -> None:
    asked = [line["question"] for line in lines(study[0])]
    assert asked == [
        questions.JOIN,
        *[questions.TRAIN, questions.VALIDATE] * 2,
        questions.FLOOR,
        questions.TEST,
    ]


def test_a_site_with_too_few_cases_says_so_and_is_not_asked_for_them(study: tuple[Path, Served]) -> None:
    folder, served = study
    member = served.fed.members["B"]
    assert (member.train, member.val, member.test) == (0, 0, 5)
    assert member.withheld == "policy.least_cases=5: fewer cases: train, val"
    assert [line["question"] for line in lines(folder, "B")] == [
        questions.JOIN,
        questions.FLOOR,
        questions.TEST,
    ]
    assert lines(folder, "B")[0]["decision"] == "changed"
    assert json.loads((folder / "server" / "withheld.json").read_text())["B"][0] == member.withheld


def test_a_server_that_asks_it_all_the_same_gets_nothing(study: tuple[Path, Served]) -> None:
    folder, served = study
    question = next(q for _, q, _ in served.doors.sent if q.metadata.message_type == questions.TRAIN)
    reply = served.doors.apps["B"](question, new_context(3, {"site": "B"}))
    assert reply.error.reason == "kept at the site: policy.least_cases=5: fewer cases"
    assert (lines(folder, "B")[-1]["decision"], lines(folder, "B")[-1]["arrays"]) == ("refused", [])


def test_the_server_gets_means_and_no_row_of_a_case(study: tuple[Path, Served]) -> None:
    folder, served = study
    assert served.rows == []
    with (folder / "server" / "aggregates.csv").open(newline="") as handle:
        found = list(csv.DictReader(handle))
    of_a = [r for r in found if (r["site"], r["region"], r["metric"]) == ("A", "WT", "dice")]
    (dice,) = (r for r in of_a if r["arm"] != "floor")
    test = served.doors.sent[-2][2].content["metrics"]
    assert float(dice["mean"]) == pytest.approx(test["dice-wt"])
    assert (dice["cases"], dice["failed"], dice["median"]) == ("6", "0", "")  # 3 cases on either side of it
    crossed = b"".join(content for _, _, r in served.doors.sent for content in captured(r).values())
    assert b"A#0000" not in crossed


# A reply that does not leave


def asked(app: ClientApp, kind: str = questions.VALIDATE, content: RecordDict | None = None) -> Message:
    return app(request(2, kind, content), new_context(2, {"site": "A"}))


def answering(reply: Any) -> ClientApp:
    """A ClientApp that answers every validation with `reply`, a record or an exception."""
    app = ClientApp()

    @app.evaluate("validate")
    def handle(message: Message, context: Any) -> Message:
        if isinstance(reply, BaseException):
            raise reply
        return Message(RecordDict({"metrics": reply}), reply_to=message)

    return app


GOOD = MetricRecord({"num-examples": 5, "loss": 0.5, "dice-wt": 0.5, "seconds": 1.0})


def test_where_the_log_cannot_be_written_no_reply_leaves(tmp_path: Path) -> None:
    app = guarded(answering(GOOD), site_file(tmp_path, "A"), STUDY, tmp_path)
    assert not asked(app).has_error()
    egress_of(tmp_path, "A").rename(tmp_path / "kept")
    egress_of(tmp_path, "A").mkdir()  # root may write to what is only read-only
    reply = asked(app)
    assert reply.error.reason == NOT_LOGGED
    egress_of(tmp_path, "A").rmdir()
    assert asked(app).error.reason == NOT_LOGGED  # the log is gone, which its head knows
    (tmp_path / "kept").rename(egress_of(tmp_path, "A"))
    assert not asked(app).has_error()


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes to a read-only folder")
def test_on_a_read_only_storage_no_reply_leaves(tmp_path: Path) -> None:
    (tmp_path / "storage-A").mkdir(mode=0o500)
    app = guarded(answering(GOOD), site_file(tmp_path, "A"), STUDY, tmp_path)
    assert asked(app).error.reason == NOT_LOGGED


def test_on_a_full_disk_no_reply_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = guarded(answering(GOOD), site_file(tmp_path, "A"), STUDY, tmp_path)
    asked(app)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert asked(app).error.reason == NOT_LOGGED


def test_a_line_that_cannot_be_made_keeps_the_reply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise RuntimeError("John Smith")

    monkeypatch.setattr(egress, "line", broken)
    app = guarded(answering(GOOD), site_file(tmp_path, "A"), STUDY, tmp_path)
    assert asked(app).error.reason == NOT_LOGGED


def test_a_policy_that_cannot_be_asked_keeps_the_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> None:
        raise KeyError("John Smith")

    monkeypatch.setattr(door, "decide", broken)
    app = guarded(answering(GOOD), site_file(tmp_path, "A"), STUDY, tmp_path)
    assert asked(app).error.reason == "kept at the site: the policy could not be asked (KeyError)"
    assert lines(tmp_path)[-1]["decision"] == "refused"


def test_the_line_is_on_the_disk_before_the_reply_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    real = os.fsync

    def noted(handle: int) -> None:
        order.append(stat.S_ISREG(os.fstat(handle).st_mode) and os.readlink(f"/proc/self/fd/{handle}"))
        real(handle)

    monkeypatch.setattr(os, "fsync", noted)
    asked(guarded(answering(GOOD), site_file(tmp_path, "A"), STUDY, tmp_path))
    assert str(egress_of(tmp_path, "A")) in order


def test_the_line_names_what_crosses_the_wire_and_lists_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {"w": torch.ones(2), "v": torch.ones(3)}

    def answer(message: Message, context: Any) -> Message:
        content = {"arrays": to_record(arrays), "metrics": GOOD}
        return Message(RecordDict(content), reply_to=message)

    monkeypatch.setattr(door, "decide", lambda policy, question, content, parts: Decision(content, LEFT))
    reply = asked(guarded(answer, site_file(tmp_path, "A"), STUDY, tmp_path))
    found = lines(tmp_path)[-1]
    assert list(reply.content["arrays"]) == [bundle.NAME]
    assert [array["name"] for array in found["arrays"]] == ["w", "v"]
    assert (found["digest"], found["objects"]) == (reply.object_id, list(egress.wire_objects(reply)))


# Failures


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("John Smith, /data/scan.nii"), "ValueError: the site keeps the reason in its own log"),
        (
            SiteError("ValueError: John Smith", own=False),
            "SiteError: the site keeps the reason in its own log",
        ),
        (SiteError("Refused: round 7 of 2"), "Refused: round 7 of 2"),
        (SystemExit("John Smith"), "SystemExit: the site keeps the reason in its own log"),
    ],
)
def test_of_a_failure_leaves_its_kind_or_words_of_our_own(
    tmp_path: Path, error: BaseException, told: str
) -> None:
    reply = asked(guarded(answering(error), site_file(tmp_path, "A"), STUDY, tmp_path))
    assert reply.error.reason == told
    (line,) = lines(tmp_path)
    assert (line["decision"], line["error"], line["digest"]) == ("failed", told, reply.object_id)


def test_a_question_that_nobody_answers_is_a_failure_too(tmp_path: Path) -> None:
    app = guarded(answering(GOOD), site_file(tmp_path, "A"), STUDY, tmp_path)
    assert asked(app, "query.everything").error.reason.startswith("ValueError: the site keeps")
    assert len(lines(tmp_path)) == 1


# With privacy, and with post-processing that is fitted


def test_epsilon_so_far_is_in_every_line_after_it_was_spent(tmp_path: Path) -> None:
    group = {"_target_": "tests.federation.toy.group_network"}
    config = run_of(tmp_path, model=group, privacy={**DP, "sigma": 4.0, "max_epsilon": 5.0})
    served = federate(config, tmp_path / "server", doors(config, tmp_path, {"A": {"epsilon": 5.0}}))
    found = [(line["question"], line["epsilon"]) for line in lines(tmp_path)]
    by_hand = [
        r.content["metrics"]["epsilon"]
        for s, q, r in served.doors.sent
        if s == "A" and "epsilon" in r.content.get("metrics", {})
    ]
    assert found[0] == (questions.JOIN, None)
    assert [epsilon for question, epsilon in found if question == questions.TRAIN] == by_hand
    assert found[2] == (questions.VALIDATE, by_hand[0])
    assert found[-1][0] == questions.SPENT
    assert 0 < found[-1][1] <= by_hand[-1]  # by the accountant of the end
    assert (tmp_path / "server" / "privacy.json").is_file()


def test_fitted_thresholds_are_in_the_log(tmp_path: Path) -> None:
    from fedbrats.config.schema import PostprocessConfig

    config = run_of(tmp_path, postprocess=PostprocessConfig(steps=LARGEST))
    served = federate(config, tmp_path / "server", doors(config, tmp_path))
    line = next(line for line in lines(tmp_path) if line["question"] == questions.FIT)
    fitted = next(r for _, q, r in served.doors.sent if q.metadata.message_type == questions.FIT)
    assert line["texts"] == {"fitted.values": fitted.content["fitted"]["values"]}
    steps = list(next(t for t in lines(tmp_path)[-1]["tables"] if t["name"] == "steps")["rows"])
    assert {row["step"] for row in steps} >= {"raw"}
    with (tmp_path / "server" / "aggregates.csv").open(newline="") as handle:
        told = [row for row in csv.DictReader(handle) if row["step"] and row["site"] == "A"]
    assert len(told) == len(steps)
