"""A study whose process at the server is killed goes on with one command, and comes to what a simulation comes to."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

from fedbrats.commands.compose import compose_config
from fedbrats.commands.run.run import run
from fedbrats.commands.study.folder import read_study
from fedbrats.commands.study.starting import asking, over
from fedbrats.config.server_file import load_server_file
from fedbrats.engines.superlink.control import run_status
from fedbrats.engines.superlink.programs import SERVER_PROCESS
from fedbrats.runs import rounds
from fedbrats.runs.checkpoint import load_checkpoint
from tests.engines.superlink.deployment import Deployment, deployment, wait
from tests.tiny import MODEL

SITES = {"TCIA01": 5, "TCIA02": 4, "CBICA": 3}
ASKED = (
    *("train=small", "train.local_steps=2", *MODEL, "inference.overlap=0.0", "rounds=4"),
    *("strategy=fedprox", "report.html=false"),
)


def kill_study(made: Deployment) -> None:
    """SIGKILL for the process that works on a study of this server."""
    server = psutil.Process(made.running["server"].pid)
    found = [p for p in server.children(recursive=True) if SERVER_PROCESS in p.cmdline()]
    assert len(found) == 1
    os.kill(found[0].pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_study_is_resumed_to_the_same_bits(tmp_path: Path) -> None:
    with deployment(tmp_path, SITES) as made:
        made.start_server()
        for number, name in enumerate(SITES):
            made.start_site(name, number)
        made.begin_study("glioma", *ASKED)
        folder, server = made.study("glioma"), load_server_file(made.server)

        def over_now() -> bool:
            with asking(server) as client:
                return over(run_status(client, read_study(folder).runs[-1]))

        wait(lambda: rounds.TABLE.rows(folder), 240, made.logs)
        kill_study(made)
        wait(over_now, 150, made.logs)
        done = {row["round"] for row in rounds.TABLE.rows(folder)}
        made.fedbrats("study", "resume", "glioma", "--server", str(made.server))
        wait(lambda: made.finished("glioma"), 240, made.logs)
    assert done < {"1", "2", "3", "4"}  # it was killed on the way
    own = ["data=brats", f"data.root={tmp_path / 'all'}", f"data.cache={tmp_path / 'cache'}"]
    simulated = run(
        compose_config([*ASKED, *own, "arms=[federated]", "runtime.workers=0"]), tmp_path / "simulation"
    )
    found, expected = (load_checkpoint(f / "checkpoints") for f in (folder, simulated))
    assert found.round == expected.round == 4
    for name, tensor in expected.models["federated"].arrays.items():
        np.testing.assert_array_equal(found.models["federated"].arrays[name], tensor, err_msg=name)
