"""Every file of conf/model: it builds, trains a step, predicts a whole volume, and is what `facts` says it is."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn

from fedbrats.checks.config import checked
from fedbrats.commands.compose import register_with_hydra
from fedbrats.commands.models.table import look_at, markdown, model_names
from fedbrats.config.schema import Config
from fedbrats.inference.predict import predict
from fedbrats.losses.deep_supervision import deep_supervised
from fedbrats.models import facts
from fedbrats.models.build import build_network, dimensions, input_rules, output_channels, patch_of, window_of
from fedbrats.tasks.segmentation import labels_from_probabilities
from tests.models.network_checks import CLASSIFIERS
from tests.tiny import ROOT

NAMES = model_names()
SMALL = model_names(size="small")
TOO = ("nnunet", "gnn_cnn", "c3d", "spin", "unce")  # of each kind one whose small variant is looked at, too
PAPERS = (
    *("dr_unet104", "localization_unet", "residual_encoder", "jonsson_resunet"),
    *(
        "swin_unetr",
        "nnunet",
        "nnsegnet",
        "brainmage_resunet",
        "resunet3d",
        "vox2vox_unet",
        "hardnet_bts",
        "cbam_unet",
        "unce",
        "unet_baseline",
        "cascade_unet",
        "cotrnet",
        "msfr_net",
        "cmm_net",
        "maab_unet",
        "modality_interaction",
        "unet_plus_plus",
        "vae_unet",
        "vat_unet",
        "deepseg",
        "unet_plus_plus_3d",
        "hrnet3d",
        "cotr",
        *CLASSIFIERS,
        "emsvit",
        "spin",
        "dints",
        "mask_rcnn",
        "gnn_cnn",
    ),
)


def config_of(name: str, size: str = "small") -> Config:
    return copy.deepcopy(_config_of(name, size))  # a test may change its own


@functools.cache
def _config_of(name: str, size: str) -> Config:
    register_with_hydra()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return checked(compose("config", overrides=[f"model={name}", f"model.size={size}", "train=small"]))


def outputs_of(network: nn.Module, images: Tensor) -> Tensor:
    found = network(images)
    return found if isinstance(found, Tensor) else found[0]


def batch_of(config: Config, samples: int = 2) -> tuple[Tensor, Tensor]:
    """Patches with a bright box of all three labels."""
    generator, sides = torch.Generator().manual_seed(0), patch_of(config)
    labels = torch.zeros(samples, *sides, dtype=torch.uint8)
    for label, margin in ((2, 4), (1, 8), (3, 10)):
        labels[
            (slice(None), *(slice(side // 2 - side // margin, side // 2 + side // margin) for side in sides))
        ] = label
    noise = torch.randn(samples, 4, *sides, generator=generator)
    images = noise + 2 * labels.unsqueeze(1)
    if config.task.name == "classification":
        return images, torch.arange(samples, dtype=torch.uint8) % 2
    return images, labels


def test_the_papers_are_there_in_both_sizes() -> None:
    assert set(PAPERS) <= set(SMALL) <= set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_is_looked_at_without_weights(name: str) -> None:
    row = look_at(name, config_of(name, "full"))
    assert row.parameters > 0
    assert row.megabytes >= 4e-6 * row.parameters
    assert row.source  # the documentation of every network says where it is from
    assert markdown([row]).splitlines()[-1] in (ROOT / "README.md").read_text().splitlines(), (
        "README.md: put what `python sims/models.py markdown=true` prints in the place of its table of networks"
    )
    if name in TOO:
        small = look_at(name, config_of(name, "small"))
        same = ("kind", "regions", "bn_local", "private", "source")
        assert [getattr(small, key) for key in same] == [getattr(row, key) for key in same]
        assert (row.size, small.size) == ("full", "small")


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_one_training_step_lowers_the_loss(name: str) -> None:
    config = config_of(name)
    torch.manual_seed(0)
    network, loss = build_network(config.model).train(), instantiate(config.loss)
    images, labels = batch_of(config)

    def value() -> Tensor:
        torch.manual_seed(1)  # the same dropout before and after
        return deep_supervised(loss, network(images), labels, config.train.deep_supervision).mean()

    assert sum(p.numel() for p in network.parameters()) < 5_000_000
    before = value()
    before.backward()
    length = torch.sqrt(sum((p.grad**2).sum() for p in network.parameters() if p.grad is not None))
    assert float(length) > 0
    step = 0.005 if name == "gnn_cnn" else 0.02  # within which the box that its CNN is asked about stays
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter -= step / length * parameter.grad
    assert float(value().detach()) < float(before.detach())


@pytest.mark.slow  # all of its cases together
@pytest.mark.parametrize("name", SMALL)
def test_what_mixes_samples_is_found(name: str) -> None:
    """Change the second sample: the first one's output changes exactly if some module mixes them."""
    config = config_of(name)
    torch.manual_seed(0)
    network = build_network(config.model).train()
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if isinstance(module, nn.RReLU):
            module.eval()  # no random slopes
    images, _ = batch_of(config)
    with torch.no_grad():
        first = outputs_of(network, images)[0]
        images[1] = images[1] * 3 + 1
        second = outputs_of(network, images)[0]
    assert torch.allclose(first, second, atol=1e-5) == (not facts.mixing_modules(network))


@pytest.mark.slow  # all of its cases together
@pytest.mark.parametrize("name", [name for name in SMALL if name not in CLASSIFIERS])
def test_a_whole_volume_comes_back_on_its_own_grid(name: str) -> None:
    config = config_of(name)
    torch.manual_seed(0)
    network, shape = build_network(config.model).eval(), (37, 41, 23)
    image = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float16)
    config.inference.mc_passes, config.inference.flips, config.inference.locate = 0, False, None
    config.inference.overlap = 0.0
    found = predict(
        network,
        image,
        rules=input_rules(config.model),
        inference=config.inference,
        window=window_of(config),
        device=torch.device("cpu"),
    ).probabilities
    with torch.device("meta"):
        channels = output_channels(build_network(config.model).eval(), patch_of(config))
    assert tuple(found.shape) == (channels, *shape)
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    labels = labels_from_probabilities(found)
    assert (labels.shape, labels.dtype) == (shape, np.uint8)
    assert dimensions(network) == len(patch_of(config))


def test_no_network_leans_on_another() -> None:
    """What two papers share lies in `blocks.py`, so that a network can be read, and left, by itself."""
    files = sorted((ROOT / "fedbrats" / "models" / "networks").glob("*.py"))
    assert len(files) > len(PAPERS)
    assert not [file.name for file in files if "fedbrats.models.networks" in file.read_text()]
