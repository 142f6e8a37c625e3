"""What a site tells of its patients before training, where its own configuration has it do so."""

from __future__ import annotations

import json
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from fedbrats.data.survey import FOR_PLAN, counted, noised, with_least
from fedbrats.federation.site.site import Site
from fedbrats.files import read_json, write_json
from fedbrats.models.planned import asks_sites
from fedbrats.privacy.noise import secret_numbers
from fedbrats.runs.case_tables import SURVEY
from fedbrats.runs.site_cases import SPLITS

TRAINING = ("train", "val")  # nnU-Net plans from all that it trains on, the folds that validate among them


def survey(site: Site, content: RecordDict) -> dict[str, Any]:
    """Histograms over the patients of all splits, with the least counts and the noise of the site's configuration.

    Those for a plan leave out the test. A site says the same however often it is asked in a run: noise that is drawn
    anew could be averaged away.
    """
    file = site.storage / SURVEY
    if not file.is_file():
        write_json(file, _told(site), private=True)
    return {"survey": ConfigRecord({"values": json.dumps(read_json(file))})}


def _told(site: Site) -> dict[str, list[int]]:
    settings, all_of = site.config.survey, site.cases.by_patient
    found = counted([cases for split in SPLITS for cases in all_of(split)])
    if asks_sites(site.config):
        found |= counted([cases for split in TRAINING for cases in all_of(split)], FOR_PLAN)
    if settings.epsilon is not None:
        noise = (settings.epsilon, secret_numbers().uniform, len(found))
        found = {name: noised(counts, *noise) for name, counts in found.items()}
    return {name: with_least(counts, settings.least) for name, counts in found.items()}
