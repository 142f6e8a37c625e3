"""Bad links: a site behind a network of its own that goes away, is slow, or loses packets; the model stays the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedbrats.commands.compose import compose_config
from fedbrats.commands.run.run import run
from fedbrats.runs import rounds
from fedbrats.runs.checkpoint import load_checkpoint
from tests.engines.superlink.deployment import Deployment, deployment, wait
from tests.tiny import MODEL

SITES = {"TCIA01": 5, "TCIA02": 4, "CBICA": 3}
FAR = "CBICA"  # the site behind the bad link
ASKED = (
    *("train=small", "train.local_steps=5", *MODEL, "inference.overlap=0.0", "rounds=3"),
    *("strategy=fedprox", "report.html=false"),
)
SPACE, HERE, THERE = "fedbrats-test", "fedbrats0", "fedbrats1"  # network namespace, both ends of the link
ADDRESS, OTHER = "10.203.77.1", "10.203.77.2"
INSIDE = ("ip", "netns", "exec", SPACE)
LONGEST = 400.0  # seconds for a study on a busy machine; without a fault it takes about a minute

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.environ.get("FEDBRATS_NETWORK") != "1", reason="FEDBRATS_NETWORK=1 asks for it"),
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("ip", "tc", "iptables"))),
        reason="needs root, ip, tc and iptables",
    ),
]


def say(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=20)


@contextmanager
def link() -> Iterator[None]:
    """A network namespace that reaches this machine and nothing else."""
    say("ip", "netns", "add", SPACE)
    try:
        say("ip", "link", "add", HERE, "type", "veth", "peer", "name", THERE, "netns", SPACE)
        say("ip", "address", "add", f"{ADDRESS}/30", "dev", HERE)
        say("ip", "link", "set", HERE, "up")
        say(*INSIDE, "ip", "address", "add", f"{OTHER}/30", "dev", THERE)
        for device in (THERE, "lo"):
            say(*INSIDE, "ip", "link", "set", device, "up")
        yield
    finally:
        say("ip", "netns", "del", SPACE)


@contextmanager
def slow() -> Iterator[None]:
    """1 Mbit/s in both directions."""
    how = ("root", "tbf", "rate", "1mbit", "burst", "32kbit", "latency", "400ms")
    say("tc", "qdisc", "add", "dev", HERE, *how)
    say(*INSIDE, "tc", "qdisc", "add", "dev", THERE, *how)
    try:
        yield
    finally:
        say("tc", "qdisc", "del", "dev", HERE, "root")
        say(*INSIDE, "tc", "qdisc", "del", "dev", THERE, "root")


@contextmanager
def lossy() -> Iterator[None]:
    """Every fifth packet is lost, in both directions."""
    lost = ("-m", "statistic", "--mode", "random", "--probability", "0.2", "-j", "DROP")
    for chain, way in (("INPUT", "-i"), ("OUTPUT", "-o")):
        say(*INSIDE, "iptables", "-A", chain, way, THERE, *lost)
    try:
        yield
    finally:
        say(*INSIDE, "iptables", "-F")


@contextmanager
def untouched() -> Iterator[None]:
    yield


def away(made: Deployment, study: str) -> None:
    """Take the link away for 20 s when the first round is done."""
    wait(lambda: bool(rounds.TABLE.rows(made.study(study))), LONGEST, made.logs)
    say("ip", "link", "set", HERE, "down")
    time.sleep(20)
    say("ip", "link", "set", HERE, "up")


def nothing(made: Deployment, study: str) -> None:
    pass


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with link(), deployment(tmp_path_factory.mktemp("federation"), SITES, names=[ADDRESS]) as made:
        content = yaml.safe_load(made.site(FAR).read_text())
        content["server"]["address"] = f"{ADDRESS}:{made.port}"
        made.site(FAR).write_text(yaml.safe_dump(content))
        made.within[FAR] = INSIDE
        made.start_server()
        for number, name in enumerate(SITES):
            made.start_site(name, number)
        yield made


@pytest.fixture(scope="module")
def simulated(made: Deployment) -> Path:
    own = ["data=brats", f"data.root={made.folder / 'all'}", f"data.cache={made.folder / 'cache'}"]
    return run(
        compose_config([*ASKED, *own, "arms=[federated]", "runtime.workers=0"]), made.folder / "simulation"
    )


@pytest.mark.parametrize(
    ("study", "fault", "meanwhile"),
    [("away", untouched, away), ("slow", slow, nothing), ("lossy", lossy, nothing)],
)
def test_a_study_over_a_bad_link_ends_with_the_same_model(
    study: str, fault: Callable, meanwhile: Callable, made: Deployment, simulated: Path
) -> None:
    with fault():
        made.begin_study(study, *ASKED)
        meanwhile(made, study)
        wait(lambda: made.finished(study), LONGEST, made.logs)
    found = rounds.TABLE.rows(made.study(study))
    assert {row["status"] for row in found} == {"ok"}
    one, other = (load_checkpoint(folder / "checkpoints") for folder in (made.study(study), simulated))
    assert one.round == other.round == 3
    for name, tensor in other.models["federated"].arrays.items():
        np.testing.assert_array_equal(one.models["federated"].arrays[name], tensor, err_msg=name)
