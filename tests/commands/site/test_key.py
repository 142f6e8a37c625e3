from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.commands.site.command import main
from fedbrats.credentials.keys import fingerprint, read_public_key, read_site_key


def test_a_key_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["key"]) == 0
    public = read_site_key(Path("site.key"))
    assert read_public_key(Path("site.key.pub")) == public
    assert fingerprint(public) in capsys.readouterr().out
    assert main(["key"]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert main(["key", "other.key"]) == 0
    assert read_site_key(Path("other.key")) != public
