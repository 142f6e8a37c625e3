"""The containers of a whole federation on this host: made from nothing, asked, and broken."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedbrats.data.phantom import write_phantom
from fedbrats.files import read_json
from tests.docker.compose import DOCKER, compose_file
from tests.tiny import ROOT

CASES = {"site-1": 5, "site-2": 4, "site-3": 3}  # of institutions by the same names without a dash
PORT = "18643"
USER = 1000  # of the image
WAIT = float(os.environ.get("FEDBRATS_CONTAINERS_WAIT", "600"))  # seconds for a study


@dataclass(frozen=True)
class Containers:
    """What one compose file starts, under a project of its own."""

    folder: Path
    engine: str
    program: tuple[str, ...]
    image: str
    file: str
    given: Mapping[str, str]  # variables of the file
    watched: tuple[str, ...]  # services whose last words are told where something does not come
    sites: int = 1
    over: tuple[Path, ...] = ()  # further compose files

    @property
    def project(self) -> str:
        return f"fedbrats-test-{self.file}"

    def compose(self, *words: str, check: bool = True) -> str:
        """What compose printed."""
        environment = {
            **os.environ,
            "FLEET_PORT": PORT,
            "FEDBRATS_IMAGE": self.image,
            "PROCESSES": "900",
            **dict.fromkeys(("SITE_MEMORY", "SERVER_MEMORY", "SUPERLINK_MEMORY", "SUPERNODE_MEMORY"), "3g"),
            **self.given,
        }
        files = [word for file in (compose_file(self.file), *self.over) for word in ("-f", str(file))]
        command = [*self.program, "-p", self.project, *files, *words]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def operator(self, *words: str, check: bool = True) -> str:
        """A command in a container of its own."""
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
        project = f"label=com.docker.compose.project={self.project}"
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
        """Finished rounds, by the table."""
        count = f"grep -c ,train, /storage/studies/{study}/rounds.csv || true"
        said = self.at("server", "sh", "-c", count, check=False).split()
        return int(said[0]) // self.sites if said and said[0].isdigit() else 0

    def logs(self) -> str:
        """The ends of what the containers said."""
        return "\n".join(
            f"== {name}\n{self.run_engine('logs', '--tail', '12', self.container(name), check=False)}"
            for name in self.watched
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

    def down(self) -> None:
        """End all of it, with what it kept."""
        self.compose("down", "--volumes", "-t", "5", check=False)


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
def containers() -> Iterator[Callable[..., Containers]]:
    """Makes `Containers` of a file, its variables and more, in an empty folder; taken down with the context."""
    engine, program = tools()
    image = os.environ.get("FEDBRATS_IMAGE") or "fedbrats-test"
    if "FEDBRATS_IMAGE" not in os.environ:
        more = shlex.split(os.environ.get("FEDBRATS_BUILD", ""))
        subprocess.run(
            [engine, "build", *more, "-t", image, "-f", "docker/Dockerfile", "."], cwd=ROOT, check=True
        )
    with tempfile.TemporaryDirectory(prefix="fedbrats-") as name, ExitStack() as ends:
        folder = Path(name)
        folder.chmod(0o755)

        def make(file: str, given: Mapping[str, str], watched: tuple[str, ...], **more: Any) -> Containers:
            paths = {key: str(folder / path) for key, path in given.items()}
            found = Containers(folder, engine, program, image, file, paths, watched, **more)
            ends.callback(found.down)
            return found

        yield make


@contextmanager
def on_one_host() -> Iterator[Containers]:
    """A whole federation that runs."""
    given = {"SERVER": "server", "SITES": "sites", "SITES_DATA": "data"}
    with containers() as make:
        found = make("federation", given, ("server", "superlink", "site-1", "supernode-1", "site-2"), sites=3)
        begun(found)
        yield found


def begun(made: Containers) -> None:
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


def start(federation: Containers, study: str, *overrides: str) -> None:
    """Begin a study as soon as the SuperLink answers, and have the one site that asks for it say yes."""
    begin(federation, study, *overrides)
    approve(federation, "site-1", study)


def begin(server: Containers, study: str, *overrides: str) -> None:
    """Begin a study as soon as the SuperLink answers."""

    def begun() -> bool:
        return "study " in server.operator("study", "start", study, *overrides, check=False)

    wait(begun, 180, server.logs)


def approve(containers: Containers, service: str, study: str) -> None:
    """Have a site say yes as soon as it has heard of the study."""

    def approved() -> bool:
        words = ("fedbrats", "site", "approve", "/site/site.yaml", study, "--yes")
        return "approved" in containers.at(service, *words, check=False)

    wait(approved, WAIT, containers.logs)


def under_way(federation: Containers, study: str, rounds: int = 1) -> None:
    """Wait until so many rounds are finished."""
    wait(lambda: federation.rounds(study) >= rounds, WAIT, federation.logs)


def killed(federation: Containers, service: str) -> None:
    """End all processes of a container at once, as running out of memory would; its engine starts it again."""
    federation.at(service, "sh", "-c", "kill -9 -1", check=False)
