"""A run that starts from another run's model: the same network on the same modalities."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedbrats.arrays import travelling
from fedbrats.config.targets import ConfigError
from fedbrats.federation.initial import initial_arrays
from fedbrats.federation.parts import parts_of
from tests.inference.run_folders import compose_run, make_run


@pytest.mark.slow
def test_a_network_of_as_many_but_other_modalities_is_no_start(tmp_path: Path) -> None:
    make_run(tmp_path / "run", "+model.input.modalities=[t1,flair]")

    def start(*names: str) -> dict[str, torch.Tensor]:
        config = compose_run(tmp_path / "cache", None, [f"+model.input.modalities=[{','.join(names)}]"])
        return initial_arrays(parts_of(config), str(tmp_path / "run"))

    assert start("flair", "t1").keys() == start("t1", "flair").keys()
    with pytest.raises(
        ConfigError, match=r"train\.init=.*run: its network sees t1, flair, this one t1, t2 \(model\.input"
    ):
        start("t1", "t2")


def test_the_start_of_a_run_is_that_of_the_other_one(tmp_path: Path) -> None:
    config = make_run(tmp_path / "run")
    start = initial_arrays(parts_of(config), f"{tmp_path / 'run'}@federated@last")
    own = travelling(parts_of(config).network)
    assert start.keys() == own.keys()
    assert not all(torch.equal(start[name], own[name]) for name in own)
