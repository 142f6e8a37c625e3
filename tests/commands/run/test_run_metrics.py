"""One more metric, everywhere: scored at the sites, sent, checked, written, summed up, reported and compared."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from fedbrats.commands.predict.arguments import read_arguments
from fedbrats.commands.predict.predict_cases import predict_cases
from fedbrats.commands.run.run import run
from fedbrats.config.targets import ConfigError
from fedbrats.metrics.table import Masks, Metric
from fedbrats.report.html import write_report
from fedbrats.studies.compare import write_comparison
from fedbrats.studies.job_table import compare
from tests.tiny import tiny

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]  # whole runs

HERE = "tests.commands.run.test_run_metrics"
MORE = f"metrics.more=[{{_target_:{HERE}.volume_error}}]"


def volume_error() -> Metric:
    """In mL; a case without a prediction is off by 500."""

    def of(masks: Masks) -> float:
        voxels = int(masks.prediction.sum()) - int(masks.reference.sum())
        return float(abs(voxels) * np.prod(masks.spacing) / 1000)

    return Metric("volume_error", "Volume error", of, "mL", 2, True, 500.0)


@pytest.fixture(scope="module")
def folder(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in worker processes, so that the metric goes through the configuration file to each site."""
    more = (MORE, "rounds=1", "runtime.workers=1", "arms=[federated,pooled]", "report.html=true")
    return run(tiny(cache, *more), tmp_path_factory.mktemp("metrics") / "job")


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_it_is_scored_for_every_case_and_region(folder: Path) -> None:
    rows = rows_of(folder / "cases.csv")
    assert len(rows) == 2 * 3 * 4 + 4  # arms, regions, test cases; and WT of each by a threshold on FLAIR
    for row in rows:
        volumes = float(row["volume_true_ml"]), float(row["volume_pred_ml"])
        assert float(row["volume_error"]) == pytest.approx(abs(volumes[0] - volumes[1]))


def test_it_is_summed_up_and_the_others_are_as_without_it(folder: Path, cache: Path, tmp_path: Path) -> None:
    arms = json.loads((folder / "summary.json").read_text())["arms"]
    part = arms["federated"]["all"]["WT"]["volume_error"]
    found = [
        float(r["volume_error"])
        for r in rows_of(folder / "cases.csv")
        if (r["arm"], r["region"]) == ("federated", "WT")
    ]
    assert (part["n"], part["mean"]) == (len(found), pytest.approx(np.mean(found)))
    sites = {site: v["WT"]["volume_error"]["mean"] for site, v in arms["federated"]["sites"].items()}
    assert part["worst_site"] == max(sites, key=lambda site: sites[site])  # of an error the largest is worst
    plain = run(tiny(cache, "rounds=1", "arms=[federated,pooled]"), tmp_path / "plain")
    without = json.loads((plain / "summary.json").read_text())["arms"]
    for regions in (arms[arm]["all"] for arm in ("federated", "pooled", "floor")):
        for scores in regions.values():
            del scores["volume_error"]
    assert {arm: v["all"] for arm, v in arms.items()} == {arm: v["all"] for arm, v in without.items()}


def test_it_is_reported_with_its_title_and_unit_without_being_imported(folder: Path, tmp_path: Path) -> None:
    known = json.loads((folder / "environment.json").read_text())["metrics"]
    assert list(known) == ["volume_error"]
    elsewhere = Path(shutil.copytree(folder, tmp_path / "job"))
    config = (elsewhere / "config.yaml").read_text()
    assert f"{HERE}.volume_error" in config
    (elsewhere / "config.yaml").write_text(config.replace(HERE, "nobody.has.this"))
    mean = json.loads((folder / "summary.json").read_text())["arms"]["pooled"]["all"]["ET"]["volume_error"][
        "mean"
    ]
    page = write_report(elsewhere).read_text()
    assert "Volume error (mL)" in page
    assert f"<td>{mean:.2f}</td>" in page


def test_it_is_compared(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())["arms"]["pooled"]["all"]["TC"]["volume_error"]
    table = compare(folder.parent)
    row = table[(table["arm"] == "pooled") & (table["site"] == "all") & (table["region"] == "TC")].iloc[0]
    assert row["volume_error_mean"] == summary["mean"]
    assert summary["ci_high"] is None  # too few cases for an interval
    assert math.isnan(row["volume_error_ci_high"])
    *_, page = write_comparison(folder.parent)
    assert "Volume error (mL)" in page.read_text()
    assert f"{summary['mean']:.2f}" in page.read_text()


def test_a_failed_case_takes_its_worst_value(folder: Path, tmp_path: Path) -> None:
    from fedbrats.report.tables import statistics
    from fedbrats.runs.run_folder import read_run

    elsewhere = Path(shutil.copytree(folder, tmp_path / "job"))
    rows = rows_of(elsewhere / "cases.csv")
    for row in rows:
        if row["arm"] == "pooled":
            row["status"] = "failed: out of memory"
    with (elsewhere / "cases.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (elsewhere / "summary.json").unlink()
    table = statistics(read_run(elsewhere)).set_index(["arm", "site", "region", "metric"])
    assert table.loc[("pooled", "all", "WT", "volume_error"), "mean"] == 500.0


def test_predictions_are_scored_by_it_once_its_package_is_trusted(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    (phantom,) = [place for place in (cache / "phantom").iterdir() if (place / "phantom.json").exists()][:1]
    case = next(place for place in phantom.rglob("BraTS19_TCIA13_*") if place.is_dir())
    data = shutil.copytree(case, tmp_path / "data" / case.name).parent
    arguments = [f"checkpoint={folder}", f"data={data}", f"output={tmp_path / 'out'}"]
    with pytest.raises(ConfigError, match="trust=<package>"):
        predict_cases(read_arguments(arguments), say=print)
    predict_cases(read_arguments([*arguments, "trust=tests"]), say=print)
    for row in rows_of(tmp_path / "out" / "scores.csv"):
        volumes = float(row["volume_true_ml"]), float(row["volume_pred_ml"])
        assert float(row["volume_error"]) == pytest.approx(abs(volumes[0] - volumes[1]))


def test_a_metric_that_cannot_be_built_stops_the_run_before_any_work(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"metrics\.more\[0\]\._target_=nobody\.has\.this: cannot be imported"
    ):
        run(tiny(cache, "metrics.more=[{_target_:nobody.has.this}]"), tmp_path / "never")
    assert not (tmp_path / "never").exists()
