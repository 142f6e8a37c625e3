"""Figures of the partition: what is drawn is what the files hold."""

from __future__ import annotations

import warnings

import pytest

from fedbrats.report.sections.partition_figures import intensity_figure, partition_figure, partition_frame
from fedbrats.runs.run_folder import RunFolder, read_run
from tests.report.fake_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return read_run(write_run(tmp_path_factory.mktemp("runs") / "run", rounds=1))


def test_partition_counts(run: RunFolder) -> None:
    frame = partition_frame(run).set_index("site")
    assert frame.loc["CBICA", "cases"] == 30
    assert frame.loc["CBICA", ["train", "val", "test"]].tolist() == [18, 4, 8]
    assert frame.index[-1] == "TCIA13"
    figure = partition_figure(run)
    assert sum(patch.get_width() for patch in figure.axes[0].patches) == frame["cases"].sum()
    assert len(intensity_figure(run).axes) == 4


def test_without_volumes_there_is_no_legend_of_them(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """As across hospitals, where they stay at the sites."""
    monkeypatch.delitem(run.partition, "table")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # matplotlib's word for a legend of nothing
        assert partition_figure(run).axes[1].get_legend() is None
