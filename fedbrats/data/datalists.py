"""A folder of datalists (`site-1.json` and so on), the Decathlon's form of lists as MONAI and NVFLARE read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from fedbrats.config.targets import ConfigError
from fedbrats.files import read_json

TRAINING, VALIDATION = "training", "validation"  # keys of a list
EVERYBODY = "all"  # how the stem of a list ends that repeats those of all sites
ENDING = ".nii"


def datalist_rows(folder: Path) -> list[tuple[str, str]]:
    """Case and institution of every entry of the lists in `folder`.

    What a list trains on belongs to the site that it is called after; what all of them validate on belongs to none of
    them, and is the institution `validation`, which `partition.holdout` may name. A list that ends in `all` repeats
    the others and is passed over.

    Raises:
        ConfigError: no list, or one that is none.
    """
    files = [file for file in sorted(folder.glob("*.json")) if not file.stem.lower().endswith(EVERYBODY)]
    if not files:
        raise ConfigError(f"partition.table {folder}: a folder without datalists (<site>.json)")
    shared = set.intersection(*(set(_cases(file, VALIDATION)) for file in files)) if len(files) > 1 else set()
    rows = []
    for file in files:
        own = [*_cases(file, TRAINING), *(name for name in _cases(file, VALIDATION) if name not in shared)]
        rows += [(name, file.stem) for name in own]
    return rows + [(name, VALIDATION) for name in sorted(shared)]


def _cases(file: Path, key: str) -> Iterator[str]:
    try:
        entries: Any = read_json(file)
        for entry in entries.get(key, ()):
            path = PurePosixPath(str(entry["label"] if "label" in entry else entry["image"][0]))
            yield path.name.split(ENDING)[0] if len(path.parts) == 1 else path.parent.name
    except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
        raise ConfigError(
            f"{file}: no datalist with {key} and entries of image and label ({error})"
        ) from error
