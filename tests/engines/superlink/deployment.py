"""A deployment on this machine: a server and its sites as processes, each site with a folder of its own."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from fedbrats.commands.study.folder import FAILED, FINISHED, read_state
from fedbrats.credentials.folder import begin
from fedbrats.credentials.sites import enrol
from fedbrats.data.phantom import write_phantom
from tests.warm_command import Said, fedbrats

PACE = {"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}


@dataclass
class Deployment:
    """What runs, by name, and where everything lies."""

    folder: Path
    port: int
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    within: dict[str, tuple[str, ...]] = field(default_factory=dict)  # such as `ip netns exec`

    @property
    def server(self) -> Path:
        return self.folder / "server.yaml"

    def site(self, name: str) -> Path:
        return self.folder / name / "site.yaml"

    def study(self, name: str) -> Path:
        return self.folder / "server" / "studies" / name

    def fedbrats(self, *words: str) -> str:
        """Run a command to its end; what it printed."""
        found = self.tried(*words)
        assert found.status == 0, found.text
        return found.out

    def tried(self, *words: str) -> Said:
        """Run a command to its end, whichever that is."""
        return fedbrats(*words, cwd=self.folder, more=PACE)

    def start(self, name: str, *words: str) -> None:
        """Begin a command that runs on."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [*self.within.get(name, ()), sys.executable, "-m", "fedbrats", *words],
                stdout=log,
                stderr=log,
                env={**os.environ, **PACE},
            )

    def start_server(self) -> None:
        self.start("server", "server", "start", "--server", str(self.server))

    def start_site(self, name: str, number: int) -> None:
        self.start(name, "site", "start", str(self.site(name)), "--port", str(self.port + 1 + number))

    def begin_study(self, name: str, *overrides: str) -> None:
        """Begin a study as soon as the SuperLink answers."""

        def began() -> bool:
            shutil.rmtree(self.study(name), ignore_errors=True)
            found = self.tried("study", "start", name, *overrides, "--server", str(self.server))
            assert found.status == 0 or (found.status == 2 and "no answer" in found.err), found.text
            return found.status == 0

        wait(began, 180)

    def finished(self, study: str) -> bool:
        state = read_state(self.study(study))
        assert state["state"] != FAILED, self.logs() + state["said"]
        return state["state"] == FINISHED

    def logs(self, lines: int = 30) -> str:
        """The ends of all logs."""
        files = sorted(self.folder.rglob("*.log"))
        ends = [f"== {file}\n" + "\n".join(file.read_text().splitlines()[-lines:]) for file in files]
        return "\n".join(ends) + "\n"

    def process(self, name: str, word: str) -> psutil.Process:
        """What was started under a name and has a word in its command: the last one of those that live."""
        found = psutil.Process(self.running[name].pid).children(recursive=True)
        living = [process for process in found if process.status() != psutil.STATUS_ZOMBIE]
        return [process for process in living if word in process.cmdline()][-1]

    def stop(self, name: str) -> None:
        """Ask a command to end, with all that it began."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nobody listens at; other tests may look at the same time."""
    while True:
        first = random.SystemRandom().randrange(20000, 30000)
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first


@contextmanager
def deployment(
    folder: Path,
    sites: Mapping[str, int],
    more: Mapping[str, dict] | None = None,
    names: Sequence[str] = (),
    labels: bool = False,
) -> Iterator[Deployment]:
    """Credentials, configurations and data of a federation; whatever was started is ended with the context.

    Args:
        folder: empty.
        sites: name -> cases, of one phantom.
        more: entries of the `site.yaml` of some sites.
        names: further addresses of the server, where it is then to be reached, too.
        labels: whether cases have a label, and each site a table of its own.
    """
    port = free_ports(2 + len(sites))  # of the server, of each site, and one to spare for a proxy
    made, root = Deployment(folder, port), folder / "all"
    write_phantom(
        root, sites=dict(sites), shape=[32, 32, 24], workers=0, label_strength=1.0 if labels else None
    )
    federation = begin(folder / "federation", "localhost", list(names), port)
    listen = "0.0.0.0" if names else "127.0.0.1"
    made.server.write_text(
        yaml.safe_dump({"federation": "federation", "storage": "server", "listen": listen})
    )
    for name in sites:
        shutil.copytree(enrol(federation, name), folder / name)
        own = folder / name / "data"
        own.mkdir()
        for case in sorted(root.glob("BraTS*")):
            if f"_{name}_" in case.name:
                shutil.copytree(case, own / case.name)
        content = yaml.safe_load(made.site(name).read_text())
        content["data"] = {"root": "data"}
        if labels:
            header, *lines = (root / "labels.csv").read_text().splitlines()
            mine = [line for line in lines if f"_{name}_" in line]
            (folder / name / "labels.csv").write_text("\n".join([header, *mine]))
            content["labels"] = {"table": "labels.csv"}
        content |= {"limits": {"threads": 1}, "device": "cpu"}
        content["policy"] |= {"least_cases": 1, "per_case": True, "approval": False}
        content |= (more or {}).get(name, {})
        made.site(name).write_text(yaml.safe_dump(content))
    try:
        yield made
    finally:
        for name in reversed(list(made.running)):
            made.stop(name)


def wait(until: Callable[[], bool], seconds: float, why: Callable[[], str] = str) -> None:
    """Wait until it is so; fails with `why`."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, f"not within {seconds} s\n{why()}"
        time.sleep(0.2)
