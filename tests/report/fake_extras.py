"""Post-processing, uncertainty, privacy and personal models of the made-up run, in the format of a real one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from fedbrats.commands.run.summary import arms_summary
from fedbrats.files import finite, write_json
from fedbrats.privacy.ledger import PATIENT_ADJACENCY
from fedbrats.runs.case_tables import RELIABILITY, STEPS, UNCERTAINTY, cases_table
from fedbrats.runs.privacy import CENTRAL_ROUNDS, ROUNDS
from fedbrats.runs.privacy import STEPS as STEPS_OF_PRIVACY
from tests.scored import SCORES, facts

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
    write_json(folder / "postprocess.json", described)
    STEPS.write(folder, rows)


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
    UNCERTAINTY.write(folder, cases[keys].assign(uncertainty=doubt).to_dict("records"))
    middle, edges = (np.arange(BINS) + 0.5) / BINS, np.linspace(0, 1, BINS + 1)
    rows = []
    for arm, site, region in cases[["arm", "site", "region"]].drop_duplicates().itertuples(index=False):
        voxels = np.round(1e6 * np.exp(-6 * np.minimum(middle, 1.1 - middle)) * rng.uniform(0.5, 1.5))
        shown = np.where(middle > 0.5, middle * 0.9, middle * 1.1) + rng.normal(0, 0.01, BINS)
        part = {"bin_low": edges[:-1], "bin_high": edges[1:], "voxels": voxels, "mean_probability": middle}
        part |= {"observed": np.clip(shown, 0, 1)}
        rows.append(pd.DataFrame(part).assign(arm=arm, site=site, region=region))
    RELIABILITY.write(folder, pd.concat(rows).to_dict("records"))


def add_personal(folder: Path, gains: dict[str, float], arrays: int = 8, unseen: str = "recalibrate") -> Path:
    """A personal arm whose Dice is the federated one plus the site's gain, and personalization.json."""
    file = folder / "cases.csv"
    cases = pd.read_csv(file, dtype={"site": str, "case": str}, keep_default_na=False)
    own = cases[(cases["arm"] == "federated") & cases["site"].isin(gains)].assign(arm="personal")
    own["dice"] = (own["dice"] + own["site"].map(gains)).clip(0, 1)
    cases_table(SCORES).write(folder, pd.concat([cases, own]).to_dict("records"))
    summary = json.loads((folder / "summary.json").read_text())
    summary["arms"] |= arms_summary(own.to_dict("records"), facts("brats2023"), "brats2023")["arms"]
    write_json(folder / "summary.json", summary)
    known = {
        "name": "bn_local",
        "stays": [f"encoder.{i}.norm.weight" for i in range(arrays)],
        "travels": [f"encoder.{i}.conv.weight" for i in range(3 * arrays)],
        "unseen": unseen,
        "settings": {"unseen": unseen},
        "state": "Each site keeps its own in sites/<site>/state.",
    }
    write_json(folder / "personalization.json", known)
    return folder


def site_budget(patients: int, epsilon: float, **changes: object) -> dict:
    """One site of privacy.json."""
    return {
        **{"epsilon": epsilon, "epsilon_rdp": epsilon * 1.1, "delta": 1e-5, "sigma": 0.9},
        **{"sample_rate": min(1.0, 4 / patients), "steps": 80, "rounds": 8, "clip": 0.5},
        **{"patients": patients, "patches": 2, "unit": "patient", "adjacency": PATIENT_ADJACENCY},
        **{
            "accountant": "PRV",
            "budget": 8.0,
            "stopped": "",
            "spent_before": 0.0,
            "validation_epsilon": None,
        },
        "history": [[0.9, min(1.0, 4 / patients), 10]] * 8,
        **changes,
    }


def write_privacy(folder: Path, sites: dict[str, dict], rounds: int = 8, **changes: object) -> Path:
    """privacy.json of patient-level DP, with its curve and what its steps did."""
    known = {
        "mechanism": "dp_sgd",
        "unit": "patient",
        "adjacency": PATIENT_ADJACENCY,
        **{"insecure_seed": None, "validation": "exact", "public": [], "personal": "", "sites": sites},
        "unknown": {},
        "not_covered": ["Choosing settings by trying several spends privacy that no ledger counts."],
    }
    write_json(folder / "privacy.json", finite({**known, **changes}))
    rng = np.random.default_rng(5)
    curve, steps = [], []
    for site, spent in sites.items():
        for number in range(1, rounds + 1):
            head = {"round": number, "site": site, "status": "ok"}
            curve.append(
                {
                    **head,
                    "epsilon": spent["epsilon_rdp"] * (number / rounds) ** 0.5,
                    **{"sigma": spent["sigma"], "sample_rate": spent["sample_rate"], "steps": 10 * number},
                }
            )
            for step in range(1, 11):
                drawn = int(rng.binomial(spent["patients"], spent["sample_rate"]))
                norms = np.sort(rng.lognormal(0, 0.7, max(drawn, 1)))
                part = {"norm_median": np.median(norms), "norm_max": norms[-1]} if drawn else {}
                part |= {"drawn": drawn, "clipped": int((norms > 0.5).sum()) if drawn else 0}
                steps.append({"site": site, "round": number, "step": step, "loss": 0.5, "clip": 0.5, **part})
    ROUNDS.write(folder, curve)
    STEPS_OF_PRIVACY.write(folder, steps)
    return folder


def write_central(folder: Path, rounds: int = 8, **changes: object) -> Path:
    """privacy.json of client-level DP and central_rounds.csv; 4 of 6 updates are clipped in every round."""
    known = {
        **{
            "mechanism": "central",
            "unit": "site",
            "adjacency": "the updates of one site replaced by nothing",
            "epsilon": 18.04,
        },
        **{"delta": 1e-3, "sigma": 2.0, "clip": 0.8, "rounds": rounds, "accountant": "exact Gaussian"},
        **{"sites_asked": 6, "insecure_seed": None, "not_covered": ["The scores of the final test."]},
        "swamped": "The noise swamps the update: its norm is 470 times that of the mean update.",
    }
    write_json(folder / "privacy.json", finite({**known, **changes}))
    rows = [
        {
            **{"round": number, "replies": 6, "clipped": 4, "update_norm_median": 1.1, "status": "ok"},
            **{"mean_update_norm": 0.6 / number, "noise_norm": 300.0, "epsilon": 6 * number**0.5},
        }
        for number in range(1, rounds + 1)
    ]
    CENTRAL_ROUNDS.write(folder, rows)
    return folder


def write_survey(folder: Path) -> Path:
    """survey.json of two sites, one unlike the other."""
    bins = {"ET labelled": ["none", "there"], "spacing, mm": ["none", "0 to 1", "1 to inf"]}
    told = {
        "A": {"ET labelled": [0, 8], "spacing, mm": [0, 8, 0]},
        "B": {"ET labelled": [8, 0], "spacing, mm": [0, 8, 0]},
    }
    unusual = [{"site": "B", "what": "ET labelled", "distance": 1.0}]
    found = {
        "least": 3,
        "epsilon": None,
        "bins": bins,
        "sites": told,
        "failed": {"C": "no reply"},
        "unusual": unusual,
    }
    write_json(folder / "survey.json", found)
    return folder


def write_plan(folder: Path) -> Path:
    """plan.json of a network that the sites have planned."""
    write_json(folder / "plan.json", {"plan": {"reasons": ["patch 8 x 8 x 8: it fits"]}})
    return folder


def write_published(folder: Path) -> Path:
    """A configuration that sets numbers of others beside its own."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    rows = [
        {"what": "FedAvg", "source": "somebody, Table 1", "WT": 0.9, "TC": 0.8, "ET": 0.7},
        {"what": "central", "source": "somebody, Table 1", "mean": 0.85, "note": "one seed"},
    ]
    config["report"] = {**config.get("report", {}), "published": rows}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


def write_audit(folder: Path, passed: bool = True, lower: float = 0.6) -> Path:
    """audit.json with two checks, a canary audit and one picture that is there and one that is not."""
    checks = [
        {"name": "neighbour sensitivity", "passed": True, "measured": 0.4999, "bound": 0.5, "says": "x <= C"},
        {"name": "noise deviation", "passed": passed, "measured": 0.451, "bound": 0.45, "says": "empty draw"},
    ]
    images = [{"title": "Without DP", "file": "audit/a.png"}, {"title": "With DP", "file": "audit/b.png"}]
    content = {
        "checks": checks,
        "canary": {"lower_bound": lower, "claimed": 0.94, "says": "1000 canaries."},
        "inversion": {"images": images, "says": "One slice."},
    }
    write_json(folder / "audit.json", content)
    (folder / "audit").mkdir(exist_ok=True)
    (folder / "audit" / "a.png").write_bytes(b"\x89PNG made up")
    return folder
