"""`fedbrats site log`: the messages, the page of the data officer, and a chain that is broken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict

from fedbrats.commands.site.command import main
from fedbrats.commands.site.log_page import page, studies
from fedbrats.config.site_file import load_site_file
from fedbrats.engines.sites import new_context
from fedbrats.federation import questions
from fedbrats.federation.site.app import SiteError
from fedbrats.federation.site.chain import Verdict, egress_file
from fedbrats.federation.site.door import guarded
from tests.federation.toy import evaluate_reply, request
from tests.federation.toy_door import content_of

Answer = Callable[[Message, Context], Message]


def says(**records: Any) -> Answer:
    return lambda message, context: Message(RecordDict(records), reply_to=message)


def metrics(cases: int, **more: float) -> MetricRecord:
    return MetricRecord({"num-examples": cases, "seconds": 1.0, "loss": 0.5, **more})


def failing(message: Message, context: Context) -> Message:
    raise SiteError("Refused: round 7 of 2")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The site.yaml of a site that took part in two studies."""
    file = tmp_path / "site.yaml"
    file.write_text("name: CBICA\nstorage: storage\n")
    found, kind = load_site_file(file), questions.VALIDATE
    rows = [{"case": f"A#{i}", "region": "WT", "status": "ok", "dice": i / 10} for i in range(6)]
    test = content_of(evaluate_reply(rows, **{"num-examples": 6}))
    facts = ConfigRecord({"site": "CBICA", "train": 9, "val": 3, "test": 6})
    for study, question, answer in (
        ("glioma", questions.JOIN, says(facts=facts)),
        ("glioma", kind, says(metrics=metrics(9, epsilon=0.75))),
        ("glioma", kind, says(metrics=metrics(7, **{"dice-wt": 0.25}))),
        ("glioma", kind, says(metrics=metrics(3))),
        ("glioma", questions.TEST, says(**test)),
        ("other\x1b[2J", kind, failing),
    ):
        content = RecordDict({"config": ConfigRecord({"arm": "federated", "round": 2})})
        asked = request(2, question, content)
        guarded(answer, found, study, tmp_path)(asked, new_context(2))
    return file


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(["log", *words])
    return status, capsys.readouterr().out


def test_every_message_is_a_line(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = printed(capsys, str(site))
    lines = text.splitlines()
    assert (status, len(lines)) == (0, 6)
    assert "glioma query.join round 2: changed, " in lines[0]
    assert lines[0].endswith("3 numbers: policy.least_cases=5: fewer cases: val")
    assert "glioma evaluate.validate round 2: refused" in lines[3]
    assert lines[5].endswith("failed, 239 bytes, 0 numbers: Refused: round 7 of 2") or "failed" in lines[5]
    assert "\x1b" not in text  # the name of a study is a server's


def test_messages_of_one_study(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = printed(capsys, str(site), "--study", "glioma")
    assert len(text.splitlines()) == 5


def test_the_page_of_the_data_officer(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = printed(capsys, str(site), "--summary")
    assert status == 0
    assert text.startswith("# What left CBICA\n")
    assert "The log is whole: 7 lines" in text
    glioma, other = text.split("## Study ")[1:]
    for said in (
        "in 1 round, ",
        "2 left as they were, 2 changed by the policy, 1 refused by it, 0 failures.",
        "no result of one left",
        "epsilon 0.75 so far",
        "  - policy.least_cases=5: fewer cases (1 time)",
        "| a validation | loss | 2 | 0.5 | 0.5 | 7 |",
        "| a validation | dice-wt | 1 | 0.25 | 0.25 | 7 |",
        "| the test at the end | means and deviations by region: dice | 1 | - | - | 6 |",
    ):
        assert said in glioma
    assert "  - Refused: round 7 of 2 (1 time)" in other
    assert len(text) < 4000  # two minutes of reading


def test_rows_of_cases_stand_on_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("name: CBICA\nstorage: storage\npolicy: {per_case: true}\n")
    rows = [{"case": f"A#{i}", "region": "WT", "status": "ok", "dice": i / 10} for i in range(6)]
    test = content_of(evaluate_reply(rows, **{"num-examples": 6}))
    asked = request(2, questions.TEST)
    guarded(says(**test), load_site_file(file), "s", tmp_path)(asked, new_context(2))
    _, text = printed(capsys, str(file), "--summary")
    assert "**Single cases**: 6 rows, under pseudonyms" in text
    assert "rows, a row for each case: dice | 1 | - | - | 1 |" in text


def test_a_whole_log_verifies_and_a_changed_one_does_not(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = egress_file(load_site_file(site))
    status, text = printed(capsys, str(site), "--verify")
    assert (status, "whole, 7 lines" in text) == (0, True)
    file.write_bytes(file.read_bytes().replace(b'"value": 0.25', b'"value": 0.95'))
    status, text = printed(capsys, str(site), "--verify")
    assert status == 1
    assert f"{file}: line 5 does not follow the line before it" in text
    status, text = printed(capsys, str(site), "--summary")
    assert status == 1
    assert "**THE LOG IS NOT WHOLE.** Line 5 " in text


def test_before_anything_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("name: CBICA\nstorage: storage\n")
    for how, said in (("--verify", "nothing has left yet"), ("--summary", "Nothing has left.")):
        status, text = printed(capsys, str(file), how)
        assert (status, said in text) == (0, True)
    assert printed(capsys, str(file)) == (0, "")
    assert main(["log", str(tmp_path / "none.yaml")]) == 2


def test_it_follows(site: Path) -> None:
    program = "import sys; from fedbrats.commands.site.command import main; main(['log', *sys.argv[1:]])"
    words = [sys.executable, "-c", program, str(site), "--follow"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ.copy()) as process:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(6)]
        asked = request(2, questions.VALIDATE)
        guarded(says(metrics=metrics(5)), load_site_file(site), "later", site.parent)(asked, new_context(2))
        assert " later evaluate.validate: left, " in process.stdout.readline()
        process.kill()
    assert "query.join" in first[0]


@pytest.mark.parametrize(
    ("of", "said"), [("update", "; largest norm of an update 2."), ("masked", "in 1 messages.")]
)
def test_only_the_norm_of_an_update_is_called_one(of: str, said: str) -> None:
    array = {"record": "arrays", "name": "w", "bytes": 8, "norm": 2.0, "of": of}
    nothing: dict[str, Any] = {key: [] for key in ("numbers", "tables", "why", "texts")}
    told = {
        **nothing,
        "question": "train",
        "time": "t",
        "round": 1,
        "decision": "left",
        "bytes": 9,
        "study": "s",
    }
    found = studies([{**told, "arrays": [array], "error": None, "epsilon": None}])
    assert said in page("A", "egress.jsonl", Verdict(2, "0"), found)
