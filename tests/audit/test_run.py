"""`fedbrats audit` on a private run: what passes, what a tampered folder gives away, and what cannot be audited."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest

from fedbrats.audit import canary
from fedbrats.audit import run as audit
from fedbrats.audit.audited import Audited
from fedbrats.audit.files import AuditError, failures, read_spent, result_table
from fedbrats.audit.run import (
    account_checks,
    attacks,
    released_scores,
    round_reserved,
    sampling_checks,
    subject_of,
)
from fedbrats.audit.step import patches_of_a_patient
from fedbrats.audit.traces import trace_checks
from fedbrats.checks.config import checked
from fedbrats.commands.audit import main
from fedbrats.config.schema import FEDERATED, load_config, save_config
from fedbrats.config.targets import ConfigError
from fedbrats.data.prepare import prepare
from fedbrats.federation.server.spending import write_spent
from fedbrats.federation.site import work
from fedbrats.federation.site.budget import Budget, Plan
from fedbrats.federation.site.site import Site
from fedbrats.federation.site.warm import Warm
from fedbrats.federation.site.work import RELEASED, SiteWork
from fedbrats.runs.site_cases import write_site_cases
from tests.audit import planted
from tests.audit.test_traces import scores_of_float32
from tests.tiny import tiny

SITES = ("TCIA01", "TCIA02", "CBICA")
PRIVATE = (
    "privacy=dp_sgd",
    "privacy.sigma=1.0",
    "privacy.target_epsilon=null",
    "privacy.expected_patients=1.5",
    "+privacy.sites.CBICA={sigma:2.0}",
    "arms=[federated]",
)


@pytest.fixture(scope="module")
def finished(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as two private rounds leave it, made without a server."""
    folder = tmp_path_factory.mktemp("private")
    config = checked(tiny(cache, *PRIVATE))
    prepared = prepare(config.data, config.partition, 1, lambda text: None)
    save_config(config, folder / "config.yaml")
    for site in prepared.sites:
        write_site_cases(folder, site, prepared.cached, prepared.patients.of)
    warm, found = Warm(folder), {}
    for name in SITES:
        own = Site(name, warm)
        for round_ in (1, 2):
            SiteWork(own, FEDERATED, round_).fit(RELEASED, warm.network)
        found[name] = own.budget.summary()
    write_spent(folder, warm.parts.privacy, found, {}, {}, "")
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def audited(folder: Path) -> Audited:
    warm, spent = Warm(folder), read_spent(folder)
    return Audited(folder, warm, spent, {one.site: Site(one.site, warm) for one in spent})


def change(file: Path, edit: Callable[[Any], object]) -> None:
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def failed_accounts(folder: Path) -> set[str]:
    return {check.name for check in account_checks(audited(folder)) if not check.passed}


@pytest.mark.slow
def test_a_right_run_passes_and_leaves_pictures(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(audit, "CANARIES", 200)
    monkeypatch.setitem(audit.demonstrate.__kwdefaults__, "iterations", 3)
    ledgers = {site: (folder / "sites" / site / "privacy" / "ledger.json").read_text() for site in SITES}
    assert main([str(folder)]) == 0
    printed = capsys.readouterr().out
    content = json.loads((folder / "audit.json").read_text())
    names = [check["name"] for check in content["checks"]]
    assert len(names) == len(set(names))
    for name in (
        "epsilon of TCIA01",
        "ledger of CBICA",
        "sensitivity",
        "noise, nobody drawn",
        "reserved first",
    ):
        assert name in names
        assert name in printed
    assert "FAILED" not in printed
    assert all(check.keys() == {"name", "passed", "measured", "bound", "says"} for check in content["checks"])
    assert content["canary"]["lower_bound"] <= content["canary"]["claimed"] < 1
    assert content["canary"]["says"]
    assert [bound["sigma"] for bound in content["canary"]["bounds"]] == [4.0, 1.0, 4.0]
    images = content["inversion"]["images"]
    assert [i["title"] for i in images][:2] == ["Original", "Without privacy"]
    assert len(content["inversion"]["measures"]) == len(images) - 1 == 4
    for image in images:
        assert matplotlib.image.imread(folder / image["file"]).ndim == 3
    # Its trial round was not paid for by the site.
    assert ledgers == {s: (folder / "sites" / s / "privacy" / "ledger.json").read_text() for s in SITES}


def test_without_inversion_there_are_no_pictures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "CANARIES", 50)
    monkeypatch.setattr(audit, "many_steps", lambda attack: canary.many_steps(attack, repeats=50))
    change(folder / "privacy.json", lambda c: c["sites"]["TCIA01"].update(epsilon=0.1))
    assert main([str(folder), "--no-inversion"]) == 1
    content = json.loads((folder / "audit.json").read_text())
    assert "inversion" not in content
    assert not (folder / "audit").exists()
    assert [text.split(":")[0] for text in failures(content)] == ["epsilon of TCIA01"]
    names = {check["name"] for check in content["checks"]}
    assert {"public grid", "traces of float32"} <= names
    assert "scores inverted" not in names  # no noisy score leaves


def test_the_site_that_spent_most_comes_first(folder: Path) -> None:
    run = audited(folder)
    assert [one.site for one in run.spent][-1] == "CBICA"  # twice the noise of the others
    assert run.spent[0].epsilon >= run.spent[1].epsilon > run.spent[2].epsilon
    assert run.settings.sigma == 1.0
    patients = len(run.site.cases.by_patient("train"))
    made = subject_of(run)
    assert made.expected == pytest.approx(min(1.5, patients))
    assert (made.sigma, made.clip) == (1.0, 0.5)
    assert all(images.shape == (2, 4, 16, 16, 16) for images, _ in made.patients)


def test_figures_that_were_made_smaller_are_found(folder: Path) -> None:
    assert failed_accounts(folder) == set()
    change(folder / "privacy.json", lambda c: c["sites"]["TCIA02"].update(epsilon_rdp=1.0))
    assert failed_accounts(folder) == {"epsilon of TCIA02"}
    change(folder / "privacy.json", lambda c: c["sites"]["CBICA"]["history"][0].__setitem__(2, 1))
    assert failed_accounts(folder) == {"epsilon of TCIA02", "epsilon of CBICA"}


def test_a_ledger_that_holds_less_is_found(folder: Path) -> None:
    own = folder / "sites" / "TCIA01" / "privacy"
    change(own / "ledger.json", lambda c: c["entries"].pop())
    assert failed_accounts(folder) == {"ledger of TCIA01"}  # the ledger itself notices
    (own / "ledger.json.lock").unlink()
    assert failed_accounts(folder) == {"ledger of TCIA01"}  # nobody but the audit does
    shutil.rmtree(own)  # a deployed site, whose storage is elsewhere
    assert failed_accounts(folder) == set()


def test_training_before_the_ledger_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = audited(folder)
    assert round_reserved(run).passed

    def forgotten(budget: Budget, round_: int) -> tuple[Plan, float]:
        return budget.plan(round_), 0.0

    monkeypatch.setattr(Budget, "reserve", forgotten)
    assert not round_reserved(run).passed


def test_wrong_samplers_and_shared_noise_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = audited(folder)
    assert all(check.passed for check in sampling_checks(run))
    made = audit.secret_numbers
    monkeypatch.setattr(audit, "secret_numbers", lambda seed, *parts: made(3))
    assert [check.name for check in sampling_checks(run) if not check.passed] == ["noise sources"]


def test_a_wrong_step_is_found_in_the_run(folder: Path) -> None:
    """The step under audit is the one that trains."""
    made = subject_of(audited(folder))
    assert made.make is work.PrivateStep
    assert patches_of_a_patient(made).passed
    object.__setattr__(made, "make", planted.PatchAsUnit)
    assert not patches_of_a_patient(made).passed
    object.__setattr__(made, "make", planted.NoiseOfFloat32)
    assert not any(check.passed for check in trace_checks(made))


def test_noisy_scores_of_the_run_are_attacked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = audited(folder)
    noisy = replace(run.settings, validation="noisy", validation_sigma=3.0, validation_epsilon=9.0)
    run.site.budget = replace(run.site.budget, settings=noisy)
    assert [check.passed for check in released_scores(run)] == [True, True]
    monkeypatch.setattr(audit, "noisy_scores", lambda scores, sigma, secret: scores_of_float32(scores, sigma))
    assert not any(check.passed for check in released_scores(run))


@pytest.mark.slow
def test_the_second_attack_is_made_like_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "CANARIES", 50)
    run = audited(folder)
    easy, as_in_run, _ = attacks(run)
    dearest = run.spent[0].dearest
    assert (as_in_run.sigma, as_in_run.sample_rate) == (1.0, dearest.sample_rate)
    assert as_in_run.steps == 4  # two rounds of two steps
    assert (easy.sigma, easy.steps) == (4.0, 1)
    monkeypatch.setattr(audit, "MOST_GRADIENTS", 3.5 * dearest.sample_rate * 25)
    assert attacks(run)[1].steps == 3
    monkeypatch.setattr(audit, "MOST_GRADIENTS", 1)
    assert attacks(run)[1].steps == 1


def test_folders_that_cannot_be_audited_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(message: str) -> None:
        with pytest.raises(AuditError, match=message):
            read_spent(folder)
        assert main([str(folder)]) == 2
        assert "error: " in capsys.readouterr().err

    change(folder / "privacy.json", lambda c: c.update(sites={}))
    refused("nothing to audit")
    change(folder / "privacy.json", lambda c: c.update(mechanism="central"))
    refused("privacy=central; only privacy=dp_sgd")
    (folder / "privacy.json").write_text('{"sites": 3}')
    refused("not readable")
    (folder / "privacy.json").unlink()
    refused("no privacy.json")
    (folder / "config.yaml").unlink()
    refused("not a run folder")


def test_a_strangers_configuration_builds_nothing(folder: Path) -> None:
    config = load_config(folder / "config.yaml")
    config.loss["_target_"] = "os.system"
    save_config(config, folder / "config.yaml")
    with pytest.raises(ConfigError, match=r"os\.system"):
        audit.audit_run(folder)


def test_accounts_without_their_configuration_are_refused(folder: Path) -> None:
    save_config(replace(load_config(folder / "config.yaml"), privacy={}), folder / "config.yaml")
    with pytest.raises(AuditError, match=r"config\.yaml has no privacy=dp_sgd"):
        audit.audit_run(folder)


def test_a_package_of_ones_own_is_built_once_it_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def reached(folder: Path) -> None:
        raise AuditError("the check is behind us")

    config = load_config(folder / "config.yaml")
    config.loss["_target_"] = "tests.inference.toy_networks.Echo"
    save_config(config, folder / "config.yaml")
    monkeypatch.setattr(audit, "Warm", reached)
    assert main([str(folder)]) == 2
    assert "--trust <package>" in capsys.readouterr().err
    assert main([str(folder), "--trust", "tests"]) == 2
    assert "the check is behind us" in capsys.readouterr().err


def test_a_table_says_what_failed() -> None:
    checks = [
        {"name": "a", "passed": True, "measured": 0.5, "bound": 1.0, "says": "x"},
        {"name": "b", "passed": False, "measured": "inf", "bound": 1, "says": "why"},
    ]
    assert failures({"checks": checks}) == ["b: why"]
    assert result_table({"checks": checks}).row_count == 2
