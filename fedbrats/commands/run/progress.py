"""What a run shows while it goes: live bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from fedbrats.commands.run.heartbeat import Heartbeat
from fedbrats.commands.run.phase import IN_ROUNDS, Asked, Counted, Phase, merged
from fedbrats.config.names import shown
from fedbrats.report.words import duration
from fedbrats.tasks import segmentation as task
from fedbrats.tasks.classification import CLASSIFICATION, LABEL

SILENCE = 25.0  # seconds without a line before the log says where it is: with the ticks below, never 30
TICKS = 10  # looks at the clock in that time


class Progress:
    """Rounds, sites within the round, loss, mean validation scores per arm and the time left.

    `phase_started` may be called several times in one round, once per phase. Times are wall-clock seconds; the time
    left is that of the rounds still to come, from the mean of the rounds seen since `start` (the test at the end is
    not in it). Without a terminal every event that matters is one flushed line without control characters, and in a
    phase that takes long one more whenever nothing was said for `silence` seconds of `clock`. On a terminal the bar
    of a phase moves with the steps of the sites where these can be known, else with their replies.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        silence: float = SILENCE,
    ) -> None:
        self._clock, self._silence = clock, silence
        self._stream = stream or sys.stdout
        console = Console(file=self._stream)
        self._live: Live | None = None
        self._console = console
        self._on_terminal = self._stream.isatty() and console.is_terminal and not console.is_dumb_terminal
        self._rounds = 0
        self._arms: list[str] = []
        self._round, self._phase = 0, Phase("", [], 0.0)
        self._counted: Counted | None = None
        self._before: dict[str, float] = {}  # seconds per reply of each phase, the last time
        self._began = self._spoke = clock()
        self._lock = threading.RLock()  # held where the heartbeat reads or writes; never while bars are drawn
        self._heartbeat: Heartbeat | None = None
        self._seen_rounds = 0
        self._scores: dict[str, dict[str, float]] = {}

    def start(self, rounds: int, arms: Sequence[str], counted: Counted | None = None) -> None:
        """Begin to show a run of `rounds` rounds; local models may come as "local:<site>" each or as "local".

        `counted`: the steps of the sites, where they are on this machine.
        """
        self._rounds, self._arms, self._counted = rounds, merged(arms), counted
        self._began, self._seen_rounds = self._clock(), 0
        if not self._on_terminal:
            self._line(f"{rounds} rounds, arms: {', '.join(self._arms)}")
            self._heartbeat = Heartbeat(self.tick, self._silence / TICKS)
            self._heartbeat.start()
            return
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=32), MofNCompleteColumn())
        self._bars = Bars(*columns, TextColumn("{task.fields[note]}", markup=False), console=self._console)
        self._round_bar: TaskID = self._bars.add_task("Rounds", total=rounds, note="")
        self._phase_bar: TaskID = self._bars.add_task("Sites", total=None, note="")
        self._live = Live(console=self._console, refresh_per_second=4, get_renderable=self._picture)
        self._live.start()

    def phase_started(self, round_: int, phase: str, asked: Sequence[Asked]) -> None:
        """A phase of round `round_` (from 1) waits for the replies of these sites, each for an arm."""
        with self._lock:
            self._round = round_
            self._phase = Phase(phase, asked, self._clock(), self._before.get(phase), self._counted)
        if self._live:
            what = "Sites" if self._phase.steps() is None else "Steps"
            self._bars.update(self._round_bar, description=f"Round {round_}")
            self._bars.reset(self._phase_bar, total=len(asked), note="waiting", description=what)
            self._move()

    def arrived(self, asked: Collection[Asked]) -> None:
        """Of those asked, whose replies are there and will be read in their turn."""
        with self._lock:
            self._phase.arrived(asked)

    def reply(self, arm: str, site: str, phase: str, ok: bool, seconds: float) -> None:
        """A site has answered (or failed) in phase train, val or test after `seconds` of work."""
        with self._lock:
            self._phase.reply(arm, site, ok)
            if self._phase.over:
                self._before[phase] = self._phase.per_reply(self._clock())
        if not ok:
            self.message(f"failed: {arm}, site {site}, {phase}")
        if self._live:
            failed = f", {self._phase.failed} failed" if self._phase.failed else ""
            note = shown(f"{site}: {phase} {seconds:.1f} s{failed}")
            self._bars.update(self._phase_bar, note=note)
            self._move()
        elif phase == "test" and self._phase.over:
            self._line(f"tested {arm} at {len(self._phase.asked)} sites")

    def tick(self) -> None:
        """Say where a phase is if nothing was said for long; the heartbeat calls it."""
        with self._lock:
            now = self._clock()
            if self._phase.over or now - self._spoke < self._silence:
                return
            of_round = f"round {self._round}/{self._rounds} | " if self._phase.name in IN_ROUNDS else ""
            self._line(of_round + self._phase.sentence(now))

    def round_finished(self, round_: int, rows: list[dict[str, Any]]) -> None:
        """Show the rows of `rounds.csv` of a round that is over."""
        self._seen_rounds += 1
        latest = scores(rows)
        # The table keeps the last known scores, as not every round is validated
        self._scores = {
            arm: self._scores.get(arm, {}) | latest.get(arm, {}) for arm in {**self._scores, **latest}
        }
        left = self._time_left(round_)
        if self._live:
            self._bars.update(self._round_bar, completed=round_, note=f"{left} left")
            return
        parts = [f"round {round_}/{self._rounds}"]
        parts += [f"{arm}: {in_words(latest[arm])}" for arm in merged(latest)]
        failed = sum(1 for row in rows if row.get("status") != "ok" and row.get("phase") != "round")
        parts += [f"failed replies {failed}"] if failed else []
        broken = sorted(
            {str(row["arm"]) for row in rows if row.get("phase") == "round" and row["status"] != "ok"}
        )
        parts += [f"round failed for {', '.join(broken)}"] if broken else []
        self._line(" | ".join([*parts, f"{left} left"]))

    def message(self, text: str) -> None:
        """Show a line of text above the bars."""
        if self._live:
            self._console.print(Text(shown(text)))
        else:
            self._line(text)

    def stop(self) -> None:
        """End the display and leave its last state on the terminal; harmless when called twice."""
        if self._heartbeat:
            self._heartbeat.stop()
        if self._live:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _line(self, text: str) -> None:
        clean = shown(text).replace("\n", " ").replace("\t", " ")
        with self._lock:
            self._stream.write(clean + "\n")  # at once, so that no two lines mix
            self._stream.flush()
            self._spoke = self._clock()

    def _time_left(self, round_: int) -> str:
        per_round = (self._clock() - self._began) / max(self._seen_rounds, 1)
        return duration(per_round * max(self._rounds - round_, 0))

    def _move(self) -> None:
        """The bar of the phase at its steps, else its replies; a phase that asks nobody leaves it alone."""
        phase = self._phase
        done, total = phase.steps() or (len(phase.answered), len(phase.asked))
        if total:
            self._bars.update(self._phase_bar, completed=done, total=total)

    def _picture(self) -> Group:
        self._move()
        return Group(self._bars, self._table())

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0))
        found = {n for known in self._scores.values() for n in known}
        regions = (LABEL,) if LABEL in found else task.in_order(found) or task.REGIONS
        title = CLASSIFICATION.title if LABEL in found else task.MAIN_TITLE
        for name in ("Arm", "Loss", *(f"val {title} {region}" for region in regions)):
            table.add_column(name, justify="left" if name == "Arm" else "right")
        for arm in self._arms:
            known = self._scores.get(arm, {})
            table.add_row(arm, *(number(known.get(name)) for name in ("loss", *regions)))
        return table


def scores(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean training loss ("loss") and mean validation score per region of each arm.

    Args:
        rows: of `rounds.csv`, values as numbers, text or empty. Means are over the replies that are ok, weighted by
            cases; what no reply holds is absent.
    """
    sums: dict[str, dict[str, tuple[float, float]]] = {}
    for row in rows:
        if row.get("status") != "ok" or row.get("phase") not in ("train", "val"):
            continue
        arm = merged([str(row["arm"])])[0]
        weight = as_number(row.get("cases"))
        names = {"loss": "loss"} if row["phase"] == "train" else {**task.COLUMNS, **CLASSIFICATION.columns}
        for name, column in names.items():
            value = as_number(row.get(column))
            if value is not None and weight:
                total, weights = sums.setdefault(arm, {}).get(name, (0.0, 0.0))
                sums[arm][name] = (total + weight * value, weights + weight)
    return {arm: {name: total / w for name, (total, w) in means.items()} for arm, means in sums.items()}


def as_number(value: object) -> float | None:
    """A finite number from a number or text, None for anything else."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def number(value: float | None) -> str:
    """Three decimals, "-" where there is none."""
    return "-" if value is None else f"{value:.3f}"


def in_words(known: Mapping[str, float]) -> str:
    """Loss and scores of an arm in one phrase."""
    loss = f"loss {number(known.get('loss'))}"
    regions = task.in_order(known)
    if LABEL in known:
        return f"{loss}, val {CLASSIFICATION.title} {number(known[LABEL])}"
    if not regions:
        return loss
    found = "/".join(number(known[region]) for region in regions)
    return f"{loss}, val {task.MAIN_TITLE} {'/'.join(regions)} {found}"
