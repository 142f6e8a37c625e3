"""What `settle` fills in: the share of the sites that must answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedbrats.checks.settings import with_quorum
from fedbrats.config.schema import RuntimeConfig
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
