"""Processes of a site killed in mid-round: the rounds go on without it, and it comes back with what it had kept."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from flwr.app import RecordDict

from fedbrats.commands.compose import compose_config
from fedbrats.commands.run.run import run
from fedbrats.config.site_file import load_site_file
from fedbrats.engines.superlink.programs import SITE_WORKER, SUPEREXEC
from fedbrats.federation import questions
from fedbrats.federation.site import app
from fedbrats.federation.site.chain import egress_file, read, verify
from fedbrats.federation.site.site import Site
from fedbrats.files import read_json
from fedbrats.runs import rounds
from fedbrats.runs.checkpoint import load_checkpoint
from fedbrats.runs.site_cases import pseudonym
from tests.engines.superlink.conftest import SITES, Running
from tests.engines.superlink.deployment import Deployment, wait
from tests.tiny import MODEL

STUDY = "killed"
ASKED = (
    *("train=small", "train.local_steps=75", *MODEL, "model.norm=batch", "inference.overlap=0.0", "rounds=4"),
    *("strategy=scaffold", "train/optimizer=sgd_plain", "strategy.quorum=0.6", "personalization=bn_local"),
    "report.html=false",
)
MISSED = {("TCIA02", 2), ("CBICA", 3)}  # a site, and the round in which a process of it is killed
SOON = (
    30.0  # seconds in which the server has heard of it and gone on; without a word it waits for over a minute
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def kept(made: Deployment, site: str, round_: int) -> bool:
    """Whether a site has kept what a round left, which it does at the end of it."""
    folder = made.folder / site / "storage" / "studies" / STUDY / "sites" / site / "state"
    return bool(list(folder.glob(f"*/round_{round_:05d}.*")))


def log_of(made: Deployment, site: str) -> Path:
    """What its SuperNode says."""
    return made.folder / site / "storage" / "logs" / "supernode.log"


def in_mid_round(made: Deployment, site: str, round_: int, before: int) -> psutil.Process:
    """The worker of a site, halted while it trains in this round; `before`: characters of its log before the study."""

    def asked() -> bool:
        _, found, said = log_of(made, site).read_text()[before:].rpartition(f"ROUND {round_}]\n")
        return bool(found) and "train message" in said

    wait(asked, 240, made.logs)
    worker = made.process(site, SITE_WORKER)
    used = sum(worker.cpu_times()[:2])
    wait(lambda: sum(worker.cpu_times()[:2]) > used + 0.3, 60, made.logs)
    worker.suspend()
    assert not kept(made, site, round_)
    return worker


def told(made: Deployment, site: str, round_: int) -> list[dict[str, str]]:
    """The rows of a training in `rounds.csv`."""
    found = rounds.TABLE.rows(made.study(STUDY))
    return [r for r in found if (r["site"], r["round"], r["phase"]) == (site, str(round_), "train")]


def heard(made: Deployment, site: str) -> bool:
    """Whether the server has heard that the training at a site has failed."""
    return f"failed: federated, site {site}, train" in (made.study(STUDY) / "server.log").read_text()


@pytest.fixture(scope="module")
def finished(running: Running) -> Deployment:
    made = running.made
    before = {s: len(log.read_text()) if (log := log_of(made, s)).is_file() else 0 for s in SITES}
    made.begin_study(STUDY, *ASKED)
    in_mid_round(made, "TCIA02", 2, before["TCIA02"]).kill()
    wait(lambda: heard(made, "TCIA02"), SOON, made.logs)
    worker = in_mid_round(made, "CBICA", 3, before["CBICA"])
    made.process("CBICA", SUPEREXEC).kill()
    worker.resume()  # as a halted one sees nothing
    wait(lambda: heard(made, "CBICA"), SOON, made.logs)
    wait(lambda: made.finished(STUDY), 240, made.logs)
    return made


@pytest.fixture(scope="module")
def simulated(finished: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same study on this machine, with sites that fail in the rounds in which they were killed."""
    train = app.ANSWERS[questions.TRAIN]

    def failing(site: Site, content: RecordDict) -> dict[str, Any]:
        if (site.name, content["config"]["round"]) in MISSED:
            raise RuntimeError("killed")
        return train(site, content)

    own = ["data=brats", f"data.root={finished.folder / 'all'}", f"data.cache={finished.folder / 'cache'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(app.ANSWERS, questions.TRAIN, failing)
        config = compose_config([*ASKED, *own, "arms=[federated]", "runtime.workers=0"])
        return run(config, tmp_path_factory.mktemp("simulation") / "run")


def test_the_model_is_that_of_the_sites_that_were_there_with_the_state_that_each_had(
    finished: Deployment, simulated: Path
) -> None:
    """Scaffold keeps control variates and FedBN its BatchNorm at the site: both must be those of its last round."""
    found, expected = (load_checkpoint(f / "checkpoints") for f in (finished.study(STUDY), simulated))
    assert found.round == expected.round == 4
    for name, tensor in expected.models["federated"].arrays.items():
        np.testing.assert_array_equal(found.models["federated"].arrays[name], tensor, err_msg=name)


def test_scores_of_each_sites_own_model_are_those_of_the_simulation(
    finished: Deployment, simulated: Path
) -> None:
    names = {
        (site["name"], case): pseudonym(site["name"], i)
        for site in read_json(simulated / "partition.json")["sites"]
        for i, case in enumerate(site["test"])
    }
    with (
        (simulated / "cases.csv").open(newline="") as expected,
        (finished.study(STUDY) / "cases.csv").open(newline="") as found,
    ):
        rows = [{**row, "case": names[row["site"], row["case"]]} for row in csv.DictReader(expected)]
        assert list(csv.DictReader(found)) == rows


def test_a_killed_process_costs_its_site_one_round_and_nothing_counts_twice(finished: Deployment) -> None:
    for site in SITES:
        for round_ in range(1, 5):
            (row,) = told(finished, site, round_)
            if (site, round_) in MISSED:
                assert row["status"].startswith("failed: site error: ClientApp stopped responding")
            else:
                assert row["status"] == "ok"
        log = egress_file(load_site_file(finished.site(site)))
        lines = [line for _, line in read(log) if line.get("study") == STUDY]
        left = [line["round"] for line in lines if line.get("question") == "train"]
        assert left == [round_ for round_ in range(1, 5) if (site, round_) not in MISSED]
        assert not verify(log).wrong
