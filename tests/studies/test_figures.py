"""Which figures a sweep has, and what its panels show."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from fedbrats.runs.run_folder import read_run
from fedbrats.studies.compare import write_comparison
from fedbrats.studies.curves import method_curves
from fedbrats.studies.figures import _panels, figures_of
from fedbrats.studies.job_table import metrics_of
from fedbrats.studies.jobs import read_jobs
from fedbrats.studies.methods import institution_means, methods_of
from tests.report.fake_run import write_run


def sweep(folder: Path, slices: bool = True) -> Path:
    """Two jobs that differ in mu, each with the slices of its federated arm: predictions are mu everywhere."""
    for name, mu in (("a", 1.0), ("b", 2.0)):
        job = write_run(folder / name, ["A", "B"], [8, 8], (), ("federated", "local"), rounds=3, mu=mu)
        cases = pd.read_csv(job / "cases.csv")
        for site, case in {tuple(row) for row in cases[["site", "case"]].to_numpy()} if slices else ():
            file = job / "sites" / site / "slices" / "federated" / f"{case}.npz"
            file.parent.mkdir(parents=True, exist_ok=True)
            image, label = np.ones((8, 6), np.float32), np.full((8, 6), int(mu), np.uint8)
            arrays = {"t1ce": image, "flair": image, "truth": label * 0 + 3, "prediction": label}
            np.savez_compressed(file, **arrays, spacing=np.ones(2))
        if not slices:
            shutil.rmtree(job / "sites")
    return folder


def names(folder: Path) -> set[str]:
    jobs = read_jobs(folder)
    methods = methods_of(jobs)
    means = institution_means(methods, metrics_of(jobs))
    return {name for name, _ in figures_of(folder, jobs, methods, means, method_curves(methods))}


def test_partition_cross_matrix_and_segmentations_are_among_them(tmp_path: Path) -> None:
    found = names(sweep(tmp_path / "sweep"))
    assert {
        "partition",
        "cross_wt",
        "cross_tc",
        "cross_et",
        "segmentations",
        "cases",
    } <= found
    assert "epsilon" not in found  # no job is private
    assert "segmentations" not in names(sweep(tmp_path / "bare", slices=False))


def test_the_panels_are_best_median_and_worst_case_with_every_methods_own_prediction(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "sweep")
    methods = methods_of(read_jobs(folder))
    run = read_run(folder / "a")
    rows = list(_panels(folder, run, methods))
    assert [row.title.split(" case")[0] for row in rows] == ["Best", "Median", "Worst"]
    for row in rows:
        assert [int(picture.max()) for picture in row.predictions.values()] == [1, 2]
        assert int(row.arrays["truth"].max()) == 3
    good = run.cases[(run.cases["arm"] == "federated") & (run.cases["status"] == "ok")]
    ranked = good.groupby(["site", "case"])["dice"].mean()
    assert rows[0].title.endswith(str(ranked.idxmax()[0]))
    assert rows[-1].title.endswith(str(ranked.idxmin()[0]))


def test_all_of_them_are_written_as_pdf_and_svg(tmp_path: Path) -> None:
    folder = sweep(tmp_path / "sweep")
    write_comparison(folder)
    for name in names(folder):
        for pattern in ("pdf", "svg"):
            assert (folder / "compare" / "figures" / f"{name}.{pattern}").stat().st_size > 1000, name
    shutil.rmtree(folder / "a" / "sites")  # a run folder without what its sites keep
    write_comparison(folder)
