"""Too few sites for what is asked of them are refused before anything starts; holdouts are not counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedbrats.checks.config import checked
from fedbrats.checks.plan import check_dealt
from fedbrats.checks.site_count import check_count
from fedbrats.config.targets import ConfigError
from fedbrats.federation.parts import parts_of
from tests.checks.test_secure import ON, sites
from tests.tiny import tiny


def test_secure_aggregation_needs_three(tmp_path: Path) -> None:
    parts = parts_of(checked(tiny(tmp_path, ON)))
    check_count(parts, 3)
    with pytest.raises(ConfigError, match="secure_aggregation=true needs 3 sites that train, here are 2"):
        check_count(parts, 2)
    check_count(parts_of(checked(tiny(tmp_path))), 1)


@pytest.mark.parametrize(
    ("overrides", "needed"),
    [
        (("strategy=trimmed_mean", "strategy.liars=2"), 5),
        (("strategy=krum",), 5),
        (("strategy=krum", "strategy.chosen=4"), 7),
        (("strategy=bulyan",), 7),
    ],
)
def test_a_rule_needs_sites_enough(tmp_path: Path, overrides: tuple[str, ...], needed: int) -> None:
    config = checked(tiny(tmp_path, *overrides))
    check_dealt(config, sites(needed), {})
    idle = replace(sites(needed)[0], train=())
    for too_few in (sites(needed - 1), [idle, *sites(needed)[1:]]):
        with pytest.raises(ConfigError, match=f"needs {needed} sites that train, here are {needed - 1}"):
            check_dealt(config, too_few, {})
    check_dealt(replace(config, arms=["pooled"]), sites(needed - 1), {})
