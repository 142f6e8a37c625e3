"""The notebook of sims/ runs on the tables of a comparison."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fedbrats.studies.compare import write_comparison
from tests.report.fake_run import write_run
from tests.tiny import ROOT


@pytest.mark.slow
def test_every_cell_runs_and_two_figures_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for mu in (0.0, 0.01):
        small = {"sites": ["A", "B"], "sizes": [12, 12], "unseen": ["Z"], "rounds": 2}
        write_run(tmp_path / f"mu={mu}", arms=("federated", "pooled"), mu=mu, **small)
    write_comparison(tmp_path)
    monkeypatch.setenv("SWEEP", str(tmp_path))
    cells = json.loads((ROOT / "sims" / "sweep.ipynb").read_text())["cells"]
    names: dict[str, object] = {}
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
            assert cell["outputs"] == []
    assert isinstance(names["heat"], Figure)
    assert isinstance(names["bars"], Figure)
    assert len(names["bars"].axes[0].patches) == 3 * 3  # three regions of three methods
    assert "Pooled" in set(names["methods"]["method"])  # type: ignore[index]
