"""A site's own list of cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.data.cache import CachedCase
from fedbrats.data.partition import Site
from fedbrats.runs.site_cases import pseudonym, read_site_cases, site_folder, write_site_cases

PATIENTS = {"c1": "Ann", "c2": "Bob", "c3": "Ann", "c4": "Cid"}


def cached(folder: Path) -> dict[str, CachedCase]:
    return {name: CachedCase(name, folder / f"key-{name}") for name in ("c1", "c2", "c3", "c4")}


def test_lists_come_back_in_order(tmp_path: Path) -> None:
    site = Site("TMC", False, ("c3", "c1"), ("c4",), ("c2",))
    write_site_cases(tmp_path, site, cached(tmp_path), PATIENTS)
    found = read_site_cases(tmp_path, "TMC")
    assert [c.name for c in found.train] == ["c3", "c1"]
    assert [[c.name for c in of_one] for of_one in found.by_patient("train")] == [["c3", "c1"]]
    assert [c.name for c in found.val] == ["c4"]
    assert found.test == (CachedCase("c2", tmp_path / "key-c2"),)
    assert [f.name for f in site_folder(tmp_path, "TMC").iterdir()] == ["cases.json"]


def test_a_relative_cache_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_site_cases(tmp_path, Site("A", False, ("c1",), (), ()), cached(Path("cache")), PATIENTS)
    monkeypatch.chdir("/")
    assert read_site_cases(tmp_path, "A").train[0].folder == tmp_path / "cache" / "key-c1"


def test_a_site_without_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no case list of site 'NOWHERE'"):
        read_site_cases(tmp_path, "NOWHERE")


def test_pseudonyms_are_unique_within_a_site_and_hold_no_case_name() -> None:
    names = [pseudonym("TMC", i) for i in range(20_000)]
    assert len(set(names)) == 20_000
    assert names[0] == "TMC#0000"
