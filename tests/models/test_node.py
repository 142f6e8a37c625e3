"""What of a node `model` makes the network, and the small variant in the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fedbrats.commands.compose import composed, register_with_hydra
from fedbrats.commands.models.table import model_names
from fedbrats.config.schema import load_config, save_config
from fedbrats.config.targets import ConfigError
from fedbrats.models.build import build_network, patch_of
from fedbrats.models.facts import parameter_count
from fedbrats.models.node import arguments, why_this_size, with_size
from tests.models.test_build import config_of
from tests.tiny import ROOT

SMALL = model_names(size="small")
# What a small variant is, said a second time: in `model`, in `train`, in `inference`, in a group that a model chooses.
BY_HAND = {
    "nnunet": (
        *("model.channels=[16,32,64,128]", "model.input.patch=[32,32,32]", "model.input.multiple=8"),
        *(
            "model.plan_memory=0.125",
            "train.augment=light",
            "train.deep_supervision=[1,0.5,0.25]",
            "train.tumour_centre=any",
        ),
        *("train.clip_norm=null", "train.optimizer.weight_decay=0", "inference.flips=false"),
    ),
    "swin_unetr": (
        *("model.feature_size=12", "model.num_heads=[1,2,4,8]", "model.input.patch=[64,32,32]"),
        *("train.optimizer.lr=2e-3", "inference.overlap=0.25"),
    ),
    "jonsson_resunet": (
        *("model.widths=[8,16,32,64,128]", "model.depths=[1,1,1,1,1]", "train.batch=16"),
        *("train.optimizer.lr=5e-3", "inference.mc_passes=5", "train.tumour_share=0.5"),
        *("model.input.patch=[64,64]", "model.input.resize=null", "train.stop_patience=null"),
    ),
}

EACH = [pytest.param(name, marks=[] if name in BY_HAND else pytest.mark.long) for name in SMALL]


def settings(*overrides: str) -> dict[str, Any]:
    """The flat settings of a configuration, settled but not checked."""
    register_with_hydra()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return flat(OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True))


def sized(*overrides: str) -> dict[str, Any]:
    """The same with the size that `auto` has become."""
    return flat(OmegaConf.to_container(with_size(composed(overrides)), resolve=True))


def flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        deeper = isinstance(value, dict) and value
        found |= flat(value, f"{prefix}{key}.") if deeper else {f"{prefix}{key}": value}
    return found


def test_what_is_said_about_a_network_is_no_argument_of_it() -> None:
    model = {"_target_": "some.network", "width": 3, "size": "small", "input": {"patch": [8, 8, 8]}}
    assert arguments(model) == {"_target_": "some.network", "width": 3}
    assert model.keys() == {"_target_", "width", "size", "input"}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_small_variant_is_what_it_would_be_by_hand(name: str) -> None:
    small = settings(f"model={name}", "model.size=small")
    by_hand = settings(f"model={name}", "model.size=full", *BY_HAND[name])
    assert (small.pop("model.size"), by_hand.pop("model.size")) == ("small", "full")
    assert small == by_hand


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_what_the_user_sets_himself_wins(name: str) -> None:
    """Small values, set to those of the full network: they are, and the others stay small unless they refer to them.

    One by one for the networks of `BY_HAND`, together for the others.
    """
    full, small = settings(f"model={name}", "model.size=full"), settings(f"model={name}", "model.size=small")
    changed = {key for key in full if full[key] != small[key]} - {"model.size"}
    assert any(key.startswith("model.") for key in changed)
    values = {key: "null" if full[key] is None else str(full[key]).replace(" ", "") for key in changed}
    for keys in [{key} for key in changed] if name in BY_HAND else [changed]:
        own = settings(f"model={name}", "model.size=small", *(f"{key}={values[key]}" for key in keys))
        assert all(own[k] in (small[k], full[k]) for k in own)
        if name in BY_HAND:
            assert own == small | {key: full[key] for key in keys}
        assert all(own[key] == full[key] for key in keys)


def test_what_an_experiment_sets_wins_too(tmp_path: Path) -> None:
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(
        "# @package _global_\ndefaults:\n  - override /model: nnunet\n"
        "model: {size: small, channels: [8, 16, 32], input: {multiple: 4}}\ntrain: {deep_supervision: [1, 0.3]}\n"
    )
    config = config_of(f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine")
    assert (config.model["size"], config.model["channels"]) == ("small", [8, 16, 32])
    assert config.model["input"] == {"patch": [32, 32, 32], "multiple": 4, "normalise": "zscore"}
    assert (config.train.deep_supervision, config.train.augment) == ([1.0, 0.3], "light")


def test_a_run_without_arguments_trains_a_small_network_on_patches_that_fit_its_heads() -> None:
    config = config_of()
    assert (config.data.source, config.model["size"]) == ("phantom", "small")
    patch, shape = patch_of(config), config.data.phantom.shape
    assert all(side <= whole for side, whole in zip(patch, shape, strict=True))
    network = build_network(config.model)
    assert parameter_count(network) < 200_000
    with torch.no_grad():
        assert network(torch.zeros(1, 4, *patch)).shape == (1, 3, *patch)


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_cases_in_files_are_for_the_full_network(name: str) -> None:
    each = (("data=brats", "data.root=somewhere"), ("data.source=folder", "data.root=somewhere"))
    for files in each if name in BY_HAND else each[1:]:
        found = sized(*files, f"model={name}")
        assert found["model.size"] == "full"
        assert name not in BY_HAND or found == sized(*files, f"model={name}", "model.size=full")
    more = ["task.labels=mgmt.csv"] if found["task.name"] == "classification" else []
    assert config_of(*files, f"model={name}", *more).model["size"] == "full"  # and passes every check
    if name not in BY_HAND:
        return
    phantom = sized(f"model={name}")
    assert phantom == sized(f"model={name}", "model.size=small")
    assert phantom != sized(f"model={name}", "model.size=full")


def test_why_a_network_has_its_size_is_said_only_where_nobody_chose() -> None:
    files = ("data=brats", "data.root=somewhere")
    assert why_this_size(composed([])) == (
        "model.size=auto: small, because the heads are phantoms; model.size=full sets the other"
    )
    assert "auto: full, because the cases are files" in str(why_this_size(composed(files)))
    assert why_this_size(composed(["model.size=small"])) is None
    assert why_this_size(composed(["experiment=demo"])) is None


@pytest.mark.parametrize("size", ["tiny", "null", "1", "Small"])
def test_another_size_is_refused_with_those_there_are(size: str) -> None:
    with pytest.raises(ConfigError, match=r"^model\.size=.*: choose auto, full or small\.$"):
        config_of("model=nnunet", f"model.size={size}")


@pytest.mark.slow
def test_a_network_without_a_small_variant_says_so(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "plain.yaml").write_text(
        "# @package _global_\nmodel:\n  _target_: fedbrats.models.networks.residual_unet.residual_unet\n"
        "  channels: [8, 16]\n  input: {patch: [16, 16, 16]}\n"
    )
    path = f"hydra.searchpath=[file://{tmp_path}]"
    assert config_of(path, "model=plain").model["size"] == "full"
    assert "plain" in model_names(tmp_path)
    assert "plain" not in model_names(tmp_path, "small")
    for more in (
        (),
        ("inference=mc_dropout", "model.dropout=0.1"),
    ):  # a group that depends on the size is no variant
        with pytest.raises(ConfigError, match=r"^model\.size=small: .* no small variant .* model\.size=full"):
            config_of(path, "model=plain", "model.size=small", *(f"+{o}" if "." in o else o for o in more))


def test_a_configuration_can_be_settled_in_place() -> None:
    """As `python sims/run.py --cfg job --resolve` does it."""
    register_with_hydra()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("config", overrides=["model=nnunet", "model.size=small"])
    OmegaConf.resolve(config)
    assert config.model.channels == [16, 32, 64, 128]
    assert config.train.deep_supervision == [1.0, 0.5, 0.25]
    assert "${fedbrats" not in OmegaConf.to_yaml(config)


def test_nothing_of_the_grammar_is_left_in_the_record_of_a_run(tmp_path: Path) -> None:
    config = config_of("model=nnunet", "model.size=small")
    save_config(config, tmp_path / "config.yaml")
    OmegaConf.clear_resolver("fedbrats.sized")  # as in a program that never heard of it
    try:
        assert "${" not in (tmp_path / "config.yaml").read_text()
        assert load_config(tmp_path / "config.yaml") == config
    finally:
        register_with_hydra()
