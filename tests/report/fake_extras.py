"""Post-processing and uncertainty of the made-up run, in the format of a real one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

BINS = 10


def write_postprocess(folder: Path, seed: int = 3) -> None:
    """postprocess.json and steps.csv: ET minimum (fitted), which helps ET where it was missed, then the largest WT."""
    rng = np.random.default_rng(seed)
    cases = pd.read_csv(folder / "cases.csv", dtype=str, keep_default_na=False)
    cases = cases[cases["status"] == "ok"]
    described, rows = {}, []
    for arm in dict.fromkeys(cases["arm"]):
        sites = [arm.split(":")[1]] if ":" in arm else sorted(set(cases["site"]))[:3]
        found = {site: {"ml": float(rng.uniform(0, 2))} for site in sites}
        ml = float(np.median([value["ml"] for value in found.values()]))
        described[arm] = [
            {
                "step": "MinimumVolume",
                "name": f"ET minimum {ml:.3g} mL",
                "parameters": {"ml": ml},
                "sites": found,
            },
            {"step": "LargestComponent", "name": "WT largest component", "parameters": {}, "sites": {}},
        ]
        names = ["raw", *(step["name"] for step in described[arm])]
        for row in cases[cases["arm"] == arm].to_dict(orient="records"):
            dice, hd95 = float(row["dice"]), float(row["hd95"])
            steps = [(dice, hd95, 0)] * 3
            if row["region"] == "ET" and dice == 0:
                steps[1:] = [(1.0, 0.0, 40)] * 2
            if row["region"] == "WT":
                steps[2] = (dice, hd95 * 0.8, int(rng.integers(0, 2)) * 12)
            for order, (name, (d, h, changed)) in enumerate(zip(names, steps)):
                head = {key: row[key] for key in ("arm", "site", "case", "region")}
                rows.append(
                    {**head, "order": order, "step": name, "dice": d, "hd95": h, "changed_voxels": changed}
                )
    (folder / "postprocess.json").write_text(json.dumps(described))
    pd.DataFrame(rows).to_csv(folder / "steps.csv", index=False)


def write_uncertainty(folder: Path, seed: int = 4) -> None:
    """uncertainty.csv that follows the Dice with noise, and reliability.csv of a network that is a little too sure."""
    rng = np.random.default_rng(seed)
    cases = pd.read_csv(
        folder / "cases.csv", keep_default_na=False, dtype={"arm": str, "site": str, "case": str}
    )
    doubt = np.clip(1 - cases["dice"] + rng.normal(0, 0.08, len(cases)), 0, 1).mask(
        cases["status"] != "ok", 1.0
    )
    keys = ["arm", "site", "case", "region"]
    cases[keys].assign(uncertainty=doubt).to_csv(folder / "uncertainty.csv", index=False)
    middle, edges = (np.arange(BINS) + 0.5) / BINS, np.linspace(0, 1, BINS + 1)
    rows = []
    for arm, site, region in cases[["arm", "site", "region"]].drop_duplicates().itertuples(index=False):
        voxels = np.round(1e6 * np.exp(-6 * np.minimum(middle, 1.1 - middle)) * rng.uniform(0.5, 1.5))
        shown = np.where(middle > 0.5, middle * 0.9, middle * 1.1) + rng.normal(0, 0.01, BINS)
        part = {"bin_low": edges[:-1], "bin_high": edges[1:], "voxels": voxels, "mean_probability": middle}
        part |= {"observed": np.clip(shown, 0, 1)}
        rows.append(pd.DataFrame(part).assign(arm=arm, site=site, region=region))
    pd.concat(rows).to_csv(folder / "reliability.csv", index=False)
