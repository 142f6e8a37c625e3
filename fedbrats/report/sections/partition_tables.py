"""What each site could teach the federation, and what a scenario has wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fedbrats.report.cells import MISSING
from fedbrats.runs.run_folder import RunFolder
from fedbrats.tasks import segmentation as task

WRONG = {  # key of `scenario`: in words
    "wrong_labels": "trains on labels that are {}",
    "scaled": "intensities times {}",
    "turned": "volumes the other way round along {}",
    "normalise": "its own normalisation, {}",
    "poisoned": "lies ({}) in the federated arm",
}


def teaching(run: RunFolder) -> list[dict[str, str]]:
    """Site, regions that it could teach, and what is different there, of every site that is not like the others."""
    scenario = run.config.get("scenario") or {}
    rows = []
    for site in run.partition.get("sites", []):
        name = str(site["name"])
        without = (scenario.get("unlabelled") or {}).get(name, [])
        taught = [region for region in task.REGIONS if region not in without]
        said = list(_differences(scenario, name))
        if not site.get("train") and not site.get("holdout"):
            taught, said = [], ["no training case", *said]
        if said:
            rows.append({"site": name, "regions": ", ".join(taught) or MISSING, "what": "; ".join(said)})
    return rows


def _differences(scenario: Mapping[str, Any], site: str) -> Iterator[str]:
    if without := (scenario.get("unlabelled") or {}).get(site):
        yield f"no labels of {', '.join(without)}, which its loss leaves out"
    if missing := (scenario.get("missing_modalities") or {}).get(site):
        yield f"without {', '.join(missing)}, which is zero in training and test"
    for key, words in WRONG.items():
        if (value := (scenario.get(key) or {}).get(site)) is not None:
            yield words.format(", ".join(value) if isinstance(value, list) else value)
