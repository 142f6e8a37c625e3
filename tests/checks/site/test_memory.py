"""The memory of a machine and of a container, by the files that Linux has for it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from fedbrats.checks.site.finding import FIX, OK, WARNING
from fedbrats.checks.site.memory import Memory, check_memory, memory_of

GB = 2**30


def linux(root: Path, groups: str, files: dict[str, object], free: int = 40 * GB) -> Path:
    """Files below `root`: a machine of 64 GB, the groups of this process, and files below sys/fs/cgroup."""
    texts = {f"sys/fs/cgroup/{name}": f"{value}\n" for name, value in files.items()}
    texts |= {"proc/self/cgroup": groups}
    texts |= {
        "proc/meminfo": f"MemTotal: {64 * GB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {free // 1024} kB\n"
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_this_machine() -> None:
    found = memory_of()
    assert 0 < found.free <= found.total <= psutil.virtual_memory().total


def test_without_a_limit(tmp_path: Path) -> None:
    root = linux(tmp_path, "0::/\n", {"memory.max": "max"})
    assert memory_of(root) == Memory(64 * GB, 40 * GB, False)
    (root / "proc/self/cgroup").unlink()
    assert memory_of(root) == Memory(64 * GB, 40 * GB, False)


def test_version_2_inside_a_container(tmp_path: Path) -> None:
    """3 of 8 GB are taken, one of them by files that were read and can go."""
    files = {"memory.max": 8 * GB, "memory.current": 3 * GB, "memory.stat": f"anon 7\ninactive_file {GB}"}
    assert memory_of(linux(tmp_path, "0::/\n", files)) == Memory(8 * GB, 6 * GB, True)


def test_version_2_the_tightest_group_counts(tmp_path: Path) -> None:
    files = {
        "a/memory.max": 4 * GB,
        "a/memory.current": GB,
        "a/b/memory.max": 16 * GB,
        "a/b/memory.current": GB,
    }
    assert memory_of(linux(tmp_path, "0::/a/b\n", files)) == Memory(4 * GB, 3 * GB, True)


def test_version_1(tmp_path: Path) -> None:
    files = {
        "memory/docker/x/memory.limit_in_bytes": 2 * GB,
        "memory/docker/x/memory.usage_in_bytes": GB,
        "memory/memory.limit_in_bytes": 9223372036854771712,  # as version 1 says "none"
    }
    groups = "12:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n"
    assert memory_of(linux(tmp_path, groups, files)) == Memory(2 * GB, GB, True)


def test_version_1_inside_a_container(tmp_path: Path) -> None:
    """The path is that of the host, the own group is mounted as the root."""
    files = {"memory/memory.limit_in_bytes": 3 * GB, "memory/memory.usage_in_bytes": GB}
    assert memory_of(linux(tmp_path, "4:memory:/docker/x\n", files)) == Memory(3 * GB, 2 * GB, True)


@pytest.mark.parametrize(
    ("limit", "verdict", "said"),
    [(GB, FIX, "SITE_MEMORY"), (4 * GB, WARNING, "limit of the container"), (16 * GB, OK, "17.2 GB of")],
)
def test_what_a_container_gives(limit: int, verdict: str, said: str, tmp_path: Path) -> None:
    found = check_memory(linux(tmp_path, "0::/\n", {"memory.max": limit, "memory.current": 0}))
    assert found.verdict == verdict
    assert said in found.said
    assert found.facts["container"] is True


def test_a_machine_that_is_full_and_one_that_does_not_say(tmp_path: Path) -> None:
    assert check_memory(linux(tmp_path, "0::/\n", {}, free=GB)).verdict == FIX
    assert check_memory(tmp_path / "mac").verdict == WARNING
