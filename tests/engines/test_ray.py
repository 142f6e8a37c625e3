"""The Ray engine; runs only where Ray is installed (`pip install fedbrats[ray]`)."""

from __future__ import annotations

import importlib.util

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
