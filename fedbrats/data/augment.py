"""Augmentation of training patches, 2D and 3D, by named recipes. The transforms are MONAI's."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from monai.data import set_track_meta
from monai.transforms import (
    AdjustContrast,
    GaussianSmooth,
    RandCoarseDropout,
    RandGaussianNoise,
    RandomizableTransform,
    RandScaleIntensity,
    RandShiftIntensity,
    RandSimulateLowResolution,
    ScaleIntensityFixedMean,
)
from torch import Tensor

from fedbrats.data.augmentation.affine import affine
from fedbrats.data.augmentation.artefacts import artefacts
from fedbrats.data.augmentation.axes import axes
from fedbrats.data.augmentation.channel_drop import channel_drop
from fedbrats.data.augmentation.elastic import elastic
from fedbrats.data.augmentation.fifths import fifths
from fedbrats.data.augmentation.flipping import flipped, flips_of
from fedbrats.data.augmentation.gamma import gamma
from fedbrats.data.augmentation.mining import mining
from fedbrats.data.augmentation.moves import TILT, TURN, moves
from fedbrats.data.augmentation.moving import rotated_and_zoomed
from fedbrats.data.augmentation.noise import noise
from fedbrats.data.augmentation.quarters import quarters
from fedbrats.data.augmentation.rotation import rotation
from fedbrats.data.augmentation.rotation_noise import rotation_noise
from fedbrats.data.augmentation.shears import shears
from fedbrats.data.augmentation.turns import turns

FLIP = 0.5  # probability, for each axis on its own
SCALE = 0.1  # light: intensities are multiplied by 1 + U(-SCALE, SCALE), drawn for each modality
SHIFT = 0.1  # light: and shifted by U(-SHIFT, SHIFT), in standard deviations

State = np.random.RandomState  # what MONAI's transforms draw from


def augment(
    images: Tensor, labels: Tensor, rng: np.random.Generator, recipe: str = "light"
) -> tuple[Tensor, Tensor]:
    """Augment a batch of patches or slices, image and label together.

    Recipes, drawn anew for each sample unless said otherwise:

    - none: nothing; the inputs are returned.
    - flips: each axis is mirrored with probability 0.5. On axial slices this is DR-UNet104's (Colman et al. 2020,
      section 3.1): left-right and anterior-posterior, each with 50 %.
    - light: flips, then the intensities of each modality are scaled by 0.9 to 1.1 and shifted by up to 0.1 standard
      deviations (Myronenko, "3D MRI brain tumor segmentation using autoencoder regularization", BrainLes 2018).
    - brightness: the same, scaled by 0.5 to 1 and shifted by up to 0.05 (EMSViT, BrainLes 2021, section 3.6).
    - brightness_noise: light with flips of probability 0.3 and Gaussian noise of a standard deviation drawn from 0 to
      0.3 (DiNTS, BrainLes 2021, section 2.2).
    - rotation: flips and rotation in the axial plane, Gaussian noise (`rotation.rotation`).
    - noise: uniform noise on every voxel of the brain (`noise.noise`).
    - artefacts: thick slices, blur, noise and a bias field (`artefacts.artefacts`).
    - channel_drop: intensities scaled and noisy, a modality dropped, axes turned (`channel_drop.channel_drop`).
    - elastic: a smooth random deformation (`elastic.elastic`).
    - moves: flips, rotation and a random crop brought back to size (`moves.moves`).
    - masks: flips, masked parts and noise of the Monte Carlo dropout ResU-Net, the same for the whole batch.
    - mining: a modality dropped, intensities rescaled, flips, all but the tumour taken away (`mining.mining`).
    - nnunet: rotation, scaling, noise, blur, brightness, contrast, low resolution, gamma and flips of nnU-Net.
    - turns: flips, quarter turns and gamma (`turns.turns`).
    - axes: axes exchanged and mirrored, a modality replaced by noise (`axes.axes`).
    - rotation_noise: flips, rotation, Gaussian or Poisson noise (`rotation_noise.rotation_noise`).
    - affine: shift, rotation, scaling, intensities shifted, scaled and noisy, all normal (`affine.affine`).
    - gamma: flips, a rotation of up to 30 degrees, gamma (`gamma.gamma`).
    - fifths: zoom, rotation, contrast and mirroring, each in a fifth of the samples (`fifths.fifths`).
    - rotations, tilts, crops: parts of moves (`moves.moves`).
    - shears: flips, rotation, scaling, shearing and brightness (`shears.shears`).
    - quarters: flips, quarter turns and noise (`quarters.quarters`).

    Voxels that are exactly 0 are background, which inference also sees as 0. They stay 0, except that channel_drop,
    masks and mining put zeros into the brain as well. Recipes that move by parts of a voxel mix brain with background;
    in them background is what lies outside the brain mask (any modality not 0), which is moved with the labels: it is
    set to 0 at the end.

    MONAI's meta tracking is switched off for the process, as it would wrap every patch.

    Args:
        images: float32 [B, 4, *S], S of two or three sides, on any device.
        labels: canonical uint8 [B, *S].
        rng: the only source of randomness; the draws do not depend on the device.
        recipe: as above.

    Returns:
        New tensors of the same shapes, dtypes and device; labels hold no value that they did not hold before, save 0.

    Raises:
        ValueError: an unknown recipe.
    """
    if recipe not in RECIPES:
        raise ValueError(f"augment={recipe}: choose one of {', '.join(RECIPES)}")
    if recipe == "none":
        return images, labels
    set_track_meta(False)
    return RECIPES[recipe](images, labels, State(int(rng.integers(2**32))))


def _flips_and_scale(
    images: Tensor,
    labels: Tensor,
    state: State,
    *,
    flip: float = FLIP,
    scale: float | tuple[float, float] = SCALE,
    shift: float = SHIFT,
    noise: float = 0.0,
    intensity: bool = True,
) -> tuple[Tensor, Tensor]:
    """The recipes flips, light, brightness and brightness_noise.

    `flip` is the probability of each axis; each modality is multiplied by 1 + U(*scale) and shifted by U(-shift,
    shift); the noise has a standard deviation of U(0, noise), drawn once for all modalities.
    """
    flips = flips_of(flip, labels.ndim - 1, state)
    steps: list[RandomizableTransform] = [
        RandScaleIntensity(scale, prob=1.0, channel_wise=True),
        RandShiftIntensity(shift, prob=1.0, channel_wise=True),
    ]
    if noise:
        steps.append(RandGaussianNoise(prob=1.0, std=noise))
    for transform in steps:
        transform.set_random_state(state=state)
    new_images, new_labels = torch.empty_like(images), torch.empty_like(labels)
    for index in range(len(images)):
        image, label = flipped(flips, images[index], labels[index][None])
        background = image == 0
        for transform in steps if intensity else ():
            image = transform(image).masked_fill(background, 0)
        new_images[index], new_labels[index] = image, label[0]
    return new_images, new_labels


# Jonsson et al., "Brain tumor segmentation using ResU-Net with Monte Carlo dropout", section 3.3.1
MASKS_FLIP = 0.25
MASKING, MASKS, MASK_SHARE = 0.4, 6, 0.2  # probability, largest number, largest share of the image of each
NOISE, NOISE_MEAN, NOISE_VARIANCE = 0.25, 0.05, 0.1


def _masks(images: Tensor, labels: Tensor, state: State) -> tuple[Tensor, Tensor]:
    """The recipe masks, one draw for the whole batch, as printed; its voxels of noise are of course all drawn.

    Printed: "Flipping the image in both the x and y direction. p = 25%", "masking parts of the input image. p = 40%
    with a maximum of 6 patches each covering at most 20% of the image", noise of mean 0.05 and variance 0.1 with
    p = 25%. Chosen: x and y are flipped each on its own; 1 to 6 rectangles (boxes in 3D, where Z is not flipped), whose
    sides are drawn up to the root of 20 % of the image's, set all modalities to 0; labels are not masked. Noise goes
    to every voxel of the brain, also where it is masked (masking is printed first), and background stays 0.
    """
    flips = flips_of(MASKS_FLIP, 2, state)
    root = MASK_SHARE ** (1 / (labels.ndim - 1))
    # A side of 1 is the least that MONAI can draw; it makes each box no smaller than the one before.
    largest = [max(1, math.floor(side * root)) for side in labels.shape[1:]]
    mask = RandCoarseDropout(1, 1, fill_value=0, max_holes=MASKS, max_spatial_size=largest, prob=MASKING)
    spots = RandGaussianNoise(NOISE, NOISE_MEAN, NOISE_VARIANCE**0.5, sample_std=False)
    for transform in (mask, spots):
        transform.set_random_state(state=state)
    # The batch as one image with many channels, which is transformed as one.
    image, label = flipped(flips, images.flatten(0, 1), labels.clone())
    background = image == 0
    image = spots(mask(image.clone())).masked_fill_(background, 0)  # MONAI masks in place
    return image.unflatten(0, images.shape[:2]).contiguous(), label.contiguous()


# nnU-Net, see _nnunet; angles in degrees
ROTATION, ROTATION_2D, ROTATION_OBLONG, OBLONG = 30, 180, 15, 1.5
ZOOM, BLUR, BRIGHTNESS, CONTRAST, GAMMA = (0.7, 1.4), (0.5, 1.5), (0.7, 1.3), (0.65, 1.5), (0.7, 1.5)
P_ROTATION = P_ZOOM = P_BLUR = 0.2
P_NOISE = P_BRIGHTNESS = P_CONTRAST = P_GAMMA = 0.15
P_LOW_RESOLUTION = 0.25
MAX_NOISE_VARIANCE = 0.1
PER_MODALITY = 0.5  # of blur and low resolution, in a sample that gets them


def _nnunet(images: Tensor, labels: Tensor, state: State) -> tuple[Tensor, Tensor]:
    """The recipe nnunet, that of Table 2 of the nnU-Net with region training (BraTS 2021), which gives no numbers.

    Order, probabilities and ranges are nnU-Net's own (Isensee et al., Nature Methods 2021, supplementary note 4; its
    released code has some narrower ranges). Differences: values are interpolated linearly, labels by nearest
    neighbour (nnU-Net: cubic, and linear for each class); what a rotation brings in from outside the patch is
    background, as only the patch is at hand (nnU-Net reads a larger one); the low-resolution factor is one over
    U(0.5, 1), as in the release, and the way back is linear in 3D, for want of a cubic one. Contrast is scaled about
    the mean, as in the release (the note only says "multiplied"). nnU-Net, too, sets what lies outside its mask of the
    brain to 0 where images were normalised inside that mask.
    """
    flips = flips_of(FLIP, labels.ndim - 1, state)
    new_images, new_labels = torch.empty_like(images), torch.empty_like(labels)
    for index in range(len(images)):
        # The brain mask travels as a second channel of the label.
        both = torch.stack([labels[index], (images[index] != 0).any(0).to(labels.dtype)])
        image, both = _moved(images[index], both, state)
        image, both = flipped(flips, _intensities(image, state), both)
        new_images[index] = image.masked_fill(both[1] == 0, 0)
        new_labels[index] = both[0]
    return new_images, new_labels


def _moved(image: Tensor, label: Tensor, state: State) -> tuple[Tensor, Tensor]:
    """Rotate and zoom [channel, *S] about the middle, in one interpolation."""
    sides = image.shape[1:]
    rotate, zoom = state.uniform() < P_ROTATION, state.uniform() < P_ZOOM
    if not rotate and not zoom:
        return image, label
    flat = ROTATION_OBLONG if max(sides) > OBLONG * min(sides) else ROTATION_2D
    limit = math.radians(ROTATION if len(sides) == 3 else flat)
    angles = state.uniform(-limit, limit, size=3 if len(sides) == 3 else 1) if rotate else None
    factor = state.uniform(*ZOOM) if zoom else 1.0
    return rotated_and_zoomed(image, label, None if angles is None else angles.tolist(), factor)


def _intensities(image: Tensor, state: State) -> Tensor:
    """Noise to gamma, [4, *S]; each modality has its own draws but for noise, whose variance is the sample's."""
    if state.uniform() < P_NOISE:
        spots = RandGaussianNoise(1.0, std=state.uniform(0, MAX_NOISE_VARIANCE) ** 0.5, sample_std=False)
        image = spots.set_random_state(state=state)(image)
    cubic = "bicubic" if image.ndim == 3 else "trilinear"
    low = RandSimulateLowResolution(1.0, upsample_mode=cubic).set_random_state(state=state)

    def power(invert: bool) -> Callable[[Tensor], Tensor]:
        return lambda channel: AdjustContrast(state.uniform(*GAMMA), invert_image=invert)(channel)

    def contrast(channel: Tensor) -> Tensor:
        return ScaleIntensityFixedMean(state.uniform(*CONTRAST) - 1, preserve_range=True)(channel)

    steps: list[tuple[float, float, Callable[[Tensor], Tensor]]] = [
        (P_BLUR, PER_MODALITY, lambda channel: GaussianSmooth(state.uniform(*BLUR))(channel)),
        (P_BRIGHTNESS, 1.0, lambda channel: channel * state.uniform(*BRIGHTNESS)),
        (P_CONTRAST, 1.0, contrast),
        (P_LOW_RESOLUTION, PER_MODALITY, low),
        (P_GAMMA, 1.0, power(invert=True)),
        (P_GAMMA, 1.0, power(invert=False)),
    ]
    for probability, share, change in steps:
        if state.uniform() < probability:
            image = torch.cat([change(one) if state.uniform() < share else one for one in image.split(1)])
    return image


RECIPES: dict[str, Callable[[Tensor, Tensor, State], tuple[Tensor, Tensor]]] = {
    "none": lambda images, labels, _: (images, labels),
    "flips": partial(_flips_and_scale, intensity=False),
    "light": _flips_and_scale,
    "noise": noise,
    "artefacts": artefacts,
    "channel_drop": channel_drop,
    "elastic": elastic,
    "moves": moves,
    "masks": _masks,
    "mining": mining,
    "nnunet": _nnunet,
    "turns": turns,
    "axes": axes,
    "rotation_noise": rotation_noise,
    "affine": affine,
    "gamma": gamma,
    "fifths": fifths,
    "rotations": partial(moves, limit=TURN, least=1.0),
    "tilts": partial(moves, limit=TILT, least=1.0),
    "crops": partial(moves, limit=0.0),
    "shears": shears,
    "quarters": quarters,
    "brightness": partial(_flips_and_scale, scale=(-0.5, 0.0), shift=0.05),
    "brightness_noise": partial(_flips_and_scale, flip=0.3, noise=0.3),
    "rotation": rotation,
}
