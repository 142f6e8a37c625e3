"""Processes that run on: started again when they end, ended together, and only once by one file."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedbrats.config.targets import ConfigError
from fedbrats.engines.superlink import bodies, processes
from fedbrats.files import read_json, write_json
from tests.engines.superlink.deployment import wait


class Sleeper(processes.Program):
    """A program that does nothing for a long time."""

    def start(self, environment: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])


def alive(pid: int) -> bool:
    return processes._alive(pid)


def test_what_is_killed_is_started_again_and_all_end_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "AGAIN", 0.1)
    monkeypatch.setattr(processes, "LOOK", 0.1)
    file, pids, looks = tmp_path / "running.json", list[dict[str, int]](), list[int]()

    def watch() -> None:
        try:
            wait(lambda: file.is_file() and len(read_json(file)["programs"]) == 2, 20)
            pids.append(read_json(file)["programs"])
            os.kill(pids[0]["b"], signal.SIGKILL)
            wait(lambda: read_json(file)["programs"].get("b", pids[0]["b"]) != pids[0]["b"], 20)
            pids.append(read_json(file)["programs"])
            wait(lambda: bool(looks), 20)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch).start()
    programs = [Sleeper(name, (), tmp_path / f"{name}.log") for name in "ab"]
    assert processes.run_all(programs, {}, file, lambda: looks.append(1)) == 0
    assert pids[1]["a"] == pids[0]["a"]
    assert not any(alive(pid) for found in pids for pid in found.values())
    assert not file.exists()


HOLD = """
import sys
from pathlib import Path
from fedbrats.engines.superlink.processes import run_all
run_all([], {}, Path(sys.argv[1]))
"""


def test_a_second_command_for_the_same_place_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "running.json"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(file)]) as other:
        wait(lambda: file.with_suffix(".lock").is_file(), 20)
        write_json(file, {"pid": other.pid})
        wait(lambda: processes.running_by(file) == other.pid, 20)
        before = file.read_bytes()
        with pytest.raises(ConfigError, match=f"process {other.pid} runs them already"):
            processes.run_all([], {}, file)
        assert file.read_bytes() == before
        other.kill()
    assert not processes.running_by(file)
    assert not processes.stop(file)  # what is left of a killed one stops nobody


def test_a_number_that_another_process_has_by_now_keeps_nobody_out_and_stops_nobody(tmp_path: Path) -> None:
    file = tmp_path / "running.json"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        write_json(file, {"pid": stranger.pid})
        with processes.held(file):
            pass
        assert not processes.stop(file)
        assert stranger.poll() is None
        stranger.kill()


def test_what_is_raised_when_a_program_ended_ends_all(tmp_path: Path) -> None:
    file = tmp_path / "running.json"

    class Short(Sleeper):
        def start(self, environment: object) -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, "-c", ""])

    pids = list[int]()

    def ended(name: str) -> None:
        pids.append(read_json(file)["programs"]["long"])
        raise ConfigError(f"{name} is not wanted")

    with pytest.raises(ConfigError, match="short is not wanted"):
        processes.run_all([Sleeper("long", (), None), Short("short", (), None)], {}, file, ended=ended)
    assert not alive(pids[0])
    assert not file.exists()


def test_memory_is_used_again_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, str] = {}
    monkeypatch.setattr(processes.subprocess, "Popen", lambda command, env, **more: found.update(env))
    name = "MALLOC_TRIM_THRESHOLD_"
    monkeypatch.delenv(name, raising=False)
    processes.Program("a", (), None).start({})
    assert found[name] == processes.HEAP[name]
    monkeypatch.setenv(name, "1")
    processes.Program("a", (), None).start({})
    assert found[name] == "1"


FAULTS = """
import resource, threading

def use() -> None:
    bytearray(100 * 2**20)

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for act in (use, lambda: (thread := threading.Thread(target=use), thread.start(), thread.join())):
        act()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="names of glibc's own")
def test_a_large_block_is_not_asked_for_again_by_whatever_thread() -> None:
    def pages(**heap: str) -> tuple[int, int]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        done = subprocess.run(
            [sys.executable, "-c", FAULTS], env={**own, **heap}, capture_output=True, text=True, check=True
        )
        first, again = map(int, done.stdout.split())
        return first, again

    first, again = pages()
    assert again > 0.8 * first  # glibc as it is
    first, again = pages(**processes.HEAP)
    assert again < 0.1 * first


def test_an_array_goes_in_large_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    (size,) = map(int, processes.PIECES.values())
    asked = "from flwr.app.message import array; print(array.FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE)"

    def said(**more: str) -> int:
        own = {name: value for name, value in os.environ.items() if name not in processes.PIECES}
        command = [sys.executable, "-c", asked]
        done = subprocess.run(command, env={**own, **more}, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert said() < said(**processes.PIECES) == size
    assert size < bodies.LARGEST / 1.5  # a piece is in a request with a few words more
    found: dict[str, str] = {}
    monkeypatch.setattr(processes.subprocess, "Popen", lambda command, env, **more: found.update(env))
    processes.Program("a", (), None).start({})
    assert found.items() >= processes.PIECES.items()
