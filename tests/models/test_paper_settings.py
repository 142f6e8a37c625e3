"""The full networks have the settings that their papers print, the small ones those of their figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedbrats.commands.compose import composed
from fedbrats.config.schema import typed
from fedbrats.models.build import build_network
from fedbrats.models.node import with_size
from tests.models.test_build import config_of
from tests.tiny import ROOT


def _emptied_below(voxels: int) -> list[dict[str, object]]:
    """The steps of an ET that is relabelled below so many voxels."""
    return [
        {"_target_": "fedbrats.postprocess.inside_brain.InsideBrain"},
        {"_target_": "fedbrats.postprocess.minimum_volume.MinimumVolume", "region": "ET", "voxels": voxels},
    ]


# Keys, what is printed (full), what the small variant has, and where it is printed.
PRINTED = {
    "nnunet": {
        "train.tumour_share": (0.34, 0.34),  # Table 2: "more than a third"
        "train.tumour_centre": ("class", "any"),  # Table 2: "one randomly chosen foreground class"
        "train.clip_norm": (12.0, None),  # nnU-Net's release
        "train.optimizer.weight_decay": (3e-5, 0),  # nnU-Net's release; Jabareen, section 2.4
        "inference.flips": (True, False),  # nnU-Net (Isensee et al. 2021)
    },
    "nnsegnet": {
        "train.tumour_centre": ("class", "any"),
        "train.clip_norm": (12.0, None),
        "train.optimizer.weight_decay": (3e-5, 3e-5),  # section 2.4
        "inference.flips": (True, False),
    },
    "jonsson_resunet": {
        "model.input.patch": ([192, 192], [64, 64]),  # section 3.1.1: the slice without its background,
        "model.input.resize": ([64, 64], None),  # zoomed to 64x64
        "train.tumour_share": (0.0, 0.5),
        "train.stop_patience": (5, None),  # section 3.3.2
    },
    "dr_unet104": {
        "train.tumour_share": (0.0, 0.5),  # section 3.2: every slice, in random order
        "model.prior": (None, 0.1),  # section 3.2: He initialisation
    },
    "residual_encoder": {"train.tumour_share": (0.0, 0.5)},  # section 3: single slices
    "localization_unet": {
        "train.tumour_centre": ("box", "any"),
        "train.tumour_share": (1.0, 0.5),
    },  # section 2.3
    "resunet3d": {
        "loss._target_": ("fedbrats.losses.cross_entropy.CrossEntropy",) * 2,  # Equation 1
        "model.input.patch": ([128] * 3, [32] * 3),  # section 4.1
        "train.batch": (1, 2),  # section 4.1
        "train.optimizer._target_": ("torch.optim.Adam",) * 2,
        "train.optimizer.lr": (1e-3, 5e-3),  # section 4.1
        "train.schedule": ("poly", "poly"),  # Equation 2
        "train.tumour_share": (0.0, 0.5),  # section 4.1: "randomly crop"
    },
    "vox2vox_unet": {
        "loss._target_": ("fedbrats.losses.dice.GeneralizedDice",) * 2,
        "loss.power": (1.0, 1.0),  # section 2.3: "the inverse of its volume"
        "model.input.patch": ([128] * 3, [32] * 3),  # section 2.1
        "inference.window": ([160, 192, 128], None),  # section 2.3
        "train.augment": ("elastic", "light"),  # section 2.1
        "train.batch": (8, 2),  # section 2.3
        "train.optimizer._target_": ("torch.optim.Adam",) * 2,
        "train.optimizer.lr": (5e-5, 3e-3),  # section 2.3
        "train.tumour_share": (0.0, 0.5),  # section 2.1: "random patch"
    },
    "cbam_unet": {
        "model.input.patch": ([128, 128, 128], [32, 32, 32]),  # section 2.5
        "model.input.normalise": ("percentiles", "percentiles"),  # section 2.5
        "train.batch": (4, 2),  # section 2.7
        "train.augment": ("mining", "mining"),  # section 2.5
        "train.optimizer._target_": ("fedbrats.training.ranger.ranger",) * 2,  # section 2.7
        "loss.squared": (True, True),  # section 2.4
        "inference.flips": (True, False),  # section 3.1
    },
    "hardnet_bts": {
        "loss.dice": (0.8, 0.8),  # Equation 4
        "loss.cross_entropy": (0.2, 0.2),
        "loss.squared": (False, False),  # DL, not DL2
        "model.input.normalise": ("minmax", "minmax"),  # section 2.2
        "model.input.patch": ([128] * 3, [32] * 3),  # section 2.5, version 1
        "train.batch": (6, 2),
        "train.augment": ("channel_drop", "light"),  # section 2.3
        "train.deep_supervision": ([1.0] * 4, [1.0] * 3),  # section 2.4: the average
        "train.optimizer._target_": ("fedbrats.training.ranger.ranger",) * 2,  # section 3
        "train.optimizer.lr": (1e-4, 5e-3),  # section 3
        "inference.flips": (True, False),  # section 2.6
    },
    "unce": {
        "model.dropout": (0.3, 0.1),  # section 2.4
        "model.input.patch": ([192, 160, 128], [32, 32, 32]),  # section 2.3
        "train.augment": ("noise", "light"),  # section 2.3
        "train.schedule": ("poly", "poly"),  # Equation 4
        "train.optimizer.lr": (1e-4, 3e-3),  # section 2.3
        "train.deep_supervision": ([1, 1], [1, 1]),  # Equation 1
        "inference.mc_passes": (13, 5),  # section 3: 100, here in 8 mirrorings
        "inference.flips": (True, False),
    },
    "unet_baseline": {
        "model.blocks": (5, 3),  # section 2.2, model 6, as the next five
        "model.filters": (16, 4),
        "model.norm": ("batch", "batch"),
        "model.activation": ("prelu", "prelu"),
        "model.preactivation": (True, True),
        "model.input.patch": ([128] * 3, [32] * 3),
        "model.input.normalise": ("histogram", "histogram"),
        "train.batch": (4, 2),
        "train.augment": ("artefacts", "light"),  # "Restricted"
        "train.optimizer.lr": (1e-2, 3e-2),
        "train.optimizer.momentum": (0.9, 0.9),
    },
    "cascade_unet": {
        "train.batch": (1, 2),  # section 4
        "train.augment": ("none", "none"),  # section 5
        "train.schedule": ("plateau", "plateau"),  # section 3.2
        "train.plateau_factor": (0.01, 0.5),
        "train.plateau_patience": (2, 2),
        "train.optimizer.lr": (1e-4, 3e-3),
        "loss.squared": (True, True),  # Eq. 1
    },
    "cotrnet": {
        "model.input.resize": ([224, 224], None),  # section 3
        "train.tumour_share": (1.0, 0.5),  # section 3: slices with foreground
        "train.batch": (2, 4),  # section 4.3
        "train.deep_supervision": ([0.4, 0.3, 0.2, 0.05, 0.05],) * 2,  # Equation 4
        "train.optimizer.lr": (1e-4, 3e-3),  # section 4.3
    },
    "msfr_net": {
        "model.input.patch": ([240, 240], [64, 64]),  # section 2.1
        "train.tumour_share": (1.0, 0.5),  # section 3.3
        "train.batch": (4, 4),  # section 3.5
        "train.optimizer.lr": (1e-4, 3e-3),  # section 3.5
    },
    "cmm_net": {
        "model.input.patch": ([128, 128, 128], [32, 32, 32]),  # section 2.1
        "train.augment": ("turns", "turns"),  # section 2.1
        "train.schedule": ("poly", "poly"),  # Eq. 4
        "train.optimizer.lr": (1e-4, 3e-3),  # section 2.4.2
        "loss.squared": (True, True),  # Eq. 3
    },
    "maab_unet": {
        "model.input.patch": ([72, 72, 72], [24, 24, 24]),  # section 2.5
        "model.dropout": (0.2, 0.1),  # section 2.3
        "train.batch": (2, 2),
        "train.tumour_share": (1.0, 0.5),
        "train.augment": ("axes", "axes"),
        "train.optimizer.lr": (1e-4, 1e-3),
        "loss.ET.weights": ({"dice": 1.02}, {"dice": 1.02}),  # Eq. 3
        "loss.WT.weights": ({"dice": 0.99}, {"dice": 0.99}),
    },
    "modality_interaction": {
        "model.layers": (6, 1),  # section 2.3
        "model.input.patch": ([192, 160, 112], [32, 32, 32]),  # section 2.6: 192x160x108
        "train.batch": (1, 2),  # section 2.6
        "train.schedule": ("poly", "poly"),  # section 2.6
        "train.optimizer.lr": (1e-3, 3e-3),  # section 2.6
    },
    "unet_plus_plus": {
        "model.input.patch": ([240, 240], [64, 64]),
        "model.input.resize": ([256, 256], None),  # section 2.2
        "model.input.planes": (["axial", "coronal", "sagittal"],) * 2,  # section 2.2
        "inference.combine": ("vote", "vote"),  # section 2.2: "a majority vote"
        "loss.start": (0.01, 0.01),  # section 2.2: alpha
        "loss.end": (0.50, 0.50),  # after 50 epochs of 0.01 more
        "loss.before.squared": (False, False),
        "train.batch": (16, 4),  # section 2.2
        "train.tumour_share": (0.0, 0.5),
        "train.augment": ("rotation_noise", "light"),
        "train.schedule": ("plateau", "constant"),
        "train.plateau_factor": (0.1, 0.1),
        "train.plateau_patience": (2, 2),
        "train.optimizer._target_": ("torch.optim.Adam",) * 2,
        "train.optimizer.lr": (1e-4, 3e-3),
    },
    "vae_unet": {
        "model.input.patch": ([144] * 3, [32] * 3),  # section 2.4
        "model.patch": ([144] * 3, [32] * 3),  # of the branch: the same
        "loss.terms.hausdorff.mean": (0.1, 0.1),  # section 2.1
        "loss.terms.hausdorff.maximum": (0.01, 0.01),
        "train.deep_supervision": ([1, 0.1, 0.1],) * 2,  # section 2.1: W_CE, W_VAE, W_KL
        "train.augment": ("affine", "light"),  # Table 1
        "train.tumour_share": (0.0, 0.5),  # section 2.4: "random patches"
        "train.optimizer._target_": ("torch.optim.AdamW",) * 2,
        "train.optimizer.lr": (1e-4, 3e-3),  # section 2.4
        "train.optimizer.weight_decay": (1e-4, 1e-4),
        "inference.overlap": (0.556, 0.25),  # section 2.5: 1 - 64 / 144
    },
    "deepseg": {
        "model.input.patch": ([128] * 3, [32] * 3),  # section 3.1
        "train.batch": (5, 2),  # section 3.2, model B
        "train.augment": ("gamma", "light"),  # section 3.1
        "train.optimizer._target_": ("torch.optim.Adam",) * 2,
        "train.optimizer.lr": (1e-4, 3e-3),  # section 3.1
        "train.optimizer.eps": (1e-7, 1e-7),  # section 3.1
        "loss._target_": ("fedbrats.losses.compound.DiceCE",) * 2,  # Eq. 1
        "postprocess.steps": (_emptied_below(200),) * 2,  # section 3.1
    },
    "unet_plus_plus_3d": {
        "model.input.patch": ([96] * 3, [32] * 3),  # section 2.1
        "train.batch": (2, 2),  # section 2.1
        "train.augment": ("fifths", "light"),  # section 2.2
        "train.optimizer._target_": ("torch.optim.AdamW",) * 2,  # Table 4
        "train.optimizer.lr": (1e-3, 3e-3),  # section 2.1
        "loss.weights": ({"dice": 1.0, "hausdorff": 1.0},) * 2,  # section 2.1
        "postprocess.steps": (_emptied_below(500),) * 2,  # Table 4
    },
    "hrnet3d": {
        "model.input.patch": ([128] * 3, [32] * 3),  # section 2.1
        "train.batch": (2, 2),  # section 2.1
        "train.augment": ("fifths", "light"),  # section 2.2
        "train.optimizer._target_": ("torch.optim.AdamW",) * 2,  # Table 4
        "train.optimizer.lr": (1e-3, 5e-3),  # section 2.1
        "loss._target_": ("fedbrats.losses.compound.DiceCE",) * 2,  # section 2.1
        "postprocess.steps": (_emptied_below(500),) * 2,  # Table 4
    },
    "cotr": {
        "model.input.patch": ([128] * 3, [32] * 3),  # section 2.1
        "train.augment": ("fifths", "light"),  # section 2.2
        "train.optimizer._target_": ("torch.optim.AdamW",) * 2,  # Table 4
        "train.optimizer.lr": (1e-3, 3e-3),  # section 2.1
        "loss._target_": ("fedbrats.losses.compound.DiceCE",) * 2,  # section 2.1
        "postprocess.steps": (_emptied_below(500),) * 2,  # Table 4
    },
    "efficientnet3d": {
        "model.input.normalise": ("clip", "zscore"),  # section 4.1
        "train.augment": ("rotations", "flips"),  # section 4.2
        "train.optimizer._target_": ("torch.optim.Adam",) * 2,
        "train.optimizer.lr": (1e-4, 3e-3),  # Table 1
    },
    "multiscale_efficientnet": {
        "model.width": (2.0, 0.5),  # B7, Table 3
        "model.depth": (3.1, 1.0),
        "model.input.modalities": (["t1"], ["t1ce"]),  # section 4.4
        "train.augment": ("rotations", "flips"),  # section 4.2
        "train.optimizer.lr": (1e-4, 3e-3),  # Table 1
    },
    "median_slice_cnn": {
        "model.input.modalities": (["flair"], ["t1ce"]),  # section 2
        "train.batch": (64, 8),  # section 4.5
        "train.schedule": ("one_cycle", "one_cycle"),  # section 4.8
        "train.optimizer.lr": (1e-2, 3e-3),
        "train.optimizer.betas": ([0.9, 0.99], [0.9, 0.99]),  # section 4.4
        "train.optimizer.eps": (1e-5, 1e-5),
    },
    "late_fusion_efficientnet": {
        "model.width": (1.0, 0.5),  # B0, section 3.3
        "train.batch": (4, 4),  # section 5
        "train.augment": ("shears", "flips"),  # section 3.2
    },
    "c3d": {
        "model.sides": ([112, 112, 48], [32, 32, 24]),  # section 2.2, as the next five
        "model.dense": ([256, 128], [64, 32]),
        "model.dropout": (0.5, 0.1),
        "train.batch": (16, 4),
        "train.augment": ("quarters", "flips"),
        "train.optimizer.lr": (1e-4, 1e-3),
    },
    "ca_net_radiology": {
        "model.layers": ([4, 8, 12, 12], [2, 2, 2]),  # section 2.1
        "model.input.crop": ("tumour", "tumour"),
        "train.batch": (20, 4),  # section 3.1, as the next five
        "train.augment": ("crops", "flips"),
        "train.schedule": ("steps", "steps"),
        "train.milestones": ({"0.5": 0.1, "0.75": 0.01},) * 2,
        "train.optimizer.lr": (1e-3, 1e-2),
        "train.optimizer.momentum": (0.95, 0.95),
        "train.optimizer.weight_decay": (1e-4, 1e-4),
    },
    "vat_unet": {
        "model.width": (48, 16),  # section 4.1, as the next two
        "model.norm": ("group", "group"),
        "model.input.patch": ([128] * 3, [32] * 3),
        "model.input.normalise": ("minmax", "minmax"),  # section 4.1, image pre-processing
        "loss._target_": ("fedbrats.losses.dice.Dice",) * 2,  # Eq. 3
        "loss.squared": (False, False),
        "train.vat.weight": (0.2, 0.2),  # section 3.4
        "train.vat.target": ("truth", "truth"),  # Eq. 4
        "train.augment": ("none", "none"),  # section 3.4
        "train.batch": (2, 2),  # section 4.1, training
        "train.optimizer._target_": ("torch.optim.Adam",) * 2,
        "train.optimizer.lr": (2e-4, 3e-3),
        "inference.window": ([240, 240, 160], None),  # section 4.1, inference: 240x240x155
    },
    "emsvit": {
        "model.width": (384, 48),  # Table 6
        "model.input.patch": ([128] * 3, [32] * 3),  # section 3.6
        "loss.dice": (0.5, 0.5),  # Eq. 12, as the next two
        "loss.cross_entropy": (0.5, 0.5),
        "loss.squared": (True, True),
        "train.batch": (16, 2),  # section 3.6, as the rest
        "train.augment": ("brightness", "light"),
        "train.optimizer.lr": (1.5e-4, 3e-3),
        "train.optimizer.weight_decay": (5e-3, 0),
    },
    "spin": {
        "loss._target_": ("fedbrats.losses.cross_entropy.CrossEntropy",) * 2,  # Eq. 1
        "model.slices": (5, 5),  # section 4, as the rest
        "train.augment": ("rotation", "light"),
        "train.schedule": ("steps", "steps"),
        "train.milestones": ({"0.25": 1 / 3, "0.875": 1 / 6},) * 2,  # 400 and 1400 of 1600 epochs
        "train.optimizer.lr": (3e-4, 1e-2),
    },
    "dints": {
        "model.layers": (12, 3),  # section 2.3
        "model.channel_mul": (1.0, 0.25),  # section 2.3: 32 channels
        "model.input.patch": ([128] * 3, [32] * 3),  # section 2.2
        "loss.dice": (0.5, 0.5),  # section 2.3: "an even mix"
        "loss.cross_entropy": (0.5, 0.5),
        "inference.flips": (True, False),  # section 2.3
        "train.augment": ("brightness_noise", "light"),  # section 2.2
        "train.batch": (1, 2),  # section 2.4, as the rest
        "train.optimizer.lr": (8e-4, 5e-3),
        "train.optimizer.weight_decay": (4e-5, 0),
        "train.optimizer.betas": ([0.9, 0.999],) * 2,
    },
    "mask_rcnn": {
        "model.input.resize": ([256, 256], None),  # section 2.1
        "model.layers": ([3, 4, 23, 3], [1] * 4),  # section 2.2: ResNet-101
        "model.attention": (128, 16),  # section 2.2
        "train.deep_supervision": ([0, 1], [0, 1]),
        "train.augment": ("tilts", "light"),  # section 3: flips and up to 7 degrees
        "train.batch": (1, 4),  # section 3, as the rest
        "train.optimizer._target_": ("torch.optim.Adam",) * 2,
        "train.optimizer.lr": (1e-4, 1e-3),
        "inference.flips": (True, False),  # Eq. 4
        "postprocess.steps": (
            [
                {"_target_": "fedbrats.postprocess.inside_brain.InsideBrain"},
                {"_target_": "fedbrats.postprocess.largest_component.LargestComponent", "region": "WT"},
            ],
        )
        * 2,  # "only the largest connected component"
    },
    "gnn_cnn": {
        "loss._target_": ("fedbrats.losses.nodes.WithNodes",) * 2,  # section 2.4
        "loss.voxels._target_": ("fedbrats.losses.cross_entropy.CrossEntropy",) * 2,
        "model.layers": (6, 3),  # section 3.1, as the next two
        "model.width": (256, 32),
        "model.compactness": (0.5, 0.5),
        "model.filters": (16, 8),  # section 2.3
        "model.kernel": (5, 3),
        "train.batch": (6, 2),  # section 2.5, as the rest
        "train.augment": ("none", "none"),
        "train.schedule": ("exponential", "constant"),  # Eq. 2
        "train.optimizer._target_": ("torch.optim.AdamW",) * 2,
        "train.optimizer.lr": (5e-4, 5e-3),  # section 3.1
        "train.optimizer.weight_decay": (1e-4, 1e-4),
    },
}


def _value(config: object, key: str) -> object:
    for part in key.split("."):
        config = config[part] if isinstance(config, dict) else getattr(config, part)
    return config


@pytest.mark.parametrize("name", PRINTED)
def test_full_networks_are_trained_as_printed(name: str) -> None:
    for index, size in enumerate(("full", "small")):
        config = typed(with_size(composed([f"model={name}", f"model.size={size}"])))
        found = {key: _value(config, key) for key in PRINTED[name]}
        assert found == {key: values[index] for key, values in PRINTED[name].items()}


def test_what_the_user_sets_wins_over_the_paper() -> None:
    own = ("inference=default", "train.clip_norm=null", "train.tumour_centre=any")
    config = config_of("model=nnunet", "model.size=full", *own)
    assert (config.inference.flips, config.train.clip_norm, config.train.tumour_centre) == (
        False,
        None,
        "any",
    )
    assert config_of("model=nnunet", "model.size=small", "inference=flips").inference.flips


def test_without_a_prior_the_output_starts_as_the_network_does() -> None:
    torch.manual_seed(0)
    model = config_of("model=dr_unet104", "model.size=small", "model.prior=null").model
    bias = build_network(model).head[-1].bias  # type: ignore[union-attr, index]
    assert not torch.allclose(bias.softmax(0)[0], torch.tensor(0.9), atol=0.05)


def test_every_network_says_what_is_not_as_printed() -> None:
    said = (
        (ROOT / "fedbrats" / "models" / "README.md")
        .read_text()
        .split("## What is not as printed")[1]
        .split("\n## ")[0]
    )
    for file in (ROOT / "conf" / "model").glob("*.yaml"):
        assert f"`{file.stem}`" in said, file.stem
    papers = Path(ROOT / "fedbrats" / "models" / "networks")
    for name in (*PRINTED, "swin_unetr"):
        assert "models/README.md" in (papers / f"{name}.py").read_text(), name
