"""The keys of secure aggregation beside every `privacy`, and the values that they do not take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedbrats.config.schema import typed
from fedbrats.config.secure import SecureAggregation, mechanism, secure_aggregation
from fedbrats.config.targets import ConfigError
from tests.tiny import tiny


@pytest.mark.parametrize("privacy", ["none", "dp_sgd"])
def test_the_switch_stands_beside_every_privacy(privacy: str, tmp_path: Path) -> None:
    off = typed(tiny(tmp_path, f"privacy={privacy}"))
    on = typed(tiny(tmp_path, f"privacy={privacy}", "privacy.secure_aggregation=true"))
    assert secure_aggregation(off.privacy) is None
    assert not any(key.startswith("secure") for key in off.privacy)  # a run without it is as it was
    assert secure_aggregation(on.privacy) == SecureAggregation(2 / 3, 65536.0)
    assert mechanism(on.privacy) == off.privacy


def test_the_options(tmp_path: Path) -> None:
    given = ("privacy.secure_threshold=0.5", "privacy.secure_range=100")
    found = typed(tiny(tmp_path, "privacy.secure_aggregation=true", *given))
    assert secure_aggregation(found.privacy) == SecureAggregation(0.5, 100.0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"secure_aggregation": "yes"}, r"privacy\.secure_aggregation='yes': must be true or false"),
        ({"secure_threshold": 0.49}, r"privacy\.secure_threshold=0\.49: must lie in \[0\.5, 1\)"),
        ({"secure_threshold": 1}, r"privacy\.secure_threshold=1: must lie"),
        ({"secure_range": 0.5}, r"privacy\.secure_range=0\.5: must lie in \[1, "),
        ({"secure_range": "x"}, r"privacy\.secure_range='x': must be a number, or null"),
        ({"secure_range": True}, r"privacy\.secure_range=True: must be a number, or null"),
        (
            {"secure_aggregation": False, "secure_range": 9.0},
            r"privacy\.secure_range=9 does nothing without.*privacy\.secure_aggregation=true",
        ),
    ],
)
def test_what_it_does_not_take(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        secure_aggregation({"secure_aggregation": True, **changed})
