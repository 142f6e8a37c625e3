"""Entries of the cache: no damage, race, killed build or stale memo yields a wrong one."""

import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from fedbrats.data import entries
from fedbrats.data.cache import prepare_case
from fedbrats.data.cases import Case
from fedbrats.data.entries import CacheError
from fedbrats.data.family_table import BRATS_2017
from tests.data.small_case import make_arrays, write_case


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return write_case(tmp_path / "data", "A", make_arrays())


def test_memo_saves_hashing_until_the_file_changes(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    sha256 = entries._sha256
    monkeypatch.setattr(entries, "_sha256", lambda path: hashed.append(path.name) or sha256(path))
    cache = tmp_path / "cache"
    prepare_case(case, BRATS_2017, cache)
    assert not list((cache / "hashes").iterdir())  # just written, so a later change might not show
    monkeypatch.setattr(entries, "YOUNG_NS", 0)
    folder = prepare_case(case, BRATS_2017, cache).folder
    hashed.clear()
    assert prepare_case(case, BRATS_2017, cache).folder == folder
    assert set(hashed) == {"image.npy", "label.npy", "tumour.npy"}
    path = case.images["t1"].path
    before = path.stat()
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size and mtime: as rsync -t leaves it
    hashed.clear()
    with pytest.raises(ValueError, match=r"A_t1\.nii\.gz"):
        prepare_case(case, BRATS_2017, cache)
    assert "A_t1.nii.gz" in hashed


def test_damaged_memo_is_ignored(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "YOUNG_NS", 0)
    folder = prepare_case(case, BRATS_2017, tmp_path / "cache").folder
    for memo in (tmp_path / "cache" / "hashes").iterdir():
        memo.write_text(memo.read_text()[:-5])
    assert prepare_case(case, BRATS_2017, tmp_path / "cache").folder == folder


def flip_byte(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x40
    path.write_bytes(data)


DAMAGES = {
    "image truncated": lambda folder: os.truncate(folder / "image.npy", 500),
    "image with a tail": lambda folder: os.truncate(folder / "image.npy", 5000),
    "image empty": lambda folder: os.truncate(folder / "image.npy", 0),
    "image with a flipped byte": lambda folder: flip_byte(folder / "image.npy", -100),
    "label with a flipped byte": lambda folder: flip_byte(folder / "label.npy", -1),
    "header with a flipped byte": lambda folder: flip_byte(folder / "tumour.npy", 3),
    "label missing": lambda folder: (folder / "label.npy").unlink(),
    "meta missing": lambda folder: (folder / "meta.json").unlink(),
    "meta unparsable": lambda folder: os.truncate(folder / "meta.json", 40),
    "meta not a mapping": lambda folder: (folder / "meta.json").write_text("[]"),
    "meta altered": lambda folder: (folder / "meta.json").write_text(
        (folder / "meta.json").read_text().replace('"WT": 0.081', '"WT": 0.091')
    ),
    "empty folder": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entry_is_built_again(case: Case, tmp_path: Path, damage: str) -> None:
    cached = prepare_case(case, BRATS_2017, tmp_path / "cache")
    files = {path.name: path.read_bytes() for path in cached.folder.iterdir()}
    DAMAGES[damage](cached.folder)
    assert files != {path.name: path.read_bytes() for path in cached.folder.iterdir()}
    again = prepare_case(case, BRATS_2017, tmp_path / "cache")
    assert again == cached
    assert files == {path.name: path.read_bytes() for path in again.folder.iterdir()}
    assert not list((tmp_path / "cache" / "building").iterdir())


@pytest.mark.parametrize(
    "damage", ["image truncated", "image with a tail", "image empty", "meta altered", "meta missing"]
)
def test_damage_under_a_running_job_is_noticed_on_opening(case: Case, tmp_path: Path, damage: str) -> None:
    cached = prepare_case(case, BRATS_2017, tmp_path / "cache")
    DAMAGES[damage](cached.folder)
    with pytest.raises(CacheError, match="damaged cache entry"):
        _ = (cached.image, cached.meta)


def prepare_at_once(case: Case, cache: Path, barrier, results) -> None:
    barrier.wait()
    results.put(prepare_case(case, BRATS_2017, cache))


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [False, True])
def test_processes_that_build_the_same_case_agree(case: Case, tmp_path: Path, damaged: bool) -> None:
    cache = tmp_path / "cache"
    if damaged:
        DAMAGES["image truncated"](prepare_case(case, BRATS_2017, cache).folder)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [
        context.Process(target=prepare_at_once, args=(case, cache, barrier, results)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    found = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(found) == 1
    assert entries.is_intact(found.pop().folder)
    assert len(list((cache / "cases").iterdir())) == 1
    assert not list((cache / "building").iterdir())


def test_second_build_of_an_entry_is_discarded(case: Case, tmp_path: Path) -> None:
    cached = prepare_case(case, BRATS_2017, tmp_path / "cache")
    before = {path.name: path.stat().st_ino for path in cached.folder.iterdir()}
    entries.write_entry(cached.folder, {"image.npy": np.zeros(3)}, {}, tmp_path / "cache")
    assert before == {path.name: path.stat().st_ino for path in cached.folder.iterdir()}
    assert not list((tmp_path / "cache" / "building").iterdir())


def build_and_hang(case: Case, cache: Path, started) -> None:
    """Write the first array of the entry, tell the parent, and wait to be killed."""
    save = np.save

    def save_then_hang(*args, **kwargs) -> None:
        save(*args, **kwargs)
        started.set()
        time.sleep(600)

    np.save = save_then_hang
    prepare_case(case, BRATS_2017, cache)


def test_killed_build_leaves_no_entry_and_is_cleaned_when_old(case: Case, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    process = context.Process(target=build_and_hang, args=(case, cache, started))
    process.start()
    assert started.wait(60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not list((cache / "cases").iterdir())
    (left,) = (cache / "building").iterdir()
    assert (left / "image.npy").exists()

    cached = prepare_case(case, BRATS_2017, cache)
    assert entries.is_intact(cached.folder)
    assert left.exists()  # young: it could belong to a process at work
    os.utime(left, (0, 0))
    shutil.rmtree(cached.folder)
    prepare_case(case, BRATS_2017, cache)
    assert not left.exists()
