"""A hospital's ClientApp: nothing leaves but by the door, and a study that the policy does not allow is not joined."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedbrats import __version__
from fedbrats.commands.study.starting import study_config
from fedbrats.config.schema import load_config, save_config
from fedbrats.config.site_file import load_site_file
from fedbrats.data.fingerprint import Fingerprint
from fedbrats.data.phantom import write_phantom
from fedbrats.data.survey import BOX
from fedbrats.engines.sites import set_identity
from fedbrats.engines.superlink.client_app import NO_SITE, SiteApp
from fedbrats.engines.superlink.thin_app import STUDY
from fedbrats.federation import questions
from fedbrats.federation.site.chain import egress_file, read
from fedbrats.federation.site.door import NOT_LOGGED
from fedbrats.models.planned import digest_of, make_plan
from tests.federation.toy import request
from tests.tiny import MODEL

Ask = Callable[..., Message]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "scans"
    write_phantom(root, sites={"TCIA01": 5}, shape=[24, 24, 24], workers=0)
    return root


def site_of(folder: Path, data: Path, policy: str) -> tuple[Path, Ask]:
    """A site.yaml, and its ClientApp as Flower calls it: ask(question, study text or None)."""
    file = folder / "site.yaml"
    file.write_text(
        f"name: TCIA01\nstorage: storage\ndevice: cpu\nlimits: {{threads: 1}}\ndata: {{root: {data}}}\n"
        f"policy: {{approval: false, {policy}}}\n"
    )
    app = SiteApp(file)
    set_identity(1)

    def ask(
        question: str,
        text: str | None = None,
        study: Any = "glioma",
        fingerprint: str | None = None,
        arm: str = "",
    ) -> Message:
        content = RecordDict()
        if text is not None:
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            content["study"] = ConfigRecord({"text": text, "sha256": sha256})
        if arm:
            content["config"] = ConfigRecord({"arm": arm, "round": 1})
        if fingerprint is not None:
            content["plan"] = ConfigRecord({"fingerprint": fingerprint})
        context = Context(1, 2, {}, RecordDict(), {STUDY: study})
        return app(request(2, question, content), context)

    return file, ask


def text_of(folder: Path, *overrides: str) -> str:
    asked = ["train=small", *MODEL, "rounds=1", *overrides]
    save_config(study_config(asked), folder / "asked.yaml")
    return (folder / "asked.yaml").read_text()


def lines(file: Path) -> list[dict[str, Any]]:
    return [line for _, line in read(egress_file(load_site_file(file))) if "question" in line]


def test_every_answer_is_in_the_log_under_its_digest(tmp_path: Path, data: Path) -> None:
    file, ask = site_of(tmp_path, data, "least_cases: 2")
    replies = [ask(questions.PREPARE, text_of(tmp_path)), ask(questions.JOIN), ask("query.spent")]
    assert replies[0].content["facts"]["state"] == questions.READY
    facts = replies[1].content["facts"]
    assert (facts["site"], facts["val"]) == ("TCIA01", 0)  # the one case of it stays
    assert replies[2].has_error()
    found = lines(file)
    assert [line["digest"] for line in found] == [reply.object_id for reply in replies]
    assert [line["decision"] for line in found] == ["left", "changed", "failed"]
    assert {line["study"] for line in found} == {"glioma"}


@pytest.mark.parametrize(
    ("policy", "key"),
    [
        ("privacy: true", "policy.privacy=true"),
        ("secure_aggregation: true", "policy.secure_aggregation=true"),
        ("arrays: []", "policy.arrays=[]"),
        ("metrics: [hd95]", "policy.metrics=[hd95]"),
    ],
)
def test_a_study_that_the_policy_does_not_allow_is_refused_by_key(
    tmp_path: Path, data: Path, policy: str, key: str
) -> None:
    file, ask = site_of(tmp_path, data, policy)
    reply = ask(questions.PREPARE, text_of(tmp_path))
    assert reply.has_error()
    assert key in reply.error.reason
    assert lines(file)[0]["error"] == reply.error.reason
    assert ask(questions.JOIN).has_error()


def test_a_study_without_a_name_is_refused_and_logged(tmp_path: Path, data: Path) -> None:
    file, ask = site_of(tmp_path, data, "least_cases: 2")
    assert "no name" in ask(questions.JOIN, study="../../etc").error.reason
    assert [line["decision"] for line in lines(file)] == ["failed"]


def test_without_its_configuration_or_its_log_nothing_leaves(tmp_path: Path, data: Path) -> None:
    file, ask = site_of(tmp_path, data, "least_cases: 2")
    egress_file(load_site_file(file)).mkdir(parents=True)
    assert ask(questions.PREPARE, text_of(tmp_path)).error.reason == NOT_LOGGED
    file.write_text("policy: {privcy: true}\n")
    assert ask(questions.PREPARE, text_of(tmp_path)).error.reason == NO_SITE


@pytest.mark.parametrize(
    ("versions", "told"),
    [
        ("{}", ""),
        (
            "{fedbrats: '9.9'}",
            f"; it has fedbrats {__version__!r} instead of 9.9: install the server's there",
        ),
    ],
)
def test_a_study_of_another_version_that_cannot_run_is_refused_with_what_to_install(
    versions: str, told: str, tmp_path: Path, data: Path
) -> None:
    file, ask = site_of(tmp_path, data, "least_cases: 2")
    file.write_text(f"{file.read_text()}server: {{versions: {versions}}}\n")
    reply = ask(questions.PREPARE, text_of(tmp_path) + "an_option_to_come: 1\n")
    said = f"study glioma: its configuration cannot run at the site, whose log says why{told}"
    assert reply.error.reason == said


PLANNED = ("model=nnunet", "model.size=small", "model.plan=federated", "survey.least=1")
FOUND = Fingerprint(9, (4.0, 4.0, 4.0), (4.0, 4.0, 4.0), (20, 24, 20), 0.375, 1.0)


def test_a_site_plans_by_what_it_was_sent_and_serves_that_network(tmp_path: Path, data: Path) -> None:
    """Until then it tells its survey and who it is, and nothing else; the plan stays when the study goes on."""
    file, ask = site_of(tmp_path, data, "least_cases: 1")
    text = planned_text(tmp_path)
    assert ask(questions.PREPARE, text).content["facts"]["state"] == questions.READY
    before = ask(questions.JOIN).content["facts"]["arrays"]
    assert "waits for the plan of the network" in ask("query.spent", arm="federated").error.reason
    told = json.loads(ask(questions.SURVEY, arm="federated").content["survey"]["values"])
    assert sum(told[BOX]) == 4  # of five patients one tests
    reply = ask(questions.PLAN, fingerprint=FOUND.text())
    made = make_plan(load_config(tmp_path / "asked.yaml"), FOUND)
    assert dict(reply.content["facts"]) == {"site": "TCIA01", "sha256": digest_of(made)}
    after = ask(questions.JOIN).content["facts"]["arrays"]
    assert after != before
    ask(questions.PREPARE, text)
    assert ask(questions.JOIN).content["facts"]["arrays"] == after
    assert ask(questions.PLAN, fingerprint=FOUND.text()).content["facts"]["sha256"] == digest_of(made)
    other = replace(FOUND, shape=(60, 60, 60)).text()
    assert "another plan of its network" in ask(questions.PLAN, fingerprint=other).error.reason
    assert {line["decision"] for line in lines(file) if line["question"] == questions.PLAN} == {
        "left",
        "failed",
    }


@pytest.mark.parametrize(
    ("fingerprint", "said"),
    [
        (None, "no fingerprint|a fingerprint is a short text"),
        ("{}", "no fingerprint"),
        (replace(FOUND, shape=(20, 24, 10**6)).text(), "numbers that no volume has"),
    ],
)
def test_what_is_no_fingerprint_is_not_planned_by(
    fingerprint: str | None, said: str, tmp_path: Path, data: Path
) -> None:
    _, ask = site_of(tmp_path, data, "least_cases: 1")
    ask(questions.PREPARE, planned_text(tmp_path))
    assert re.search(said, ask(questions.PLAN, fingerprint=fingerprint).error.reason)


def test_a_site_plans_nothing_that_it_was_not_asked_for(tmp_path: Path, data: Path) -> None:
    _, ask = site_of(tmp_path, data, "least_cases: 1")
    assert "not known or not prepared" in ask(questions.PLAN, fingerprint=FOUND.text()).error.reason
    ask(questions.PREPARE, text_of(tmp_path))
    assert "model.plan=None asks for none" in ask(questions.PLAN, fingerprint=FOUND.text()).error.reason


def test_a_plan_for_more_memory_than_the_site_gives_is_refused_by_key(tmp_path: Path, data: Path) -> None:
    file, ask = site_of(tmp_path, data, "least_cases: 1")
    file.write_text(
        file.read_text().replace("limits: {threads: 1}", "limits: {threads: 1, plan_memory_gb: 0.1}")
    )
    reply = ask(questions.PREPARE, planned_text(tmp_path))
    assert (
        "limits.plan_memory_gb=0.1: the study plans its network for model.plan_memory=0.125"
        in reply.error.reason
    )


def planned_text(folder: Path) -> str:
    save_config(study_config(["train=small", *PLANNED, "rounds=1"]), folder / "asked.yaml")
    return (folder / "asked.yaml").read_text()
