"""The server's half of secure aggregation: it carries keys and sealed shares, adds up, and takes the masks off the sum.

A round is begun (keys, then shares) before the sites train, and ended (unmasking) when enough masked replies are there.
A site that does not answer a question is left out from there on; below the threshold the round fails and nothing of
what came can be unmasked.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fedbrats.algorithms.base import Reply
from fedbrats.arrays import Signature
from fedbrats.federation import questions
from fedbrats.federation.arms import Cohort
from fedbrats.federation.server.asking import Answer, Question, Request, Usable, ask
from fedbrats.federation.server.replies import BadReply, content_of
from fedbrats.federation.server.state import Federation
from fedbrats.privacy.secure_aggregation.keys import KEY_BYTES, NONCE_BYTES, TAG_BYTES, BadKey
from fedbrats.privacy.secure_aggregation.protocol import FEWEST, Public, Told, label, reveal, threshold_of
from fedbrats.privacy.secure_aggregation.ring import FixedPoint, OutOfRange
from fedbrats.privacy.secure_aggregation.sharing import SHARE_BYTES, BadShares
from fedbrats.runs import rounds
from fedbrats.runs.secure import TABLE

SEALED_BYTES = NONCE_BYTES + 2 * SHARE_BYTES + TAG_BYTES
SESSION_BYTES = 16


@dataclass(frozen=True)
class Bytes:
    """Checked records of a reply."""

    records: Mapping[str, Mapping[str, bytes]]

    def columns(self) -> dict[str, Any]:
        """Nothing of it is in `rounds.csv`."""
        return {}


class SecureRound:
    """One round of one cohort; a `Collector` of masked replies, whose `arrays` are there once it is unmasked."""

    def __init__(self, fed: Federation, cohort: Cohort, round_: int) -> None:
        """Nothing is asked yet."""
        assert fed.secure is not None
        self._fed, self._cohort, self._round = fed, cohort, round_
        self._asked = fed.asked(cohort, round_).reachable
        self._cases = {site: fed.members[site].train for site in self._asked}
        self._expected = fed.expected(cohort.arm)
        self._sealed: dict[str, Mapping[str, bytes]] = {}  # by sender
        self._commitments: dict[str, bytes] = {}
        self._sites: dict[str, Public] = {}
        self._vector: np.ndarray | None = None
        self._survivors: list[str] = []
        self.session = secrets.token_hex(SESSION_BYTES)
        self.threshold = threshold_of(len(self._asked), fed.secure.threshold)
        self.problem = ""  # why the round cannot be ended
        self.arrays: dict[str, Tensor] = {}

    @property
    def masked_form(self) -> Signature:
        """The arrays that every reply must hold."""
        return {name: (shape, "int64") for name, (shape, _) in self._expected.items()}

    @property
    def dealt(self) -> list[str]:
        """The sites that can train; none where the round has failed already."""
        return [] if self.problem else [site for site in self._asked if site in self._sealed]

    def begin(self, grid: Grid) -> list[rounds.Row]:
        """Ask for keys and shares; rows of the sites that did not give them and do not train."""
        if not self._asked:
            return []
        if len(self._asked) < FEWEST:
            self.problem = (
                f"{len(self._asked)} sites are left to train, secure aggregation needs {FEWEST}"
                " (privacy.secure_aggregation=false for fewer)"
            )
            return []
        keys = self._ask(grid, questions.KEYS, "keys", {site: {} for site in self._asked}, self._check_keys)
        rows = self._missing(keys, "keys")
        if self._too_few(len(self._sites), "keys"):
            return rows
        roster = ConfigRecord({site: public.seal + public.mask for site, public in self._sites.items()})
        told = {"sites": len(self._asked), "cases": sum(self._cases.values())}
        shares = self._ask(
            grid,
            questions.SHARES,
            "shares",
            {site: {"config": told, "roster": roster} for site in self._sites},
            self._check_shares,
        )
        self._too_few(len(self._sealed), "shares")
        return rows + self._missing(shares, "shares")

    def train_content(self, site: str) -> RecordDict:
        """What a question for training holds besides, for `site`: the shares that the others sealed for it."""
        sealed = {sender: texts[site] for sender, texts in self._sealed.items() if sender != site}
        return RecordDict({"sealed": ConfigRecord(dict(sealed))})

    @property
    def replies(self) -> int:
        """Masked replies so far."""
        return len(self._survivors)

    def add(self, reply: Reply) -> None:
        """Add one masked reply."""
        parts = [reply.arrays[name].ravel().view(np.uint64) for name in sorted(reply.arrays)]
        if self._vector is None:
            self._vector = np.concatenate(parts)
        else:
            start = 0
            for part in parts:
                self._vector[start : start + part.size] += part
                start += part.size
        self._survivors.append(reply.site)

    def end(self, grid: Grid) -> list[rounds.Row]:
        """Ask the survivors, `threshold` at least, for their shares and take the masks off the sum.

        Where that fails, `problem` says why.

        Returns:
            Rows of the survivors that did not tell their shares.
        """
        asked = {site: {"config": {"survivors": sorted(self._survivors)}} for site in self._survivors}
        answers = self._ask(grid, questions.UNMASK, "unmask", asked, self._check_told)
        told = {
            answer.request.site: Told(answer.reply.records["seeds"], answer.reply.records["masks"])
            for answer in answers
            if answer.reply is not None
        }
        try:
            self._reveal(told)
        except (BadShares, BadKey, OutOfRange) as error:
            self.problem = str(error)
        self._vector = None
        return [answer.row for answer in answers if answer.reply is None]

    def _reveal(self, told: Mapping[str, Told]) -> None:
        assert self._fed.secure is not None
        assert self._vector is not None
        name = label(self._cohort.arm, self._round, self.session)
        reveal(
            self._vector,
            self._sites,
            self._sealed.keys(),
            self._survivors,
            self._commitments,
            told,
            name,
            self.threshold,
        )
        point = FixedPoint.of(sum(self._cases.values()), self._fed.secure.largest)
        cases, start, found = sum(self._cases[site] for site in self._survivors), 0, {}
        for array in sorted(self._expected):
            shape, dtype = self._expected[array]
            size = int(np.prod(shape, dtype=np.int64))
            part = self._vector[start : start + size].reshape(shape)
            # Halves become what they are by `like`, as every other mean does.
            mean = point.mean(part, cases, "float64" if dtype == "float64" else "float32")
            found[array], start = torch.from_numpy(mean), start + size
        self.arrays = {array: found[array] for array in self._expected}
        self._write_down(point, cases)

    def _write_down(self, point: FixedPoint, cases: int) -> None:
        """What this round used, in the run folder; the report says it."""
        summed = len(self._survivors)
        facts: dict[str, Any] = {
            "round": self._round,
            "asked": len(self._asked),
            "threshold": self.threshold,
            "summed": summed,
        }
        facts |= {"cases": cases, "bits": point.bits, "error": point.error(summed, cases)}
        TABLE.append(self._fed.folder, [facts])

    def _ask(
        self,
        grid: Grid,
        kind: str,
        phase: str,
        contents: Mapping[str, Mapping[str, Any]],
        check: Callable[[Message, Request], Bytes],
    ) -> list[Answer[Bytes]]:
        """Ask the sites of `contents`; `config` of a content is what is said beside arm, round and session."""
        requests = []
        for site, content in contents.items():
            config = {"arm": self._cohort.arm, "round": self._round, "session": self.session}
            records = dict(content) | {"config": ConfigRecord({**config, **content.get("config", {})})}
            requests.append(Request(self._cohort, site, RecordDict(records)))
        question: Question[Bytes] = Question(kind, phase, check, counted=False)
        return list(ask(grid, self._fed, question, requests, self._round))

    def _missing(self, answers: Sequence[Answer[Usable]], what: str) -> list[rounds.Row]:
        """Rows of the training that the sites without an answer do not take part in."""
        return [
            rounds.row(
                self._round,
                self._cohort.arm,
                answer.request.site,
                "train",
                f"failed: no {what}: {str(answer.row['status']).removeprefix('failed: ')}",
            )
            for answer in answers
            if answer.reply is None
        ]

    def _too_few(self, found: int, what: str) -> bool:
        if found < self.threshold:
            self.problem = (
                f"{found} of {len(self._asked)} sites gave {what}, secure aggregation needs {self.threshold}"
            )
        return bool(self.problem)

    def _check_keys(self, message: Message, request: Request) -> Bytes:
        found = _records(message, {"keys": dict.fromkeys(("seal", "mask"), KEY_BYTES)})
        public = Public(found["keys"]["seal"], found["keys"]["mask"])
        known = {key for other in self._sites.values() for key in (other.seal, other.mask)}
        if public.seal == public.mask or {public.seal, public.mask} & known:
            raise BadReply("a key that is there already")
        self._sites[request.site] = public
        return Bytes(found)

    def _check_shares(self, message: Message, request: Request) -> Bytes:
        others = [site for site in self._sites if site != request.site]
        lengths = {"sealed": dict.fromkeys(others, SEALED_BYTES), "commitment": {"seed": KEY_BYTES}}
        found = _records(message, lengths)
        self._sealed[request.site] = found["sealed"]
        self._commitments[request.site] = found["commitment"]["seed"]
        return Bytes(found)

    def _check_told(self, message: Message, request: Request) -> Bytes:
        dropped = self._sealed.keys() - set(self._survivors)
        lengths = {"seeds": dict.fromkeys(self._survivors, SHARE_BYTES)}
        return Bytes(_records(message, lengths | {"masks": dict.fromkeys(dropped, SHARE_BYTES)}))


def _records(message: Message, lengths: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, bytes]]:
    """The records of a reply, all of bytes of the given lengths by record and key. Raises BadReply."""
    content = content_of(message, **dict.fromkeys(lengths, ConfigRecord))
    found = {}
    for name, expected in lengths.items():
        values = dict(content[name])
        if values.keys() != expected.keys():
            raise BadReply(f"{name} for {len(values)} sites or others than asked, expected {len(expected)}")
        for key, length in expected.items():
            if not isinstance(values[key], bytes) or len(values[key]) != length:
                raise BadReply(f"{name} of {key} are no {length} bytes")
        found[name] = values
    return found
