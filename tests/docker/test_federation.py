"""A federation in containers, from nothing to reports: keys, a server behind its proxy, three sites, studies, faults.

It is skipped unless FEDBRATS_CONTAINERS=1 asks for it, where docker with its compose plugin, or podman and
podman-compose, are there:

    FEDBRATS_CONTAINERS=1 python -m pytest tests/docker/test_federation.py -s

FEDBRATS_IMAGE names an image that is there already; without it, one is built with what FEDBRATS_BUILD says beside
(`--build-arg TORCH_INDEX=...`). All that it makes has names of its own and is taken down at the end, but the image.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedbrats.commands.compose import compose_config
from fedbrats.commands.run.run import run
from fedbrats.data.phantom import write_phantom
from fedbrats.files import read_json
from fedbrats.runs.checkpoint import load_checkpoint
from tests.docker.compose import DOCKER, compose_file, project
from tests.tiny import MODEL, ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
CASES = {"site-1": 5, "site-2": 4, "site-3": 3}  # of institutions by the same names without a dash
PROJECT = "fedbrats-test"
PORT = "18643"
USER = 1000  # of the image
TINY = ("train=small", "train.local_steps=2", *MODEL, "inference.overlap=0.0")
ASKED = (*TINY, "strategy=fedprox", "rounds=2")
ROUNDS = 5
LONG = (*TINY, f"rounds={ROUNDS}", "train.local_steps=4")
WAIT = float(os.environ.get("FEDBRATS_CONTAINERS_WAIT", "600"))  # seconds for a study


@dataclass(frozen=True)
class Federation:
    """The containers of a whole federation, by compose."""

    folder: Path
    engine: str
    program: tuple[str, ...]
    image: str

    def compose(self, *words: str, check: bool = True) -> str:
        """What compose printed."""
        names = ("server", "sites", "data")
        given = {name: str(self.folder / name) for name in names}
        environment = {
            **os.environ,
            "SERVER": given["server"],
            "SITES": given["sites"],
            "SITES_DATA": given["data"],
            "FLEET_PORT": PORT,
            "FEDBRATS_IMAGE": self.image,
            "PROCESSES": "900",
            **dict.fromkeys(("SITE_MEMORY", "SERVER_MEMORY", "SUPERLINK_MEMORY", "SUPERNODE_MEMORY"), "3g"),
        }
        command = [*self.program, "-p", PROJECT, "-f", str(compose_file("federation"))]
        done = subprocess.run(
            [*command, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def operator(self, *words: str, check: bool = True) -> str:
        """A command of the server's operator."""
        return self.compose(
            "--profile", "operator", "run", "--rm", "--no-deps", "-T", "operator", *words, check=check
        )

    def at(self, service: str, *words: str, check: bool = True) -> str:
        """A command in a container that runs."""
        return self.run_engine("exec", self.container(service), *words, check=check)

    def run_engine(self, *words: str, check: bool = True) -> str:
        """What the engine printed."""
        done = subprocess.run([self.engine, *words], capture_output=True, text=True, timeout=300)
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def container(self, service: str) -> str:
        label = f"label=com.docker.compose.service={service}"
        project = f"label=com.docker.compose.project={PROJECT}"
        found = self.run_engine("ps", "-a", "-q", "--filter", label, "--filter", project).split()
        assert len(found) == 1, (service, found)
        return found[0]

    def state(self, study: str) -> dict[str, str]:
        """What the server says of a study."""
        target = self.folder / "state.json"
        target.unlink(missing_ok=True)
        source = f"{self.container('server')}:/storage/studies/{study}/state.json"
        self.run_engine("cp", source, str(target), check=False)
        return read_json(target) if target.is_file() else {"state": "", "said": ""}

    def rounds(self, study: str) -> int:
        """Finished rounds, by the checkpoint."""
        said = self.at(
            "server", "sh", "-c", f"grep -c ,train, /storage/studies/{study}/rounds.csv || true", check=False
        )
        return int(said.split()[0]) // len(CASES) if said.split() and said.split()[0].isdigit() else 0

    def logs(self) -> str:
        """The ends of what all containers said."""
        names = ("server", "superlink", "site-1", "supernode-1", "site-2")
        return "\n".join(
            f"== {n}\n{self.run_engine('logs', '--tail', '12', self.container(n), check=False)}"
            for n in names
        )

    def finish(self, study: str) -> Path:
        """Wait for the end of a study; a copy of its folder."""

        def finished() -> bool:
            state = self.state(study)
            assert state["state"] != "failed", f"{state}\n{self.logs()}"
            return state["state"] == "finished"

        wait(finished, WAIT, lambda: f"{self.state(study)}\n{self.logs()}")
        target = self.folder / "results"
        target.mkdir(exist_ok=True)
        self.run_engine("cp", f"{self.container('server')}:/storage/studies/{study}", str(target))
        return target / study


def wait(until: Callable[[], bool], seconds: float, why: Callable[[], str]) -> None:
    """Wait until it is so; fails with `why`."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, f"not within {seconds} s\n{why()}"
        time.sleep(2)


def tools() -> tuple[str, tuple[str, ...]]:
    """The engine and the program that reads compose files."""
    if os.environ.get("FEDBRATS_CONTAINERS") != "1":
        pytest.skip("FEDBRATS_CONTAINERS=1 asks for it")
    for engine, program in (("docker", ("docker", "compose")), ("podman", ("podman-compose",))):
        known = shutil.which(engine) and shutil.which(program[0])
        if known and all(
            subprocess.run(command, capture_output=True).returncode == 0
            for command in ([engine, "info"], [*program, "version"])
        ):
            return engine, program
    pytest.skip("neither docker with compose nor podman with podman-compose runs here")


@pytest.fixture(scope="module")
def federation() -> Iterator[Federation]:
    engine, program = tools()
    image = os.environ.get("FEDBRATS_IMAGE") or "fedbrats-test"
    if "FEDBRATS_IMAGE" not in os.environ:
        more = shlex.split(os.environ.get("FEDBRATS_BUILD", ""))
        subprocess.run(
            [engine, "build", *more, "-t", image, "-f", "docker/Dockerfile", "."], cwd=ROOT, check=True
        )
    with tempfile.TemporaryDirectory(prefix="fedbrats-") as folder:
        made = Federation(Path(folder), engine, program, image)
        made.folder.chmod(0o755)
        try:
            begun(made)
            yield made
        finally:
            made.compose("down", "--volumes", "-t", "5", check=False)


def begun(made: Federation) -> None:
    """Keys, data and containers."""
    for name in ("server", "sites", "data"):
        (made.folder / name).mkdir()
    shutil.copy(DOCKER / "server.yaml", made.folder / "server")
    own(made.folder / "server")
    made.operator("federation", "init", "--name", "proxy", "--also", "superlink", "--port", "8443")
    institutions = {called(name): n for name, n in CASES.items()}
    write_phantom(made.folder / "all", sites=institutions, shape=[32, 32, 24], workers=0)
    for name in CASES:
        made.operator("federation", "enrol", called(name))
        kit = made.folder / "server" / "federation" / "kits" / called(name) / "1"
        shutil.copytree(kit, made.folder / "sites" / name)
        for case in (made.folder / "all").glob(f"BraTS*_{called(name)}_*"):
            shutil.copytree(case, made.folder / "data" / name / case.name)
        file = made.folder / "sites" / name / "site.yaml"
        content = yaml.safe_load(file.read_text())
        content["data"] = {"root": "/data"}
        content["limits"] = {"threads": 1}
        content["policy"] |= {"least_cases": 1, "per_case": True, "approval": name == "site-1"}
        file.write_text(yaml.safe_dump(content))
    own(made.folder / "sites")
    own(made.folder / "data")
    made.compose("up", "-d", "--no-build")


def called(service: str) -> str:
    """The institution of a site; names of BraTS cases take letters and digits only."""
    return service.replace("-", "")


def own(folder: Path) -> None:
    """Give a folder to the image's user; whoever is not root must have built the image for himself."""
    if os.getuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, USER, USER)


def start(federation: Federation, study: str, *overrides: str) -> None:
    """Begin a study as soon as the SuperLink answers, and have the one site that asks for it say yes."""

    def said(*words: str) -> bool:
        return "study " in federation.operator(*words, check=False)

    wait(lambda: said("study", "start", study, *overrides), 180, federation.logs)

    def approved() -> bool:
        return "approved" in federation.at(
            "site-1", "fedbrats", "site", "approve", "/site/site.yaml", study, "--yes", check=False
        )

    wait(approved, WAIT, federation.logs)


def under_way(federation: Federation, study: str, rounds: int = 1) -> None:
    """Wait until so many rounds are finished."""
    wait(lambda: federation.rounds(study) >= rounds, WAIT, federation.logs)


def killed(federation: Federation, service: str) -> None:
    """End all processes of a container at once, as running out of memory would; its engine starts it again."""
    federation.at(service, "sh", "-c", "kill -9 -1", check=False)


def simulated(federation: Federation, folder: Path, *overrides: str) -> Path:
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
    federation: Federation, tmp_path: Path
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
def test_private_and_personal_studies(federation: Federation, overrides: tuple[str, ...]) -> None:
    name = overrides[0].split("=")[1].replace("_", "")
    start(federation, name, *TINY, *overrides)
    found = federation.finish(name)
    assert (found / "report.html").is_file()
    assert (found / "privacy.json").is_file() == overrides[0].startswith("privacy")
    assert name in federation.at("site-1", "fedbrats", "site", "log", "/site/site.yaml", "--summary")
    federation.at("site-1", "fedbrats", "site", "log", "/site/site.yaml", "--verify")


@pytest.fixture(scope="module")
def undisturbed(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a simulation makes of `LONG`."""
    return simulated(federation, tmp_path_factory.mktemp("long"), *LONG)


@pytest.mark.parametrize("service", ["server", "site-2", "supernode-2"])
def test_a_study_goes_on_after_a_container_was_killed(
    federation: Federation, undisturbed: Path, service: str
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
    federation: Federation, undisturbed: Path, seconds: int
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


def test_only_the_fleet_interface_and_the_health_page_are_reached(federation: Federation) -> None:
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


def test_what_sees_the_cases_reaches_nobody_and_writes_nowhere_else(federation: Federation) -> None:
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
