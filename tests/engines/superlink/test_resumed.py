"""A study goes on after its process or the SuperLink was killed, and comes to what a simulation comes to."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from fedbrats.commands.compose import compose_config
from fedbrats.commands.run.run import run
from fedbrats.commands.study.folder import STOPPED, held, read_state, read_study
from fedbrats.engines.superlink.processes import LOOK
from fedbrats.engines.superlink.programs import SERVER_PROCESS, SITE_WORKER, SUPERLINK
from fedbrats.runs import rounds
from fedbrats.runs.checkpoint import load_checkpoint
from tests.engines.superlink.conftest import Running
from tests.engines.superlink.deployment import wait
from tests.tiny import MODEL

STUDY = "resumed"
ROUNDS = 5
ASKED = (
    *("train=small", "train.local_steps=2", *MODEL, "inference.overlap=0.0", f"rounds={ROUNDS}"),
    *("strategy=fedprox", "report.html=false"),
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_study_goes_on_to_the_same_bits(running: Running, tmp_path: Path) -> None:
    """Its process is killed, then the SuperLink, then it is stopped: only the last waits for somebody."""
    made = running.made
    made.begin_study(STUDY, *ASKED)
    folder = made.study(STUDY)

    def rounds_done() -> int:
        return max((int(row["round"]) for row in rounds.TABLE.rows(folder)), default=0)

    def runs() -> int:
        return len(read_study(folder).runs)

    wait(lambda: rounds_done() >= 1, 240, made.logs)
    made.process("server", SERVER_PROCESS).kill()
    wait(lambda: runs() == 2, 150, made.logs)
    wait(lambda: rounds_done() >= 2, 240, made.logs)
    made.process("server", SUPERLINK).kill()
    wait(lambda: runs() == 3, 150, made.logs)
    wait(lambda: rounds_done() >= 3, 400, made.logs)
    worker = made.process("CBICA", SITE_WORKER)
    worker.suspend()  # or the last rounds might be over before the command is
    made.fedbrats("study", "stop", STUDY, "--server", str(made.server))
    worker.resume()
    wait(lambda: not held(folder), 60, made.logs)
    time.sleep(3 * LOOK)
    assert (runs(), read_state(folder)["state"], rounds_done() < ROUNDS) == (3, STOPPED, True)
    made.fedbrats("study", "resume", STUDY, "--server", str(made.server))
    wait(lambda: made.finished(STUDY), 400, made.logs)
    assert runs() == 4
    refused = made.tried("study", "stop", STUDY, "--server", str(made.server))
    assert f"study {STUDY} has finished: there is nothing to stop" in refused.err
    own = ["data=brats", f"data.root={made.folder / 'all'}", f"data.cache={tmp_path / 'cache'}"]
    simulated = run(
        compose_config([*ASKED, *own, "arms=[federated]", "runtime.workers=0"]), tmp_path / "simulation"
    )
    found, expected = (load_checkpoint(f / "checkpoints") for f in (folder, simulated))
    assert found.round == expected.round == ROUNDS
    for name, tensor in expected.models["federated"].arrays.items():
        np.testing.assert_array_equal(found.models["federated"].arrays[name], tensor, err_msg=name)
