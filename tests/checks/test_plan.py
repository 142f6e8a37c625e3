"""What `run` and `check_data` refuse alike, from names alone, before a volume is read."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedbrats.algorithms.fedavg import FedAvg
from fedbrats.checks import plan, settings
from fedbrats.checks.config import checked
from fedbrats.commands.check_data import main
from fedbrats.commands.run.run import run
from fedbrats.config.schema import Config, save_config
from fedbrats.config.targets import ConfigError
from fedbrats.data import prepare
from fedbrats.data.cache import CachedCase
from fedbrats.data.cases import Case
from fedbrats.data.partition import Site
from fedbrats.data.patients import find_patients
from fedbrats.federation import initial
from fedbrats.files import write_json
from fedbrats.postprocess.et_suppression import EtSuppression
from fedbrats.privacy.dp_sgd import DpSgd
from fedbrats.runs.site_cases import write_site_cases
from tests.data.brats_files import write_case
from tests.tiny import tiny

DP = ("privacy=dp_sgd", "model.norm=group", "arms=[federated]", "report.select=last")
NAMES = [f"BraTS19_{site}_{i}_1" for site in ("CBICA", "TMC") for i in range(4)]

UNKNOWN = {"unknown": "A"}
REFUSED: dict[str, tuple[list[str], dict[str, Any], str]] = {  # names, options, message
    "a stranger held out": (NAMES, {"holdout": ["TMX"]}, r"holdout names \['TMX'\].*'CBICA', 'TMC'"),
    "everyone held out": (NAMES, {"holdout": ["TMC", "CBICA"]}, "leave one to train"),
    "a stranger's steps": (NAMES, {"site_steps": {"TMX": 1}}, r"site_steps names \['TMX'\]"),
    "steps of one held out": (NAMES, {"holdout": ["TMC"], "site_steps": {"TMC": 1}}, r"names \['TMC'\]"),
    "a stranger's epochs": (NAMES, {"site_epochs": {"TMX": 1.5}}, r"site_epochs names \['TMX'\]"),
    "a reserved name": ([*NAMES, "BraTS19_pooled_1_1"], {}, "institution 'pooled'"),
    "a slash": (NAMES, {"unknown": "a/b"}, ""),  # nobody goes there
    "a slash in use": ([*NAMES, "A1"], {"unknown": "a/b"}, "institution 'a/b'"),
    "no institution": ([*NAMES, "A1"], {}, "1 cases have no institution"),
    "more sites than patients": (NAMES, {"method": "iid", "sites": 9}, "only 8 patients"),
    "the same by volume": (NAMES, {"method": "dirichlet", "sites": 9}, "only 8 patients"),
    "a stranger by volume": (NAMES, {"method": "dirichlet", "holdout": ["A"]}, "'site-05'"),
    "nobody to test": (["BraTS19_TMC_1_1", "BraTS19_TMC_1_2"], {}, "no institution has a second patient"),
    "plateau of nobody": (NAMES, {"val": 0.0, "schedule": "plateau"}, "plateau would never lower the rate"),
    "a fit on nobody": (
        NAMES,
        {"val": 0.0, "steps": (EtSuppression(),)},
        "a step of postprocess .* larger partition",
    ),
    "a pattern that fits nobody": (NAMES, {"patient_pattern": "(HOSP_.*)_1"}, "none of the 8 cases"),
    "people unknown": (
        ["A1", "A2", "A3"],
        {**UNKNOWN, "private": DpSgd(sigma=1.0)},
        r"patient of 3 cases \(A1, A2",
    ),
    "the same, confirmed": (
        ["A1", "A2", "A3"],
        {**UNKNOWN, "private": DpSgd(sigma=1.0), "unknown_patients": "scan"},
        "",
    ),
    "delta of too many": (NAMES, {"private": DpSgd(sigma=1.0, delta=0.5)}, r"privacy\.delta=0\.5"),
    "a stranger's privacy": (
        NAMES,
        {"private": DpSgd(sigma=1.0, sites={"B": {"sigma": 2.0}})},
        r"names \['B'\]",
    ),
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("plan")
    return checked(tiny(folder, "data=brats", f"data.root={folder}", "partition.holdout=[]"))


def planned(names: list[str]) -> list[Case]:
    return [Case(name, {}, None, "brats2017-2021") for name in names]


@pytest.mark.parametrize("what", REFUSED)
def test_the_plan_is_refused(what: str, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    names, options, message = REFUSED[what]
    private = SimpleNamespace(
        privacy=options.get("private"),
        secure=None,
        algorithm=FedAvg(),
        steps=options.get("steps", ()),
        rules=SimpleNamespace(crop=None),
    )
    for module in (plan, settings):
        monkeypatch.setattr(module, "parts_of", lambda config: private)
    train = {key: value for key, value in options.items() if key.startswith(("site_", "schedule"))}
    others = {key: value for key, value in options.items() if key not in (*train, "private", "steps")}
    config = replace(
        config, partition=replace(config.partition, **others), train=replace(config.train, **train)
    )
    if not message:
        plan.check_plan(config, str, planned(names))
        return
    with pytest.raises(ConfigError, match=message):
        plan.check_plan(config, str, planned(names))


def test_what_was_understood_and_who_is_too_few_is_said(config: Config) -> None:
    names = [*NAMES, "BraTS19_2013_1_1", "BraTS19_2013_1_2", "UPENN-GBM-00006_11", "UPENN-GBM-00007_11"]
    said: list[str] = []
    config = replace(config, partition=replace(config.partition, unknown="UPENN"))
    plan.check_plan(config, said.append, planned(names))
    assert said == [
        "10 scans of 9 patients, rule BraTS 2017-2019",
        "2 scans of 2 patients, rule UPENN-GBM",
        "2013 has 1 patient: nobody there is tested or validated",
        "UPENN has 2 patients: nobody there is validated",
    ]


def test_what_noisy_validation_will_spend_is_said(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    noisy = {"validation": "noisy", "validation_sigma": 2.0, "validation_epsilon": 9.0}
    found = SimpleNamespace(
        privacy=DpSgd(sigma=1.0, **noisy),
        secure=None,
        algorithm=FedAvg(),
        steps=(),
        rules=SimpleNamespace(crop=None),
    )
    for module in (plan, settings):
        monkeypatch.setattr(module, "parts_of", lambda config: found)
    said: list[str] = []
    plan.check_plan(replace(config, rounds=4), said.append, planned(NAMES))
    assert any(
        line.startswith("noisy validation: 4 releases of each site will spend epsilon 4.38 of 9 for")
        for line in said
    )


def test_a_run_and_check_data_refuse_alike_and_no_volume_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HOSP_0001_20240101", "HOSP_0001_20240630", "HOSP_0002_20240101"):
        write_case(tmp_path / "data", name)
    own = [f"data.root={tmp_path / 'data'}", "partition.unknown=H", "partition.holdout=[]", *DP]
    assert main(["runtime.workers=0", "model.size=small", *own]) == 1
    assert "nothing tells the patient of 3 cases (HOSP_0001_20240101" in capsys.readouterr().out
    monkeypatch.setattr(prepare, "check_cases", lambda *args, **kw: pytest.fail("a volume was read"))
    with pytest.raises(ConfigError, match=r"nothing tells the patient of 3 cases \(HOSP_0001_20240101"):
        run(tiny(tmp_path, "data=brats", *own), tmp_path / "run")
    pattern = r'partition.patient_pattern="(HOSP_\d+)_.*"'
    assert main(["runtime.workers=0", "model.size=small", *own, pattern]) == 0
    assert "3 scans of 2 patients, rule partition.patient_pattern" in capsys.readouterr().out


def test_another_scan_of_a_tested_patient_is_enough_for_a_refusal(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a localiser and of a start: a run elsewhere that trained on Ann's first scan has seen Ann."""
    for module in (settings, initial):  # no model of that run is needed
        monkeypatch.setattr(module, "one_spec", lambda text, key: SimpleNamespace(run=tmp_path))
    save_config(config, tmp_path / "config.yaml")
    seen = Site("X", False, ("UCSF-PDGM-0001", "UCSF-PDGM-0003"), (), ())
    write_json(tmp_path / "partition.json", {"sites": [asdict(seen)]})
    cached = {name: CachedCase(name, tmp_path / name) for name in seen.cases}
    write_site_cases(tmp_path, seen, cached, find_patients(seen.cases).of)
    again, other = (
        [Site("A", False, ("UCSF-PDGM-0002",), (), (name,))] for name in ("ucsf-pdgm-0001_FU003d", "B")
    )
    of = find_patients(["UCSF-PDGM-0002", "ucsf-pdgm-0001_FU003d", "B"]).of
    locate = replace(config, inference=replace(config.inference, locate=str(tmp_path)))
    init = replace(config, train=replace(config.train, init=str(tmp_path)))
    for changed, key in ((locate, r"inference\.locate"), (init, r"train\.init")):
        plan.check_dealt(changed, other, of)
        with pytest.raises(ConfigError, match=rf"{key}=.*on patients of 1 .*such as ucsf-pdgm-0001_FU003d"):
            plan.check_dealt(changed, again, of)
    phantom = replace(init, data=replace(init.data, source="phantom"))  # its people only have such names
    plan.check_dealt(phantom, again, of)
