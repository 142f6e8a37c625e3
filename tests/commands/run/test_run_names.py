"""A run of institutions with odd names, from a table, ends with its report, its figures and its tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.commands.run.run import run
from fedbrats.data.phantom import write_phantom
from fedbrats.runs.run_folder import read_run
from tests.tiny import tiny

ODD = {"A": "x$_$y", "B": "=1+[red]<b>"}


@pytest.mark.slow
def test_odd_names_end_a_run_with_its_figures(tmp_path: Path) -> None:
    write_phantom(tmp_path / "data", sites={"A": 3, "B": 3}, shape=(32, 32, 24))
    lines = [f"BraTS19_{site}_{number}_1,{name}\n" for site, name in ODD.items() for number in (1, 2, 3)]
    (tmp_path / "t.csv").write_text("".join(["case,site\n", *lines]))
    own = ("data=brats", f"data.root={tmp_path / 'data'}", f"partition.table={tmp_path / 't.csv'}")
    own += ("partition.holdout=[]", "rounds=1", "report.html=true", "arms=[federated]")
    folder = run(tiny(tmp_path / "cache", *own), tmp_path / "run")
    page = (folder / "report.html").read_text()
    assert page.count("<img") > 3
    assert "x$_$y" in page
    assert "=1+[red]&lt;b&gt;" in page
    assert "[red]<b>" not in page
    assert "6 scans of 6 patients, rule BraTS 2017-2019" in page
    assert {*read_run(folder).cases["site"]} == {*ODD.values()}
    assert "'=1+[red]<b>" in (folder / "cases.csv").read_text()
