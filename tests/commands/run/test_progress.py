"""Progress: plain lines without a terminal, live bars with one."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from fedbrats.commands.run import progress as module
from fedbrats.commands.run.progress import Progress, scores


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


def go(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    clock = iter(range(0, 10_000, 30))  # every look at the clock is 30 s later
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    with Progress(stream) as progress:
        progress.message("data: 66 cases\nof 7 sites")
        progress.start(3, ["federated", "local:A", "local:B", "pooled"])
        progress.round_started(1, 2)
        progress.reply("federated", "TCIA\x1b01", "train", True, 1.5)
        progress.reply("federated", "CBICA", "train", False, 0.0)
        progress.round_started(1, 1)
        progress.reply("federated", "TCIA01", "val", True, 1.5)
        progress.round_finished(1, ROWS)
        progress.round_started(3, 1)
        progress.reply("federated", "TCIA01", "test", True, 1.5)
    progress.stop()
    return stream.getvalue()


def test_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = go(io.StringIO(), monkeypatch).splitlines()
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
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", go(Terminal(), monkeypatch))
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
    text = go(Terminal(), monkeypatch)
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
