"""What of virtual adversarial training is refused, each with the key and the fix."""

from __future__ import annotations

from typing import Any

import pytest

from fedbrats.config.targets import ConfigError
from fedbrats.config.vat import VatConfig, check_vat
from fedbrats.personalization.base import Personalization
from fedbrats.personalization.ditto import Ditto
from fedbrats.personalization.finetune import Finetune
from fedbrats.personalization.mr_mtl import MrMtl
from tests.config.test_config import config_of


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": -1.0}, r"train\.vat\.weight=-1\.0: must be a number >= 0"),
        ({"weight": float("inf")}, r"train\.vat\.weight=inf"),
        ({"weight": 0.2, "epsilon": 0.0}, r"train\.vat\.epsilon=0\.0: must be a positive number"),
        ({"weight": 0.2, "xi": float("nan")}, r"train\.vat\.xi=nan: must be a positive number"),
        ({"weight": 0.2, "iterations": 0}, r"train\.vat\.iterations=0: must be at least 1"),
        ({"weight": 0.2, "target": "label"}, r"train\.vat\.target=label: choose one of prediction, truth"),
        (
            {"epsilon": 0.1},
            r"train\.vat\.epsilon=0\.1: has no effect with train\.vat\.weight=0; set a weight",
        ),
        ({"iterations": 2}, r"train\.vat\.iterations=2: has no effect"),
    ],
)
def test_a_wrong_value_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_vat(VatConfig(**settings), patient_privacy=False, own_steps=False)


def test_what_it_takes_part_in_is_let_through() -> None:
    check_vat(VatConfig(), patient_privacy=True, own_steps=True)  # off
    check_vat(VatConfig(target="truth"), patient_privacy=True, own_steps=True)  # a model's, left out
    check_vat(VatConfig(weight=0.2, epsilon=1.0), patient_privacy=False, own_steps=False)


def test_what_would_leave_it_out_is_refused() -> None:
    on = VatConfig(weight=0.2)
    with pytest.raises(ConfigError, match=r"train\.vat\.weight=0\.2 and privacy=dp_sgd exclude each other"):
        check_vat(on, patient_privacy=True, own_steps=False)
    with pytest.raises(ConfigError, match=r"takes steps of its own \(apfl\).*set train\.vat\.weight=0"):
        config_of("train.vat.weight=0.2", "personalization=apfl", "report.select=last")
    assert [m.own_steps for m in (Personalization, Ditto, MrMtl, Finetune)] == [False] * 4
