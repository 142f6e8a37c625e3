"""How a job that classifies is read, and that it shares no arm."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fedbrats.config.schema import Config, save_config
from fedbrats.config.task import TaskConfig
from fedbrats.runs.classified import INSTITUTIONS
from fedbrats.studies.baselines import find_baselines
from fedbrats.studies.jobs import read_job
from fedbrats.tasks.classification import CLASSIFICATION
from tests.studies.classified.made import write_job


def test_no_arm_is_shared(tmp_path: Path) -> None:
    node = {"_target_": "fedbrats.algorithms.fedavg.FedAvg"}
    config = Config(loss=node, strategy=node, task=TaskConfig("classification", "/mgmt.csv"))
    (tmp_path / "job").mkdir()
    save_config(config, tmp_path / "job" / "config.yaml")
    assert find_baselines(tmp_path, config) is None


def test_a_job_has_its_institutions_and_its_cases_at_home(tmp_path: Path) -> None:
    folder = write_job(tmp_path / "job", "FedAvg", 1, 0.5)
    job = read_job(folder, tmp_path)
    assert (job.status, job.task, job.convention) == ("finished", CLASSIFICATION, "")
    assert set(job.scores["arm"]) == {"federated", "pooled", "local"}
    assert job.scores.loc[job.scores["arm"] == "local", "site"].unique().tolist() == ["CBICA"]
    assert set(job.table.loc[job.table["unseen"], "site"]) == {"TCIA02"}
    (folder / INSTITUTIONS.name).unlink()  # what it holds can be worked out again
    again = read_job(folder, tmp_path)
    pd.testing.assert_frame_equal(again.table, job.table, check_dtype=False)
