"""A made-up run folder, written by the writers of a real one, for the tests of the report and of the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from fedbrats.commands.run.summary import arms_summary, write_summary
from fedbrats.data.regions import REGIONS
from fedbrats.files import write_json
from fedbrats.runs import rounds as written
from fedbrats.runs.case_tables import cases_table
from fedbrats.runs.environment import SCHEMA_VERSION
from tests.scored import SCORES, facts

SITES = ("CBICA", "TCIA01", "TCIA02", "TCIA10", "TMC", "UPENN")
UNSEEN = "TCIA13"
SIZES = (30, 14, 9, 6, 4, 3)
FEDERATED = {"WT": 0.86, "TC": 0.78, "ET": 0.71}
ARM_SHIFT = {"federated": 0.0, "pooled": 0.015, "local": -0.09}
CONVENTION = "brats2023"


def write_run(
    folder: Path,
    sites: Sequence[str] = SITES,
    sizes: Sequence[int] = SIZES,
    unseen: Sequence[str] = (UNSEEN,),
    arms: Sequence[str] = ("federated", "pooled", "local"),
    rounds: int = 10,
    seed: int = 1,
    mu: float = 0.01,
    regions: Sequence[str] = REGIONS,
) -> Path:
    """Write every file of a finished run and return its folder; `regions` are those that its network predicts.

    Round 4 lacks a reply, the aggregation of round 7 failed, one case is skipped, one test case could not be scored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    partition = [
        _site(name, size, name in unseen)
        for name, size in zip((*sites, *unseen), (*sizes, *[5] * len(unseen)))
    ]
    config = _config(arms, rounds, seed, mu, unseen)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    write_json(folder / "environment.json", ENVIRONMENT)
    skipped = [
        {"case": "BraTS19_CBICA_ABC_1", "file": "BraTS19_CBICA_ABC_1_t2.nii.gz", "what": "file is empty"}
    ]
    partition_json = {
        "sites": partition,
        "label_system": {"name": "brats2017-2021", "ncr": 1, "ed": 2, "et": 4, "ignored": []},
        "et_recognised": "Enhancing tumour is label 4 (brats2017-2021): 61 of 66 label files hold a 4 and none a 3.",
        "skipped": skipped,
        "warnings": ["BraTS19_TCIA10_1_1: touches the int16 ceiling"],
        "table": [_table_row(site, rng) for site in partition],
    }
    write_json(folder / "partition.json", partition_json)
    round_rows = _rounds(partition, arms, rounds, rng)
    unknown = {f"dice_{region.lower()}": "" for region in set(REGIONS) - set(regions)}
    written.TABLE.write(folder, [row | unknown for row in round_rows])
    cases = [row for row in _cases(partition, arms, rng) if row["region"] in regions]
    cases_table(SCORES).write(folder, cases)
    summed = arms_summary(cases, facts(CONVENTION), CONVENTION)
    known = {"convention": CONVENTION, "rounds": rounds, "skipped": skipped}
    write_summary(folder, "finished", **known, **summed, wall_seconds=185.2)
    for site in partition:
        for case in site["test"]:
            _slice(folder / "sites" / site["name"] / "slices" / "federated" / f"{case}.npz", rng)
    return folder


ENVIRONMENT = {
    "schema_version": SCHEMA_VERSION,
    "started": "2025-03-04T10:20:30",
    "versions": {
        "fedbrats": "0.1.0",
        "python": "3.11.9",
        "torch": "2.13.0",
        "flwr": "1.41.0",
        "monai": "1.6.1",
    },
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "hardware": {"cpu": "2 cores", "memory_gb": 16, "gpu": "none"},
    "command": "sims/run.py data=brats strategy=fedprox",
}


def _config(arms: Sequence[str], rounds: int, seed: int, mu: float, unseen: Sequence[str]) -> dict:
    return {
        "data": {"source": "folder", "root": "/data/BraTS2019"},
        "partition": {"method": "institution", "holdout": list(unseen), "seed": 0},
        "model": {"_target_": "fedbrats.models.networks.segresnet.SegResNet", "init_filters": 8},
        "loss": {"_target_": "fedbrats.losses.compound.DiceCE"},
        "strategy": {"_target_": "fedbrats.algorithms.fedprox.FedProx", "mu": mu, "quorum": 0.5},
        "train": {"patch": [32, 32, 32], "batch": 2, "local_steps": 8, "local_epochs": None},
        "metrics": {"convention": CONVENTION},
        "runtime": {"engine": "local", "workers": 2},
        "arms": list(arms),
        "rounds": rounds,
        "seed": seed,
    }


def _site(name: str, size: int, holdout: bool) -> dict:
    cases = [f"BraTS19_{name}_{number}_1" for number in range(size)]
    test = size if holdout else max(1, round(size * 0.25)) if size > 1 else 0
    val = 0 if holdout or size < 3 else max(1, round(size * 0.15))
    return {
        "name": name,
        "holdout": holdout,
        "test": cases[:test],
        "val": cases[test : test + val],
        "train": cases[test + val :],
    }


def _table_row(site: dict, rng: np.random.Generator) -> dict:
    row = {"site": site["name"], "holdout": site["holdout"], "et_free": int(rng.integers(0, 3))}
    row |= {split: len(site[split]) for split in ("train", "val", "test")}
    row["cases"] = row["train"] + row["val"] + row["test"]
    for region, size in zip(REGIONS, (95, 40, 22)):
        row |= {
            f"{region.lower()}_ml_mean": size * rng.uniform(0.5, 1.5),
            f"{region.lower()}_ml_sd": size * 0.4,
        }
    for modality in ("t1", "t1ce", "t2", "flair"):
        row |= {
            f"{modality}_mean": 400 * rng.lognormal(0, 0.8),
            f"{modality}_sd": 150 * rng.lognormal(0, 0.5),
        }
    return row


def _rounds(partition: list[dict], arms: Sequence[str], rounds: int, rng: np.random.Generator) -> list[dict]:
    training = [site for site in partition if not site["holdout"]]
    rows = []
    for number in range(1, rounds + 1):
        for arm, members in _cohorts(training, arms):
            shift = ARM_SHIFT[arm.split(":")[0]]
            learnt = 1 - np.exp(-number / 3)
            for site in members:
                row = {"round": number, "arm": arm, "site": site["name"], "phase": "train", "status": "ok"}
                row |= {"cases": len(site["train"]), "loss": 1.2 - 0.9 * learnt + rng.normal(0, 0.02)}
                row |= {"steps": 20, "seconds": 1.5, "bytes_down": 0, "bytes_up": 0}
                if arm == "federated":
                    row |= {"bytes_down": 4_700_000, "bytes_up": 4_700_000}
                    if (number, site["name"]) == (4, training[-1]["name"]) or number == 7:
                        row |= {
                            "status": "failed: non-finite values in down.0.weight",
                            "cases": "",
                            "loss": "",
                        }
                rows.append(row)
                if site["val"]:
                    dice = {
                        f"dice_{r.lower()}": min(0.99, (v + shift) * learnt) for r, v in FEDERATED.items()
                    }
                    values = {
                        "phase": "val",
                        "status": "ok",
                        "cases": len(site["val"]),
                        "loss": 1.25 - 0.88 * learnt,
                    }
                    rows.append({**row, **values, **dice, "seconds": 0.6, "bytes_up": 0})
            failed = number == 7 and arm == "federated"
            status = "failed: 0 of 6 replies usable, quorum needs 3; the old model stays" if failed else "ok"
            rows.append(
                {
                    "round": number,
                    "arm": arm,
                    "site": "server",
                    "phase": "round",
                    "status": status,
                    "seconds": 9.1,
                }
            )
    return rows


def _cohorts(training: list[dict], arms: Sequence[str]) -> list[tuple[str, list[dict]]]:
    pooled = {"name": "pooled", "train": [case for s in training for case in s["train"]]}
    pooled["val"] = [case for s in training for case in s["val"]]
    out = [("federated", training)] if "federated" in arms else []
    out += [("pooled", [pooled])] if "pooled" in arms else []
    return out + ([(f"local:{site['name']}", [site]) for site in training] if "local" in arms else [])


def _cases(partition: list[dict], arms: Sequence[str], rng: np.random.Generator) -> list[dict]:
    training = [site for site in partition if not site["holdout"]]
    rows = []
    for site in partition:
        for case in site["test"]:
            hard = rng.normal(0, 0.06)
            for arm, _ in _cohorts(training, arms):
                shift = ARM_SHIFT[arm.split(":")[0]] + hard - 0.05 * site["holdout"]
                if arm.startswith("local:") and arm != f"local:{site['name']}":
                    shift -= 0.08
                failed = arm == "federated" and case == partition[0]["test"][-1]
                rows += [_score(arm, site["name"], case, region, shift, failed, rng) for region in REGIONS]
    return rows


def _score(
    arm: str, site: str, case: str, region: str, shift: float, failed: bool, rng: np.random.Generator
) -> dict:
    dice = float(np.clip(FEDERATED[region] + shift + rng.normal(0, 0.03), 0, 0.98))
    missed = region == "ET" and rng.random() < 0.04
    row = {"arm": arm, "site": site, "case": case, "region": region, "dice": 0.0 if missed else dice}
    row["hd95"] = 374.0 if missed else float(3 + 60 * (1 - dice) ** 2 + rng.exponential(2))
    row |= {
        "sensitivity": dice,
        "specificity": 0.998,
        "lesion_dice": dice * 0.9,
        "lesion_hd95": row["hd95"] * 1.5,
    }
    row |= {"volume_true_ml": 40.0, "volume_pred_ml": 38.0, "status": "ok"}
    if failed:
        row |= {
            "dice": 0.0,
            "hd95": 374.0,
            "lesion_dice": 0.0,
            "lesion_hd95": 374.0,
            "status": "failed: out of memory",
        }
    return row


def _slice(path: Path, rng: np.random.Generator) -> None:
    """An ellipse of brain with a round tumour: necrotic core, enhancing rim, oedema."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y = np.meshgrid(np.arange(138), np.arange(172), indexing="ij")
    brain = ((x - 69) / 66) ** 2 + ((y - 86) / 83) ** 2 < 1
    centre, size = (69 + rng.uniform(-30, 30), 86 + rng.uniform(-40, 40)), rng.uniform(14, 26)
    truth, prediction = (_tumour(x, y, centre, size * grow, shift) for grow, shift in ((1, 0), (1.1, 3)))
    texture = rng.normal(0, 0.25, x.shape)
    flair = np.where(brain, texture + 0.3 + 1.6 * (truth == 2) + 0.9 * (truth == 3), 0)
    t1ce = np.where(brain, texture + 0.3 + 1.8 * (truth == 3) - 0.8 * (truth == 1), 0)
    np.savez_compressed(
        path,
        t1ce=t1ce.astype(np.float16),
        flair=flair.astype(np.float16),
        truth=np.where(brain, truth, 0).astype(np.uint8),
        prediction=np.where(brain, prediction, 0).astype(np.uint8),
        spacing=np.array([1.0, 1.0, 1.0]),
    )


def _tumour(
    x: np.ndarray, y: np.ndarray, centre: tuple[float, float], size: float, shift: float
) -> np.ndarray:
    radius = np.hypot(x - centre[0] - shift, y - centre[1]) / size
    return np.select([radius < 0.35, radius < 0.55, radius < 1], [1, 3, 2], 0)
