"""What the replies of one cohort become in one round, and the model that follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid
from torch import Tensor

from fedbrats.algorithms.base import Collector, Memory, NoModel, Reply
from fedbrats.arrays import BadArrays, as_numpy, like, require_finite
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server.replies import (
    STOPPED,
    BadReply,
    Changed,
    Stopped,
    TrainReply,
    check_train_reply,
    stop_reason,
    take_progress,
)
from fedbrats.federation.server.secure import SecureRound
from fedbrats.federation.server.state import Federation
from fedbrats.runs import rounds
from fedbrats.scenario.participation import LATE, Asked


class Collected:
    """The usable replies of one cohort in one round, as they come in."""

    def __init__(
        self, fed: Federation, cohort: Cohort, asked: Asked, secure: SecureRound | None = None
    ) -> None:
        """Begin a round; `fed.models` holds what the sites `asked` were sent, `secure` has been begun."""
        self._fed, self._cohort, self._late = fed, cohort, asked.late
        model, self._expected = fed.models[cohort.arm], fed.expected(cohort.arm)
        trained = fed.group(cohort).trainable if cohort.algorithm.beside else ()
        self._beside = {name: form for name, form in self._expected.items() if name in trained}
        self._found: Collector = cohort.algorithm.collect(model.memory)
        if fed.protection is not None and cohort.federated:
            self._found = fed.protection.collect(model.arrays)
        way = cohort.algorithm.way
        self._way = way if cohort.federated and way.changes else None
        self._secure, self._form = secure, self._expected
        if secure is not None:
            self._found, self._form = secure, secure.masked_form
        self._asked = list(asked.drawn)
        self._losses: list[tuple[int, float]] = []  # cases and loss of those that said it
        self._cases = 0

    def check(self, message: Message, site: str) -> TrainReply | Stopped:
        """Check the reply of `site` and add it.

        Raises:
            BadReply: it cannot be used; nothing of it has been added.
        """
        fed, federated = self._fed, self._cohort.federated
        if federated and (reason := stop_reason(message)):
            fed.stopped[site] = reason
            self._asked.remove(site)
            return Stopped(reason)
        if site in self._late:
            raise BadReply(LATE)
        progress, cases = None, fed.members[site].val
        if federated and self._cohort.algorithm.needs_progress and cases and message.has_content():
            progress = take_progress(message, cases)
        reply = check_train_reply(
            message,
            self._form,
            fed.members[site].train,
            with_loss=not (federated and fed.losses_stay),
            beside=self._beside,
            changed=None
            if self._way is None
            else Changed(self._way, fed.given(self._cohort, site), fed.trainable),
        )
        try:
            self._found.add(
                Reply(site, reply.arrays, reply.cases, reply.steps, reply.loss, reply.beside, progress)
            )
        except ValueError as error:
            raise BadReply(str(error)) from error
        self._cases += reply.cases
        if reply.loss is not None:
            self._losses.append((reply.cases, reply.loss))
        return reply

    def finish(self, round_: int) -> rounds.Row:
        """Make the cohort's next model of the replies, or keep the old one when there are too few."""
        fed, cohort = self._fed, self._cohort
        model, asked = fed.models[cohort.arm], len(self._asked)
        if not asked:
            why = "every site has reached its privacy budget"
            if not any(fed.members[site].train for site in cohort.sites):
                why = "no site has a training case"
            status = f"{STOPPED}{why}; the model stays"
            return rounds.row(round_, cohort.arm, rounds.SERVER, "round", status)
        problem = self._shortage()
        if not problem:
            if fed.protection is not None and cohort.federated:
                fed.protection.release(self._found, round_)
            group = fed.group(cohort)
            try:
                arrays, memory = cohort.algorithm.step(model.arrays, self._found, model.memory, group)
                arrays = like(arrays, self._expected)  # means of bfloat16 are made in float32
                _require_finite(arrays, memory)
            except NoModel as error:
                problem = f"{error}; the old model stays"
            except BadArrays as error:  # finite replies whose sum is beyond float32
                problem = f"what the replies became, {error}; the old model stays"
        if problem:
            model.failed_in_a_row += 1
            return rounds.row(round_, cohort.arm, rounds.SERVER, "round", f"failed: {problem}")
        model.arrays, model.memory, model.failed_in_a_row = arrays, memory, 0
        values: dict[str, Any] = {"cases": self._cases, "loss": self._loss}
        return rounds.row(round_, cohort.arm, rounds.SERVER, "round", **values)

    def end_secure(self, grid: Grid) -> list[rounds.Row]:
        """Have the sum unmasked where there are replies enough; rows of the sites that did not help."""
        return [] if self._secure is None or self._shortage() else self._secure.end(grid)

    def _shortage(self) -> str:
        """Why no model can be made of the replies, "" if one can."""
        found, asked = self._found.replies, len(self._asked)
        needed, secure = self._cohort.algorithm.needed(asked), self._secure
        problem = f"{found} of {asked} replies usable, quorum needs {needed}" if found < needed else ""
        if secure is not None and found < secure.threshold:
            problem = f"{found} of {asked} replies usable, secure aggregation needs {secure.threshold}"
        if secure is not None and secure.problem:
            problem = secure.problem
        return f"{problem}; the old model stays" if problem else ""

    @property
    def _loss(self) -> float | str:
        """Mean training loss over the cases, "" where the losses stay at the sites."""
        cases = sum(n for n, _ in self._losses)
        return sum(n * loss for n, loss in self._losses) / cases if cases else ""


def _require_finite(arrays: Mapping[str, Tensor], memory: Memory) -> None:
    for found in (arrays, memory.arrays):
        require_finite({name: as_numpy(array) for name, array in found.items()})
