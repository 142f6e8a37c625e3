"""What a study means for a site, as a person at the site reads it before approving."""

from __future__ import annotations

from pathlib import Path

from fedbrats.config.names import shown
from fedbrats.config.schema import Config
from fedbrats.config.site_file import SiteFile
from fedbrats.config.targets import ConfigError
from fedbrats.config.task import CLASSIFICATION
from fedbrats.files import read_json
from fedbrats.models.planned import awaits_plan
from fedbrats.studies.at_site import settled

PLANNED = "the network is planned from counts of all sites' patients (survey), up to model.plan_memory"

LABELS = "the table stays here, the model learns the label of each case from it"


def plan_of(site: SiteFile, folder: Path) -> str:
    """The plan of the study in `folder`, a few lines.

    Raises:
        ConfigError: no study came there, or it cannot run here.
        StudyRefused: it asks for something that no site does.
    """
    if not (folder / "study.json").is_file():
        raise ConfigError(f"{folder.name}: no such study came to this site")
    came, config = read_json(folder / "study.json"), settled(site, folder)
    classifies = config.task.name == CLASSIFICATION
    lines = [
        f"study       {folder.name}, came {came['came']}",
        f"SHA-256     {came['sha256']}",
        f"text        {folder / 'study.yaml'}",
        f"network     {_name(config.model)}",
        *([f"plan        {PLANNED}"] if awaits_plan(config) else []),
        *([f"labels      {site.labels.table or 'of the phantom'}; {LABELS}"] if classifies else []),
        f"algorithm   {_name(config.strategy)}, {config.rounds} rounds",
        f"privacy     {_privacy(config)}",
        f"own parts   {_name(config.personalization) or 'none: the whole model travels'}",
        f"cases       {_cases(site, folder)}",
        f"device      {config.runtime.device}, {config.runtime.threads} threads",
    ]
    return "\n".join(shown(line) for line in lines)


def _name(node: dict) -> str:
    return str(node.get("_target_", "")).rsplit(".", 1)[-1]


def _privacy(config: Config) -> str:
    if not config.privacy:
        return "none: what the model learns of single patients is not bounded"
    values = ", ".join(
        f"{key}={value}" for key, value in config.privacy.items() if not str(key).startswith("_")
    )
    return f"{_name(config.privacy)} ({values})"


def _cases(site: SiteFile, folder: Path) -> str:
    file = folder / "partition.json"
    if not file.is_file():
        return f"not prepared yet, from {site.data.root}"
    own = read_json(file)["sites"][0]
    counts = ", ".join(f"{len(own[split])} {split}" for split in ("train", "val", "test"))
    return f"{counts}; they stay here"
