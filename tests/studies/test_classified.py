"""What a sweep of runs that classify does: its jobs train their own arms, and the comparison says why it has none."""

from __future__ import annotations

from pathlib import Path

from fedbrats.config.schema import Config, save_config
from fedbrats.config.task import TaskConfig
from fedbrats.studies.baselines import find_baselines
from fedbrats.studies.jobs import read_job


def config() -> Config:
    node = {"_target_": "fedbrats.algorithms.fedavg.FedAvg"}
    return Config(loss=node, strategy=node, task=TaskConfig("classification", "/mgmt.csv"))


def test_no_arm_is_shared(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    save_config(config(), tmp_path / "job" / "config.yaml")
    assert find_baselines(tmp_path, config()) is None


def test_a_job_is_not_compared_by_regions(tmp_path: Path) -> None:
    save_config(config(), tmp_path / "config.yaml")
    job = read_job(tmp_path, tmp_path)
    assert job.status == "failed"
    assert "it classifies, and runs are compared by regions; see its institutions.csv" in job.reason
