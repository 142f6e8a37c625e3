"""The mean of the arrays that stay at the sites, for institutions without any (`personalization.unseen=average`).

Every site agrees to send its own once, after the last round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fedbrats.arrays import BadArrays, Signature, require_finite
from fedbrats.config.schema import FEDERATED
from fedbrats.federation import questions
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server.asking import Question, Request, ask
from fedbrats.federation.server.replies import BadReply, content_of, number_of
from fedbrats.federation.server.state import Federation, FederationError
from fedbrats.federation.wire import from_record, size_bytes
from fedbrats.personalization.unseen import average
from fedbrats.runs import rounds


@dataclass(frozen=True)
class StaysReply:
    """A site's own arrays."""

    arrays: dict[str, Tensor]
    seconds: float
    bytes_up: int

    def columns(self) -> dict[str, Any]:
        """Of `rounds.csv`."""
        return {"seconds": round(self.seconds, 4), "bytes_up": self.bytes_up}


def check_stays_reply(message: Message, expected: Signature) -> StaysReply:
    """Decode a site's reply: just the arrays `expected`.

    Raises:
        BadReply: anything else, or a value that is not finite.
    """
    content = content_of(message, arrays=ArrayRecord, metrics=MetricRecord)
    try:
        arrays = from_record(content["arrays"], expected)
        require_finite(arrays)
    except BadArrays as error:
        raise BadReply(str(error)) from error
    copies = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    return StaysReply(copies, number_of(content["metrics"], "seconds"), size_bytes(content))


def mean_of_stays(
    grid: Grid, fed: Federation, cohort: Cohort, round_: int, expected: Signature
) -> tuple[list[rounds.Row], dict[str, Tensor]]:
    """Ask the sites of `cohort` and take the plain mean of what is `expected`.

    Returns:
        Rows of `rounds.csv` (phase "stays") and the mean arrays.

    Raises:
        FederationError: no site answered usably.
    """
    config = ConfigRecord({"arm": FEDERATED, "round": round_})
    requests = [Request(cohort, site, RecordDict({"config": config})) for site in cohort.sites]
    question = Question(
        questions.STAYS, "stays", lambda message, request: check_stays_reply(message, expected)
    )
    answers = list(ask(grid, fed, question, requests, round_))
    found = [answer.reply.arrays for answer in answers if answer.reply]
    if not found:
        raise FederationError("personalization.unseen=average: no site sent the arrays that stay local")
    return [answer.row for answer in answers], average(found)
