"""Who took part: of every institution of the federated arm, which rounds its training went into and which it missed.

Worked out of `rounds.csv` alone, so for a run under way and for older run folders, too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fedbrats.algorithms.fedavg import MISSED_SHARE
from fedbrats.config.schema import FEDERATED
from fedbrats.data.sentences import plural
from fedbrats.runs.reading import natural
from fedbrats.runs.rounds import REFUSED, read_rounds
from fedbrats.runs.table import Table

TABLE = Table(
    "taking_part.csv",
    (
        *("site", "rounds", "contributed", "unused", "missed", "why", "steps", "share_of_steps"),
        *("last_seen", "missing_since", "refused"),
    ),
    text=("site", "why", "refused"),
    needed=("site", "rounds", "contributed", "missed"),
)
BUDGET, UNSAID, UNKNOWN = "privacy budget reached", "not asked", "no reason recorded"
GROUPS = (  # how the status of a row begins, and what it is called
    ("stopped: ", BUDGET),
    ("failed: no reply", "no reply in time"),
    ("failed: site not reachable", "not reachable"),
    ("failed: site error", "error at the site"),
    ("failed: late", "late reply"),
    ("failed: second", "second reply to one question"),
    ("failed: ", "reply that cannot be used"),
)


@dataclass(frozen=True)
class TakingPart:
    """One institution.

    rounds: of the run in which it was asked to train, or would have been with budget left; contributed: those whose
    model holds its training; unused: it answered, but the round kept the old model; missed: the others; why: of the
    missed ones, how many for which reason. steps: its optimiser steps in the model, None in folders that do not tell;
    share: of those of all institutions, None likewise.
    last_seen: last round of a usable reply; missing_since: it has missed this round and all after it, None where it
    answered in the last one. refused: messages from it besides, that nobody had asked for (late, second), by reason.
    """

    site: str
    rounds: int
    contributed: int
    unused: int
    missed: int
    why: tuple[tuple[str, int], ...]
    steps: int | None
    share: float | None
    last_seen: int | None
    missing_since: int | None
    refused: tuple[tuple[str, int], ...] = ()

    @property
    def reasons(self) -> str:
        """ "3 x no reply in time, 1 x error at the site", "" for none."""
        return counted(self.why)

    def missed_more(self, share: float) -> bool:
        """Whether it missed more than `share` of the rounds."""
        return self.missed > share * self.rounds + 1e-9

    def line(self) -> str:
        """ "in 6 of 10 rounds, 20.0 % of the steps; missed 4 of 10 rounds (4 x no reply in time)"."""
        share = "" if self.share is None else f", {100 * self.share:.1f} % of the steps"
        missed = f"; {self.sentence()}" if self.missed else ""
        return f"in {self.contributed} of {plural(self.rounds, 'round')}{share}{missed}"

    def sentence(self) -> str:
        """ "missed 4 of 10 rounds (4 x no reply in time)", with when that began where it has not come back."""
        since = f", all since round {self.missing_since}" if self.missing_since is not None else ""
        return f"missed {self.missed} of {plural(self.rounds, 'round')} ({self.reasons}){since}"


def taking_part(rounds: pd.DataFrame) -> list[TakingPart]:
    """Of every institution that was asked to train in the federated arm, by name; none without such a round.

    Args:
        rounds: as `read_rounds` gives them, of a run that may be under way.
    """
    mine = rounds[rounds["arm"] == FEDERATED]
    train, server = mine[mine["phase"] == "train"], mine[mine["phase"] == "round"]
    every, asked = sorted({*train["round"], *server["round"]}), set(train["round"])
    kept = set(server.loc[server["status"] == "ok", "round"])
    others = mine[mine["phase"] == REFUSED]
    steps = _steps(train[train["round"].isin(kept)])
    total = None if any(n is None for n in steps.values()) else sum(n or 0 for n in steps.values())
    found = []
    for site in sorted(set(train["site"]), key=natural):
        status = dict(
            zip(*(train.loc[train["site"] == site, name] for name in ("round", "status")), strict=True)
        )
        numbers = _meant(status, every, asked)
        good, why = [r for r in numbers if status.get(r) == "ok"], Counter(_why(status, numbers))
        last = good[-1] if good else None
        missing = [r for r in numbers if last is None or r > last]
        found.append(
            TakingPart(
                site=site,
                rounds=len(numbers),
                contributed=len(kept & set(good)),
                unused=len(set(good) - kept),
                missed=len(numbers) - len(good),
                why=_sorted(why),
                steps=steps.get(site, 0),
                share=None if total is None else (steps.get(site) or 0) / max(1, total),
                last_seen=last,
                missing_since=missing[0] if missing else None,
                refused=_sorted(Counter(map(_group, others.loc[others["site"] == site, "status"]))),
            )
        )
    return found


def strangers(rounds: pd.DataFrame) -> int:
    """Replies that came from none of the institutions, all of them refused."""
    return int(((rounds["phase"] == REFUSED) & (rounds["site"] == "")).sum())


def missed_share(config: Mapping[str, Any]) -> float:
    """`strategy.missed_share` of a run's configuration, which older ones do not have."""
    value = (config.get("strategy") or {}).get("missed_share")
    return MISSED_SHARE if value is None else float(value)


def headline(found: Sequence[TakingPart], share: float) -> str:
    """What the report says first where institutions missed more than `share` of the rounds, "" where none did."""
    said = [f"{part.site} {part.sentence()}" for part in found if part.missed_more(share)]
    return f"Not everybody took part: {'; '.join(said)}." if said else ""


def finished_words(found: Sequence[TakingPart]) -> str:
    """ "finished", or who is missing at its end: "finished without C (since round 8)"."""
    gone = [f"{p.site} (since round {p.missing_since})" for p in found if p.missing_since is not None]
    return f"finished without {', '.join(gone)}" if gone else "finished"


def write_taking_part(folder: Path) -> list[TakingPart]:
    """Write `taking_part.csv` of a run folder that has a `rounds.csv`.

    Raises:
        RunFolderError: `rounds.csv` cannot be read.
    """
    found = taking_part(read_rounds(folder))
    same = ("site", "rounds", "contributed", "unused", "missed", "steps", "last_seen", "missing_since")
    rows = [
        {
            **{name: getattr(part, name) for name in same},
            "why": part.reasons,
            "refused": counted(part.refused),
            "share_of_steps": None if part.share is None else round(part.share, 6),
        }
        for part in found
    ]
    TABLE.write(folder, rows)
    return found


def _steps(train: pd.DataFrame) -> dict[str, int | None]:
    """Optimiser steps of each site in the rounds given, None where a reply does not tell."""
    used = train[train["status"] == "ok"]
    return {
        str(site): None if part["steps"].isna().any() else int(part["steps"].sum())
        for site, part in used.groupby("site")
    }


def _meant(status: dict[int, str], numbers: Sequence[int], asked: set[int]) -> list[int]:
    """The rounds in which a site was to train: not those in which others were `asked`, unless its budget is spent."""
    stopped = min((r for r, said in status.items() if _group(said) == BUDGET), default=math.inf)
    return [number for number in numbers if number in status or number not in asked or number > stopped]


def _why(status: dict[int, str], numbers: Sequence[int]) -> list[str]:
    """The reason of each missed round; of one in which nobody asked the site, why it is not asked any more."""
    out, stopped = [], False
    for number in numbers:
        said = status.get(number)
        stopped = stopped or _group(said or "") == BUDGET
        if said != "ok":
            out.append(_group(said) if said is not None else BUDGET if stopped else UNSAID)
    return out


def _group(status: str) -> str:
    return next((name for begin, name in GROUPS if status.startswith(begin)), UNKNOWN)


def _sorted(counts: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def counted(pairs: Sequence[tuple[str, int]]) -> str:
    """ "3 x no reply in time, 1 x error at the site", "" for none."""
    return ", ".join(f"{number} x {reason}" for reason, number in pairs)
