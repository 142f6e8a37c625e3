"""Curves of epsilon, norms against the bound, noise against the update: what is drawn."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fedbrats.report.html import head
from fedbrats.report.results import Results
from fedbrats.report.sections.privacy_figures import (
    central_figure,
    epsilon_figure,
    norm_figure,
    privacy_context,
)
from fedbrats.runs.privacy_files import read_central_rounds, read_privacy, read_rounds, read_steps
from fedbrats.runs.run_folder import read_run
from tests.report.fake_extras import site_budget, write_central, write_privacy
from tests.report.fake_run import write_run


def lines_of(axis: object) -> dict[str, list]:
    return {line.get_label(): list(line.get_ydata()) for line in axis.lines}  # type: ignore[attr-defined]


def test_epsilon_over_rounds(tmp_path: Path) -> None:
    sites = {
        "S10": site_budget(30, 4.0, budget=5.0),
        "S2": site_budget(12, 6.0, stopped="budget", budget=5.0),
    }
    privacy = read_privacy(write_privacy(tmp_path, sites, rounds=4))
    assert privacy is not None
    axis = epsilon_figure(read_rounds(tmp_path), privacy).axes[0]
    lines = lines_of(axis)
    assert [name for name in lines if not name.startswith("_")] == ["S2", "S10", "Budget"]
    assert lines["S10"] == pytest.approx([4.4 * (n / 4) ** 0.5 for n in (1, 2, 3, 4)])
    assert lines["Budget"] == [5.0, 5.0]
    crosses = [
        (list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines if line.get_marker() == "x"
    ]
    assert crosses == [([4], [pytest.approx(6.6)]), ([], [])]  # S2 stopped after its last round, S10 did not
    assert axis.get_yscale() == "linear"
    write_privacy(tmp_path, {"A": site_budget(30, 4.0), "B": site_budget(1, 400.0)}, rounds=4)
    assert epsilon_figure(read_rounds(tmp_path), privacy).axes[0].get_yscale() == "log"


def test_norms_against_the_bound(tmp_path: Path) -> None:
    write_privacy(tmp_path, {f"S{n}": site_budget(12, 4.0) for n in range(1, 6)}, rounds=2)
    steps = read_steps(tmp_path)
    figure = norm_figure(steps)
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title("left") for axis in shown] == ["S1", "S2", "S3", "S4", "S5"]
    assert len(figure.axes) == 8  # two rows of four
    lines = lines_of(shown[2])
    three = steps[steps["site"] == "S3"]
    assert lines["Largest"] == pytest.approx(three["norm_max"].tolist(), nan_ok=True)
    assert lines["Median"] == pytest.approx(three["norm_median"].tolist(), nan_ok=True)
    assert lines["Bound C"] == [0.5] * 20


def test_noise_against_the_update(tmp_path: Path) -> None:
    privacy = read_privacy(write_central(tmp_path, rounds=3))
    assert privacy is not None
    assert privacy.central is not None
    left, right = central_figure(read_central_rounds(tmp_path), privacy.central).axes
    assert list(left.lines[0].get_ydata()) == pytest.approx([6.0, 6 * 2**0.5, 6 * 3**0.5])
    lines = lines_of(right)
    assert lines["Noise"] == [300.0] * 3
    assert lines["Mean of clipped updates"] == pytest.approx([0.6, 0.3, 0.2])
    assert lines["Bound C"] == [0.8, 0.8]


def test_an_infinite_epsilon_is_left_out_and_said(tmp_path: Path) -> None:
    folder = write_run(tmp_path, ["A", "B"], [4, 4], unseen=(), rounds=1, arms=("federated",))
    sites = {"A": site_budget(3, 4.0), "B": site_budget(3, math.inf, epsilon_rdp=math.inf)}
    write_privacy(folder, sites, rounds=2)
    results = Results(read_run(folder))
    assert results.privacy is not None
    found = privacy_context(results.run, results.privacy)
    assert found["missing"] == ["Not in the curve, as epsilon is infinite: B."]
    assert set(found["figures"]) == {"epsilon", "norms"}
    assert ("Privacy", "one patient, largest epsilon infinite") in head(results)["facts"]
    privacy = read_privacy(write_privacy(folder, {"B": sites["B"]}, rounds=2))
    assert privacy is not None
    assert set(privacy_context(results.run, privacy)["figures"]) == {"norms"}
