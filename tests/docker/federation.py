"""The containers of a whole federation on this host: made from nothing, asked, and broken."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from fedbrats.data.phantom import write_phantom
from fedbrats.files import read_json
from tests.docker.compose import DOCKER, compose_file
from tests.tiny import ROOT

CASES = {"site-1": 5, "site-2": 4, "site-3": 3}  # of institutions by the same names without a dash
PROJECT = "fedbrats-test"
PORT = "18643"
USER = 1000  # of the image
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


@contextmanager
def in_containers() -> Iterator[Federation]:
    """A federation that runs; taken down with the context, but the image."""
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
