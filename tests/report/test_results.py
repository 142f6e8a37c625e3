"""What the sections share: worked out once, with one numbering of footnotes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedbrats.report import results as results_module
from fedbrats.report.results import Results
from fedbrats.report.sections import institutions, personal, result
from fedbrats.report.tables import institution_table
from fedbrats.runs.run_folder import read_run
from tests.report.fake_extras import add_personal
from tests.report.fake_run import UNSEEN, write_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "run", ["A", "B"], [8, 4], rounds=1)
    return add_personal(run, {"A": 0.05})


def test_the_table_is_worked_out_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(run):
        calls.append(run)
        return institution_table(run)

    monkeypatch.setattr(results_module, "institution_table", counted)
    results = Results(read_run(folder))
    for module in (result, institutions, personal):
        assert module.section(results) is not None
    assert len(calls) == 1


def test_footnotes_are_numbered_through_all_tables(folder: Path) -> None:
    results = Results(read_run(folder))
    rows = [*results.overall, *(row for block in results.institutions for row in block["rows"])]
    seen = [
        mark
        for row in rows
        for mark in (row["mark"], *(c.mark for part in (*row["scores"], [row["percent"]]) for c in part))
    ]
    numbers = [str(number) for number in range(1, len(results.footnotes) + 1)]
    assert list(dict.fromkeys(filter(None, seen))) == numbers  # in the order in which a reader meets them
    assert len(set(results.footnotes)) == len(results.footnotes) > 1
    assert [(block["site"], block["unseen"]) for block in results.institutions] == [
        ("A", False),
        ("B", False),
        (UNSEEN, True),
    ]
