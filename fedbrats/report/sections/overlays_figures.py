"""Best, median and worst test case as overlays on the slices that a run left."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fedbrats.data.regions import ED, ET, NCR
from fedbrats.files import MAX_BYTES
from fedbrats.report.style import GREY, LABEL_COLOURS, new_figure, styled
from fedbrats.runs.reading import RunFolderError
from fedbrats.runs.run_folder import RunFolder
from fedbrats.tasks import segmentation as task

OVERLAY_ARM = "federated"
LABELS = {"NCR": NCR, "ED": ED, "ET": ET}


@dataclass(frozen=True)
class Overlay:
    """One chosen test case: its rank in words, where its slice is, and its main score per region."""

    rank: str
    site: str
    case: str
    path: Path
    scores: dict[str, float]


def choose_overlays(run: RunFolder) -> list[Overlay]:
    """Best, median and worst test case of the federated arm by its mean main score, if it left a slice.

    With two cases there is no median, with one only that case; none when no slice or no score is there.
    """
    cases = run.cases[(run.cases["arm"] == OVERLAY_ARM) & (run.cases["status"] == "ok")]
    found = []
    for (site, case), part in cases.groupby(["site", "case"], sort=True):
        path = run.path / "sites" / str(site) / "slices" / OVERLAY_ARM / f"{case}.npz"
        scores = {row["region"]: float(row[task.MAIN]) for row in part.to_dict(orient="records")}
        if path.is_file() and set(run.regions) <= set(scores):
            found.append(
                (
                    float(np.mean([scores[region] for region in run.regions])),
                    str(site),
                    str(case),
                    path,
                    scores,
                )
            )
    found.sort(key=lambda item: (-item[0], item[2]))
    if not found:
        return []
    last = len(found) - 1
    chosen = {"Best case": 0, "Median case": last // 2, "Worst case": last}
    if last < 2:
        chosen = {"Best case": 0, "Worst case": 1} if last else {"Only case": 0}
    return [Overlay(rank, *found[place][1:]) for rank, place in chosen.items()]


def overlay_figure(overlay: Overlay) -> Figure:
    """FLAIR and T1ce of one case, each with the reference and with the prediction, cropped to the brain.

    Raises:
        RunFolderError: the slice file is damaged or lacks an array.
    """
    arrays = read_slice(overlay.path)
    flair, t1ce = arrays["flair"], arrays["t1ce"]
    rows, columns = brain_box(flair, t1ce)
    aspect = float(arrays["spacing"][1] / arrays["spacing"][0])
    height = (columns.stop - columns.start) * aspect
    width = float(rows.stop - rows.start)
    panels = (
        ("FLAIR, reference", flair, arrays["truth"]),
        ("FLAIR, prediction", flair, arrays["prediction"]),
        ("T1ce, reference", t1ce, arrays["truth"]),
        ("T1ce, prediction", t1ce, arrays["prediction"]),
    )
    with styled():
        figure = new_figure(10.5, min(4.2, 2.6 * height / max(width, 1)) + 0.55)
        for axis, (title, image, labels) in zip(figure.subplots(1, 4), panels):
            panel(axis, image[rows, columns], labels[rows, columns], aspect)
            axis.set_title(title, fontsize=9)
        patches = [
            Patch(facecolor=colour, edgecolor=GREY, label=name) for name, colour in LABEL_COLOURS.items()
        ]
        figure.legend(handles=patches, loc="outside lower center", ncols=3)
    return figure


def read_slice(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a slice file: t1ce and flair float32 [A, B], truth and prediction uint8 [A, B], spacing float (mm).

    Raises:
        RunFolderError: the file is damaged, lacks an array, or its arrays differ in shape.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            if sum(entry.file_size for entry in stored.zip.infolist()) > MAX_BYTES:  # before it is unpacked
                raise ValueError(f"it unpacks to more than {MAX_BYTES} bytes")
            arrays = {name: np.asarray(stored[name]) for name in ("t1ce", "flair", "truth", "prediction")}
            spacing = (
                np.asarray(stored["spacing"], dtype=float).ravel() if "spacing" in stored else np.ones(2)
            )
    except Exception as error:
        raise RunFolderError(f"{path}: not readable as a slice file ({error})") from error
    if len({array.shape for array in arrays.values()}) != 1 or arrays["truth"].ndim != 2:
        raise RunFolderError(f"{path}: expected four arrays of one 2D shape")
    images = {name: np.nan_to_num(arrays[name].astype(np.float32)) for name in ("t1ce", "flair")}
    return {**arrays, **images, "spacing": spacing}


def brain_box(*images: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that hold the brain (non-zero voxels) of all images; everything when there is none."""
    brain = np.any([image != 0 for image in images], axis=0)
    if not brain.any():
        return slice(0, brain.shape[0]), slice(0, brain.shape[1])
    rows, columns = (np.flatnonzero(brain.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def panel(axis: Axes, image: np.ndarray, labels: np.ndarray, aspect: float) -> None:
    """One slice in the radiological view: the patient's right is on the left of the picture, front is up."""
    inside = image[image != 0]
    low, high = np.percentile(inside, [1, 99.5]) if inside.size else (0.0, 1.0)
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    grey[image == 0] = 0
    rgb = np.repeat(grey[..., None], 3, axis=2)
    for name, label in LABELS.items():
        mask = labels == label
        rgb[mask] = 0.62 * rgb[mask] + 0.38 * np.asarray(to_rgb(LABEL_COLOURS[name]))
    axis.imshow(np.flip(rgb, axis=0).swapaxes(0, 1), origin="lower", aspect=aspect, interpolation="nearest")
    for name, label in LABELS.items():
        mask = np.flip(labels == label, axis=0).T
        if mask.any():
            axis.contour(mask.astype(float), levels=[0.5], colors=[LABEL_COLOURS[name]], linewidths=0.9)
    axis.set_axis_off()
    for side, place, align in (("R", 0.02, "left"), ("L", 0.98, "right")):
        axis.text(
            place, 0.5, side, transform=axis.transAxes, color="white", fontsize=8, ha=align, va="center"
        )
