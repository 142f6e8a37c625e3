"""A hospital's ClientApp: nothing leaves but by the door, and a study that the policy does not allow is not joined."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedbrats import __version__
from fedbrats.commands.study.starting import study_config
from fedbrats.config.schema import save_config
from fedbrats.config.site_file import load_site_file
from fedbrats.data.phantom import write_phantom
from fedbrats.engines.sites import set_identity
from fedbrats.engines.superlink.client_app import NO_SITE, SiteApp
from fedbrats.engines.superlink.thin_app import STUDY
from fedbrats.federation import questions
from fedbrats.federation.site.chain import egress_file, read
from fedbrats.federation.site.door import NOT_LOGGED
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

    def ask(question: str, text: str | None = None, study: Any = "glioma") -> Message:
        content = RecordDict()
        if text is not None:
            sha256 = hashlib.sha256(text.encode()).hexdigest()
            content["study"] = ConfigRecord({"text": text, "sha256": sha256})
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
