"""What a container does with its arguments."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.tiny import ROOT


@pytest.mark.parametrize(
    ("arguments", "overrides", "called"),
    [
        ("data=brats data.root=/data", "", "run data=brats data.root=/data"),
        ("-m strategy=fedavg,fedprox", "", "run -m strategy=fedavg,fedprox"),
        ("~privacy rounds=2", "", "run ~privacy rounds=2"),
        ("check-data data.root=/data", "", "check-data data.root=/data"),
        ("--help", "", "--help"),
        ("run --help", "", "run --help"),
        ("", "experiment=demo model.channels=[16,32]", "run experiment=demo model.channels=[16,32]"),
        ("", "", "--help"),
        ("superlink", "", "server start --only superlink"),
        ("server", "", "server start --only superexec"),
        ("server stop", "", "server stop"),
        (
            "supernode",
            "",
            "site start /site/site.yaml --only supernode --host 0.0.0.0 --secret /link/superexec.secret",
        ),
        (
            "site",
            "",
            "site start /site/site.yaml --only superexec --host supernode --secret /link/superexec.secret",
        ),
        ("site approve /site/site.yaml glioma", "", "site approve /site/site.yaml glioma"),
        ("report /results/run", "experiment=demo", "report /results/run"),
    ],
)
def test_arguments(arguments: str, overrides: str, called: str, tmp_path: Path) -> None:
    command = tmp_path / "fedbrats"
    command.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    command.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "FEDBRATS_OVERRIDES": overrides}
    script = ["sh", str(ROOT / "docker" / "entrypoint.sh"), *arguments.split()]
    done = subprocess.run(script, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip("|").split("|") == called.split()
