"""A site of another version, in a whole run up to the point where it has joined."""

from pathlib import Path
from typing import Any

import pytest

from fedbrats.commands.run import run as command
from fedbrats.commands.run import server
from fedbrats.federation.server.state import FederationError
from fedbrats.federation.site import joining
from tests.tiny import tiny

pytestmark = pytest.mark.slow  # a phantom and its cache, twice


def test_another_version_does_not_join_unless_the_study_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def joined(*parts: Any) -> None:
        raise FederationError("all have joined")

    monkeypatch.setattr(joining, "own_versions", lambda: {"fedbrats": "0.0.9", "flwr": "1", "torch": "1"})
    monkeypatch.setattr(server, "serve", joined)
    for versions, said in (
        ("same", r"has other versions than the server: fedbrats '0\.0\.9' instead of"),
        ("any", "all have joined"),
    ):
        overrides = ("arms=[federated]", f"run.versions={versions}")
        with pytest.raises(FederationError, match=said):
            command.run(tiny(tmp_path / "cache", *overrides), tmp_path / versions)
