"""What can be configured of the phantom, see `data/phantom.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class PhantomConfig:
    """The built-in synthetic data set (`data=phantom`), written as real NIfTI files in BraTS naming."""

    sites: Any = "demo"  # preset ("demo", "fets2022") or a mapping institution -> number of cases
    shape: list[int] = field(default_factory=lambda: [64, 64, 48])  # voxels
    shift: float = 1.0  # strength of the scanner differences between institutions, 0 = identical scanners
    seed: int = 0
    label_strength: float | None = None  # of a label's link to the image, 0 (chance) to 1; None: no label
    annotators: int | None = None  # who outline the whole tumour of each case; data.labels=annotators needs 3
