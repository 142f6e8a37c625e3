"""The comparison of a folder of classifications: its tables against what was written, its page, its refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from fedbrats.commands.compare import main
from fedbrats.metrics.classification import chance_of_mean
from fedbrats.runs.classified import read_institutions
from fedbrats.studies.compare import write_comparison
from tests.studies.classified.made import counted, write_job

STRATEGIES = {"FedAvg": 0.6, "FedProx": 0.3}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two strategies with two seeds each, and a job that was broken off."""
    folder = tmp_path_factory.mktemp("labels")
    for name, strength in STRATEGIES.items():
        for seed in (1, 2):
            write_job(folder / f"{name}{seed}", name, seed, strength)
    broken = write_job(folder / "broken", "FedAvg", 3, 0.5)
    (broken / "summary.json").unlink()
    write_comparison(folder)
    return folder


def read(sweep: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(sweep / "compare" / f"{name}.csv")


def cases(sweep: Path, name: str, arm: str = "federated") -> list[pd.DataFrame]:
    found = [pd.read_csv(sweep / f"{name}{seed}" / "cases.csv") for seed in (1, 2)]
    return [frame[frame["arm"] == arm] for frame in found]


def auc_of(frame: pd.DataFrame) -> float:
    return counted(frame["score"].tolist(), frame["label"].tolist())


def test_methods_have_means_over_seeds_of_what_pairs_count_to(sweep: Path) -> None:
    table = read(sweep, "methods").set_index(["method", "metric"])
    assert list(dict.fromkeys(table.index.get_level_values(0))) == [
        "FedAvg",
        "FedProx",
        "Pooled",
        "Local, own",
    ]
    for name in STRATEGIES:
        jobs = cases(sweep, name)
        row = table.loc[(name, "auc")]
        assert row["mean"] == pytest.approx(np.mean([auc_of(job) for job in jobs]))
        assert row["sd_seeds"] == pytest.approx(np.std([auc_of(job) for job in jobs], ddof=1))
        by_site = pd.concat([job.groupby("site").apply(auc_of) for job in jobs], axis=1).mean(axis=1)
        assert (row["worst_site"], row["worst_mean"]) == (by_site.idxmin(), pytest.approx(by_site.min()))
        assert row["gap"] == pytest.approx(by_site.max() - by_site.min())
        called = [(job["score"] >= 0.5) == (job["label"] == 1) for job in jobs]
        assert table.loc[(name, "accuracy"), "mean"] == pytest.approx(np.mean(called))
        positive = [job[job["label"] == 1] for job in jobs]
        assert table.loc[(name, "sensitivity"), "mean"] == pytest.approx(
            np.mean([(part["score"] >= 0.5).mean() for part in positive])
        )
        scores = np.stack([job["score"].to_numpy() for job in jobs])
        assert row["p_chance"] == chance_of_mean(scores, jobs[0]["label"].to_numpy())
        assert pd.isna(table.loc[(name, "brier"), "p_chance"])
    brier = table.loc[("FedProx", "brier")]  # is worse where it is higher
    worst = pd.concat([(j["score"] - j["label"]) ** 2 for j in cases(sweep, "FedProx")])
    assert brier["mean"] == pytest.approx(worst.mean())
    sites = read(sweep, "institutions").set_index(["method", "site"])
    assert brier["worst_site"] == sites.loc["FedProx", "brier"].idxmax()
    assert sites.loc[("FedProx", "TCIA02"), "unseen"]
    assert sites.loc[("FedProx", "CBICA"), ["n", "positives"]].tolist() == [8, 4]
    assert ("Local, own", "TCIA02") not in sites.index


def test_every_job_is_in_the_flat_table_with_the_numbers_of_its_own_report(sweep: Path) -> None:
    table = pd.read_csv(sweep / "compare.csv")
    row = table[(table["job"] == "FedProx2") & (table["arm"] == "federated") & (table["site"] == "all")].iloc[
        0
    ]
    own = read_institutions(sweep / "FedProx2").set_index(["arm", "site"]).loc[("federated", "all")]
    assert row[["auc_mean", "auc_ci_low", "auc_ci_high", "p_chance", "positives"]].tolist() == pytest.approx(
        own[["auc", "auc_low", "auc_high", "p_chance", "positives"]].tolist()
    )
    assert table.loc[table["status"] == "failed", "job"].tolist() == ["broken"]
    assert {"region", "percent_of_pooled", "convention"}.isdisjoint(table)
    seeds = table[table["job"].str.startswith("over seeds")]
    assert len(seeds) == len(table[table["job"].isin(["FedAvg1", "FedProx1"])])


def test_tests_and_curves(sweep: Path) -> None:
    found = read(sweep, "tests").set_index(["method", "over"])
    differ = [auc_of(job) for name in STRATEGIES for job in cases(sweep, name)]
    assert found.loc[("FedProx", "FedAvg"), "difference"] == pytest.approx(
        np.mean(differ[2:]) - np.mean(differ[:2])
    )
    assert found.loc[("Local, own", "FedAvg"), ["cases", "institutions"]].tolist() == [8, 1]
    assert len(read(sweep, "ranking")) == 0
    curves = read(sweep, "curves")
    part = curves[(curves["method"] == "FedAvg") & (curves["round"] == 3)].iloc[0]
    assert part[["mean", "mb", "in_a_row"]].tolist() == pytest.approx([0.15, 6.0, 15])


def test_page_and_files_say_all_of_it(sweep: Path) -> None:
    page = (sweep / "compare.html").read_text()
    found = read(sweep, "tests")
    for text in found["sentence"]:
        assert text.replace("<", "&lt;") in page
    assert "None: an AUC is of a set of cases" in page
    assert "Local, own: only the 8 cases that FedAvg has been tested on, too" in page
    assert "Dice" not in page
    figures = {file.stem for file in (sweep / "compare" / "figures").glob("*.svg")}
    assert figures >= {"auc", "roc", "calibration", "institutions_auc", "curves_round", "curves_mb"}
    text = (sweep / "compare" / "methods.md").read_text().splitlines()
    assert text[0].startswith(
        "| Method | Seeds | n | AUC | Accuracy | Sensitivity | Specificity | Brier score |"
    )
    assert "| Worst AUC | Gap AUC | p of chance |" in text[0]
    assert "toprule" in (sweep / "compare" / "methods.tex").read_text()


def test_another_reference(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep), "--over", "Krum"]) == 2
    assert (
        "no method is called 'Krum'; there are: FedAvg; FedProx; Pooled; Local, own"
        in capsys.readouterr().err
    )


def test_jobs_of_two_tasks_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_job(tmp_path / "one", "FedAvg", 1, 0.5)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "config.yaml").write_text(
        yaml.safe_dump({"task": {"name": "segmentation"}, "seed": 1})
    )
    assert main([str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert (
        "jobs of different tasks (task.name) cannot be compared: classification: one; segmentation: two"
        in said
    )
    assert not (tmp_path / "compare.csv").exists()
