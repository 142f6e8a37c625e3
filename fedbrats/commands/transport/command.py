"""Map each brain to a cube that keeps its mass, and labels back from the cube (two-phase optimal mass transport).

    fedbrats transport data=<folder of cases> [output=transport] [size=128] [exponent=1] [steps=30]
    fedbrats transport data=<folder of cases> around=labels|<folder> [margin=5]         the second phase
    fedbrats transport back=<labels in the cubes> maps=<output of the first call> [output=transport]

Into the output folder go, for each case, <case>/<case>_t1.nii.gz and so on in the cube, its label where it has one, and
<case>/map.npz, the way back; and transport.csv: seconds, the cost of the map (equation 3 of the paper) before and after
the flow, what is left to an optimal map, the error of the mass, and where the case has a label what the way there and
back loses of it (1 - Dice) and which share of brain and cube each region has. `around` enlarges what lies within
margin voxels of the tumour: of the case's own label (to train) or of <folder>/<case>.nii.gz (found by a first model).
`back` writes <output>/<case>.nii.gz on the grid of each case.

The cubes are cases as any others: `run data=brats data.root=<output>` trains on them, `predict data=<output>` segments
them, both with scores in the cube. No run maps cases by itself.

labels=auto|<family>|{ncr: 1, ed: 2, et: 4} links=inside|follow max_voxels=134217728 (of one file). The exit status is
0, 1 if a case failed, 2 if the command cannot be used.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fedbrats.commands.per_case import Rows, Say, exit_status
from fedbrats.commands.transport.arguments import OWN_LABELS, TransportConfig, read_arguments
from fedbrats.commands.volumes import read_volumes
from fedbrats.commands.words import path
from fedbrats.config.targets import ConfigError
from fedbrats.data.brain import background_share, brain_mask, is_stripped
from fedbrats.data.cases import MODALITIES, Case, as_labelled
from fedbrats.data.families import Families, settle
from fedbrats.data.finding import find_cases
from fedbrats.data.nifti import Source, canonical_affine, canonical_shape, read_volume, spacing_of
from fedbrats.data.regions import LabelSystem, label_numbers, to_canonical
from fedbrats.data.stream import Bounds
from fedbrats.data.transport import Transport, density, transport
from fedbrats.data.walking import bounds_of
from fedbrats.files import write_json
from fedbrats.inference.cubes import MAP, bring_back, cube_source, write_cubes
from fedbrats.runs.table import Table
from fedbrats.tasks.segmentation import REGIONS, masks

FIGURES = ("seconds", "cpu_seconds", "cost_rearranged", "cost", "turning", "mass_error", "steps")
OF_REGIONS = tuple(f"{kind}_{region}" for kind in ("loss", "brain_share", "cube_share") for region in REGIONS)
TABLE = Table(
    "transport.csv",
    ("case", "status", *FIGURES, *OF_REGIONS),
    text=("case", "status"),
    needed=("case", "status"),
)


def main(arguments: list[str]) -> int:
    """Map the cases of one folder, or labels back, and return the exit status."""
    return exit_status(__doc__, arguments, lambda words, say: _work(read_arguments(words), say))


def _work(config: TransportConfig, say: Say) -> Rows:
    return map_cases(config, say) if config.back is None else map_back(config, say)


def map_cases(config: TransportConfig, say: Say) -> list[dict[str, Any]]:
    """Map every case below `config.data`; rows of `transport.csv`.

    Raises:
        ConfigError: no such folder, no case in it, or label numbers that cannot be settled.
    """
    root, output = path(str(config.data)), path(config.output)
    if output.resolve() == root.resolve():
        raise ConfigError(f"output={config.output}: is the folder of the cases; name another.")
    if config.around not in (None, OWN_LABELS) and not path(str(config.around)).is_dir():
        raise ConfigError(
            f"around={config.around}: no such folder; give one of label files, or around=labels."
        )
    try:
        cases = find_cases(root, say, unlabelled=True, links=config.links)
        bounds = bounds_of(root, config.max_voxels, config.links, "")
        families = settle(
            [as_labelled(case, _numbers(case, bounds)) for case in cases], "labels", config.labels
        )
    except ValueError as error:
        raise ConfigError(str(error).replace("data.root", "data")) from error
    say(f"{len(cases)} cases. Label numbers: {families.sentence}.")
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "transport.json", asdict(config))
    rows = list[dict[str, Any]]()
    for number, case in enumerate(cases, start=1):
        try:
            rows.append({"case": case.name, "status": "ok", **_map(case, families, config, output, bounds)})
        except ValueError as error:
            rows.append({"case": case.name, "status": f"failed: {error}"})
        TABLE.write(output, rows)
        say(f"{number}/{len(cases)} {_in_words(rows[-1])}")
    return rows


def _map(
    case: Case, families: Families, config: TransportConfig, output: Path, bounds: Bounds
) -> dict[str, Any]:
    (output / case.name / MAP).unlink(missing_ok=True)  # no old one passes for a new one
    images, own, label = read_volumes(case, bounds)
    if not is_stripped(background_share(list(images))):
        raise ValueError(
            f"{case.name}: not skull-stripped (hardly a voxel is 0), so there is no brain to map"
        )
    brain = brain_mask(images)
    family = families.by_case.get(case.name)
    if label is not None and (family is None or case.name in families.odd):
        raise ValueError(
            f"{case.name}: {families.odd.get(case.name, 'the numbers of its label are unknown')}"
        )
    truth = None if label is None or family is None else to_canonical(label, family.labels)
    tumour = _tumour(case, own, config, truth, family.labels if family else None)
    started, worked = time.perf_counter(), time.process_time()
    try:
        flair = images[MODALITIES.index("flair")]
        rho = density(flair, brain, config.exponent, tumour, config.margin)
        found = transport(rho, spacing_of(own), config.size, config.steps)
    except ValueError as error:
        raise ValueError(f"{case.name}: {error}") from error
    row: dict[str, Any] = {
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - worked, 2),
        "cost_rearranged": found.costs[0],
        "cost": found.costs[1],
        "turning": found.turning,
        "mass_error": found.mass_error,
        "steps": found.steps,
    }
    volumes = dict(zip(MODALITIES, images, strict=True)) | ({} if label is None else {"seg": label})
    cube = cube_source(len(found.brain) * float(np.prod(spacing_of(own))), config.size)
    write_cubes(output / case.name, case.name, found, volumes, own, cube)
    return row if truth is None else row | _of_regions(found, truth)


def _tumour(
    case: Case, own: Source, config: TransportConfig, truth: np.ndarray | None, system: LabelSystem | None
) -> np.ndarray | None:
    """What the second phase enlarges, bool [X, Y, Z]; None in the first."""
    if config.around is None:
        return None
    if config.around == OWN_LABELS:
        if truth is None:
            raise ValueError(f"{case.name}: has no label; around=labels needs one, around=<folder> does not")
        return truth != 0
    folder = path(config.around)
    file, bounds = folder / f"{case.name}.nii.gz", bounds_of(folder, config.max_voxels, config.links, "")
    labels, source = read_volume(file, None, bounds)
    same = np.allclose(canonical_affine(source), canonical_affine(own), atol=0.1)
    if canonical_shape(source) != canonical_shape(own) or not same:
        raise ValueError(
            f"{file}: lies on another grid than the case; labels in a cube are brought `back` first"
        )
    return (to_canonical(labels, system) if system else labels) != 0


def _of_regions(found: Transport, truth: np.ndarray) -> dict[str, float | None]:
    """What the way there and back loses of each region, and its share of the brain and of the cube."""
    cube = found.to_cube(truth)
    row: dict[str, float | None] = {}
    before, after, cubes = (masks(labels, REGIONS) for labels in (truth, found.from_cube(cube), cube))
    for region in REGIONS:
        was, became, inside = before[region], after[region], cubes[region]
        both = int(was.sum()) + int(became.sum())
        row[f"loss_{region}"] = 1 - 2 * int((was & became).sum()) / both if both else None
        row[f"brain_share_{region}"] = int(was.sum()) / len(found.brain)
        row[f"cube_share_{region}"] = float(inside.mean())
    return row


def map_back(config: TransportConfig, say: Say) -> list[dict[str, Any]]:
    """Bring labels in the cubes back for every map below `config.maps`; rows of what became of them.

    Raises:
        ConfigError: no such folder, or no map in it.
    """
    labels, maps, output = path(str(config.back)), path(str(config.maps)), path(config.output)
    files = sorted(maps.glob(f"*/{MAP}"))
    if not labels.is_dir():
        raise ConfigError(f"back={config.back}: no such folder")
    if not files:
        raise ConfigError(
            f"maps={config.maps}: no <case>/{MAP} there; give the output of fedbrats transport data=..."
        )
    if output.resolve() == labels.resolve():
        raise ConfigError(f"output={config.output}: is the folder of the labels in the cubes; name another.")
    bounds = bounds_of(labels, config.max_voxels, config.links, "")
    rows = list[dict[str, Any]]()
    for number, file in enumerate(files, start=1):
        name = f"{file.parent.name}.nii.gz"
        row = {"case": file.parent.name, "status": "ok"}
        (output / name).unlink(missing_ok=True)
        try:
            bring_back(labels / name, file, bounds, output / name)
        except ValueError as error:
            row["status"] = f"failed: {error}"
        rows.append(row)
        say(f"{number}/{len(files)} {row['case']}: {row['status']}")
    return rows


def _numbers(case: Case, bounds: Bounds) -> set[int] | None:
    try:
        label = case.label
        return None if label is None else label_numbers(read_volume(label.path, label.channel, bounds)[0])
    except ValueError:
        return None  # said when its turn comes


def _in_words(row: dict[str, Any]) -> str:
    if row["status"] != "ok":
        return f"{row['case']}: {row['status']}"
    said = (
        f"{row['case']}: {row['seconds']:.1f} s ({row['cpu_seconds']:.1f} s of one core), "
        f"cost {row['cost_rearranged']:.5f} -> {row['cost']:.5f} in {row['steps']} steps, "
        f"{row['turning']:.2f} of the turning left, mass within {row['mass_error']:.1%}"
    )
    lost = [f"{r} {row[f'loss_{r}']:.2%}" for r in REGIONS if row.get(f"loss_{r}") is not None]
    return f"{said}; there and back loses {', '.join(lost)}" if lost else said
