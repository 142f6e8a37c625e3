"""Adding a network is one Python file and one YAML file: a network of MONAI's that the project does not have.

Both lie in a folder of the user's own; the test names them nowhere but here, and no file of the package knows them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from fedbrats.arrays import load, signature, travelling
from fedbrats.checks.config import checked
from fedbrats.commands.compose import register_with_hydra
from fedbrats.commands.models.table import model_names
from fedbrats.commands.run.run import run
from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.federation import wire
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.models.build import build_network, patch_of
from tests.models.test_every_model import batch_of
from tests.tiny import ROOT, tiny

CODE = '''"""UNETR (Hatamizadeh et al., WACV 2022), which takes patches of one size only."""

from monai.networks.nets import UNETR


def unetr(
    img_size: list,
    in_channels: int = 4,
    out_channels: int = 3,
    feature_size: int = 16,
    hidden_size: int = 768,
    num_heads: int = 12,
) -> UNETR:
    return UNETR(
        in_channels, out_channels, tuple(img_size), feature_size, hidden_size, 4 * hidden_size, num_heads
    )
'''
YAML = """# @package _global_
defaults:
  - override /loss: dice_focal
  - _self_
model:
  _target_: my_networks.unetr.unetr
  size: full # or small
  img_size: ${model.input.patch}
  feature_size: ${fedbrats.sized:16,8}
  hidden_size: ${fedbrats.sized:768,48}
  input:
    patch: ${fedbrats.sized:[96, 96, 96],[48, 32, 16]}
    multiple: 16
train:
  batch: ${fedbrats.sized:2,1}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `my_networks` that can be imported, and a folder `conf` beside it."""
    for file, text in (("my_networks/unetr.py", CODE), ("conf/model/my_unetr.yaml", YAML)):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_networks.unetr", raising=False)
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)
    return tmp_path


def path_to(folder: Path) -> str:
    return f"hydra.searchpath=[file://{folder / 'conf'}]"


def config_of(folder: Path, *overrides: str) -> Config:
    register_with_hydra()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return checked(compose("config", overrides=[path_to(folder), "model=my_unetr", *overrides]))


def test_it_passes_the_checks_and_they_hold_for_it(folder: Path) -> None:
    full, small = config_of(folder), config_of(folder, "model.size=small")
    assert (patch_of(full), patch_of(small)) == ([96, 96, 96], [48, 32, 16])
    assert full.loss["_target_"] == "fedbrats.losses.compound.WeightedSum"  # as its file asks for
    with pytest.raises(ConfigError, match=r"model\.filters: my_networks\.unetr\.unetr has no such option"):
        config_of(folder, "+model.filters=3")
    with pytest.raises(ConfigError, match=r"train\.patch=.*the network does not take it"):
        config_of(folder, "model.size=small", "train.patch=[64,64,64]")
    last = ("personalization=bn_local", "report.select=last")
    with pytest.raises(ConfigError, match="choose a network that has them"):
        config_of(folder, "model.size=small", *last)
    # its heads are found with the only patch that it takes
    config_of(folder, "model.size=small", "personalization=head_local", "report.select=last")


@pytest.mark.slow
def test_it_is_in_the_table_of_networks(folder: Path) -> None:
    assert set(model_names(folder / "conf")) - set(model_names()) == {"my_unetr"}
    assert "my_unetr" in model_names(folder / "conf", "small")
    command = [sys.executable, str(ROOT / "sims" / "models.py"), f"--config-dir={folder / 'conf'}"]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [*command, "my_unetr", "size=small", "markdown=true"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    row = done.stdout.splitlines()[2]
    assert row.startswith(
        "| `my_unetr` | UNETR (Hatamizadeh et al., WACV 2022), which takes patches of one size only |"
    )
    assert "48x32x16 x 1" in row


def test_it_learns_and_its_arrays_travel(folder: Path) -> None:
    config = config_of(folder, "model.size=small")
    torch.manual_seed(0)
    network, other = build_network(config.model).train(), build_network(config.model).train()
    images, labels = batch_of(config)
    loss, optimizer = (
        instantiate(config.loss),
        instantiate(config.train.optimizer)(network.parameters(), lr=1e-3),
    )
    values = []
    for _ in range(3):
        optimizer.zero_grad()
        value = deep_supervised(loss, network(images), labels, config.train.deep_supervision).mean()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < values[0]
    sent = wire.to_record(travelling(network))
    expected = signature(travelling(other))
    load(other, wire.from_record(sent, expected))
    with torch.no_grad():
        assert torch.equal(network.eval()(images), other.eval()(images))


@pytest.mark.slow
def test_it_is_federated(folder: Path, cache: Path, tmp_path: Path) -> None:
    model = (path_to(folder), "model=my_unetr", "model.size=small", "train.local_steps=1")
    done = run(tiny(cache, "arms=[federated]", "rounds=1", model=model), tmp_path / "run")
    assert json.loads((done / "summary.json").read_text())["status"] == "finished"
    assert "img_size:\n  - 48\n  - 32\n  - 16\n" in (done / "config.yaml").read_text()
