"""Published numbers beside those of a run."""

from __future__ import annotations

from pathlib import Path

from fedbrats.report.html import write_report
from fedbrats.report.results import Results
from fedbrats.report.sections.published import section
from fedbrats.runs.run_folder import read_run
from tests.report.fake_extras import write_published
from tests.report.fake_run import write_run
from tests.report.test_html import text_of


def test_theirs_with_their_source_and_ours_of_every_arm(tmp_path: Path) -> None:
    folder = write_published(
        write_run(tmp_path / "run", ["A", "B"], [8, 8], (), ("federated", "pooled"), rounds=1)
    )
    results = Results(read_run(folder))
    found = section(results)
    assert found is not None
    theirs, central, *ours = found.context["rows"]
    assert (theirs["cells"], theirs["mean"]) == (["0.900", "0.800", "0.700"], "0.800")
    assert (central["cells"], central["mean"], central["note"]) == (["-"] * 3, "0.850", "one seed")
    assert [row["what"] for row in ours] == ["federated", "pooled"]
    table = results.table.set_index(["site", "arm", "region"])["dice"]
    assert ours[0]["cells"] == [f"{table['all', 'federated', region]:.3f}" for region in ("WT", "TC", "ET")]
    page = text_of(write_report(folder).read_text())
    assert "Beside what was published" in page
    assert "somebody, Table 1" in page
