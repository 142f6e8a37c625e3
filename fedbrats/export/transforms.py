"""Preprocessing and post-processing of a model, said in MONAI's own transforms (`_target_` nodes of a bundle).

What fedbrats does on the way to a network is in `data/preprocess.py` and `data/intensity.py`; here the same is said for
a process that has no fedbrats. Numbers are those of the cache to one step of float16 (`proof.py` measures it).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from monai.data import get_track_meta, set_track_meta

from fedbrats.config.schema import Config
from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import MODALITIES
from fedbrats.data.patches import NORMAL
from fedbrats.data.regions import LabelSystem
from fedbrats.models.build import input_rules, window_of
from fedbrats.postprocess.inside_brain import InsideBrain
from fedbrats.postprocess.steps import Step
from fedbrats.tasks.segmentation import CLASS, WHOLE

Node = dict[str, Any]
ABOVE_HALF = float(np.nextafter(np.float32(0.5), np.float32(1)))  # MONAI takes >=, fedbrats >
LOWEST, HIGHEST = (
    -127 * 3 / 128,
    127 * 3 / 128,
)  # z-scores of the grey values 0 and 254, see intensity.clipped
SAYABLE = ("zscore", "clip")  # of model.input.normalise
INSIDE = "postprocess=inside_brain or postprocess=none"
FILLED = "$lambda x: x.new_tensor(ndimage.binary_fill_holes((x != 0).any(0).numpy()))[None]"


def check_sayable(config: Config, steps: Sequence[Step]) -> None:
    """Check that MONAI's transforms and inferers can say what `config` does.

    Raises:
        ConfigError: they cannot; the message names the key and the fix.
    """
    rules, inference = input_rules(config.model), config.inference
    onnx = "or export format=onnx, which fedbrats predict runs with all of it"
    if rules.normalise not in SAYABLE:
        raise ConfigError(
            f"model.input.normalise={rules.normalise}: goes by a histogram of the image or of a site, not said in a "
            f"bundle; train with model.input.normalise={' or '.join(SAYABLE)}, {onnx}."
        )
    if len(rules.planes) > 1 and len(window_of(config)) == 2:
        raise ConfigError(
            f"model.input.planes={rules.planes}: a bundle has one inferer, for one plane; train on one plane, {onnx}."
        )
    if inference.flips:
        raise ConfigError(
            f"inference.flips=true: not said in a bundle; export with inference.flips=false, {onnx}."
        )
    if others := [step.name for step in steps if not isinstance(step, InsideBrain)]:
        raise ConfigError(
            f"postprocess ({'; '.join(others)}): not said in MONAI's transforms; export with {INSIDE}, {onnx}."
        )


@contextmanager
def tracking() -> Iterator[None]:
    """With MONAI's meta tracking, which a process that has trained has switched off (`data/augment.py`)."""
    before = get_track_meta()
    set_track_meta(True)
    try:
        yield
    finally:
        set_track_meta(before)


def preprocessing(normalise: str) -> list[Node]:
    """From a dictionary of four files to `image`, float32 [4, X, Y, Z]; `brain`, its z-scores, goes with it.

    Args:
        normalise: of the network: "zscore" or "clip".
    """
    keys = list(MODALITIES)
    nodes = [
        _node("LoadImaged", keys=keys, reader="NibabelReader", dtype="$torch.float64"),
        _node("EnsureChannelFirstd", keys=keys),
        _node("Orientationd", keys=keys, axcodes="RAS", labels=None),
        _node("ConcatItemsd", keys=keys, name="image", dim=0),
        _node("DeleteItemsd", keys=keys[1:]),  # the first one knows the grid on disk
        _node(
            "CropForegroundd",
            keys=["image"],
            source_key="image",
            select_fn="$lambda x: x != 0",
            allow_smaller=True,
        ),
        _node("NormalizeIntensityd", keys=["image"], nonzero=True, channel_wise=True, dtype="$torch.float64"),
        # fedbrats keeps z-scores as float16.
        _node("CastToTyped", keys=["image"], dtype="$torch.float16"),
        _node("CastToTyped", keys=["image"], dtype="$torch.float32"),
        _node("CopyItemsd", keys=["image"], times=1, names=["brain"]),
    ]
    if normalise == "clip":
        nodes += [
            _node(
                "ScaleIntensityRanged",
                keys=["image"],
                a_min=LOWEST,
                a_max=HIGHEST,
                b_min=0.0,
                b_max=1.0,
                clip=True,
            ),
            _node("MaskIntensityd", keys=["image"], mask_key="brain", select_fn="$lambda x: x != 0"),
        ]
    return nodes


def postprocessing(channels: int, numbers: LabelSystem, steps: Sequence[Step]) -> list[Node]:
    """From `pred`, logits [channels, X, Y, Z], to labels on the grid of the files.

    Args:
        channels: of the network, see `tasks.segmentation`.
        numbers: that the label files get.
        steps: as `check_sayable` lets pass.
    """
    softmax = channels == CLASS
    nodes = [_node("Activationsd", keys=["pred"], softmax=softmax, sigmoid=not softmax)]
    if softmax:
        nodes.append(_node("AsDiscreted", keys=["pred"], argmax=True))
    else:
        nodes.append(_node("AsDiscreted", keys=["pred"], threshold=ABOVE_HALF))
    nodes.append(_node("Lambdad", keys=["pred"], func=_labels(channels, numbers)))
    if any(isinstance(step, InsideBrain) for step in steps):
        nodes += [
            _node("Lambdad", keys=["brain"], func=FILLED),
            _node("MaskIntensityd", keys=["pred"], mask_key="brain"),
        ]
    # Back out of the crop, then onto the axes of the first file.
    back = [
        _node("Invertd", keys=["pred"], transform="@preprocessing", orig_keys=[key], nearest_interp=True)
        for key in ("image", MODALITIES[0])
    ]
    return [*nodes, *back]


def inferer(config: Config) -> Node:
    """The sliding window of `config`, slice by slice for a 2D network."""
    window, inference = window_of(config), config.inference
    common: Node = {
        "roi_size": list(window),
        "sw_batch_size": inference.batch,
        "overlap": inference.overlap,
        "mode": "gaussian",
        "progress": False,
    }
    if len(window) == 3:
        return _node("SlidingWindowInferer", **common)
    return _node("SliceInferer", spatial_dim=NORMAL[input_rules(config.model).planes[0]], **common)


def _labels(channels: int, numbers: LabelSystem) -> str:
    """An expression from binarised channels to the numbers of a label file, as `labels_from_probabilities` has it."""
    ncr, ed, et = numbers.ncr, numbers.ed, numbers.et
    if channels == CLASS:
        return f"$lambda x: {ncr} * (x == 1) + {ed} * (x == 2) + {et} * (x == 3)"
    if channels == WHOLE:
        return f"$lambda x: {ed} * x"
    inside = f"(1 - x[2:3]) * ({ncr} * x[1:2] + {ed} * (1 - x[1:2]) * x[0:1])"
    return f"$lambda x: {inside} + {et} * x[2:3] * (x[0:1] + x[1:2] > 0)"


def _node(target: str, **arguments: Any) -> Node:
    return {"_target_": target, **arguments}
