"""The `dataset.json` of the Medical Segmentation Decathlon (Task01): 4D files, own label numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fedbrats.data.family_table import MSD
from fedbrats.data.regions import LabelSystem
from fedbrats.files import read_json

NAMING = "Decathlon"  # of its cases, in `family_table.NAMINGS`
_MODALITY_NAMES = {"flair": "flair", "t1w": "t1", "t1gd": "t1ce", "t2w": "t2"}


IMAGE_FOLDERS = ("imagesTr", "imagesTs")


@dataclass(frozen=True)
class Entry:
    """One case: its name, its 4D image, its label (None for a test case), and modality -> channel of the image."""

    name: str
    image: Path
    label: Path | None
    channels: dict[str, int]


def read_entries(path: Path, say: Callable[[str], object] = lambda text: None) -> list[Entry]:
    """List the cases of a Decathlon `dataset.json`: those with labels, then the test cases.

    Args:
        path: the file.
        say: told of each entry that cannot be used.

    Raises:
        ValueError: not JSON, no `dataset.json` of the Decathlon, or other modalities than those of Task01.
    """
    content = _read(path)
    if not _is_of_decathlon(content):
        raise ValueError(
            f"{path}: no description of the Decathlon, which has 'modality', 'labels' and 'training'"
        )
    channels = _channels(path, content["modality"])
    entries = []
    for pair in _list(content["training"]):
        if not (isinstance(pair, dict) and all(isinstance(pair.get(key), str) for key in ("image", "label"))):
            say(f"{path}: 'training' holds {pair!r}, expected an 'image' and a 'label'; left out")
            continue
        entries.append(_entry(path.parent / pair["image"], path.parent / pair["label"], channels))
    for image in _list(content.get("test")):
        if not isinstance(image, str):
            say(f"{path}: 'test' holds {image!r}, expected the name of an image; left out")
            continue
        entries.append(_entry(path.parent / image, None, channels))
    return entries


def _channels(path: Path, modality: object) -> dict[str, int]:
    names = list(modality.items()) if isinstance(modality, dict) else []
    found = {_MODALITY_NAMES.get(str(text).lower(), str(text)): index for index, text in names}
    if set(found) != set(_MODALITY_NAMES.values()) or not all(
        str(index).isdecimal() for index in found.values()
    ):
        raise ValueError(f"{path}: 'modality' is {modality}, expected FLAIR, T1w, t1gd and T2w (Task01)")
    return {name: int(index) for name, index in found.items()}


def _list(content: object) -> list:
    return content if isinstance(content, list) else []


def _entry(image: Path, label: Path | None, channels: dict[str, int]) -> Entry:
    return Entry(image.name.removesuffix(".gz").removesuffix(".nii"), image, label, channels)


def labels_beside(file: Path) -> LabelSystem | None:
    """What the `dataset.json` above the folder of an image or label says; None if there is none, or of another kind.

    Raises:
        ValueError: as `read_labels`.
    """
    path = file.parent.parent / "dataset.json"
    return read_labels(path) if path.is_file() and _is_of_decathlon(_read(path)) else None


def _is_of_decathlon(content: dict) -> bool:
    return {"modality", "labels", "training"} <= content.keys()


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
