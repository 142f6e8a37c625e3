"""Post-processing in the report: means after each step, changes, fitted values."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from fedbrats.report.html import write_report
from fedbrats.report.sections.postprocess_tables import parameter_rows, postprocess_context, step_table
from fedbrats.runs.case_tables import STEPS
from fedbrats.runs.reading import RunFolderError
from tests.report.fake_extras import write_postprocess
from tests.report.fake_run import write_run

ROWS = [
    ("federated", "A", "a1", "ET", 0, "raw", 0.0, 374.0, 0),
    ("federated", "A", "a1", "ET", 1, "ET minimum 1 mL", 1.0, 0.0, 7),
    ("federated", "B", "b1", "ET", 0, "raw", 0.6, 8.0, 0),
    ("federated", "B", "b1", "ET", 1, "ET minimum 1 mL", 0.5, 9.0, 1),
    ("federated", "B", "b2", "ET", 0, "raw", 0.9, 2.0, 0),
    ("federated", "B", "b2", "ET", 1, "ET minimum 1 mL", 0.9, 2.0, 0),
    ("local:B", "A", "a1", "ET", 0, "raw", 0.2, 20.0, 0),
    ("local:B", "A", "a1", "ET", 1, "ET minimum 2 mL", 0.2, 20.0, 0),
    ("local:C", "A", "a1", "ET", 0, "raw", 0.4, 10.0, 0),
    ("local:C", "A", "a1", "ET", 1, "ET minimum 3 mL", 0.0, 374.0, 9),
    ("local:B", "B", "b1", "ET", 0, "raw", 0.5, 5.0, 0),
    ("local:B", "B", "b1", "ET", 1, "ET minimum 2 mL", 0.49996, 5.0, 3),
]


def write_rows(folder: Path) -> Path:
    STEPS.write(folder, [dict(zip(STEPS.columns, row, strict=True)) for row in ROWS])
    return folder


def test_means_changes_and_changed_cases(tmp_path: Path) -> None:
    table = step_table(write_rows(tmp_path)).set_index(["arm", "order"])
    assert list(dict.fromkeys(table.index.get_level_values("arm"))) == [
        "federated",
        "local",
        "local_elsewhere",
    ]
    raw, after = table.loc[("federated", 0)], table.loc[("federated", 1)]
    assert (raw["n"], raw["dice"], raw["hd95"]) == (3, pytest.approx(0.5), pytest.approx(128.0))
    assert pd.isna(raw["dice_change"])
    assert (after["dice"], after["dice_change"]) == (pytest.approx(0.8), pytest.approx(0.3))
    assert after["hd95_change"] == pytest.approx((0 + 9 + 2) / 3 - 128)
    assert after["changed"] == 2
    elsewhere = table.loc[("local_elsewhere", 1)]  # one case, two models: 0.3 becomes 0.1
    assert (elsewhere["n"], elsewhere["changed"]) == (1, 1)
    assert elsewhere["dice_change"] == pytest.approx(-0.2)
    assert table.loc[("local", 1)]["dice"] == 0.49996


def test_printed_cells(tmp_path: Path) -> None:
    found = postprocess_context(write_rows(tmp_path))
    assert found is not None
    row = found["rows"][0]
    assert [(cell.text, cell.small) for cell in row["scores"][0]] == [("0.500", ""), ("0.800", "+0.300")]
    assert [(cell.text, cell.small) for cell in row["scores"][1]] == [("128.0", ""), ("3.7", "-124.3")]
    assert row["changed"] == ["2"]
    assert found["steps"] == ["ET minimum 1 mL"]  # of a folder without postprocess.json
    assert found["rows"][1]["scores"][0][1].small == "+0.000"  # never "-0.000"


def test_no_post_processing_no_section(tmp_path: Path) -> None:
    assert postprocess_context(tmp_path) is None
    (tmp_path / "postprocess.json").write_text(json.dumps({"federated": []}))
    assert postprocess_context(tmp_path) is None
    page = write_report(write_run(tmp_path / "run", ["A"], [8], (), ("federated",), 1)).read_text()
    assert 'id="postprocess"' not in page
    assert 'id="uncertainty"' not in page


def test_fitted_values_by_arm_and_site() -> None:
    def step(ml: float, sites: dict) -> list:
        found = {site: {"ml": value} for site, value in sites.items()}
        return [
            {"step": "MinimumVolume", "name": f"ET minimum {ml} mL", "parameters": {"ml": ml}, "sites": found}
        ]

    rows = parameter_rows(
        {"local:B": step(3, {"B": 3}), "federated": step(2, {"A": 1, "B": 3}), "local:A": step(1, {"A": 1})}
    )
    assert [(row["title"], row["step"], row["used"], row["sites"]) for row in rows] == [
        ("Federated", "1. minimum volume", "2", "A 1; B 3"),
        ("Local models", "1. minimum volume", "its own", "B 3; A 1"),
    ]
    assert parameter_rows({"federated": [{"step": "LargestComponent", "name": "x", "parameters": {}}]}) == []


def test_names_of_steps(tmp_path: Path) -> None:
    def arms(*names: str) -> None:
        content = {f"arm{i}": [{"step": "MinimumVolume", "name": name}] for i, name in enumerate(names)}
        (tmp_path / "postprocess.json").write_text(json.dumps(content))

    for names, expected in (
        (("ET minimum 0.6 mL", "ET minimum 0.6 mL"), "ET minimum 0.6 mL"),
        (("ET minimum 0.6 mL", "ET minimum 1.2e-05 mL"), "ET minimum … mL (values by arm below)"),
    ):
        arms(*names)
        found = postprocess_context(tmp_path)
        assert found is not None
        assert found["steps"] == [expected]


@pytest.mark.slow
def test_section_of_a_whole_run(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", rounds=2)
    write_postprocess(folder)
    page = write_report(folder).read_text()
    section = page[page.index('id="postprocess"') : page.index('id="partition"')]
    assert not re.search(r"\bnan\b|\bNone\b", section)
    for part in (
        "ET minimum … mL (values by arm below)",
        "WT largest component",
        "Fitted values",
        "its own",
        "Step 2",
    ):
        assert part in section
    assert section.count('class="dot ') == 4 + 3  # arms, then fitted values with the local models as one


def test_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "steps.csv").write_text("arm,site\n")
    with pytest.raises(RunFolderError, match=r"steps\.csv: columns missing: case"):
        step_table(tmp_path)
