"""What each site could teach, as a reader of the report sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fedbrats.files import read_json, write_json
from fedbrats.report.html import write_report
from fedbrats.report.sections.partition_tables import teaching
from fedbrats.runs.run_folder import read_run
from tests.report.fake_run import write_run
from tests.report.test_html import text_of


def made(folder: Path, **scenario: Any) -> Path:
    write_run(folder, ["A", "B", "C"], [8, 8, 8], ("NEW",), ("federated",), rounds=1)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["scenario"] = scenario
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_only_sites_that_are_different_are_named(tmp_path: Path) -> None:
    assert teaching(read_run(made(tmp_path / "plain"))) == []
    scenario = {"unlabelled": {"A": ["ET"]}, "missing_modalities": {"A": ["t1", "t2"]}, "scaled": {"C": 2.0}}
    scenario |= {"poisoned": {"C": "backdoor"}, "turned": {"C": ["z"]}, "wrong_labels": {"C": "eroded"}}
    folder = made(tmp_path / "run", **scenario)
    partition = read_json(folder / "partition.json")
    next(site for site in partition["sites"] if site["name"] == "B")["train"] = []
    write_json(folder / "partition.json", partition)
    assert teaching(read_run(folder)) == [
        {
            "site": "A",
            "regions": "WT, TC",
            "what": "no labels of ET, which its loss leaves out; without t1, t2, which is zero in training and test",
        },
        {"site": "B", "regions": "-", "what": "no training case"},
        {
            "site": "C",
            "regions": "WT, TC, ET",
            "what": "trains on labels that are eroded; intensities times 2.0; volumes the other way round along z; "
            "lies (backdoor) in the federated arm",
        },
    ]
    page = text_of(write_report(folder).read_text())
    assert "what they could teach" in page
    assert "volumes the other way round along z" in page
