"""The Ray engine; runs only where Ray is installed (`pip install fedbrats[ray]`)."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flwr.serverapp import Grid

from fedbrats.config.targets import ConfigError
from fedbrats.engines.ray import run_ray
from tests.engines import toy_app
from tests.engines.toy_app import ask, content, record, serve, value


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_error_names_the_extra() -> None:
    with pytest.raises(ConfigError, match=r"pip install fedbrats\[ray\]"):
        run_ray(serve(lambda grid: None), toy_app.make, ["a"])


def test_the_same_apps_run_on_ray(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    values, sites, reasons = [], [], []

    def main(grid: Grid) -> None:
        for _ in range(2):
            values.extend(sorted(value(reply) for reply in ask(grid, content(record(10)))))
        for reply in ask(grid, content(record(0), site="b", **{"raise": "boom"})):
            reasons.extend([reply.error.reason] if reply.has_error() else [])
        sites.extend(sorted(reply.content["config"]["site"] for reply in ask(grid, content(), "query")))

    run_ray(serve(main), toy_app.make, ["a", "b", "c"])
    assert values == [10, 11, 12] * 2
    assert sites == ["a", "b", "c"]
    assert [reason.split(" (")[0] for reason in reasons] == ["ValueError: boom"]

    def fail(grid: Grid) -> None:
        raise LookupError("the server's own")

    with pytest.raises(LookupError, match="the server's own"):
        run_ray(serve(fail), toy_app.make, ["a"])
    assert "deprecated" not in capfd.readouterr().err


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def cluster(folder: Path) -> Iterator[str]:
    """A Ray cluster of two nodes of one core each on this machine; its address."""
    port, ray = free_port(), [sys.executable, "-m", "ray.scripts.scripts"]
    alone = {"env": {**os.environ, "RAY_TMPDIR": str(folder)}, "check": True, "stdout": subprocess.DEVNULL}
    common = ["--num-cpus=1", "--include-dashboard=false", "--disable-usage-stats"]
    try:
        subprocess.run([*ray, "start", "--head", f"--port={port}", *common], **alone)
        subprocess.run([*ray, "start", f"--address=127.0.0.1:{port}", *common[:1], common[2]], **alone)
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run([*ray, "stop", "--force"], **{**alone, "check": False})


@pytest.mark.slow
def test_on_a_cluster_of_two_nodes_a_run_goes_on_when_an_actor_dies(tmp_path: Path) -> None:
    """Site b kills its actor, twice as its message is tried once more, and answers again in the next round."""
    ray = pytest.importorskip("ray")
    seen: list[list[object]] = []
    nodes: set[str] = set()

    def main(grid: Grid) -> None:
        nodes.update(node["NodeID"] for node in ray.nodes() if node["Alive"])
        for options in ({}, {"site": "b", "exit": 3}, {}):
            replies = ask(grid, content(record(10), **options), seconds=300)
            seen.append(
                [type(reply.error).__name__ if reply.has_error() else value(reply) for reply in replies]
            )

    with contextmanager(cluster)(Path(tempfile.mkdtemp(dir="/tmp"))) as address:
        run_ray(serve(main), toy_app.make, ["a", "b", "c"], address=address)
    assert len(nodes) == 2
    assert [sorted(map(str, round_)) for round_ in seen] == [
        ["10.0", "11.0", "12.0"],
        ["10.0", "12.0", "Error"],
        ["10.0", "11.0", "12.0"],
    ]
