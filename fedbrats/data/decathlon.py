"""The `dataset.json` of the Medical Segmentation Decathlon (Task01): 4D files, own label numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedbrats.data.regions import MSD, LabelSystem
from fedbrats.files import read_json

_MODALITY_NAMES = {"flair": "flair", "t1w": "t1", "t1gd": "t1ce", "t2w": "t2"}


@dataclass(frozen=True)
class Entry:
    """One labelled case: its name, its 4D image, its label, and modality -> channel of the image."""

    name: str
    image: Path
    label: Path
    channels: dict[str, int]


def read_entries(path: Path) -> list[Entry]:
    """List the labelled cases of a Decathlon `dataset.json`; nothing for a `dataset.json` of another kind.

    Raises:
        ValueError: not JSON, other modalities than those of Task01, or a training entry that is no pair.
    """
    content = _read(path)
    if not {"modality", "labels", "training"} <= content.keys():
        return []
    names = {int(index): str(text) for index, text in content["modality"].items()}
    channels = {_MODALITY_NAMES.get(text.lower(), text): index for index, text in names.items()}
    if set(channels) != set(_MODALITY_NAMES.values()):
        raise ValueError(f"{path}: 'modality' is {names}, expected FLAIR, T1w, t1gd and T2w (Task01)")
    entries = []
    for pair in content["training"]:
        if not isinstance(pair, dict) or not {"image", "label"} <= pair.keys():
            raise ValueError(f"{path}: 'training' holds {pair!r}, expected an 'image' and a 'label'")
        image, label = path.parent / pair["image"], path.parent / pair["label"]
        name = image.name.removesuffix(".gz").removesuffix(".nii")
        entries.append(Entry(name, image, label, channels))
    return entries


def read_labels(path: Path) -> LabelSystem:
    """Read which number a Decathlon `dataset.json` gives to each part of the tumour.

    Raises:
        ValueError: not JSON, or the three parts are not named in it.
    """
    names = {str(text).lower(): int(number) for number, text in _read(path).get("labels", {}).items()}
    found: dict[str, int] = {}
    for text, number in names.items():
        if "edema" in text or "oedema" in text:
            found["ed"] = number
        elif "non-enhanc" in text:  # before "enhanc", which it contains
            found["ncr"] = number
        elif "enhanc" in text:
            found["et"] = number
    if len(found) != 3:
        raise ValueError(f"{path}: 'labels' is {names}, expected edema, non-enhancing and enhancing tumour")
    return LabelSystem(MSD.name, found["ncr"], found["ed"], found["et"])


def _read(path: Path) -> dict:
    try:
        content = read_json(path)
    except OSError as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from error
    return content if isinstance(content, dict) else {}
