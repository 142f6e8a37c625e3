"""Paths on the command lines that Hydra does not read."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest


@pytest.mark.parametrize("command", ["report", "compare", "audit"])
def test_the_home_folder_and_odd_names_are_found(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert import_module(f"fedbrats.commands.{command}").main(["~/[ü] a=b"]) == 2
    assert f"{tmp_path}/[ü] a=b" in capsys.readouterr().err
