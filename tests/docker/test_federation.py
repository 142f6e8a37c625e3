"""A federation in containers, from nothing to reports: keys, a server behind its proxy, three sites, studies, faults.

It is skipped unless FEDBRATS_CONTAINERS=1 asks for it, where docker with its compose plugin, or podman and
podman-compose, are there:

    FEDBRATS_CONTAINERS=1 python -m pytest tests/docker/test_federation.py -s

FEDBRATS_IMAGE names an image that is there already; without it, one is built with what FEDBRATS_BUILD says beside
(`--build-arg TORCH_INDEX=...`). All that it makes has names of its own and is taken down at the end, but the image.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fedbrats.commands.compose import compose_config
from fedbrats.commands.run.run import run
from fedbrats.runs.checkpoint import load_checkpoint
from tests.docker.compose import project
from tests.docker.federation import PORT, Containers, killed, on_one_host, start, under_way
from tests.tiny import MODEL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
TINY = ("train=small", "train.local_steps=2", *MODEL, "inference.overlap=0.0")
ASKED = (*TINY, "strategy=fedprox", "rounds=2")
ROUNDS = 5
LONG = (*TINY, f"rounds={ROUNDS}", "train.local_steps=4")


@pytest.fixture(scope="module")
def federation() -> Iterator[Containers]:
    with on_one_host() as made:
        yield made


def simulated(federation: Containers, folder: Path, *overrides: str) -> Path:
    """What a simulation with the same configuration comes to, on this machine."""
    root = folder / "renamed"
    shutil.copytree(federation.folder / "all", root)
    more = ["data=brats", f"data.root={root}", f"data.cache={folder / 'cache'}", "arms=[federated]"]
    return run(compose_config([*overrides, *more, "runtime.workers=0", "report.html=false"]), folder / "run")


def same_model(found: Path, expected: Path) -> None:
    """The last models of two run folders are the same, bit for bit."""
    one, other = (load_checkpoint(folder / "checkpoints") for folder in (found, expected))
    assert one.round == other.round
    arrays = other.models["federated"].arrays
    assert one.models["federated"].arrays.keys() == arrays.keys()
    for name, tensor in one.models["federated"].arrays.items():
        np.testing.assert_array_equal(tensor, arrays[name], err_msg=name)


def test_a_study_comes_to_its_report_and_to_what_a_simulation_comes_to(
    federation: Containers, tmp_path: Path
) -> None:
    start(federation, "plain", *ASKED)
    found = federation.finish("plain")
    assert (found / "report.html").is_file()
    assert "site2" in federation.operator("study", "results", "plain")
    same_model(found, simulated(federation, tmp_path, *ASKED))


@pytest.mark.parametrize(
    "overrides",
    [("privacy=dp_sgd", "rounds=1"), ("personalization=bn_local", "rounds=2", "model.norm=batch")],
)
def test_private_and_personal_studies(federation: Containers, overrides: tuple[str, ...]) -> None:
    name = overrides[0].split("=")[1].replace("_", "")
    start(federation, name, *TINY, *overrides)
    found = federation.finish(name)
    assert (found / "report.html").is_file()
    assert (found / "privacy.json").is_file() == overrides[0].startswith("privacy")
    assert name in federation.at("site-1", "fedbrats", "site", "log", "/site/site.yaml", "--summary")
    federation.at("site-1", "fedbrats", "site", "log", "/site/site.yaml", "--verify")


@pytest.fixture(scope="module")
def undisturbed(federation: Containers, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a simulation makes of `LONG`."""
    return simulated(federation, tmp_path_factory.mktemp("long"), *LONG)


@pytest.mark.parametrize("service", ["server", "site-2", "supernode-2"])
def test_a_study_goes_on_after_a_container_was_killed(
    federation: Containers, undisturbed: Path, service: str
) -> None:
    name = f"killed{service.replace('-', '')}"
    start(federation, name, *LONG)
    under_way(federation, name)
    killed(federation, service)
    found = federation.finish(name)
    if service == "server":
        same_model(found, undisturbed)
    else:  # the round that it was killed in may have failed, for all sites are needed
        assert load_checkpoint(found / "checkpoints").round == ROUNDS


@pytest.mark.parametrize("seconds", [10, 300])
def test_a_study_goes_on_after_the_superlink_was_away(
    federation: Containers, undisturbed: Path, seconds: int
) -> None:
    name = f"away{seconds}"
    start(federation, name, *LONG)
    under_way(federation, name)
    federation.run_engine("kill", federation.container("superlink"))
    time.sleep(seconds)
    federation.run_engine("start", federation.container("superlink"), check=False)
    found = federation.finish(name)
    assert load_checkpoint(found / "checkpoints").round == ROUNDS
    if seconds < 60:  # no site was given up meanwhile
        same_model(found, undisturbed)


def test_only_the_fleet_interface_and_the_health_page_are_reached(federation: Containers) -> None:
    ca = federation.folder / "server" / "federation" / "server" / "ca.crt"

    def asked(method: str, path: str) -> str:
        command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--path-as-is", "--cacert", str(ca)]
        url = f"https://127.0.0.1:{PORT}{path}"
        return subprocess.run([*command, "-X", method, url], capture_output=True, text=True).stdout

    assert asked("GET", "/health") == "200"
    for path in (
        "/v1/control/list-runs",
        "/v1/runtime/acquire-task",
        "/docs",
        "/v1/fleet/../control/list-runs",
    ):
        assert asked("POST", path) == "403"
    assert asked("POST", "/v1/fleet/pull-messages") not in (
        "200",
        "403",
        "000",
    )  # Flower's refusal, not the proxy's


def test_what_sees_the_cases_reaches_nobody_and_writes_nowhere_else(federation: Containers) -> None:
    reach = (
        "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3); print('reached')"
    )
    for host, port in (("proxy", "8443"), ("superlink", "8000"), ("1.1.1.1", "443")):
        said = federation.at("site-1", "python", "-c", reach, host, port, check=False)
        assert "rror" in said, host
        assert "reached" not in said, host
    assert "reached" in federation.at("site-1", "python", "-c", reach, "supernode", "9094")
    assert "Read-only" in federation.at("site-1", "sh", "-c", "touch /data/x", check=False)
    assert "No such file" in federation.at("site-1", "ls", "/site/site.key", check=False)
    assert "ca.key" not in federation.at("server", "ls", "-A", "/server/federation/authority")
    for service in ("proxy", "superlink", "server", "supernode-1", "site-1"):
        federation.at(service, *project("federation")["services"][service]["healthcheck"]["test"][1:])
