"""The first reading of the pairs: what can be scored, what cannot and why, and whose numbers the files hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedbrats.commands.evaluate.arguments import VOXELS, LabelsConfig
from fedbrats.commands.evaluate.label_files import Pair, labelled
from fedbrats.data.families import Families, settle
from fedbrats.data.grids import difference, stored_in
from fedbrats.data.nifti import Source, read_volume
from fedbrats.data.regions import label_numbers
from fedbrats.data.stream import Bounds


@dataclass(frozen=True)
class Look:
    """What the first reading of a pair has shown.

    fault: why the prediction cannot be used, which is the prediction's failure; lost: why there is no truth to hold it
    against, so that nothing can be said of it. "" for neither.
    """

    pair: Pair
    truth_numbers: set[int]
    guess_numbers: set[int]
    fault: str = ""
    lost: str = ""


def look_at_all(pairs: Sequence[Pair], bounds: Bounds, grid: str) -> list[Look]:
    """Read every file once; whatever is wrong with one is the fault of its own pair."""
    return [_look(pair, bounds, grid) for pair in pairs]


def _look(pair: Pair, bounds: Bounds, grid: str) -> Look:
    if pair.reference is None or pair.lost:
        return Look(pair, set(), set(), pair.fault, pair.lost)
    try:
        truth, place = read_volume(pair.reference, bounds=bounds)
        numbers = label_numbers(truth)
    except ValueError as error:
        return Look(pair, set(), set(), pair.fault, naming(pair.reference, error))
    if pair.prediction is None or pair.fault:
        return Look(pair, numbers, set(), pair.fault)
    try:
        guess = read_guess(pair.prediction, place, bounds, grid)
        return Look(pair, numbers, label_numbers(guess))
    except ValueError as error:
        return Look(pair, numbers, set(), naming(pair.prediction, error))


def read_guess(path: Path, place: Source, bounds: Bounds, grid: str) -> np.ndarray:
    """Voxels of a prediction [X, Y, Z] on the grid of its reference, which lies in `place`.

    Raises:
        ValueError: it cannot be read, or lies on another grid; the message says what to do.
    """
    guess, own = read_volume(path, bounds=bounds)
    if grid == VOXELS:
        return stored_in(guess, own, place)
    if other := difference(own, place):
        stored = own.shape == place.shape
        advice = f", or set grid={VOXELS} if its voxels are those of the reference and only its header is not"
        raise ValueError(
            f"on another grid than its reference ({other} of the reference); resample it{advice if stored else ''}"
        )
    return guess


def families_of(
    looks: Sequence[Look], labels: LabelsConfig, note: Callable[[str], object]
) -> tuple[Families, Families]:
    """Families of the references and of the predictions.

    Raises:
        ConfigError: numbers that leave a doubt.
    """
    read = [look for look in looks if not look.lost]
    sides = {
        "references": [
            labelled(look.pair.case, look.pair.reference, look.truth_numbers)
            for look in read
            if look.pair.reference
        ],
        "predictions": [
            labelled(look.pair.case, look.pair.prediction, look.guess_numbers)
            for look in read
            if look.pair.prediction and not look.fault
        ],
    }
    found = {}
    for side, files in sides.items():
        found[side] = settle(files, f"labels.{side}", getattr(labels, side))
        note(f"label numbers of the {side}: {found[side].sentence or 'nothing to read'}")
    note(f"lesion-wise scores: {found['references'].lesions}")
    return found["references"], found["predictions"]


def with_odd(look: Look, families: tuple[Families, Families]) -> Look:
    """The same, with numbers that do not fit the family of either side as its fault."""
    case, (truth, guess) = look.pair.case, families
    if not look.lost and case in truth.odd:
        return replace(look, lost=f"{look.pair.reference}: {truth.odd[case]}")
    if not look.fault and case in guess.odd:
        return replace(look, fault=f"{look.pair.prediction}: {guess.odd[case]}")
    return look


def naming(path: Path, error: ValueError) -> str:
    """What went wrong, with the file."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"
