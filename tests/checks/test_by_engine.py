"""What is filled in for a simulation and for a deployment: the share of the sites that must answer, one exchange."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedbrats.checks.by_engine import check_one_exchange, with_one_exchange, with_quorum
from fedbrats.config.schema import RuntimeConfig
from fedbrats.config.targets import ConfigError
from tests.federation.toy import toy_config


@pytest.mark.parametrize(
    ("engine", "asked", "settled"),
    [
        ("local", None, 0.5),
        ("ray", None, 0.5),
        ("superlink", None, 1.0),
        ("superlink", 0.6, 0.6),
        ("local", 1.0, 1.0),
    ],
)
def test_quorum(engine: str, asked: float | None, settled: float, tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    strategy = {**config.strategy, "quorum": asked}
    found = with_quorum(replace(config, strategy=strategy, runtime=RuntimeConfig(engine=engine)))
    assert found.strategy == {**config.strategy, "quorum": settled}


def test_a_strategy_that_says_nothing_is_settled_too(tmp_path: Path) -> None:
    config = toy_config(tmp_path)
    assert "quorum" not in config.strategy
    assert with_quorum(config).strategy["quorum"] == 0.5


@pytest.mark.parametrize(
    ("engine", "asked", "train", "settled"),
    [
        ("local", None, {}, False),
        ("local", True, {}, True),
        ("superlink", None, {}, True),
        ("superlink", False, {}, False),
        ("superlink", None, {"schedule": "plateau"}, False),
        ("superlink", None, {"stop_patience": 3}, False),
    ],
)
def test_one_exchange(
    engine: str, asked: bool | None, train: dict[str, Any], settled: bool, tmp_path: Path
) -> None:
    config = toy_config(tmp_path)
    runtime = RuntimeConfig(engine=engine, one_exchange=asked)
    found = with_one_exchange(replace(config, runtime=runtime, train=replace(config.train, **train)))
    assert found.runtime.one_exchange is settled


@pytest.mark.parametrize("train", [{"schedule": "plateau"}, {"stop_patience": 2}], ids=str)
def test_one_exchange_is_refused_where_a_round_waits_for_its_validation(
    train: dict[str, Any], tmp_path: Path
) -> None:
    config = toy_config(tmp_path, runtime=RuntimeConfig(one_exchange=True))
    check_one_exchange(config)
    with pytest.raises(ConfigError, match=r"runtime\.one_exchange=true: with train\."):
        check_one_exchange(replace(config, train=replace(config.train, **train)))
