"""A real federation that classifies: a site whose cases' results may leave, and one that keeps them at home."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbrats.commands.compose import compose_config
from fedbrats.commands.run.run import run
from fedbrats.config.site_file import load_site_file
from fedbrats.data.case_labels import read_labels
from fedbrats.federation import questions
from fedbrats.federation.site.chain import egress_file, read, verify
from fedbrats.files import read_json
from fedbrats.runs.checkpoint import load_checkpoint
from fedbrats.runs.classified import read_institutions
from fedbrats.runs.site_cases import pseudonym
from tests.engines.superlink.deployment import Deployment, deployment, wait

STUDY, TELLS, KEEPS = "mgmt", "TCIA01", "CBICA"
SITES = {TELLS: 8, KEEPS: 12}
ASKED = (
    *("model=efficientnet3d", "model.width=0.25", "model.stages=2", "train=small", "train.patch=[16,16,16]"),
    *(
        "train.local_steps=2",
        "train.batch=2",
        "rounds=2",
        "partition.val=0.25",
        "partition.test=0.5",
        "runtime.keep_checkpoints=2",
        "model.size=small",  # the simulation has files
    ),
)
LEAST = 2

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Served:
    """What the study left, and a simulation of the same."""

    made: Deployment
    simulated: Path

    @property
    def folder(self) -> Path:
        return self.made.study(STUDY)

    def log(self, site: str) -> list[dict[str, Any]]:
        file = egress_file(load_site_file(self.made.site(site)))
        assert verify(file).wrong == 0
        return [line for _, line in read(file)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    policy = {"policy": {"least_cases": LEAST, "per_case": False, "approval": False}}
    with deployment(tmp_path_factory.mktemp("labels"), SITES, {KEEPS: policy}, labels=True) as made:
        made.start_server()
        for number, name in enumerate(SITES):
            made.start_site(name, number)
        made.begin_study(STUDY, *ASKED)
        wait(lambda: made.finished(STUDY), 240, made.logs)
    root = made.folder / "all"
    own = ["data=brats", f"data.root={root}", f"data.cache={made.folder / 'cache'}"]
    more = [
        f"task.labels={root / 'labels.csv'}",
        "arms=[federated]",
        "runtime.workers=0",
        "report.html=false",
    ]
    return Served(made, run(compose_config([*ASKED, *own, *more]), made.folder / "simulated"))


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_model_is_that_of_the_simulation_bit_for_bit(served: Served) -> None:
    found, expected = (load_checkpoint(f / "checkpoints") for f in (served.folder, served.simulated))
    assert found is not None
    assert expected is not None
    assert found.round == expected.round == 2
    for name, tensor in expected.models["federated"].arrays.items():
        np.testing.assert_array_equal(found.models["federated"].arrays[name], tensor, err_msg=name)


def test_every_round_has_the_brier_scores_of_the_simulation(served: Served) -> None:
    keys = ("arm", "site", "phase", "round", "status", "cases", "loss", "brier")
    found, expected = (
        [{k: row[k] for k in keys} for row in rows(f / "rounds.csv")]
        for f in (served.folder, served.simulated)
    )
    assert found == expected
    assert {row["phase"] for row in found if row["brier"]} == {"val", "test", "round"}


def test_where_results_of_single_cases_may_leave_they_are_those_of_the_simulation(served: Served) -> None:
    (site,) = [s for s in read_json(served.simulated / "partition.json")["sites"] if s["name"] == TELLS]
    names = {case: pseudonym(TELLS, i) for i, case in enumerate(site["test"])}
    expected = [
        {**row, "case": names[row["case"]]}
        for row in rows(served.simulated / "cases.csv")
        if row["site"] == TELLS
    ]
    assert len(expected) == 4
    assert rows(served.folder / "cases.csv") == expected


def test_institutions_are_those_of_the_simulation_and_no_auc_is_put_together(served: Served) -> None:
    found, expected = (read_institutions(f).set_index("site") for f in (served.folder, served.simulated))
    assert list(found.index) == ["all", KEEPS, TELLS]
    assert found.loc[TELLS].equals(expected.loc[TELLS])
    exact = (
        "n",
        "positives",
        "failed",
        "auc",
        "accuracy",
        "sensitivity",
        "specificity",
        "brier",
        "calibration_error",
    )
    for name in (*exact, "p_chance"):
        assert found.loc[KEEPS, name] == expected.loc[KEEPS, name], name
    assert found.loc[KEEPS, "kept"] == "single cases, intervals stay at the site"
    for name in ("n", "positives", "accuracy", "sensitivity", "specificity", "brier"):
        assert found.loc["all", name] == pytest.approx(expected.loc["all", name]), name
    assert math.isnan(found.loc["all", "auc"])
    assert not math.isnan(expected.loc["all", "auc"])
    said = read_json(served.folder / "summary.json")["classification"]["federated"]["verdict"]
    assert said.startswith("No AUC of all test cases")
    assert f"single cases stay at {KEEPS}" in said
    assert said in (served.folder / "report.html").read_text()
    assert set(read_json(served.folder / "withheld.json")) == {KEEPS}


def test_what_a_site_told_stands_in_its_log_and_nothing_of_a_case_does(served: Served) -> None:
    told = {
        name: [line for line in served.log(name) if line.get("question") == questions.TEST] for name in SITES
    }
    (line,) = told[KEEPS]
    (table,) = [table for table in line["tables"] if table["name"] == "rows"]
    found = {row["metric"]: (row["value"], row["cases"]) for row in table["rows"]}
    institution = read_institutions(served.folder).set_index("site").loc[KEEPS]
    assert found["auc"] == (institution["auc"], 6)
    assert found["sensitivity"] == (institution["sensitivity"], institution["positives"])
    assert line["decision"] == "changed"
    assert "#0" not in json.dumps(line)
    validated = [
        n for e in served.log(KEEPS) for n in e.get("numbers", []) if n["name"].endswith("brier-label")
    ]
    assert len(validated) == 3  # two rounds and the test
    (other,) = told[TELLS]
    assert sum("#0" in str(row) for table in other["tables"] for row in table["rows"]) == 4
    page = served.made.fedbrats("site", "log", str(served.made.site(KEEPS)), "--summary")
    assert "| the test at the end | auc | 1 |" in page


def test_the_server_has_neither_a_table_of_labels_nor_a_name_of_a_case(served: Served) -> None:
    names = [name.encode() for name in read_labels(served.made.folder / "all" / "labels.csv")]
    assert len(names) == sum(SITES.values())
    files = [file for file in (served.made.folder / "server").rglob("*") if file.is_file()]
    assert any(file.name == "report.html" for file in files)
    for file in files:
        content = file.read_bytes()
        assert not [name for name in (*names, b"labels.csv") if name in content], file
