"""What of a critic is refused, each with the key and the fix."""

from __future__ import annotations

from typing import Any

import pytest

from fedbrats.config.critic import CriticConfig, check_critic
from fedbrats.config.targets import ConfigError
from tests.config.test_config import config_of

ON = CriticConfig(weight=0.3)
FREE: dict[str, Any] = {"kind": 3, "patient_privacy": False, "own_steps": False}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1.0}, r"train\.critic\.weight=-1\.0: must be a number >= 0"),
        ({"weight": float("inf")}, r"train\.critic\.weight=inf"),
        ({"weight": 0.3, "lr": 0.0}, r"train\.critic\.lr=0\.0: must be a positive number"),
        ({"weight": 0.3, "lr": float("nan")}, r"train\.critic\.lr=nan: must be a positive number"),
        ({"lr": 1e-3}, r"train\.critic\.lr=0\.001: has no effect with train\.critic\.weight=0; set a weight"),
    ],
)
def test_a_wrong_value_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_critic(CriticConfig(**settings), **FREE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"patient_privacy": True}, r"train\.critic\.weight=0\.3 and privacy=dp_sgd exclude each other"),
        ({"kind": 0}, r"train\.critic\.weight=0\.3 and task=classification exclude each other"),
        (
            {"kind": 2},
            r"train\.critic\.weight=0\.3: the critic's convolutions are 3x3x3.*choose a network in 3D",
        ),
        ({"own_steps": True}, r"takes steps of its own \(apfl\).*set train\.critic\.weight=0"),
    ],
)
def test_what_it_cannot_be_combined_with_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_critic(ON, **FREE | given)
    check_critic(CriticConfig(), **FREE | given)  # off
    check_critic(ON, **FREE)


def test_a_private_run_is_asked_to_leave_it_out() -> None:
    """As configured by hand; the critic is off unless it is asked for."""
    private = ("model=nnunet", "model.size=small", "privacy=dp_sgd", "privacy.target_epsilon=8")
    with pytest.raises(ConfigError, match=r"privacy=dp_sgd exclude each other.*set train\.critic\.weight=0"):
        config_of(*private, "train.critic.weight=0.3")
    assert CriticConfig() == CriticConfig(weight=0.0, lr=5e-5)  # section 4.1
