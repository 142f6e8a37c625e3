"""Recipes of augmentation, a file each; `data/augment.py` has the older ones and applies them all."""

# Those that `train.augment` may name, here without MONAI, which takes seconds that reading a configuration need not.
AUGMENTS = (
    *("none", "flips", "light", "noise", "artefacts", "channel_drop", "elastic"),
    *("moves", "masks", "mining", "nnunet", "turns", "axes", "rotation_noise", "affine", "gamma", "fifths"),
    *("rotations", "tilts", "crops", "shears", "quarters"),
    *("brightness", "brightness_noise", "rotation"),
)
