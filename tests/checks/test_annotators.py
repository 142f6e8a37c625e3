"""Counts of annotators are read, predicted and scored together or not at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fedbrats.checks.annotators import METRIC, check_annotators
from fedbrats.config.schema import Config, DataConfig, MetricsConfig, PhantomConfig
from fedbrats.config.targets import ConfigError
from fedbrats.metrics import annotators


def check(
    labels: str,
    drawn: int | None,
    channels: int = 4,
    classifies: bool = False,
    more: str = "",
    root: str = "",
) -> None:
    source = "folder" if root else "phantom"
    data = DataConfig(
        source=source, root=root or None, labels=labels, phantom=PhantomConfig(annotators=drawn)
    )
    config = Config(data=data, metrics=MetricsConfig(more=[{"_target_": more}] if more else []))
    parts: Any = SimpleNamespace(classifies=classifies)
    check_annotators(config, parts, channels)


def test_what_fits_passes() -> None:
    check("annotators", 3, more=METRIC)
    check("annotators", 3, channels=3)
    check("annotators", None, root="/data")
    check("auto", None, channels=1)
    assert f"{annotators.__name__}.{annotators.qubiq.__name__}" == METRIC


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"labels": "auto", "drawn": 3}, "data.phantom.annotators=3: nothing reads"),
        ({"labels": "annotators", "drawn": None}, "data.phantom.annotators=None: .* needs 3"),
        ({"labels": "annotators", "drawn": 5}, "data.phantom.annotators=5: .* needs 3"),
        ({"labels": "annotators", "drawn": 3, "channels": 1}, "model.out_channels=1"),
        (
            {"labels": "annotators", "drawn": 3, "classifies": True},
            "data.labels=annotators: a classification",
        ),
        (
            {"labels": "auto", "drawn": None, "more": METRIC},
            "metrics.more: qubiq .* data.labels=annotators",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_its_key(said: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        check(**said)
