"""Asking the sites for histograms of their patients before the first round, and who is unlike the others."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedbrats.config.schema import FEDERATED
from fedbrats.config.survey import SurveyConfig
from fedbrats.data.survey import BY_NAME, apart, asked, bins_of
from fedbrats.federation import questions
from fedbrats.federation.server.asking import Question, Request, ask
from fedbrats.federation.server.replies import BadReply, content_of
from fedbrats.federation.server.state import Federation
from fedbrats.files import write_json
from fedbrats.runs.case_tables import SURVEY

UNUSUAL = 0.8  # total variation distance from all others together
LEAST = 5  # patients on either side, below which histograms differ by chance
MOST_TEXT = 100_000  # characters
MOST_PATIENTS = 1_000_000  # with noise, a site may tell more than it has

log = logging.getLogger(__name__)
Told = Mapping[str, list[int]]  # counts by histogram


@dataclass(frozen=True)
class SurveyReply:
    """What a site tells of its patients."""

    counts: Told

    def columns(self) -> dict[str, Any]:
        """Of `rounds.csv`, to which a survey does not belong."""
        return {}


def check_survey_reply(message: Message, names: Collection[str] = tuple(BY_NAME)) -> SurveyReply:
    """Decode a reply: counts of every bin of every histogram of `names`.

    Raises:
        BadReply: anything else.
    """
    text = content_of(message, survey=ConfigRecord)["survey"].get("values")
    try:
        if not isinstance(text, str) or len(text) > MOST_TEXT:
            raise ValueError("no text of acceptable length")
        found = json.loads(text)
        if not isinstance(found, dict) or found.keys() != set(names):
            raise ValueError("other histograms than those that were asked for")
        for name, counts in found.items():
            fits = isinstance(counts, list) and len(counts) == len(bins_of(name))
            if not fits or not all(type(n) is int and 0 <= n <= MOST_PATIENTS for n in counts):
                raise ValueError(f"{name} has no {len(bins_of(name))} counts")
    except (ValueError, RecursionError) as error:
        raise BadReply(f"survey cannot be used: {error}"[:300]) from error
    return SurveyReply(found)


def ask_survey(grid: Grid, fed: Federation, settings: SurveyConfig, planned: bool = False) -> None:
    """Ask every site, warn of those unlike the others, and write `survey.json`; done once in a run.

    `planned`: for the histograms of a plan, too.
    """
    if not settings.enabled or (fed.folder / SURVEY).is_file():
        return
    cohort = next(c for c in fed.cohorts if c.arm == FEDERATED)
    config = ConfigRecord({"arm": FEDERATED, "round": 1})
    requests = [Request(cohort, site, RecordDict({"config": config})) for site in sorted(_asked(fed))]
    names = asked(planned)
    question = Question(
        questions.SURVEY, "survey", lambda message, request: check_survey_reply(message, names)
    )
    told, failed = dict[str, Told](), dict[str, str]()
    for answer in ask(grid, fed, question, requests, 1):
        if answer.reply is None:
            failed[answer.request.site] = str(answer.row["status"])
        else:
            told[answer.request.site] = answer.reply.counts
    unusual = list(unlike_the_others(told))
    for row in unusual:
        log.warning("site %(site)s is unlike the others in %(what)s (distance %(distance).2f)", row)
    write_json(
        fed.folder / SURVEY,
        {
            "least": settings.least,
            "epsilon": settings.epsilon,
            "bins": {name: bins_of(name) for name in names},
            "sites": told,
            "failed": failed,
            "unusual": unusual,
        },
    )


def _asked(fed: Federation) -> list[str]:
    return [site for site, member in fed.members.items() if member.train + member.val + member.test]


def unlike_the_others(told: Mapping[str, Told]) -> list[dict[str, Any]]:
    """Site, histogram and distance of every site that has hardly a patient where the others have theirs."""
    found = []
    for name in BY_NAME:
        for site, counts in told.items():
            others = [sum(c) for c in zip(*(t[name] for s, t in told.items() if s != site), strict=True)]
            if sum(counts[name]) < LEAST or sum(others) < LEAST:
                continue
            distance = apart(counts[name], others)
            if distance > UNUSUAL:
                found.append({"site": site, "what": name, "distance": round(distance, 4)})
    return sorted(found, key=lambda row: (-row["distance"], row["site"], row["what"]))
