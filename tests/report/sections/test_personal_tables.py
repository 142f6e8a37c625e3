"""Global against personal model: paired by case, with an interval, and who loses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedbrats.metrics.interval import mean_interval
from fedbrats.report.cells import Cell
from fedbrats.report.html import head
from fedbrats.report.results import Results
from fedbrats.report.sections.personal_tables import (
    arrays_sentence,
    gain_figure,
    gain_rows,
    gain_table,
    paired_gains,
    personal_context,
    verdicts,
)
from fedbrats.runs.case_tables import cases_table
from fedbrats.runs.personal_files import read_personalization
from fedbrats.runs.run_folder import RunFolder, read_run
from tests.scored import CASE_COLUMNS, SCORES

# Of 40 cases the interval allows for 9 % that were not seen and lose all.
WIN, LOSE = (0.22, 0.23, 0.24, 0.25, 0.26) * 8, (-0.22, -0.23, -0.24, -0.25, -0.26) * 8
MIXED = (-0.04, 0.05, 0.01, -0.02, 0.01) * 8


def run_of(
    folder: Path, gains: dict[str, tuple[float, ...]], unscored: str = "", config: dict | None = None
) -> RunFolder:
    """A run with a WT score of 0.5 for every federated case, and personal ones with the given gains."""
    rest = {
        name: 1.0 for name in CASE_COLUMNS if name not in ("arm", "site", "case", "region", "dice", "status")
    }
    rows = []
    for site, values in gains.items():
        for number, gain in enumerate(values):
            case = f"{site}{number}"
            for arm, dice in (("federated", 0.5), ("personal", 0.5 + gain)):
                failed = "failed: x" if arm == "personal" and case == unscored else "ok"
                head = {
                    "arm": arm,
                    "site": site,
                    "case": case,
                    "region": "WT",
                    "dice": dice,
                    "status": failed,
                }
                rows.append({**rest, **head})
    folder.mkdir(exist_ok=True)
    cases_table(SCORES).write(folder, rows)
    (folder / "config.yaml").write_text(yaml.safe_dump(config or {"metrics": {"convention": "captk"}}))
    return read_run(folder)


def test_pairs_are_of_the_same_case_and_failures_count(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"A": WIN[:5], "B": LOSE[:5]}, unscored="B1")
    lonely = (run.cases["arm"] == "federated") & (run.cases["case"] == "A0")
    pairs = paired_gains(replace(run, cases=run.cases[~lonely]))
    assert sorted(pairs["case"]) == ["A1", "A2", "A3", "A4", "B0", "B1", "B2", "B3", "B4"]
    by_case = pairs.set_index("case")
    assert by_case.loc["A3", ["before", "after", "gain"]].tolist() == pytest.approx([0.5, 0.75, 0.25])
    assert by_case.loc["B1", ["before", "after", "gain"]].tolist() == pytest.approx(
        [0.5, 0.0, -0.5]
    )  # worst Dice


def test_who_gains_and_who_loses(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"Loser": LOSE, "Mixed": MIXED, "Winner": WIN, "Few": WIN[:5]})
    table = gain_table(run)
    assert list(dict.fromkeys(table["site"])) == ["all", "Few", "Loser", "Mixed", "Winner"]
    by_site = table[table["region"] == "WT"].set_index("site")
    assert by_site["verdict"].to_dict() == {
        **{"all": "even", "Few": "few", "Loser": "loss"},
        **{"Mixed": "even", "Winner": "gain"},
    }
    assert by_site.loc["Winner", ["n", "before", "after", "gain"]].tolist() == pytest.approx(
        [40, 0.5, 0.74, 0.24]
    )
    assert by_site.loc["all", "n"] == 125
    every = np.array([*LOSE, *MIXED, *WIN, *WIN[:5]])
    sites = ["Loser"] * 40 + ["Mixed"] * 40 + ["Winner"] * 40 + ["Few"] * 5
    assert by_site.loc["all", "gain"] == pytest.approx(every.mean())
    assert by_site.loc["all", ["low", "high"]].tolist() == pytest.approx(mean_interval(every, (-1, 1), sites))
    (said,) = verdicts(table)
    assert said.startswith("Whole tumour, gaining: Winner (+0.240, +0.1")
    assert "losing: Loser (-0.240, -0.3" in said
    assert said.endswith("no clear difference: Mixed; fewer than 6 cases: Few.")


def test_nobody(tmp_path: Path) -> None:
    table = gain_table(run_of(tmp_path, {"A": MIXED}))
    assert verdicts(table) == ["Whole tumour, gaining: nobody; losing: nobody; no clear difference: A."]


def test_an_interval_that_touches_zero_is_no_gain(tmp_path: Path) -> None:
    table = gain_table(run_of(tmp_path, {"A": (0.0,) * 6}))
    assert set(table["verdict"]) == {"even"}


def test_rows_and_figure(tmp_path: Path) -> None:
    table = gain_table(run_of(tmp_path, {"A": WIN, "B": (0.05,)}))
    whole, first, single = gain_rows(table)
    assert (whole["site"], whole["n"]) == ("all", 41)
    assert (first["before"], first["after"]) == (["0.500"], ["0.740"])
    assert first["gain"][0].text == "+0.240"
    assert first["gain"][0].mark == "gain"
    assert first["gain"][0].small.startswith("+0.1")
    assert single["gain"] == [Cell("+0.050", "", "few")]
    axis = gain_figure(table).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "All that trained, n = 41",
        "A, n = 40",
        "B, n = 1",
    ]
    assert axis.lines[-1].get_xdata().tolist() == pytest.approx([sum([*WIN, 0.05]) / 41, 0.24, 0.05])


def write_known(folder: Path, **changes: object) -> None:
    known = {
        "name": "bn_local",
        "stays": ["a", "b"],
        "travels": ["c"],
        "unseen": "instance",
        "state": "Home.",
    }
    (folder / "personalization.json").write_text(json.dumps(known | changes))


def test_what_stays_and_travels() -> None:
    assert arrays_sentence(["a"], "stay") == "1 array stays: a."
    assert arrays_sentence(["a", "b", "c"], "travel") == "3 arrays travel: a, b, c."
    assert arrays_sentence(list("abcde"), "stay") == "5 arrays stay: a, b, c and 2 more."
    assert arrays_sentence([], "stay") == "0 arrays stay."


def test_context(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"A": WIN})
    run.cases.loc[len(run.cases)] = run.cases.iloc[-1].to_dict() | {"case": "alone", "arm": "personal"}
    blocks = [
        {"site": "A", "unseen": False, "rows": [{"arm": "federated", "n": 5}]},
        {"site": "Z", "unseen": True, "rows": [{"arm": "federated", "n": 3}, {"arm": "personal", "n": 0}]},
    ]
    found = personal_context(run, None, blocks)
    assert (found["known"], found["alone"]) == (None, 1)
    assert ("Personalised", "not recorded") in head(Results(run))["facts"]
    write_known(tmp_path)
    found = personal_context(run, read_personalization(tmp_path), blocks)
    assert found["unseen"] == [{"arm": "federated", "n": 3, "site": "Z"}]
    assert found["served"] == "the normalisation statistics of each scan itself"
    assert (found["stays"], found["travels"]) == ("2 arrays stay: a, b.", "1 array travels: c.")


def test_none_without_personal_models(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"A": WIN})
    run = replace(run, cases=run.cases[run.cases["arm"] != "personal"])
    assert not Results(run).personalised
    run.config["personalization"] = {}
    assert not Results(run).personalised
    run.config["personalization"] = {"_target_": "x.BnLocal"}
    assert Results(run).personalised
    found = personal_context(run, None, [])
    assert (found["rows"], found["verdicts"], found["figures"], found["alone"]) == ([], [], {}, 0)
