"""Progress: plain lines without a terminal, live bars with one."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path
from typing import Any

import pytest

from fedbrats.commands.run.phase import Counted
from fedbrats.commands.run.progress import SILENCE, TICKS, Progress, scores
from fedbrats.training.steps import StepCounts


class Terminal(io.StringIO):
    """Text that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def row(arm: str, phase: str, **values: Any) -> dict[str, Any]:
    return {
        "round": 1,
        "arm": arm,
        "site": "A",
        "phase": phase,
        "status": "ok",
        "loss": "",
        "cases": "",
        **values,
    }


ROWS = [
    row("federated", "train", cases=30, loss=1.0),
    row("federated", "train", cases="10", loss="2.0"),  # as read back from the file of a resumed run
    row("federated", "train", status="failed: x", cases=99, loss=50.0),
    row("federated", "val", cases=4, loss=0.7, dice_wt=0.5, dice_tc=0.25, dice_et=0.0),
    row("local:A", "train", cases=1, loss=0.5),
    row("local:B", "train", cases=1, loss=0.7),
    row("federated", "round", loss=123.0),
]


class Clock:
    """A clock that a test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def go(stream: io.StringIO) -> str:
    clock = Clock()
    with Progress(stream, clock, silence=1e6) as progress:
        progress.message("data: 66 cases\nof 7 sites")
        progress.start(3, ["federated", "local:A", "local:B", "pooled"])
        progress.phase_started(1, "train", [("federated", "TCIA\x1b01"), ("federated", "CBICA")])
        progress.reply("federated", "TCIA\x1b01", "train", True, 1.5)
        progress.reply("federated", "CBICA", "train", False, 0.0)
        progress.phase_started(1, "val", [("federated", "TCIA01")])
        progress.reply("federated", "TCIA01", "val", True, 1.5)
        clock.now = 30.0
        progress.round_finished(1, ROWS)
        progress.phase_started(3, "test", [("federated", "TCIA01")])
        progress.reply("federated", "TCIA01", "test", True, 1.5)
    progress.stop()
    return stream.getvalue()


def test_plain_lines() -> None:
    lines = go(io.StringIO()).splitlines()
    assert lines == [
        "data: 66 cases of 7 sites",
        "3 rounds, arms: federated, local, pooled",
        "failed: federated, site CBICA, train",
        "round 1/3 | federated: loss 1.250, val Dice WT/TC/ET 0.500/0.250/0.000 | local: loss 0.600"
        " | failed replies 1 | 1 min 00 s left",
        "tested federated at 1 sites",
    ]


def test_plain_lines_are_flushed_at_once() -> None:
    class Counting(io.StringIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed += 1

    stream = Counting()
    Progress(stream).message("one")
    assert stream.flushed == 1


def test_terminal_shows_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "110")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", go(Terminal()))
    for part in (
        "Round 3",
        "1/3",
        "TCIA01: test 1.5 s",
        "federated  1.250",
        "0.500",
        "left",
        "failed: federated, site CBICA",
    ):
        assert part in text


def test_terminal_without_cursor_control_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    text = go(Terminal())
    assert "\x1b" not in text
    assert "round 1/3 | federated: loss 1.250" in text


def fail_inside(progress: Progress) -> None:
    with progress:
        progress.start(1, ["federated"])
        raise ConnectionError


def test_display_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    progress = Progress(Terminal())
    with pytest.raises(ConnectionError):
        fail_inside(progress)
    assert progress._live is None


def test_scores_are_weighted_and_leave_out_failures() -> None:
    found = scores(ROWS)
    assert found["federated"] == {"loss": 1.25, "WT": 0.5, "TC": 0.25, "ET": 0.0}
    assert found["local"] == {"loss": pytest.approx(0.6)}


def test_scores_ignore_empty_and_non_finite_values() -> None:
    assert (
        scores(
            [row("pooled", "train", cases=3, loss=float("nan")), row("pooled", "val", cases=2, dice_wt=None)]
        )
        == {}
    )


def test_the_live_table_keeps_the_last_known_dice() -> None:
    """A round without validation must not blank the Dice that an earlier one gave."""
    progress = Progress()
    progress.start(3, ["federated"])
    progress.round_finished(1, [row("federated", "val", cases=2, dice_wt=0.5, dice_tc=0.4, dice_et=0.3)])
    progress.round_finished(2, [row("federated", "train", cases=2, loss=0.9)])
    progress.stop()
    assert progress._scores["federated"] == pytest.approx({"WT": 0.5, "TC": 0.4, "ET": 0.3, "loss": 0.9})


def test_a_whole_tumour_network_shows_one_dice() -> None:
    rows = [row("federated", "val", cases=2, dice_wt="0.5", dice_tc="", dice_et="")]
    stream = io.StringIO()
    progress = Progress(stream)
    progress.start(2, ["federated"])
    progress.round_finished(1, rows)
    assert "val Dice WT 0.500 |" in stream.getvalue()
    assert [column.header for column in progress._table().columns] == ["Arm", "Loss", "val Dice WT"]


ASKED = [("federated", "A"), ("federated", "B"), ("federated", "C")]


def test_a_long_phase_says_where_it_is_whether_or_not_a_reply_comes() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(stream, clock, silence=1e6) as progress:
        progress._silence = 25.0  # by hand from here on, not by the thread
        progress.start(10, ["federated"])
        progress.phase_started(3, "train", ASKED)
        for clock.now in range(0, 100, 2):
            if clock.now == 60:
                progress.reply("federated", "A", "train", True, 60.0)
            progress.tick()
    assert stream.getvalue().splitlines()[1:] == [
        "round 3/10 | train: 0 of 3 answered, waiting for A, B, C | time left not known yet",
        "round 3/10 | train: 0 of 3 answered, waiting for A, B, C | time left not known yet",
        "round 3/10 | train: 1 of 3 answered (A), waiting for B, C | about 2 min 36 s left of this phase",
    ]
    assert SILENCE * (1 + 1 / TICKS) < 30


def test_nothing_is_said_in_a_quick_phase_or_after_one() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(stream, clock, silence=1e6) as progress:
        progress._silence = 25.0
        progress.start(2, ["federated"])
        progress.phase_started(1, "train", ASKED[:1])
        clock.now = 24.0
        progress.tick()
        progress.reply("federated", "A", "train", True, 24.0)
        clock.now = 500.0  # the server works
        progress.tick()
        progress.message("a line")
        progress.phase_started(1, "val", ASKED[:1])
        clock.now = 524.0
        progress.tick()
    assert stream.getvalue().splitlines()[1:] == ["a line"]


def test_the_phase_before_says_how_long_this_one_takes() -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(stream, clock, silence=1e6) as progress:
        progress._silence = 25.0
        progress.start(2, ["federated"])
        progress.phase_started(1, "train", ASKED)
        clock.now = 60.0
        for arm, site in ASKED:
            progress.reply(arm, site, "train", True, 1.0)
        progress.phase_started(2, "train", ASKED)
        clock.now = 90.0
        progress.tick()
    assert stream.getvalue().endswith("waiting for A, B, C | about 30 s left of this phase\n")


class Slow(io.StringIO):
    """A stream that another thread would see half a line of, if lines were written in pieces."""

    def write(self, text: str) -> int:
        for character in text:
            super().write(character)
            time.sleep(0.0001)
        return len(text)


def test_the_heartbeat_is_a_thread_that_ends_and_never_mixes_its_lines_with_others() -> None:
    stream = Slow()
    with Progress(stream, silence=0.02) as progress:
        progress.start(1, ["federated"])
        progress.phase_started(1, "train", ASKED)
        assert progress._heartbeat
        thread = progress._heartbeat._thread
        assert thread.is_alive()
        deadline = time.monotonic() + 30
        while stream.getvalue().count("waiting for") < 3 and time.monotonic() < deadline:
            time.sleep(0.015)
            progress.message("from the run")
            time.sleep(0.03)
    said = stream.getvalue()
    assert not thread.is_alive()
    time.sleep(0.1)
    assert stream.getvalue() == said
    lines = said.splitlines()[1:]
    assert lines.count("from the run") + sum(
        line.startswith("round 1/1 | train: 0 of") for line in lines
    ) == (len(lines))
    assert sum("waiting for" in line for line in lines) >= 3


def test_an_error_ends_the_heartbeat_too() -> None:
    progress = Progress(io.StringIO(), silence=0.02)
    with pytest.raises(ConnectionError):
        fail_inside(progress)
    assert progress._heartbeat
    assert not progress._heartbeat._thread.is_alive()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "110")
    return Terminal()


def test_on_a_terminal_the_bar_moves_with_the_steps(tmp_path: Path, terminal: Terminal) -> None:
    counts = StepCounts.create(tmp_path / "steps", ["A", "B"])
    expected = {("federated", "A"): 10, ("federated", "B"): 10}
    with Progress(terminal) as progress:
        progress.start(1, ["federated"], Counted(counts, expected))
        progress.phase_started(1, "train", ASKED[:2])
        bar = progress._bars.tasks[1]
        assert (bar.description, bar.completed, bar.total) == ("Steps", 0, 20)
        for _ in range(4):
            counts.add("B")
        progress._picture()  # as rich draws it
        assert (bar.completed, bar.total) == (4, 20)
        progress.reply("federated", "A", "train", True, 1.0)
        assert (bar.completed, bar.total) == (14, 20)
        progress.phase_started(1, "val", ASKED[:2])
        assert (bar.description, bar.completed, bar.total) == ("Sites", 0, 2)
    assert progress._heartbeat is None


def test_without_steps_the_bar_moves_with_the_replies(terminal: Terminal) -> None:
    with Progress(terminal) as progress:
        progress.start(1, ["federated"])
        progress.phase_started(1, "train", ASKED)
        bar = progress._bars.tasks[1]
        progress.reply("federated", "A", "train", True, 1.0)
        progress.arrived([("federated", "C")])
        progress._picture()
        assert (bar.description, bar.completed, bar.total) == ("Sites", 2, 3)
