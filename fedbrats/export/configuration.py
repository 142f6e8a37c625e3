"""The two configuration files of a MONAI bundle: how it infers, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from fedbrats import __version__
from fedbrats.config.schema import Config
from fedbrats.data.cases import MODALITIES
from fedbrats.data.regions import LabelSystem
from fedbrats.export.transforms import inferer, postprocessing, preprocessing
from fedbrats.models.build import input_rules, window_of
from fedbrats.postprocess.steps import Step
from fedbrats.tasks.segmentation import CLASS, IN_WORDS, LEADING, WHOLE, predicted_regions

GRAPH, WEIGHTS = "models/model.pt2", "models/model.safetensors"
NEEDED = ("nibabel", "scipy")  # besides MONAI itself, torch and NumPy
PURPOSE = (
    "Research on the segmentation of gliomas in four aligned, skull-stripped MRI sequences of 1 mm (T1, T1 with "
    "contrast, T2, FLAIR). Not a medical device."
)
SEGMENT = (
    "$torch.inference_mode()(lambda d, net=@network_def, infer=@inferer, device=@device: "
    "{**d, 'pred': infer(inputs=d['image'][None].to(device), network=net)[0].cpu()})"
)
# What `transforms.preprocessing` makes of the intensities, by `model.input.normalise`: in words, least and greatest.
SCALED = {
    "zscore": ("z-scored within the brain", [-100.0, 100.0]),
    "clip": ("z-scored within the brain, three deviations about the mean made 0 to 1", [0.0, 1.0]),
}
# Tokens of file names, in the order of `MODALITIES`.
FILES = {name: f"*/*_{name}.nii.gz" for name in MODALITIES}


@dataclass(frozen=True)
class Model:
    """What is exported besides the network itself.

    config: as `portable` made it; steps: of its post-processing; numbers: of the label files it writes; arm: in words,
    without a name; round: of its training.
    """

    config: Config
    steps: Sequence[Step]
    channels: int
    numbers: LabelSystem
    arm: str
    round: int

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions that it predicts."""
        return predicted_regions(self.channels)


def inference_config(model: Model) -> dict[str, Any]:
    """`configs/inference.json`: `run` segments the cases below `dataset_dir`, without ignite.

    `evaluator` is the same for programs that ask for one, such as MONAI Label; it needs ignite.
    """
    patterns = {f"files_{name}": f"$sorted(glob.glob(@dataset_dir + '/{FILES[name]}'))" for name in FILES}
    listed = ", ".join(f"@files_{name}" for name in FILES)
    return {
        "imports": ["$import glob", "$import pathlib", "$from scipy import ndimage", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "./data",
        "output_dir": "./predictions",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        **patterns,
        "datalist": f"$[dict(zip({tuple(FILES)!r}, case)) for case in zip({listed}, strict=True)]",
        "network_def": f"$torch.export.unflatten(torch.export.load(@bundle_root + '/{GRAPH}')).to(@device)",
        "inferer": inferer(model.config),
        "preprocessing": {
            "_target_": "Compose",
            "transforms": preprocessing(input_rules(model.config.model).normalise),
        },
        "predict": {"_target_": "Lambda", "func": SEGMENT},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": postprocessing(model.channels, model.numbers, model.steps),
        },
        "save": {
            "_target_": "SaveImaged",
            "keys": ["pred"],
            "output_dir": "@output_dir",
            "output_postfix": "seg",
            "output_dtype": "$torch.uint8",
            "resample": False,
            "separate_folder": False,
        },
        "segment": {
            "_target_": "Compose",
            "transforms": ["@preprocessing", "@predict", "@postprocessing", "@save"],
        },
        "run": ["$list(map(@segment, @datalist))"],
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network_def",
            "inferer": "@inferer",
            "postprocessing": {"_target_": "Compose", "transforms": ["@postprocessing", "@save"]},
        },
    }


def metadata(model: Model, name: str, references: Sequence[str], said: Mapping[str, Any]) -> dict[str, Any]:
    """`configs/metadata.json`, by MONAI's schema for bundles.

    Args:
        model: what is exported.
        name: of the bundle.
        references: papers to cite.
        said: what else it says of itself, under `fedbrats`.
    """
    numbers, sides = model.numbers, window_of(model.config)
    scaled, limits = SCALED[input_rules(model.config.model).normalise]
    labels = {"0": "background", str(numbers.ed): "ED (oedema)"}
    if model.channels != WHOLE:
        labels |= {str(numbers.ncr): "NCR (necrosis)", str(numbers.et): "ET (enhancing tumour)"}
    else:
        labels[str(numbers.ed)] = f"{LEADING} ({IN_WORDS[LEADING]})"
    channels = ["background", "NCR", "ED", "ET"] if model.channels == CLASS else list(model.regions)
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported by fedbrats {__version__}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {package: version(package) for package in NEEDED},
        "name": name,
        "task": "Brain tumour segmentation in MRI",
        "description": f"{', '.join(IN_WORDS[region] for region in model.regions)}, trained by {model.arm}",
        "authors": "see docs/README.md",
        "copyright": "see docs/README.md",
        "data_type": "nifti",
        "image_classes": f"4 channels: {', '.join(MODALITIES)}, {scaled}",
        "label_classes": labels,
        "pred_classes": f"logits: {', '.join(channels)}",
        "eval_metrics": {},
        "intended_use": PURPOSE,
        "references": list(references),
        "network_data_format": {
            "inputs": {"image": _format(list(MODALITIES), sides, "magnitude", limits)},
            "outputs": {"pred": _format(channels, sides, "logits", [-1000.0, 1000.0])},
        },
        "fedbrats": dict(said),
    }


def _format(channels: Sequence[str], sides: Sequence[int], kind: str, values: list[float]) -> dict[str, Any]:
    return {
        "type": "image" if kind == "magnitude" else "probabilities",
        "format": kind,
        **({"modality": "MR"} if kind == "magnitude" else {}),
        "num_channels": len(channels),
        "spatial_shape": list(sides),
        "dtype": "float32",
        "value_range": values,
        "is_patch_data": True,
        "channel_def": {str(index): name for index, name in enumerate(channels)},
    }
