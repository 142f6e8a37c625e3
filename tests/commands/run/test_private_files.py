"""What a run writes of its sites is for nobody else, and what the environment holds is written nowhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from fedbrats.checks.config import checked
from fedbrats.commands.evaluate.arguments import read_arguments as evaluate_arguments
from fedbrats.commands.predict.arguments import read_arguments
from fedbrats.commands.run.command import main
from fedbrats.commands.run.run import run
from fedbrats.config.targets import ConfigError
from tests.tiny import tiny, tiny_overrides

PRIVATE = (
    *("privacy=dp_sgd", "privacy.sigma=1.0", "privacy.target_epsilon=null", "privacy.expected_patients=1.5"),
    *("arms=[federated]", "rounds=1", "report.select=last"),
)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="no modes")
def test_everything_of_the_sites_and_their_ledgers(cache: Path, tmp_path: Path) -> None:
    before = os.umask(0o022)  # of most systems; what follows must not depend on it
    try:
        folder = run(
            tiny(cache, *PRIVATE, "report.html=true", f"privacy.ledger={tmp_path / 'vault'}"),
            tmp_path / "run",
        )
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / "sites").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "vault").stat().st_mode & 0o777 == 0o700
    ledgers = [file for file in (tmp_path / "vault").rglob("*") if file.is_file()]
    told = [file for file in (folder / "sites").rglob("*") if file.is_file()]
    assert len(ledgers) >= 6  # and their locks
    assert {file.name for file in told} >= {"cases.json", "plan.json"}
    open_ones = [file for file in (*ledgers, *told) if file.stat().st_mode & 0o077]
    assert not open_ones
    named = ("report.html", "partition.json", "cases.csv", "privacy_steps.csv")  # cases, single patients
    assert {name: (folder / name).stat().st_mode & 0o777 for name in named} == dict.fromkeys(named, 0o600)
    assert (folder / "report_public.html").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("key", ["data.root", "partition.unknown", "+privacy.insecure_seed", "+loss.more"])
def test_a_value_of_the_environment_is_refused_by_its_key(
    key: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN_OF_MINE", "hunter2")
    with pytest.raises(ConfigError, match=rf"{key.lstrip('+')}=\$\{{oc\.env:TOKEN_OF_MINE\}}") as caught:
        checked(tiny(cache, f"{key}=${{oc.env:TOKEN_OF_MINE}}"))
    assert "hunter2" not in str(caught.value)


def test_nor_may_other_commands_take_it() -> None:
    with pytest.raises(ConfigError, match=r"data=\$\{oc\.env:HOME\}"):
        read_arguments(["checkpoint=x", "data=${oc.env:HOME}"])
    with pytest.raises(ConfigError, match=r"references=\$\{oc\.env:HOME\}"):
        evaluate_arguments(["predictions=x", "references=${oc.env:HOME}"])


def test_nothing_that_a_refused_run_leaves_holds_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOKEN_OF_MINE", "hunter2")
    monkeypatch.setattr(sys, "argv", ["fedbrats run"])
    more = ("partition.unknown=${oc.env:TOKEN_OF_MINE}", f"hydra.run.dir={tmp_path / 'run'}")
    with pytest.raises(SystemExit) as caught:
        main(tiny_overrides(cache, *more))
    assert caught.value.code == 2
    said = "".join(capsys.readouterr())
    assert "partition.unknown" in said
    left = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert any(file.name == "config.yaml" for file in left)
    assert not any("hunter2" in text for text in (said, *(file.read_text() for file in left)))
