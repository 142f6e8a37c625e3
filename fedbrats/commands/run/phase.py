"""One phase of a round as the server sees it: who has answered, who is awaited, and how long that may take."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedbrats.config.schema import FEDERATED, LOCAL
from fedbrats.report.words import duration
from fedbrats.training.steps import StepCounts

SHOWN = 8  # names of sites in a line
# Phases that belong to a round; the others come after the last one.
IN_ROUNDS = ("keys", "shares", "train", "unmask", "val")

Asked = tuple[str, str]  # arm, site


def merged(arms: Iterable[str]) -> list[str]:
    """Arm names in the order given, all "local:<site>" as one "local"."""
    return list(dict.fromkeys(LOCAL if arm.startswith(f"{LOCAL}:") else arm for arm in arms))


@dataclass(frozen=True)
class Counted:
    """Steps that the sites of this machine have taken so far, and how many each request to train asks for."""

    counts: StepCounts
    expected: Mapping[Asked, int]


class Phase:
    """What is asked in one phase, and what is known of it. All times are seconds of one clock."""

    def __init__(
        self,
        name: str,
        asked: Sequence[Asked],
        began: float,
        before: float | None = None,
        counted: Counted | None = None,
    ) -> None:
        """A phase that begins at `began`.

        Args:
            name: of `rounds.csv`, such as train or val.
            asked: arm and site of every request, in order.
            began: on the clock.
            before: seconds per reply that the phase of this name took last time; None if there was none.
            counted: the steps of the sites, where they can be known and the phase takes any.
        """
        self.name, self.asked, self.began = name, list(asked), began
        counted = counted if name == "train" else None
        self._before, self._counted = before, counted
        self._done: set[Asked] = set()
        self._arrived: set[Asked] = set()
        self.failed = 0
        self._first = {site: counted.counts.of(site) for _, site in asked} if counted else {}

    def reply(self, arm: str, site: str, ok: bool) -> None:
        """The answer of `site` for `arm` was read, or it failed to give one."""
        self._done.add((arm, site))
        self.failed += not ok

    def arrived(self, asked: Collection[Asked]) -> None:
        """Answers that are there besides those that were read."""
        self._arrived = set(asked)

    @property
    def over(self) -> bool:
        """Whether nothing is awaited any more."""
        return len(self._done) == len(self.asked)

    @property
    def answered(self) -> list[Asked]:
        """Who has answered, in the order asked."""
        return [pair for pair in self.asked if pair in self._done or pair in self._arrived]

    def per_reply(self, now: float) -> float:
        """Seconds for each reply, once the phase is over."""
        return (now - self.began) / max(1, len(self.asked))

    def steps(self) -> tuple[int, int] | None:
        """Optimiser steps taken and expected of all sites; None where they are not known.

        A site that answered has done its part, whatever it took: it may have stopped early or failed.
        """
        if self._counted is None:
            return None
        expected, answered = dict.fromkeys(self._first, 0), dict.fromkeys(self._first, 0)
        for pair in self.asked:
            expected[pair[1]] += self._counted.expected.get(pair, 0)
        for pair in self.answered:
            answered[pair[1]] += self._counted.expected.get(pair, 0)
        taken = {site: self._counted.counts.of(site) - first for site, first in self._first.items()}
        done = {site: min(total, max(taken[site], answered[site])) for site, total in expected.items()}
        return sum(done.values()), sum(expected.values())

    def left(self, now: float) -> float | None:
        """Seconds that the rest of the phase will take; None while nothing is known.

        From the steps so far, else from the same phase before, else from the replies so far.
        """
        elapsed, answered = now - self.began, len(self.answered)
        done, expected = self.steps() or (0, 0)
        if done:
            return elapsed * (expected - done) / done
        if self._before is not None and elapsed < (whole := self._before * len(self.asked)):
            return whole - elapsed
        return elapsed * (len(self.asked) - answered) / answered if answered else None

    def sentence(self, now: float) -> str:
        """The phase in one line, such as "train: 1 of 3 answered (A), waiting for B, C | time left not known yet"."""
        answered = self.answered
        waiting = [pair for pair in self.asked if pair not in answered]
        arms = list(dict.fromkeys(arm for arm, _ in self.asked))
        arms = arms if len(arms) == 1 else merged(arms)
        name = self.name if self.name in IN_ROUNDS else f"{self.name} of {', '.join(arms)}"
        text = f"{name}: {len(answered)} of {len(self.asked)} answered"
        text += f" ({self._names(answered)})" if answered else ""
        text += f", waiting for {self._names(waiting)}" if waiting else ""
        if steps := self.steps():
            text += f" | {steps[0]} of {steps[1]} steps"
        left = self.left(now)
        return text + (
            " | time left not known yet" if left is None else f" | about {duration(left)} left of this phase"
        )

    def _names(self, pairs: Sequence[Asked]) -> str:
        several = len(merged(arm for arm, _ in self.asked)) > 1
        names = []
        for arm, site in pairs:
            (kind,) = merged([arm])
            names.append(f"{site} ({kind})" if several and kind not in (FEDERATED, site) else site)
        more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
        return ", ".join([*names[:SHOWN], *more])
