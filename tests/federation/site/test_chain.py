"""The log of what left: every way to change it afterwards is found, and a crash at any byte of a line is not one."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedbrats.federation.site import chain
from fedbrats.federation.site.chain import UNFINISHED, ChainError, append, read, verify


def line(number: int = 0, epsilon: float | None = None, study: str = "s") -> dict[str, Any]:
    return {"study": study, "epsilon": epsilon, "number": number}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    file = tmp_path / "storage" / "egress.jsonl"
    for number in range(4):
        append(file, "A", line(number))
    return file


def lines(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines(keepends=True)


def test_every_line_holds_the_hash_of_the_line_before(log: Path) -> None:
    """By hand, without a function of the log's own."""
    found = [raw.rstrip(b"\n") for raw in lines(log)]
    first = json.loads(found[0])
    assert (first["egress"], first["site"], first["previous"]) == (1, "A", "")
    assert [json.loads(raw)["line"] for raw in found] == [1, 2, 3, 4, 5]
    for before, raw in itertools.pairwise(found):
        assert json.loads(raw)["previous"] == hashlib.sha256(before).hexdigest()
    assert [content.get("number") for _, content in read(log)] == [None, 0, 1, 2, 3]
    assert verify(log).wrong == 0


def test_nobody_else_may_read_it(log: Path) -> None:
    for file in (log, log.with_suffix(".head")):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700
    log.chmod(0o644)
    append(log, "A", line())
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_epsilon_so_far_is_that_of_the_study(log: Path) -> None:
    for epsilon, study in ((0.5, "a"), (None, "a"), (None, "b"), (0.7, "a"), (None, "a")):
        append(log, "A", line(0, epsilon, study))
    assert [content.get("epsilon") for _, content in read(log)][-5:] == [0.5, 0.5, None, 0.7, 0.7]


def _changed(found: list[bytes]) -> list[bytes]:
    return [*found[:2], found[2].replace(b'"number": 1', b'"number": 7'), *found[3:]]


TAMPERED = {
    "a value changed": (_changed, 4),
    "the last line changed": (lambda f: [*f[:-1], f[-1].replace(b'"number": 3', b'"number": 7')], 5),
    "a line taken out": (lambda f: [*f[:2], *f[3:]], 3),
    "two lines swapped": (lambda f: [*f[:2], f[3], f[2], f[4]], 3),
    "a line twice": (lambda f: [*f[:3], f[2], *f[3:]], 4),
    "a line made up": (lambda f: [*f[:3], b'{"line": 4, "previous": ""}\n', *f[3:]], 4),
    "cut at the end": (lambda f: f[:-1], 4),
    "cut in the middle of the last line": (lambda f: [*f[:-1], f[-1][:20]], 4),
    "cut to nothing": (lambda f: [], 1),
    "the first line gone": (lambda f: f[1:], 1),
    "a line made unreadable": (lambda f: [*f[:2], b"#" * (len(f[2]) - 1) + b"\n", *f[3:]], 4),
    "two logs in one": (lambda f: [*f, *f], 6),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_log_that_was_changed_is_told_with_its_line(log: Path, how: str) -> None:
    change, where = TAMPERED[how]
    log.write_bytes(b"".join(change(lines(log))))
    found = verify(log)
    assert (found.wrong, bool(found.problem)) == (where, True), found


def test_a_log_that_is_gone_is_told_by_its_head(log: Path, tmp_path: Path) -> None:
    log.unlink()
    assert verify(log).wrong == 1
    assert verify(tmp_path / "none.jsonl").wrong == 0


def test_without_its_head_nobody_knows_whether_it_was_cut(log: Path) -> None:
    log.with_suffix(".head").unlink()
    assert "is without egress.head" in verify(log).problem


@pytest.mark.parametrize("how", ["cut at the end", "cut to nothing", "cut in the middle of the last line"])
def test_to_a_log_that_was_cut_nothing_is_added(log: Path, how: str) -> None:
    log.write_bytes(b"".join(TAMPERED[how][0](lines(log))))
    before = log.read_bytes()
    with pytest.raises(ChainError, match="it was cut"):
        append(log, "A", line())
    assert log.read_bytes() == before


def test_to_a_log_that_somebody_added_to_nothing_is_added(log: Path) -> None:
    with log.open("ab") as handle:
        handle.write(b'{"line": 6, "previous": "0"}\n')
    with pytest.raises(ChainError, match="line 6 does not follow"):
        append(log, "A", line())
    assert verify(log).wrong == 6


@pytest.mark.parametrize("kept", [0, 1, 30, -1, None])
def test_a_crash_at_any_byte_of_a_line_leaves_a_chain_that_goes_on(log: Path, kept: int | None) -> None:
    """`kept` bytes of a line are on the disk; the head still says what was before it."""
    head = log.with_suffix(".head").read_bytes()
    append(log, "A", line(9))
    whole, last = lines(log)[:-1], lines(log)[-1]
    log.write_bytes(b"".join(whole) + last[:kept])
    log.with_suffix(".head").write_bytes(head)
    assert verify(log).wrong == 0
    append(log, "A", line(10))
    assert verify(log).wrong == 0
    told = [content.get("note") or content.get("number") for _, content in read(log)][5:]
    complete = kept is None or kept == -1  # all but the end of the line
    assert told == ([9, 10] if complete else [10] if kept == 0 else [UNFINISHED, 10])


def test_a_torn_line_cannot_hide_one_that_was_taken_out(log: Path) -> None:
    """Only a note may follow a torn line, and it holds the hash of what is left of it."""
    with log.open("ab") as handle:
        handle.write(b'{"line": 6, "prev')
    append(log, "A", line(10))
    found = lines(log)
    log.write_bytes(b"".join([*found[:5], b'{"li\n', *found[6:]]))
    assert verify(log).wrong == 7


def test_a_crash_in_the_first_line_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "egress.jsonl"
    file.write_bytes(b'{"line": 1, "tim')
    append(file, "A", line(3))
    assert [content.get("number") for _, content in read(file)] == [None, 3]
    assert verify(file).wrong == 0


def _add(file: str, name: int) -> None:
    for number in range(15):
        append(Path(file), "A", line(100 * name + number))


def test_two_processes_write_one_chain(tmp_path: Path) -> None:
    file, context = tmp_path / "egress.jsonl", multiprocessing.get_context("fork")
    workers = [context.Process(target=_add, args=(str(file), name)) for name in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    numbers = [content["number"] for _, content in read(file) if "number" in content]
    assert sorted(numbers) == [*range(100, 115), *range(200, 215)]
    assert verify(file).wrong == 0


def test_who_holds_the_log_too_long_is_not_waited_for_for_ever(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "LOCK_SECONDS", 0.1)
    handle = os.open(log, os.O_RDWR)
    try:
        chain.fcntl.flock(handle, chain.fcntl.LOCK_EX)
        with pytest.raises(ChainError, match="another process"):
            append(log, "A", line())
    finally:
        os.close(handle)


def test_a_process_that_is_killed_while_it_writes_breaks_no_chain(tmp_path: Path) -> None:
    file = tmp_path / "egress.jsonl"
    program = (
        "import sys; from pathlib import Path; from fedbrats.federation.site.chain import append\n"
        "while True: append(Path(sys.argv[1]), 'A', {'study': 's', 'epsilon': None, 'text': 'x' * 50000}); "
        "print(flush=True)"
    )
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", program, str(file)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(5):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    append(file, "A", line(1))
    assert verify(file).wrong == 0
    assert len(lines(file)) > 10


def _on_a_full_disk(file: str) -> None:
    """The kernel refuses what is written beyond a size of files, as a full disk does."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = Path(file).stat().st_size + 40
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        append(Path(file), "A", line(1))
    except ChainError:
        os._exit(7)
    os._exit(0)


def test_what_cannot_be_written_is_an_error_and_the_chain_goes_on_when_there_is_space(log: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_on_a_full_disk, args=(str(log),))
    process.start()
    process.join(60)
    assert process.exitcode == 7
    assert verify(log).wrong == 0
    append(log, "A", line(5))
    assert verify(log).wrong == 0
    assert [content.get("note") for _, content in read(log)][-2:] == [UNFINISHED, None]


def test_a_number_that_json_does_not_know_is_an_error(log: Path) -> None:
    with pytest.raises(ChainError):
        append(log, "A", line(float("nan")))  # type: ignore[arg-type]
    assert verify(log).wrong == 0
