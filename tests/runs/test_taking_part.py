"""Who took part: counted by hand from rounds of which every reply is known."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedbrats.runs import rounds
from fedbrats.runs.taking_part import (
    TABLE,
    TakingPart,
    finished_words,
    headline,
    missed_share,
    strangers,
    taking_part,
    write_taking_part,
)

KEPT = Path(__file__).parent / "written_by_1cb55be"
LATE = "failed: no reply within 5 s (strategy.timeout)"
BROKEN = "failed: site error: SiteError: no disc space"
OLD_STAYS = "failed: 1 of 3 replies usable, quorum needs 2; the old model stays"


def written(folder: Path, replies: dict[str, list[str]], server: list[str], **steps: int) -> Path:
    """A rounds.csv of replies to train, one status per round and site ("" is not asked)."""
    rounds.start(folder, 0)
    found: list[dict[str, Any]] = []
    for number, said in enumerate(server, start=1):
        for site, statuses in replies.items():
            if status := statuses[number - 1]:
                given = {"steps": steps.get(site, 4)} if status == "ok" else {}
                found.append(rounds.row(number, "federated", site, "train", status, **given))
                found.append(rounds.row(number, f"local:{site}", site, "train", "ok", steps=100))
        found.append(rounds.row(number, "federated", "server", "round", said))
    rounds.append(folder, found)
    return folder


def of(folder: Path) -> dict[str, TakingPart]:
    return {part.site: part for part in taking_part(rounds.read_rounds(folder))}


def test_rounds_steps_and_reasons_by_hand(tmp_path: Path) -> None:
    """Round 3 kept the old model, so A's steps there are in no model: A 3 * 4, B 1 * 8, C 1 * 5, 25 in all."""
    replies = {
        "A": ["ok", "ok", "ok", "ok"],
        "B": [LATE, BROKEN, LATE, "ok"],
        "C": ["ok", "stopped: privacy budget of 8", "", ""],
    }
    found = of(written(tmp_path, replies, ["ok", "ok", OLD_STAYS, "ok"], A=4, B=8, C=5))
    a, b, c = found["A"], found["B"], found["C"]
    assert (a.rounds, a.contributed, a.unused, a.missed, a.why) == (4, 3, 1, 0, ())
    assert (a.steps, a.share, a.last_seen, a.missing_since) == (12, 12 / 25, 4, None)
    assert (b.contributed, b.missed, b.reasons) == (1, 3, "2 x no reply in time, 1 x error at the site")
    assert (b.steps, b.share, b.last_seen, b.missing_since) == (8, 8 / 25, 4, None)
    assert a.line() == "in 3 of 4 rounds, 48.0 % of the steps"
    assert b.line() == f"in 1 of 4 rounds, 32.0 % of the steps; {b.sentence()}"
    assert (c.contributed, c.missed, c.reasons) == (1, 3, "3 x privacy budget reached")
    assert (c.steps, c.share, c.last_seen, c.missing_since) == (5, 5 / 25, 1, 2)
    assert c.sentence() == "missed 3 of 4 rounds (3 x privacy budget reached), all since round 2"


def test_a_site_that_never_answered(tmp_path: Path) -> None:
    found = of(written(tmp_path, {"A": ["ok", "ok"], "B": [LATE, LATE]}, ["ok", "ok"]))
    b = found["B"]
    assert (b.last_seen, b.missing_since, b.steps, b.share) == (None, 1, 0, 0)
    assert finished_words(list(found.values())) == "finished without B (since round 1)"


def test_a_round_in_which_nobody_was_asked_is_missed_by_all(tmp_path: Path) -> None:
    found = of(written(tmp_path, {"A": ["ok", ""]}, ["ok", OLD_STAYS]))
    assert (found["A"].rounds, found["A"].missed, found["A"].reasons) == (2, 1, "1 x not asked")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("failed: site not reachable: gone", "not reachable"),
        ("failed: w: shape (2,) as declared", "reply that cannot be used"),
    ],
)
def test_reasons_are_grouped(tmp_path: Path, status: str, reason: str) -> None:
    found = of(written(tmp_path, {"A": ["ok"], "B": [status]}, ["ok"]))
    assert found["B"].why == ((reason, 1),)


def test_the_share_decides_who_is_named_first(tmp_path: Path) -> None:
    """B missed 1 of 10 rounds, which is not more than a tenth; C missed 2."""
    replies = {"A": ["ok"] * 10, "B": [LATE, *["ok"] * 9], "C": [LATE, BROKEN, *["ok"] * 8]}
    found = list(of(written(tmp_path, replies, ["ok"] * 10)).values())
    assert headline(found, 0.1) == (
        "Not everybody took part: C missed 2 of 10 rounds (1 x error at the site, 1 x no reply in time)."
    )
    assert headline(found, 0.2) == ""
    assert [part.site for part in found if part.missed_more(0.0)] == ["B", "C"]
    assert not replace(found[2], rounds=50, missed=29).missed_more(0.58)  # 0.58 * 50 is below 29 in floats
    assert finished_words(found) == "finished"


def test_messages_that_nobody_waited_for_are_counted_and_are_no_rounds(tmp_path: Path) -> None:
    folder = written(tmp_path, {"A": ["ok"], "B": ["ok"]}, ["ok"])
    more = [
        ("A", "failed: second reply"),
        ("A", "failed: second reply"),
        ("A", "failed: late reply"),
        ("", "failed: x"),
    ]
    rounds.append(folder, [rounds.row(2, "federated", site, "refused", status) for site, status in more])
    found = of(folder)
    assert found["A"].refused == (("second reply to one question", 2), ("late reply", 1))
    assert (found["A"].rounds, found["A"].missed, found["B"].refused) == (1, 0, ())
    assert set(found) == {"A", "B"}
    assert strangers(rounds.read_rounds(folder)) == 1


def test_the_file_has_what_was_counted(tmp_path: Path) -> None:
    folder = written(tmp_path, {"A": ["ok", "ok"], "B": ["ok", LATE]}, ["ok", "ok"], A=6, B=3)
    rounds.append(folder, [rounds.row(2, "federated", "B", "refused", "failed: late reply")])
    write_taking_part(folder)
    table = TABLE.read(folder)
    assert table["share_of_steps"].tolist() == pytest.approx([0.8, 0.2])  # 12 and 3 of 15
    row = table.set_index("site").loc["B"]
    assert (row["missed"], row["why"], row["last_seen"]) == (1, "1 x no reply in time", 1)
    assert (row["missing_since"], row["refused"]) == (2, "1 x late reply")
    first = next(csv.DictReader((folder / TABLE.name).read_text().splitlines()))
    assert (first["site"], first["missing_since"]) == ("A", "")  # empty, not a word for nothing


def test_an_older_folder_tells_no_steps() -> None:
    """Its rounds.csv has no column of them."""
    found = of(KEPT)
    assert {(p.rounds, p.contributed, p.missed, p.steps, p.share) for p in found.values()} == {
        (2, 2, 0, None, None)
    }
    assert missed_share({"strategy": {"quorum": 0.5}}) == missed_share({}) == 0.1
    assert missed_share({"strategy": {"missed_share": 0.25}}) == 0.25


def test_no_federated_round_is_nobody(tmp_path: Path) -> None:
    rounds.start(tmp_path, 0)
    rounds.append(tmp_path, [rounds.row(1, "pooled", "pooled", "train", "ok", steps=3)])
    assert taking_part(rounds.read_rounds(tmp_path)) == []
    assert headline([], 0.1) == ""
    assert finished_words([]) == "finished"


def test_names_are_sorted_as_people_do(tmp_path: Path) -> None:
    folder = written(tmp_path, {f"S{n}": ["ok"] for n in (10, 2, 1)}, ["ok"])
    assert list(of(folder)) == ["S1", "S2", "S10"]


def test_a_row_of_another_version_is_read(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "round": [1],
            "arm": ["federated"],
            "site": ["A"],
            "phase": ["train"],
            "status": ["odd"],
            "steps": [2.0],
        }
    )
    (part,) = taking_part(frame)
    assert (part.missed, part.reasons) == (1, "1 x no reason recorded")
