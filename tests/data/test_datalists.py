"""Datalists as NVFLARE's example of BraTS 2018 has them: one per site, with the same validation cases in each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedbrats.config.schema import PartitionConfig
from fedbrats.config.targets import ConfigError
from fedbrats.data.cases import Case
from fedbrats.data.listed import read_table
from fedbrats.data.partition import make_partition


def entry(name: str) -> dict[str, object]:
    folder = f"training/LGG/{name}/{name}"
    return {"image": [f"{folder}_t1ce.nii.gz"], "label": f"{folder}_seg.nii.gz"}


def lists(folder: Path) -> Path:
    sites = {"site-1": ["Brats18_A_1_1", "Brats18_A_2_1"], "site-2": ["Brats18_B_1_1", "Brats18_B_2_1"]}
    shared = [entry("Brats18_V_1_1"), entry("Brats18_V_2_1")]
    for site, names in sites.items():
        content = {"training": [entry(n) for n in names], "validation": shared, "testing": []}
        (folder / f"{site}.json").write_text(json.dumps(content))
    everybody = [entry(n) for names in sites.values() for n in names]
    (folder / "site-All.json").write_text(json.dumps({"training": everybody, "validation": shared}))
    return folder


def test_the_sites_are_called_after_their_lists_and_shared_cases_belong_to_none(tmp_path: Path) -> None:
    found = read_table(lists(tmp_path))
    assert found == {
        "Brats18_A_1_1": "site-1",
        "Brats18_A_2_1": "site-1",
        "Brats18_B_1_1": "site-2",
        "Brats18_B_2_1": "site-2",
        "Brats18_V_1_1": "validation",
        "Brats18_V_2_1": "validation",
    }
    cases = [Case(name, {}, None, "brats2017-2021") for name in found]
    cfg = PartitionConfig(table=str(tmp_path), holdout=["validation"], val=0.0, test=0.0)
    sites = {site.name: site for site in make_partition(cases, cfg)}
    assert (len(sites["site-1"].train), len(sites["site-2"].train)) == (2, 2)
    assert sites["validation"].test == ("Brats18_V_1_1", "Brats18_V_2_1")


def test_a_folder_without_lists_and_a_file_that_is_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a folder without datalists"):
        read_table(tmp_path)
    (tmp_path / "site-1.json").write_text('{"training": [{"picture": "a"}]}')
    with pytest.raises(ConfigError, match=r"site-1\.json: no datalist"):
        read_table(tmp_path)
    (tmp_path / "site-1.json").write_text("[[[")
    with pytest.raises(ConfigError, match=r"site-1\.json: no datalist"):
        read_table(tmp_path)
