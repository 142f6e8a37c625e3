from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbrats.privacy.accounting import Entry
from fedbrats.privacy.ledger import PATIENT_ADJACENCY, Ledger, LedgerError

ENTRY = Entry(1.5, 0.25, 8)
WITHOUT_ENTRIES = json.dumps({"site": "a", "unit": "patient", "adjacency": PATIENT_ADJACENCY})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "site" / "ledger.json"


def reserve(file: Path, rounds: int) -> Ledger:
    ledger = Ledger(file, "a")
    for round_ in range(1, rounds + 1):
        ledger.reserve(ENTRY, run="first", round_=round_)
    return ledger


def test_a_site_that_never_released_has_no_entries_and_no_file(file: Path) -> None:
    assert Ledger(file, "a").entries() == []
    assert not file.parent.exists()


def test_what_is_reserved_is_there_for_the_next_process(file: Path) -> None:
    reserve(file, 2)
    Ledger(file, "a").reserve(Entry(2, 1, 1), run="second", round_=1, mechanism="scores", clip=0.5)
    assert Ledger(file, "a").entries() == [ENTRY, ENTRY, Entry(2.0, 1.0, 1)]
    assert json.loads(file.read_text()) == {
        "site": "a",
        "unit": "patient",
        "adjacency": PATIENT_ADJACENCY,
        "entries": [
            {"sigma": 1.5, "sample_rate": 0.25, "steps": 8, "run": "first", "round": r, "mechanism": "dp_sgd"}
            for r in (1, 2)
        ]
        + [
            {"sigma": 2, "sample_rate": 1, "steps": 1, "run": "second", "round": 1, "mechanism": "scores"}
            | {"clip": 0.5}
        ],
    }
    assert Ledger(file, "a").records() == json.loads(file.read_text())["entries"]


def test_a_round_that_is_computed_again_counts_again(file: Path) -> None:
    ledger = reserve(file, 1)
    ledger.reserve(ENTRY, run="first", round_=1)
    assert ledger.entries() == [ENTRY, ENTRY]


def test_numbers_of_numpy_are_written_as_plain_ones(file: Path) -> None:
    ledger = Ledger(file, "a")
    ledger.reserve(Entry(np.float32(0.5), np.float64(0.25), np.int64(3)), run="r", round_=1)  # type: ignore[arg-type]
    assert ledger.entries() == [Entry(0.5, 0.25, 3)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"site": "a"}',
        '{"site": "a", "unit": "patient", "entries": []}',
        WITHOUT_ENTRIES,
        WITHOUT_ENTRIES[:-1] + ', "entries": {}}',
        WITHOUT_ENTRIES[:-1] + ', "entries": ""}',
        WITHOUT_ENTRIES[:-1] + ', "entries": ["sigma"]}',
    ],
)
def test_a_file_that_is_no_ledger_is_refused(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(LedgerError, match=r"ledger\.json"):
        Ledger(file, "a").entries()
    with pytest.raises(LedgerError, match=r"ledger\.json"):
        Ledger(file, "a").reserve(ENTRY, run="r", round_=1)
    assert file.read_text() == text  # what is left of it is evidence


@pytest.mark.parametrize(
    "change",
    [
        {"sigma": -1.0},
        {"sigma": None},
        {"sigma": float("nan")},
        {"sample_rate": 1.5},
        {"steps": -1},
        {"steps": 1.5},
        {"steps": "8"},
        {"steps": True},
        {"round": "1"},
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(file: Path, change: dict[str, Any]) -> None:
    reserve(file, 1)
    ledger = json.loads(file.read_text())
    ledger["entries"][0] |= change
    file.write_text(json.dumps(ledger))
    with pytest.raises(LedgerError, match="too small"):
        Ledger(file, "a").entries()


@pytest.mark.parametrize("key", ["sigma", "sample_rate", "steps", "round"])
def test_an_entry_without_one_of_its_fields_is_refused(file: Path, key: str) -> None:
    reserve(file, 1)
    ledger = json.loads(file.read_text())
    del ledger["entries"][0][key]
    file.write_text(json.dumps(ledger))
    with pytest.raises(LedgerError, match=key):
        Ledger(file, "a").entries()


def test_every_torn_version_of_a_ledger_is_refused(file: Path) -> None:
    reserve(file, 2)
    whole = file.read_bytes()
    for length in range(0, len(whole) - 1, 7):
        file.write_bytes(whole[:length])
        with pytest.raises(LedgerError):
            Ledger(file, "a").entries()


def test_a_ledger_that_cannot_be_opened_is_refused(file: Path) -> None:
    file.mkdir(parents=True)
    with pytest.raises(LedgerError, match="not a readable ledger"):
        Ledger(file, "a").entries()


def test_the_ledger_of_another_site_or_unit_is_refused(file: Path) -> None:
    reserve(file, 1)
    with pytest.raises(LedgerError, match="'site': 'a'"):
        Ledger(file, "b").entries()
    with pytest.raises(LedgerError, match="'unit': 'patient'"):
        Ledger(file, "a", unit="site").reserve(ENTRY, run="r", round_=1)


def test_a_ledger_that_was_deleted_is_missed(file: Path) -> None:
    reserve(file, 2)
    file.unlink()
    with pytest.raises(LedgerError, match=r"holds 0 entries, but 2 were written \(ledger\.json\.lock\)"):
        Ledger(file, "a").entries()
    with pytest.raises(LedgerError, match="deleted"):
        Ledger(file, "a").reserve(ENTRY, run="r", round_=1)


def test_an_old_copy_of_a_ledger_is_noticed(file: Path) -> None:
    reserve(file, 9)
    old = file.read_bytes()
    reserve(file, 3)  # two digits now
    file.write_bytes(old)
    with pytest.raises(LedgerError, match="holds 9 entries, but 12 were written"):
        Ledger(file, "a").entries()


def test_a_lock_file_that_cannot_be_read_is_refused(file: Path) -> None:
    reserve(file, 1).lock.write_text("many")
    with pytest.raises(LedgerError, match="lock"):
        Ledger(file, "a").entries()


def test_a_ledger_without_its_lock_file_still_counts(file: Path) -> None:
    reserve(file, 2).lock.unlink()
    assert len(reserve(file, 1).entries()) == 3


def test_a_crash_before_the_first_write_leaves_an_empty_ledger(file: Path) -> None:
    file.parent.mkdir()
    Ledger(file, "a").lock.touch()
    file.with_name(".partial-0a1b2c3d-ledger.json").write_text('{"site"')
    assert Ledger(file, "a").entries() == []
    assert reserve(file, 1).entries() == [ENTRY]


def test_a_fact_that_is_not_json_reserves_nothing_and_spoils_nothing(file: Path) -> None:
    ledger = reserve(file, 1)
    with pytest.raises(ValueError, match="JSON"):
        ledger.reserve(ENTRY, run="r", round_=2, norm=float("nan"))
    with pytest.raises(ValueError, match="steps: a field"):
        ledger.reserve(ENTRY, run="r", round_=2, steps=3)
    assert ledger.entries() == [ENTRY]


def test_a_disk_that_refuses_reserves_nothing_and_spoils_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = reserve(file, 1)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            ledger.reserve(ENTRY, run="r", round_=2)
    assert ledger.entries() == [ENTRY]


def test_text_is_on_disk_before_it_replaces_the_old_and_the_name_before_anything_is_released(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve(file, 1)
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(number: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        size = path.stat().st_size if path.is_file() else 0
        order.append(f"fsync {path.name}" + (" empty" if path.is_file() and not size else ""))
        fsync(number)

    def watched_replace(source: Path, target: Path) -> None:
        order.append(f"replace {Path(target).name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    reserve(file, 1)
    unfinished, *rest = order
    assert re.fullmatch(r"fsync \.partial-[0-9a-f]{8}-ledger\.json", unfinished)
    assert rest == ["replace ledger.json", "fsync site", "fsync ledger.json.lock"]


def test_no_file_stays_open(file: Path) -> None:
    reserve(file, 1)
    before = sorted(os.listdir("/proc/self/fd"))
    reserve(file, 3)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_who_reads_while_another_reserves_sees_no_loss(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, read = reserve(file, 1), Ledger._read

    def read_and_be_overtaken(self: Ledger) -> list[dict[str, Any]]:
        found = read(self)
        if self is reader:
            reserve(file, 1)
        return found

    monkeypatch.setattr(Ledger, "_read", read_and_be_overtaken)
    assert reader.entries() == [ENTRY]


def test_a_thread_that_reserves_waits_for_another(file: Path) -> None:
    threads = [threading.Thread(target=reserve, args=(file, 10)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Ledger(file, "a").entries()) == 40


# A process that reserves until it is killed, and says so after every reservation.
WRITER = """
import itertools, sys
from pathlib import Path
from fedbrats.privacy.accounting import Entry
from fedbrats.privacy.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]), "a")
for round_ in itertools.islice(itertools.count(1), int(sys.argv[3])):
    ledger.reserve(Entry(1.5, 0.25, 8), run=sys.argv[2], round_=round_)
    print(round_, flush=True)
"""


def writer(file: Path, run: str, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(file), run, str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_that_reserve_at_once_lose_nothing(file: Path) -> None:
    both = [writer(file, run, 40) for run in ("one", "two")]
    assert [process.wait(60) for process in both] == [0, 0]
    for process in both:
        process.communicate()
    found = [(r["run"], r["round"]) for r in Ledger(file, "a").records()]
    assert sorted(found) == [(run, r) for run in ("one", "two") for r in range(1, 41)]


def test_what_a_killed_process_had_reserved_is_in_the_ledger(file: Path) -> None:
    said = 0
    for attempt, reservations in enumerate((1, 7, 23)):
        process = writer(file, f"attempt {attempt}", 10**6)
        assert process.stdout is not None
        for _ in range(reservations):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].splitlines()
        said += reservations + len(rest)
        # The one that was under way may be in it as well: too much is safe, too little is not.
        assert said <= len(Ledger(file, "a").entries()) <= said + attempt + 1
    assert len(reserve(file, 1).entries()) > said
