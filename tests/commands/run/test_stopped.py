"""What ends a run from outside, in one line that says how to go on: Ctrl-C, a full disk, a folder that is closed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fedbrats.__main__ import main as fedbrats
from fedbrats.commands.run import run as run_module
from fedbrats.commands.run.command import main
from fedbrats.federation.server.state import FederationError
from tests.tiny import ROOT, tiny_overrides


def interrupted(command: list[str], until: str, cwd: Path) -> tuple[int, list[str]]:
    """Status and standard error of a command whose whole group gets SIGINT once it has printed `until`."""
    out, err = cwd / "out", cwd / "err"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with out.open("w") as stdout, err.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=stdout, stderr=stderr, cwd=cwd, env=environment, start_new_session=True
        )
        try:
            limit = time.monotonic() + 100
            while until not in out.read_text() and time.monotonic() < limit and process.poll() is None:
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)
            return process.wait(60), err.read_text().splitlines()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="no process groups")
@pytest.mark.parametrize("sweep", [False, True])
def test_ctrl_c_is_one_line_that_says_how_to_resume(sweep: bool, cache: Path, tmp_path: Path) -> None:
    where = tmp_path / "run"
    overrides = tiny_overrides(cache, "arms=[federated]", "rounds=300", "runtime.workers=1")
    more = ["-m", f"hydra.sweep.dir={where}", "seed=1,2"] if sweep else [f"hydra.run.dir={where}"]
    command = [sys.executable, "-m", "fedbrats", "run", *more, *overrides]
    status, said = interrupted(command, "round 1/", tmp_path)
    folder = where / "seed=1" if sweep else where
    assert status == 130
    assert said == [f"fedbrats: stopped; go on with: fedbrats run run.resume={folder}"]
    assert not (where / "seed=2").exists()  # Ctrl-C ends the whole sweep


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="no process groups")
def test_ctrl_c_while_it_starts_is_one_line_too(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "print('up', flush=True); from fedbrats.__main__ import main; import sys;",
    ]
    command[-1] += "sys.argv = ['fedbrats', 'run', 'data.root=nowhere', 'data=brats']; sys.exit(main())"
    status, said = interrupted(command, "up", tmp_path)
    assert (status, said) in ((130, ["fedbrats run: stopped"]), (-2, said))


def test_ctrl_c_in_any_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedbrats.commands.report.main", stopped)
    monkeypatch.setattr(sys, "argv", ["fedbrats", "report", "x"])
    assert fedbrats() == 130
    assert capsys.readouterr().err == "fedbrats report: stopped\n"


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device", "rounds.csv"), FederationError("no site answered")],
)
def test_a_full_disk_says_how_to_go_on(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(config: Any, folder: Path, *more: Any) -> None:
        (folder / "config.yaml").write_text("rounds: 1\n")
        (folder / "summary.json").mkdir()  # what fails to be written besides is no second error
        raise error

    monkeypatch.setattr(run_module, "run", failing)
    monkeypatch.setattr(sys, "argv", ["fedbrats run"])
    with pytest.raises(SystemExit) as caught:
        main([f"hydra.run.dir={tmp_path / 'run'}"])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"fedbrats: {error}; go on with: fedbrats run run.resume={tmp_path / 'run'}"


def test_a_folder_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["fedbrats run"])
    assert main([f"hydra.run.dir={tmp_path / 'file' / 'run'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fedbrats: ")
    assert str(tmp_path / "file") in line
    assert "hydra.run.dir=<folder>" in line


def test_a_failing_job_of_a_sweep_says_so_at_once_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(config: Any, folder: Path, *more: Any) -> None:
        print(f"seed {config.seed}", file=sys.stderr)
        if config.seed == 2:
            raise ValueError("strategy.mu=-1: must not be negative")

    monkeypatch.setattr(run_module, "run", failing)
    monkeypatch.setattr("fedbrats.report.terminal.print_result_table", lambda *more: None)
    monkeypatch.setattr(sys, "argv", ["fedbrats run"])
    assert main(["-m", f"hydra.sweep.dir={tmp_path}", "seed=1,2,3"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        *("seed 1", "seed 2", "fedbrats: job seed=2 failed: strategy.mu=-1: must not be negative", "seed 3"),
        f"fedbrats: 3 jobs in {tmp_path}: 2 finished, 1 failed",
        "fedbrats: failed: seed=2: strategy.mu=-1: must not be negative",
    ]
