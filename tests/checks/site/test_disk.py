"""Where a site writes: real disks that are full, read-only or in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.checks.site.disk import check_room, check_shared_memory, check_writable, mount_of
from fedbrats.checks.site.finding import FIX, OK, WARNING
from tests.checks.site.mounts import remount, tmpfs

MB = 2**20


def test_a_folder_that_can_be_written_stays_as_it_was(tmp_path: Path) -> None:
    assert check_writable("storage", tmp_path / "yet" / "to be made").verdict == OK
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "Planted").write_text("")
    found = check_writable("data.cache", tmp_path / "Planted")
    assert found.verdict == FIX
    assert "cannot be written: Not a directory" in found.said
    assert "set data.cache" in found.said
    assert "Planted" not in str(found.to_json())


def test_a_read_only_and_a_full_disk(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=1m") as disk:
        found = check_writable("storage", disk)
        assert found.verdict == OK
        assert found.here.endswith(f"on {disk}")
        assert mount_of(disk) == disk
        (disk / "much").write_bytes(bytes(MB))
        found = check_writable("storage", disk)
        assert (found.verdict, "No space left on device" in found.said) == (FIX, True)
        (disk / "much").unlink()
        remount(disk, "ro")
        found = check_writable("storage", disk)
        assert (found.verdict, "Read-only file system" in found.said) == (FIX, True)


def test_room_on_one_disk_and_on_two(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=16m") as disk:
        # 10 cases of 1 MB: with 4 MB that stay free they fit into 16, with 10 MB they do not.
        assert check_room(disk, disk / "cache", 10, MB, 4e-3).verdict == OK
        full = check_room(disk, disk / "cache", 10, MB, 1e-2)
        assert full.verdict == FIX
        assert full.facts["cache needs GB"] == 0.01
        assert check_room(tmp_path, disk / "cache", 10, MB, 1e-2).verdict == OK  # those stay free elsewhere
        assert check_room(disk, tmp_path / "cache", 10, MB, 1e-2).verdict == OK
        storage = check_room(disk, tmp_path / "cache", 10, MB, 1)
        assert (storage.verdict, "disk of storage" in storage.said) == (FIX, True)


def test_what_is_in_the_cache_needs_no_room(tmp_path: Path) -> None:
    huge, cache = 1e15, tmp_path / "cache"
    assert check_room(tmp_path, cache, 2, huge, 0.0).verdict == FIX
    for key in ("aa", "bb"):
        (cache / "cases" / key).mkdir(parents=True)
    assert check_room(tmp_path, cache, 2, huge, 0.0).verdict == OK
    assert check_room(tmp_path, cache, 3, huge, 0.0).verdict == FIX


@pytest.mark.parametrize(("size", "verdict"), [("1m", FIX), ("64m", WARNING), ("2g", OK)])
def test_shared_memory(size: str, verdict: str, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "shm", f"size={size}") as disk:
        assert check_shared_memory(disk).verdict == verdict


def test_no_shared_memory(tmp_path: Path) -> None:
    assert check_shared_memory(tmp_path / "none").verdict == FIX
