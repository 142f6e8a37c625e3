"""Every file under conf/ works, and whatever is wrong stops at once with the name of its key."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate

from fedbrats.checks.config import checked
from fedbrats.commands.compose import register_with_hydra
from fedbrats.config.foreign import check_trusted
from fedbrats.config.schema import Config, load_config, save_config
from fedbrats.config.targets import ConfigError
from tests.models.network_checks import CLASSIFIERS

CONF = Path(__file__).resolve().parents[2] / "conf"
FILES = sorted(str(f.relative_to(CONF).with_suffix("")) for f in CONF.rglob("*.yaml"))
GROUPS = (
    "task",
    "data",
    "partition",
    "model",
    "loss",
    "strategy",
    "scenario",
    "survey",
    "train",
    "inference",
    "postprocess",
    "metrics",
    "runtime",
    "report",
    "privacy",
    "personalization",
)


def config_of(*overrides: str) -> Config:
    """The checked configuration of `python sims/run.py <overrides>`."""
    register_with_hydra()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return checked(compose("config", overrides=list(overrides)))


def choosing(file: str) -> list[str]:
    """Overrides that make use of one file below conf/."""
    if file == "config":
        return []
    group, name = file.rsplit("/", 1)
    extra = ["data.root=cases"] if group == "data" and name != "phantom" else []
    extra += ["model=jonsson_resunet", "model.size=small"] if name.startswith("mc_dropout") else []
    extra += ["train/optimizer=sgd_plain"] if name in ("scaffold", "fednova", "qfedavg") else []
    extra += ["model=efficientnet3d"] if file == "task/classification" else []
    extra += ["model.norm=batch"] if name in ("bn_local", "bn_stats_local") else []
    extra += ["strategy.root=CBICA"] if name == "fltrust" else []
    extra += ["strategy.groups={a:[CBICA]}"] if name == "clustered" else []
    extra += ["data.root=cases", "runtime.device=cpu"] if file == "preset/gpu" else []
    extra += ["data.labels=annotators", "data.phantom.annotators=3"] if file == "metrics/qubiq" else []
    return [f"{group}={name}", *extra]


@pytest.mark.slow  # all of its cases together
# Networks are looked at in tests/models/test_every_model.py, experiments in test_experiments.py.
@pytest.mark.parametrize("file", [f for f in FILES if not f.startswith(("model/", "experiment/"))])
def test_every_file_composes_and_what_it_names_can_be_built(file: str) -> None:
    needs = {
        "partition/fets": ["partition.table=partitioning_1.csv"],
        "partition/own": ["partition.unknown=CBICA"],
    }
    config = config_of(*choosing(file), *needs.get(file, []))
    if file != "strategy/flower":  # of another package, which the reader of the folder has to name
        check_trusted(asdict(config), "here")  # what it names may stand in a stranger's run folder
    assert callable(instantiate(config.loss))
    strict = file == "runtime/superlink"  # across hospitals all must answer
    strategy = instantiate(config.strategy)
    assert strategy.needed(4) == max(strategy.least_sites, 4 if strict else 2)
    optimizer = instantiate(config.train.optimizer)([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.Optimizer)


MODELS = sorted(f.split("/")[1] for f in FILES if f.startswith("model/"))
SOME = ("gnn_cnn", "unce", "nnunet", "c3d")  # one of each kind below


@pytest.mark.slow  # all of its cases together
@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[] if name in SOME else pytest.mark.long) for name in MODELS]
)
def test_what_a_model_brings_can_be_replaced(model: str) -> None:
    """A model's file may choose a loss, an optimiser and steps, but must not add keys that only those have."""
    other = ["loss=dice_topk", "train/optimizer=adamw", "inference=default", "postprocess=largest_component"]
    if model in CLASSIFIERS:  # of whole cases: there are no voxels
        config = config_of(f"model={model}", "loss=focal", *other[1:3], "postprocess=none")
        assert (config.loss["_target_"].rsplit(".")[-1], config.postprocess.steps) == ("Focal", [])
        return
    if model == "gnn_cnn":  # its graph has logits of supervoxels, which no other loss reads
        with pytest.raises(ConfigError, match="set loss=cross_entropy_nodes"):
            config_of(f"model={model}", *other)
        other = other[1:]
    mute = (
        ["model.semantic=false", "train.deep_supervision=null"] if model == "unce" else []
    )  # what its own loss reads besides
    config = config_of(f"model={model}", *other, *mute)
    assert config.loss["_target_"].endswith("WithNodes" if model == "gnn_cnn" else "WeightedSum")
    names = [step["_target_"].rsplit(".")[-1] for step in config.postprocess.steps]
    assert names == ["InsideBrain", "LargestComponent"]


def test_every_group_has_its_files() -> None:
    assert {f.split("/")[0] for f in FILES} == {"config", "experiment", "preset", "work", *GROUPS}


@pytest.mark.slow
@pytest.mark.parametrize("loss", [f.split("/")[1] for f in FILES if f.startswith("loss/")])
def test_losses_take_overlapping_regions(loss: str) -> None:
    """Where all three regions are present, sure logits cost nothing; a softmax over regions would."""
    right = torch.full((1, 3, 8, 8, 8), 20.0)
    function = instantiate(config_of(f"loss={loss}").loss)
    assert float(function(right, torch.ones_like(right)).mean()) < 1e-3
    if (
        loss != "hausdorff"
    ):  # what is outside has no place here, and so no distance; it needs another loss beside it
        assert float(function(-right, torch.ones_like(right)).mean()) > 0.4


def test_what_a_chosen_file_says_arrives() -> None:
    config = config_of(
        "strategy=fedprox", "strategy.mu=0.1", "model=segresnet", "model.size=small", "train=small"
    )
    assert config.strategy["mu"] == 0.1
    assert config.model["init_filters"] == 8
    assert config.train.local_steps == 8
    assert config.train.optimizer["lr"] == 3e-3
    assert (config.arms, config.partition.method) == (["federated", "pooled", "local"], "institution")


# What is refused


@pytest.mark.parametrize("group", [g for g in GROUPS if g not in ("model", "loss", "strategy")])
def test_an_unknown_key_is_refused_by_name(group: str) -> None:
    with pytest.raises((HydraException, ConfigError), match="nonsense"):
        config_of(f"+{group}.nonsense=1")


def test_an_unknown_key_at_the_top_is_refused_by_name() -> None:
    for override in ("+nonsense=1", "nonsense=1", "strategy.mux=1", "train.patc=[8,8,8]"):
        with pytest.raises(
            (HydraException, ConfigError), match=override.strip("+").split("=")[0].split(".")[-1]
        ):
            config_of(override)


@pytest.mark.parametrize(
    "override",
    [
        "+model.mux=1",
        "+loss.mux=1",
        "+strategy.mux=1",
        "+train.optimizer.mux=1",
        "+model.norms=batch",
        "+strategy.mu=0.1",  # FedAvg has no mu
    ],
)
def test_an_unknown_argument_is_refused_by_name(override: str) -> None:
    key = override.strip("+").split("=")[0]
    with pytest.raises(ConfigError, match=rf"{key}: .* has no such option; it has "):
        config_of(override)


def test_an_unknown_file_of_a_group_is_refused() -> None:
    with pytest.raises(HydraException, match="fedfoo"):
        config_of("strategy=fedfoo")


def test_a_missing_group_is_named() -> None:
    with pytest.raises((HydraException, ConfigError), match="strategy"):
        config_of("~strategy")


def test_edges_of_the_ranges_are_allowed() -> None:
    config_of(
        "rounds=1",
        "train.tumour_share=0.3333333333333333",
        "partition.val=0",
        "partition.test=0.99",
        "train.patch=[8,8,8]",
        "runtime.workers=0",
        "strategy.quorum=1",
        "inference.overlap=0",
        "runtime.memory_fraction=1",
        "arms=[local]",
    )


# The record of a run


def as_dict(config: Config) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(config)


def test_saved_configuration_comes_back_equal_and_complete(tmp_path: Path) -> None:
    config = config_of("experiment=demo", "+train.site_steps.TMC=3", "data.phantom.sites={A: 3, B: 2}")
    save_config(config, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    assert "${" not in text
    assert "???" not in text
    back = load_config(tmp_path / "config.yaml")
    assert as_dict(back) == as_dict(config)
    save_config(back, tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_text() == text


def test_an_institution_called_2013_is_a_name_like_any_other(tmp_path: Path) -> None:
    """Hydra and YAML read its name as a number; two kinds of keys cannot even be sorted."""
    given = ["data.phantom.sites={2013: 3, CBICA: 3}", "+train.site_epochs={2013: 2, CBICA: 1}"]
    given += ["privacy=dp_sgd", "privacy.sites={2013: {target_epsilon: 3}, CBICA: {target_epsilon: 2}}"]
    config = config_of(*given)
    assert config.data.phantom.sites == {"2013": 3, "CBICA": 3}
    assert config.train.site_epochs == {"2013": 2, "CBICA": 1}
    assert config.privacy["sites"] == {"2013": {"target_epsilon": 3}, "CBICA": {"target_epsilon": 2}}
    save_config(config, tmp_path / "config.yaml")
    assert as_dict(load_config(tmp_path / "config.yaml")) == as_dict(config)


@pytest.mark.parametrize("text", ["nonsense: 1\n", "rounds: many\n", "[1, 2\n", "- 1\n"])
def test_a_file_that_is_no_configuration_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.yaml: not a configuration"):
        load_config(tmp_path / "config.yaml")
