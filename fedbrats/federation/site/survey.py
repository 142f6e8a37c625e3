"""What a site tells of its patients before training, where its own configuration has it do so."""

from __future__ import annotations

import json
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from fedbrats.data.survey import counted, noised, with_least
from fedbrats.federation.site.site import Site
from fedbrats.files import read_json, write_json
from fedbrats.privacy.noise import secret_numbers
from fedbrats.runs.case_tables import SURVEY
from fedbrats.runs.site_cases import SPLITS


def survey(site: Site, content: RecordDict) -> dict[str, Any]:
    """Histograms over the patients of all splits, with the least counts and the noise of the site's configuration.

    A site says the same however often it is asked in a run: noise that is drawn anew could be averaged away.
    """
    file = site.storage / SURVEY
    if not file.is_file():
        write_json(file, _told(site), private=True)
    return {"survey": ConfigRecord({"values": json.dumps(read_json(file))})}


def _told(site: Site) -> dict[str, list[int]]:
    settings = site.config.survey
    patients = [cases for split in SPLITS for cases in site.cases.by_patient(split)]
    found = counted(patients)
    if settings.epsilon is not None:
        numbers = secret_numbers()
        found = {name: noised(counts, settings.epsilon, numbers.uniform) for name, counts in found.items()}
    return {name: with_least(counts, settings.least) for name, counts in found.items()}
