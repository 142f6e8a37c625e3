"""The comparison of the jobs of a sweep."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from fedbrats.commands.compare import main
from fedbrats.metrics.interval import MIN_CASES
from fedbrats.runs.reading import RunFolderError
from fedbrats.runs.run_folder import read_run
from fedbrats.studies.compare import write_comparison
from fedbrats.studies.gain import gain_over
from fedbrats.studies.job_table import compare, job_table
from fedbrats.studies.jobs import find_jobs, read_job
from tests.report.fake_extras import add_personal, site_budget, write_privacy
from tests.report.fake_run import write_run


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mu 0 and 0.01 with seeds 1 and 2; job 4 never began, job 5 failed, job 6 was killed."""
    folder = tmp_path_factory.mktemp("multirun") / "2025-03-04" / "11-00-00"
    for number, (mu, seed) in enumerate(((0.0, 1), (0.0, 2), (0.01, 1), (0.01, 2))):
        job = write_run(folder / str(number), seed=seed, mu=mu, rounds=2)
        hydra(job)
    (folder / "4").mkdir()
    hydra(folder / "4", (folder / "3" / "config.yaml").read_text().replace("seed: 2", "seed: 3"))
    for number in (5, 6):
        job = write_run(folder / str(number), seed=number, mu=0.5, rounds=2)
        (job / "cases.csv").unlink()
        (job / "summary.json").unlink()
    (folder / "5" / "summary.json").write_text(
        json.dumps({"status": "failed: CUDA out of memory:\nlower train.batch"})
    )
    (folder / "multirun.yaml").write_text("hydra: {}\n")
    return folder


def hydra(job: Path, config: str = "seed: 99\n") -> None:
    (job / ".hydra").mkdir()
    (job / ".hydra" / "config.yaml").write_text(config)


@pytest.fixture(scope="module")
def table(sweep: Path) -> pd.DataFrame:
    return compare(sweep)


@pytest.mark.slow
def test_every_job_is_found_once_and_in_order(sweep: Path) -> None:
    assert [path.name for path in find_jobs(sweep)] == ["0", "1", "2", "3", "4", "5", "6"]
    assert [path.name for path in find_jobs(sweep.parent.parent)] == ["0", "1", "2", "3", "4", "5", "6"]


def test_only_settings_that_differ_are_columns(table: pd.DataFrame) -> None:
    assert list(table.columns[:6]) == ["job", "strategy.mu", "seed", "arm", "site", "unseen"]


def test_numbers_are_those_of_the_job(sweep: Path, table: pd.DataFrame) -> None:
    summary = read_run(sweep / "2").summary["arms"]["federated"]["sites"]["TCIA01"]["ET"]
    row = table[(table["job"] == "2") & (table["arm"] == "federated") & (table["site"] == "TCIA01")]
    row = row[row["region"] == "ET"].iloc[0]
    assert (row["strategy.mu"], row["seed"]) == ("0.01", "1")
    assert row["dice_mean"] == summary["dice"]["mean"]
    assert summary["hd95"]["n"] < MIN_CASES
    assert pd.isna(row["hd95_ci_high"])
    whole = table[(table["job"] == "2") & (table["arm"] == "federated") & (table["site"] == "all")]
    stored = read_run(sweep / "2").summary["arms"]["federated"]["all"]["ET"]["hd95"]
    assert whole.loc[whole["region"] == "ET", "hd95_ci_high"].item() == stored["ci_high"]
    assert row["convention"] == "brats2023"


def test_failed_jobs_are_listed_with_their_reason(table: pd.DataFrame) -> None:
    failed = table[table["status"] == "failed"].set_index("job")
    assert list(failed.index) == ["4", "5", "6"]
    assert "config.yaml is missing" in failed.loc["4", "reason"]
    assert (failed.loc["4", "strategy.mu"], failed.loc["4", "seed"]) == ("0.01", "3")
    assert failed.loc["5", "reason"] == "failed: CUDA out of memory: lower train.batch"
    assert failed.loc["6", "reason"] == "The run did not finish: last recorded round 2 of 2."


def test_seeds_are_aggregated_and_nothing_else(table: pd.DataFrame) -> None:
    over = table[table["job"].str.startswith("over seeds")]
    assert set(over["job"]) == {"over seeds (2)"}
    assert set(over["strategy.mu"]) == {"0.0", "0.01"}
    assert set(over["seed"]) == {"all"}

    def pick(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[(frame["arm"] == "pooled") & (frame["site"] == "all") & (frame["region"] == "TC")]

    one, two = pick(table[table["job"].isin(["0", "1"])])["dice_mean"]
    row = pick(over[over["strategy.mu"] == "0.0"]).iloc[0]
    assert row["dice_mean"] == pytest.approx((one + two) / 2)
    assert row["dice_sd_seeds"] == pytest.approx(abs(one - two) / 2**0.5)  # sample standard deviation of two
    assert pd.isna(row["dice_ci_low"])


def test_one_job_alone_has_no_seed_rows(tmp_path: Path) -> None:
    write_run(tmp_path / "only", rounds=1, arms=("federated",))
    table = compare(tmp_path)
    assert set(table["job"]) == {"only"}
    assert table.columns[1] == "arm"  # nothing differs


@pytest.mark.slow
def test_files(sweep: Path) -> None:
    csv, page = write_comparison(sweep)
    again = pd.read_csv(csv, dtype={"job": str}, keep_default_na=False)
    assert len(again) == len(compare(sweep))
    text = page.read_text()
    assert "Comparison of 7 jobs" in text
    assert "CUDA out of memory" in text
    assert ">nan<" not in text.lower()
    assert 'src="data:image/svg' in text  # whatever it shows is in it
    assert text.count('src="') == text.count('src="data:')
    assert "Epsilon" not in text
    assert not (sweep / "gain.csv").exists()
    assert again["epsilon"].unique().tolist() == [""]


@pytest.mark.usefixtures("undrawn")
def test_command(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sweep)]) == 0
    assert capsys.readouterr().out.split() == [str(sweep / "compare.csv"), str(sweep / "compare.html")]
    assert main([str(tmp_path)]) == 2
    assert "no run folder (config.yaml) in it or below" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_page_on_networks_has_no_column_of_what_comes_with_each(tmp_path: Path) -> None:
    for name, batch in (("spin", 2), ("unce", 4)):
        small = {"sites": ["A", "B"], "sizes": [12, 12], "unseen": ["Z"], "rounds": 1}
        job = write_run(tmp_path / name, arms=("federated",), **small)
        config = yaml.safe_load((job / "config.yaml").read_text())
        config["model"]["_target_"], config["train"]["batch"] = f"x.{name}", batch
        (job / "config.yaml").write_text(yaml.safe_dump(config))
    csv, page = write_comparison(tmp_path)
    assert {"model._target_", "train.batch"} <= set(pd.read_csv(csv).columns)
    text = page.read_text()
    assert "With each network comes its own train.batch;" in text
    assert ", model = unce<" in text
    assert ">train.batch<" not in text


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain, private with two sites, personalised, and private without its privacy.json."""
    folder = tmp_path_factory.mktemp("private")
    dp, bn = {"_target_": "x.DpSgd", "target_epsilon": 8.0}, {"_target_": "x.BnLocal"}
    groups = ({"privacy": {}}, {"privacy": dp}, {"personalization": bn}, {"privacy": dp})
    for number, group in enumerate(groups):
        small = {"sites": ["A", "B"], "sizes": [12, 12], "unseen": ["Z"], "rounds": 1}
        job = write_run(folder / str(number), arms=("federated", "pooled"), **small)
        config = yaml.safe_load((job / "config.yaml").read_text())
        (job / "config.yaml").write_text(yaml.safe_dump({**config, **group}))
    write_privacy(folder / "1", {"A": site_budget(9, 7.5), "B": site_budget(9, 7.9)}, insecure_seed=4)
    add_personal(folder / "2", {"A": 0.02, "B": 0.02})
    return folder


def test_epsilon_is_that_of_the_federation(private: Path) -> None:
    table = compare(private)
    assert list(table.columns[:4]) == ["job", "privacy._target_", "personalization._target_", "arm"]
    largest = table[table["status"] == "finished"].groupby(["job", "arm"])["epsilon"].agg(["min", "max"])
    assert largest.loc[("1", "federated")].tolist() == [7.9, 7.9]
    assert largest.drop(index=("1", "federated")).to_numpy().tolist() == [[math.inf, math.inf]] * 6
    failed = table[table["status"] == "failed"].iloc[0]
    assert failed["job"] == "3"
    assert "no epsilon can be stated" in failed["reason"]


def test_over_seeds_epsilon_is_the_largest(private: Path) -> None:
    one = read_job(private / "1", private)
    two = replace(one, name="two", settings={**one.settings, "seed": 77}, epsilon=9.5)
    table = job_table([one, two])
    over = table[table["job"] == "over seeds (2)"].groupby("arm")["epsilon"].unique()
    assert over["federated"].tolist() == [9.5]
    assert over["pooled"].tolist() == [math.inf]


def test_cases_of_a_job_are_those_of_institutions_that_train(private: Path) -> None:
    assert set(read_job(private / "0", private).cases["site"]) == {"A", "B"}


@pytest.mark.usefixtures("undrawn")
def test_gain_and_curve_are_written(private: Path) -> None:
    paths = write_comparison(private)
    assert [path.name for path in paths] == ["compare.csv", "gain.csv", "compare.html"]
    gain = pd.read_csv(private / "gain.csv")
    assert gain["method"].tolist() == ["BnLocal"] * 3
    assert gain["over"].unique().tolist() == ["FedProx"]
    assert gain["gain"].tolist() == pytest.approx([0.02] * 3, abs=0.007)  # one case failed in both
    assert gain["cases"].tolist() == [6] * 3  # of the institutions that train, not of Z
    text = paths[-1].read_text()
    for part in (
        "Dice over epsilon",
        "Gain over plain averaging",
        "Insecure seed</b> in 1:",
        "<td>7.90</td>",
    ):
        assert part in text
    assert text.count('over epsilon">') == 1
    assert not list(private.glob("*.tmp"))
    assert "inf" in set(pd.read_csv(private / "compare.csv", dtype=str)["epsilon"])


def test_gain_over_reads_a_sweep(private: Path) -> None:
    assert gain_over(private)["seeds"].tolist() == [1] * 3
    assert not len(gain_over(private, over="FedAvg"))


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no such folder"):
        compare(tmp_path / "nowhere")


def test_a_sweep_in_which_all_failed(tmp_path: Path) -> None:
    job = write_run(tmp_path / "0", rounds=1)
    (job / "summary.json").write_text("{broken")
    csv, page = write_comparison(tmp_path)
    assert "not readable as JSON" in csv.read_text()
    assert "No job finished" in page.read_text()
