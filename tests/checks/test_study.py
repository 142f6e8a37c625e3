"""What a study across hospitals cannot ask for is refused by key, where it begins and at every site."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedbrats.checks.study import check_study
from fedbrats.config.schema import RuntimeConfig
from fedbrats.config.targets import ConfigError
from tests.federation.toy import toy_config


@pytest.mark.parametrize(
    ("node", "key", "value", "said"),
    [
        ("runtime", "engine", "local", r"runtime\.engine=local: .*runtime=superlink"),
        ("", "arms", ["federated", "pooled"], r"arms=.*pooled.*baselines need pooled data"),
        ("train", "init", "runs/x", r"train\.init=runs/x: a site has no such folder"),
        ("inference", "locate", "runs/x", r"inference\.locate=runs/x: a site has no such folder"),
        ("", "privacy", {"insecure_seed": 1}, r"privacy\.insecure_seed: whoever knows"),
        ("task", "labels", "/etc/mgmt.csv", r"task\.labels=/etc/mgmt\.csv: .*labels\.table"),
        ("task", "label_column", "IDH", r"task\.label_column=IDH: .*labels\.label_column"),
        ("run", "trust", ["mine"], r"run\.trust=.*nothing but what is installed"),
    ],
)
def test_what_it_cannot_ask_for(node: str, key: str, value: Any, said: str, tmp_path: Path) -> None:
    good = replace(toy_config(tmp_path), arms=["federated"], runtime=RuntimeConfig(engine="superlink"))
    check_study(good)
    changed = {key: value} if not node else {node: replace(getattr(good, node), **{key: value})}
    with pytest.raises(ConfigError, match=said):
        check_study(replace(good, **changed))
