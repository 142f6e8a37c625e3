"""audit.json on the page."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from fedbrats.report.sections.privacy_audit import audit_context
from fedbrats.runs.reading import RunFolderError
from tests.report.fake_extras import write_audit


def test_checks_canary_and_pictures(tmp_path: Path) -> None:
    found = audit_context(write_audit(tmp_path))
    assert found is not None
    assert [check["passed"] for check in found["checks"]] == [True, True]
    first = {
        "name": "neighbour sensitivity",
        "passed": True,
        "measured": "0.4999",
        "bound": "0.5",
        "says": "x <= C",
    }
    assert found["checks"][0] == first
    assert found["failed"] == []
    assert found["canary"] == {"lower": "0.60", "claimed": "0.94", "broken": False, "says": "1000 canaries."}
    there, gone = found["pictures"]
    data = there["image"].removeprefix("data:image/png;base64,")
    assert base64.b64decode(data) == (tmp_path / "audit" / "a.png").read_bytes()
    assert (gone["image"], gone["file"]) == ("", "audit/b.png")


def test_failures_are_failures(tmp_path: Path) -> None:
    assert audit_context(write_audit(tmp_path, passed=False))["failed"] == ["noise deviation"]
    assert audit_context(write_audit(tmp_path, passed="yes"))["failed"] == [
        "noise deviation"
    ]  # only true passes
    assert audit_context(write_audit(tmp_path, lower=0.941))["canary"]["broken"]
    assert not audit_context(write_audit(tmp_path, lower=0.94))["canary"]["broken"]
    content = json.loads((tmp_path / "audit.json").read_text())
    content["canary"] |= {"lower_bound": "inf"}
    (tmp_path / "audit.json").write_text(json.dumps(content))
    assert audit_context(tmp_path)["canary"]["broken"]


def test_none_and_parts(tmp_path: Path) -> None:
    assert audit_context(tmp_path) is None
    (tmp_path / "audit.json").write_text("{}")
    assert audit_context(tmp_path) == {"checks": [], "failed": [], "canary": {}, "pictures": [], "says": ""}


def test_damage_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    run = tmp_path / "run"
    run.mkdir()
    for content, said in (
        ({"checks": {}}, "checks must be a list"),
        ({"checks": [{"name": "x"}]}, "every check needs a name and whether it passed"),
        ({"canary": {"lower_bound": 1}}, "no number in lower_bound or claimed"),
        ({"canary": {"lower_bound": 1, "claimed": None}}, "no number in lower_bound or claimed"),
        ({"inversion": ["x"]}, "inversion must be a mapping"),
        ({"inversion": {"images": [{}]}}, "needs a file"),
        ({"inversion": {"images": [{"file": "../secret.png"}]}}, "no PNG picture in the run folder"),
        ({"inversion": {"images": [{"file": "config.yaml"}]}}, "no PNG picture in the run folder"),
    ):
        (run / "audit.json").write_text(json.dumps(content))
        with pytest.raises(RunFolderError, match=said):
            audit_context(run)
    (run / "audit.json").write_text("[")
    with pytest.raises(RunFolderError, match=r"audit\.json: not readable as JSON"):
        audit_context(run)
